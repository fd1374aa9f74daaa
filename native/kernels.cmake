# What the library and the programs that test it are both compiled with.

# Buffers of units are read as floats and as bfloat16; sqrt need not set errno. Nothing of
# -ffast-math: infinities and NaN have to stay what they are. Products and sums are fused only where
# the source says so: a compiler that does it in one copy of a loop and not in another, as GCC does
# on Arm, makes a row depend on where in a batch it lies.
set(KERNEL_OPTIONS -Wall -Wextra -fno-strict-aliasing -fno-math-errno -ffp-contract=off)

include(CheckCXXCompilerFlag)

set(KERNEL_SOURCES ${CMAKE_CURRENT_LIST_DIR}/src)

function(add_kernels target file)
  target_sources(${target} PRIVATE ${KERNEL_SOURCES}/${file})
  set_source_files_properties(${KERNEL_SOURCES}/${file} PROPERTIES COMPILE_OPTIONS "${ARGN}")
endfunction()

# The same where the compiler knows `flag`, which came late; dispatch.cpp is told by a definition.
# GCC 11 and Clang 12 know them all.
function(add_kernels_if target name flag)
  string(TOUPPER "EMBELLAMA_${name}" definition)
  check_cxx_compiler_flag(${flag} ${definition})
  if(${definition})
    add_kernels(${target} isa_${name}.cpp ${ARGN} ${flag})
    target_compile_definitions(${target} PRIVATE ${definition})
  else()
    message(STATUS "no kernels ${name}: the compiler does not know ${flag}")
  endif()
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
    add_kernels_if(${target} avx512_bf16 -mavx512bf16 ${AVX512})
    add_kernels_if(${target} avx2_int8 -mavxvnni -mavx2 -mfma -mf16c)
    add_kernels_if(${target} avx512_int8 -mavx512vnni ${AVX512})
    add_kernels_if(${target} avx512_bf16_int8 -mavx512bf16 ${AVX512} -mavx512vnni)
  elseif(TARGET_CPU MATCHES "^(aarch64|arm64|ARM64)$")
    add_kernels(${target} isa_neon.cpp)
    add_kernels_if(${target} neon_bf16 -march=armv8.2-a+bf16)
  endif()
endfunction()
