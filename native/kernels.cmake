# What the library and the programs that test it are both compiled with.

# Buffers of units are read as floats and as bfloat16; sqrt need not set errno. Nothing of
# -ffast-math: infinities and NaN have to stay what they are. Products and sums are fused only where
# the source says so: a compiler that does it in one copy of a loop and not in another, as GCC does
# on Arm, makes a row depend on where in a batch it lies.
set(KERNEL_OPTIONS -Wall -Wextra -fno-strict-aliasing -fno-math-errno -ffp-contract=off)

set(KERNEL_SOURCES ${CMAKE_CURRENT_LIST_DIR}/src)

function(add_kernels target file)
  target_sources(${target} PRIVATE ${KERNEL_SOURCES}/${file})
  set_source_files_properties(${KERNEL_SOURCES}/${file} PROPERTIES COMPILE_OPTIONS "${ARGN}")
endfunction()

# The kernels of the CPU that is compiled for, each with the instructions it needs.
function(add_kernels_of_this_cpu target)
  # On a Mac, CMAKE_SYSTEM_PROCESSOR is the machine that compiles, whatever is compiled for.
  set(TARGET_CPU ${CMAKE_SYSTEM_PROCESSOR})
  if(APPLE AND CMAKE_OSX_ARCHITECTURES)
    list(LENGTH CMAKE_OSX_ARCHITECTURES N_ARCHITECTURES)
    if(N_ARCHITECTURES GREATER 1)
      message(FATAL_ERROR
        "CMAKE_OSX_ARCHITECTURES is ${CMAKE_OSX_ARCHITECTURES}; build for one at a time")
    endif()
    set(TARGET_CPU ${CMAKE_OSX_ARCHITECTURES})
  endif()

  if(TARGET_CPU MATCHES "^(x86_64|AMD64)$")
    set(AVX512 -mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma)
    if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
      list(APPEND AVX512 -Wno-maybe-uninitialized)  # in GCC's own header
    endif()
    add_kernels(${target} isa_avx2.cpp -mavx2 -mfma -mf16c)
    add_kernels(${target} isa_avx512.cpp ${AVX512})
    add_kernels(${target} isa_avx512_bf16.cpp ${AVX512} -mavx512bf16)
    add_kernels(${target} isa_avx2_int8.cpp -mavx2 -mfma -mf16c -mavxvnni)
    add_kernels(${target} isa_avx512_int8.cpp ${AVX512} -mavx512vnni)
    add_kernels(${target} isa_avx512_bf16_int8.cpp ${AVX512} -mavx512bf16 -mavx512vnni)
  elseif(TARGET_CPU MATCHES "^(aarch64|arm64|ARM64)$")
    add_kernels(${target} isa_neon.cpp)
    add_kernels(${target} isa_neon_bf16.cpp -march=armv8.2-a+bf16)
  endif()
endfunction()
