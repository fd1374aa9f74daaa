// Holds the 8-bit products against plain loops: integers exactly, floats bit for bit.
//
//     int8_products        compares; prints a line for each comparison, exits 1 if one fails,
//                          and 2 on a CPU without the instructions that it is compiled for
//     int8_products time   also times the linear layers of MiniLM, 256 rows, on one thread
//
// It has the instruction sets that it is compiled for, such as -mavx512vnni, and the scalar one.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "linear.h"
#include "pack_int8.h"
#include "random.h"
#include "simd_scalar_int8.h"
#if defined(__x86_64__)
#include <cpuid.h>

#include "simd_vnni.h"
#endif
#if defined(__AVX2__)
#include "simd_avx2.h"
#endif
#if defined(__AVX512F__)
#include "simd_avx512.h"
#endif

namespace {

using namespace embellama;

int n_failed = 0;

void report(bool holds, const char* format, ...) {
    std::va_list values;
    va_start(values, format);
    std::vprintf(format, values);
    va_end(values);
    std::printf(": %s\n", holds ? "ok" : "FAILED");
    n_failed += !holds;
}

constexpr size_t Q8_BYTES = 2 + INT8_BLOCK;

// Q8_0 blocks of any bytes, with normal scales of many sizes up to 2.
std::vector<uint8_t> random_blocks(Random& random, size_t n, bool scales_are_1) {
    std::vector<uint8_t> blocks(n * Q8_BYTES);
    for (size_t block = 0; block < n; block++) {
        uint8_t* at = &blocks[block * Q8_BYTES];
        const uint64_t bits = random.bits();
        const auto half =
            (uint16_t)(scales_are_1 ? 15 << 10 : (bits % 15 + 1) << 10 | (bits >> 8 & 0x155));
        std::memcpy(at, &half, sizeof half);
        for (size_t i = 0; i < INT8_BLOCK; i++) at[2 + i] = (uint8_t)random.bits();
    }
    return blocks;
}

// Rows as they would be quantized, bytes without an offset.
struct Rows {
    std::vector<int8_t> bytes;
    std::vector<float> scales, shifts;
};

Rows random_rows(Random& random, size_t n_rows, size_t n, bool scales_are_1) {
    const size_t n_blocks = n_rows * n / INT8_BLOCK;
    Rows rows{std::vector<int8_t>(n_rows * n), std::vector<float>(n_blocks),
              std::vector<float>(n_blocks)};
    for (int8_t& byte : rows.bytes) byte = (int8_t)(random.bits() % 255 - 127);
    for (float& scale : rows.scales) scale = scales_are_1 ? 1.0f : 1.5f + random.next();
    for (float& shift : rows.shifts) shift = scales_are_1 ? 3.0f : 100.0f * random.next();
    return rows;
}

float multiply_add(float a, float b, float c, bool fused) {
    const float product = a * b;
    return fused ? std::fma(a, b, c) : product + c;
}

// What one product has to be. `offset` is that of the bytes that are multiplied.
float expected(const Rows& rows, size_t row, const uint8_t* column, size_t n, bool fused,
               bool is_shifted, int offset) {
    const size_t n_blocks = n / INT8_BLOCK;
    float total = 0.0f;
    for (size_t block = 0; block < n_blocks; block++, column += Q8_BYTES) {
        const int8_t* bytes = &rows.bytes[row * n + block * INT8_BLOCK];
        int64_t sum = 0, weight_sum = 0;
        for (size_t i = 0; i < INT8_BLOCK; i++) {
            const auto weight = (int8_t)column[2 + i];
            sum += (int64_t)(bytes[i] + (is_shifted ? offset : 0)) * weight;
            weight_sum += weight;
        }
        uint16_t half;
        std::memcpy(&half, column, sizeof half);
        const float scale = from_f16(half);
        const size_t at = row * n_blocks + block;
        total = multiply_add((float)sum, scale * rows.scales[at], total, fused);
        if (is_shifted)
            total = multiply_add(scale * (float)weight_sum, rows.shifts[at], total, fused);
    }
    return total;
}

template <class Isa, bool SHIFTED>
Linear packed(const std::vector<std::vector<uint8_t>>& parts, size_t n) {
    std::vector<Tensor> weights;
    for (const auto& part : parts)
        weights.push_back(Tensor{part.data(), TensorType::Q8_0,
                                 part.size() / (n / INT8_BLOCK * Q8_BYTES), n});
    return pack_linear_int8(packing_of<Isa>(), SHIFTED, weights,
                            std::vector<Tensor>(parts.size()));
}

template <class Isa, bool SHIFTED>
void multiply(size_t n_rows, const Int8Rows& rows, const Linear& linear, float* out) {
    product_int8<Isa, SHIFTED>(
        n_rows, rows, linear.panels.get(), linear.n_out,
        [&](size_t row, size_t column, typename Isa::Vec sums) EMBELLAMA_INLINED {
            Isa::store(out + row * linear.n_out + column, sums);
        });
}

// Rows that are quantized here, or given.
struct Operand {
    size_t n;
    std::vector<uint32_t> units;
    std::vector<float> scales, shifts;

    Operand(size_t n_rows, size_t n)
        : n(n), units(n_rows * n / 4), scales(n_rows * n / INT8_BLOCK), shifts(scales.size()) {}
    Int8Row row(size_t at) {
        const size_t block = at * n / INT8_BLOCK;
        return Int8Row{reinterpret_cast<uint8_t*>(units.data()) + at * n, scales.data() + block,
                       shifts.data() + block};
    }
    Int8Rows rows() const {
        return Int8Rows{units.data(), scales.data(), shifts.data(), n / INT8_BLOCK};
    }
};

// Two weights side by side, a last panel and last rows that are not whole.
template <class Isa, bool SHIFTED>
void compare_products(const char* isa, size_t n, bool scales_are_1) {
    Random random(n);
    const size_t n_first = 6 * 16, n_out = n_first + 16, n_blocks = n / INT8_BLOCK;
    std::vector<uint8_t> columns = random_blocks(random, n_first * n_blocks, scales_are_1);
    const std::vector<uint8_t> last =
        random_blocks(random, (n_out - n_first) * n_blocks, scales_are_1);
    const Linear linear = packed<Isa, SHIFTED>({columns, last}, n);
    columns.insert(columns.end(), last.begin(), last.end());
    size_t n_different = 0;
    for (size_t n_rows = 1; n_rows <= 9; n_rows++) {
        const Rows rows = random_rows(random, n_rows, n, scales_are_1);
        Operand operand(n_rows, n);
        for (size_t i = 0; i < n_rows * n; i++)
            operand.row(0).bytes[i] = (uint8_t)(rows.bytes[i] + Isa::INT8_OFFSET);
        operand.scales = rows.scales;
        operand.shifts = rows.shifts;
        std::vector<float> out(n_rows * n_out);
        multiply<Isa, SHIFTED>(n_rows, operand.rows(), linear, out.data());
        for (size_t row = 0; row < n_rows; row++)
            for (size_t column = 0; column < n_out; column++)
                n_different += out[row * n_out + column] !=
                               expected(rows, row, &columns[column * n_blocks * Q8_BYTES], n,
                                        Isa::LANES > 1, SHIFTED, Isa::INT8_OFFSET);
    }
    report(n_different == 0, "%s products of %zu values, %s, %zu differ", isa, n,
           scales_are_1 ? "scales 1" : "any scales", n_different);
}

// The largest sums there are: every byte of a row 127 or -127, every byte of a weight -128.
template <class Isa, bool SHIFTED>
void compare_extremes(const char* isa) {
    const size_t n = 512, n_out = 16;
    Random random(1);
    std::vector<uint8_t> blocks = random_blocks(random, n_out * n / INT8_BLOCK, true);
    for (size_t i = 0; i < blocks.size(); i++)
        if (i % Q8_BYTES >= 2) blocks[i] = 0x80;
    const Linear linear = packed<Isa, SHIFTED>({blocks}, n);
    for (const int value : {127, -127, 0}) {
        Operand operand(1, n);
        std::memset(operand.units.data(), value + Isa::INT8_OFFSET, n);
        for (float& scale : operand.scales) scale = 1.0f;
        for (float& shift : operand.shifts) shift = -(float)Isa::INT8_OFFSET;
        std::vector<float> out(n_out);
        multiply<Isa, SHIFTED>(1, operand.rows(), linear, out.data());
        const auto right = (float)(-128 * value * (int)n);
        report(std::all_of(out.begin(), out.end(), [&](float sum) { return sum == right; }),
               "%s sums of %d times -128", isa, value);
    }
}

// What a row has to become.
Operand plainly_quantized(const std::vector<float>& row, int offset, bool is_shifted) {
    Operand operand(1, row.size());
    for (size_t block = 0; block < row.size() / INT8_BLOCK; block++) {
        const float* values = &row[block * INT8_BLOCK];
        float largest = 0.0f, middle = 0.0f;
        for (size_t i = 0; i < INT8_BLOCK; i++) largest = std::max(largest, std::fabs(values[i]));
        if (is_shifted) {
            const float most = *std::max_element(values, values + INT8_BLOCK);
            const float least = *std::min_element(values, values + INT8_BLOCK);
            largest = 0.5f * most - 0.5f * least;
            middle = 0.5f * most + 0.5f * least;
        }
        const float factor = largest > INT8_SMALLEST ? 127.0f / largest : 0.0f;
        const float scale = largest * (1.0f / 127.0f);
        operand.scales[block] = scale;
        if (is_shifted) operand.shifts[block] = middle - (float)offset * scale;
        for (size_t i = 0; i < INT8_BLOCK; i++)
            operand.row(0).bytes[block * INT8_BLOCK + i] =
                (uint8_t)((int)std::clamp(std::nearbyint((values[i] - middle) * factor), -128.0f,
                                          127.0f) +
                          offset);
    }
    return operand;
}

bool are_same(const Operand& a, const Operand& b) {
    return a.units == b.units && a.scales == b.scales && a.shifts == b.shifts;
}

// Values of very different sizes, halves that are rounded to even, zeros, the smallest there are,
// and some that are close together and far from 0.
std::vector<float> odd_row(Random& random, size_t n) {
    std::vector<float> row(n);
    for (size_t i = 0; i < n; i++) {
        const size_t kind = i / INT8_BLOCK % 7;
        if (kind == 0) row[i] = random.next();
        if (kind == 1) row[i] = std::ldexp(random.next(), (int)(random.bits() % 60) - 30);
        if (kind == 2) row[i] = i % INT8_BLOCK == 0 ? 127.0f : (float)(i % INT8_BLOCK) - 15.5f;
        if (kind == 4) row[i] = 1e-40f * (float)(i % 7);
        if (kind == 5) row[i] = 20.0f + random.next();
        if (kind == 6) row[i] = 20.0f + 2e-6f * (float)(i % 2);
    }
    return row;
}

// Whether the values that an operand stands for are the row's, to half a step of their block and
// what float32 rounds.
bool stands_for(const std::vector<float>& row, Operand& operand, int offset, bool is_shifted) {
    for (size_t i = 0; i < row.size(); i++) {
        const float scale = operand.scales[i / INT8_BLOCK];
        const float shift = is_shifted ? operand.shifts[i / INT8_BLOCK] : -(float)offset * scale;
        const uint8_t byte = operand.row(0).bytes[i];
        const float value = (offset == 0 ? (float)(int8_t)byte : (float)byte) * scale + shift;
        const float allowed = 0.501f * scale + std::ldexp(std::fabs(row[i]), -22) + INT8_SMALLEST;
        if (!(std::fabs(value - row[i]) <= allowed)) return false;
    }
    return true;
}

template <class Isa, bool SHIFTED>
void compare_quantization(const char* isa) {
    Random random(2);
    const size_t n = 14 * INT8_BLOCK;
    const std::vector<float> row = odd_row(random, n);
    Operand operand(1, n);
    quantize_row<Isa, SHIFTED>(row.data(), n, operand.row(0));
    report(are_same(operand, plainly_quantized(row, Isa::INT8_OFFSET, SHIFTED)),
           "%s quantized row", isa);
    report(stands_for(row, operand, Isa::INT8_OFFSET, SHIFTED),
           "%s quantized row within half a step", isa);
}

// Rows that are normalised and made operands in one go, of which the second alone is asked for.
template <class Isa, bool SHIFTED>
void compare_normalized(const char* isa) {
    Random random(6);
    const size_t n = 14 * INT8_BLOCK;
    Shape shape;
    shape.n_embd = shape.n_ff = n;
    shape.n_heads = 1;
    Workspace work(shape, packing_of<Isa>(), Isa::ROWS, 2);
    Norm norm{Buffer<float>(n), Buffer<float>(n)};
    for (size_t i = 0; i < n; i++) {
        norm.scale[i] = 1.0f + 0.5f * random.next();
        norm.shift[i] = random.next();
        work.rows[n + i] = 3.0f * random.next();
    }
    normalize_rows<Isa, SHIFTED ? Kind::Shifted : Kind::Plain>(work, shape, 1, 2, norm);
    const float* row = work.rows.get() + n;
    const Int8Row made = int8_operand(work, 1, n);
    Operand operand(1, n);
    std::memcpy(operand.units.data(), made.bytes, n);
    operand.scales.assign(made.scales, made.scales + n / INT8_BLOCK);
    operand.shifts.assign(made.shifts, made.shifts + n / INT8_BLOCK);
    const std::vector<float> normed(row, row + n);
    report(are_same(operand, plainly_quantized(normed, Isa::INT8_OFFSET, SHIFTED)),
           "%s normalised row is what was quantized", isa);
    const bool is_untouched = std::all_of(work.rows.get(), work.rows.get() + n,
                                          [](float value) { return value == 0.0f; });
    report(is_untouched, "%s row before it is left alone", isa);
}

template <class Isa, bool SHIFTED>
void compare_infinities(const char* isa) {
    Random random(3);
    const size_t n = 4 * INT8_BLOCK, n_out = 16, n_blocks = n / INT8_BLOCK;
    const Linear linear =
        packed<Isa, SHIFTED>({random_blocks(random, n_out * n_blocks, false)}, n);
    for (const float bad : {(float)INFINITY, -(float)INFINITY, (float)NAN}) {
        bool holds = true;
        for (size_t place = 0; place < n; place++) {
            Operand operand(2, n);
            std::vector<float> row(n, 0.0f), out(2 * n_out);
            quantize_row<Isa, SHIFTED>(row.data(), n, operand.row(0));
            row[place] = bad;
            quantize_row<Isa, SHIFTED>(row.data(), n, operand.row(1));
            multiply<Isa, SHIFTED>(2, operand.rows(), linear, out.data());
            for (size_t column = 0; column < n_out; column++)
                holds = holds && out[column] == 0.0f && std::isnan(out[n_out + column]);
        }
        report(holds, "%s rows with %f become NaN, others do not", isa, (double)bad);
    }
}

// Seconds of the fastest of many runs.
template <class Run>
double fastest(const Run& run) {
    double least = 1e9;
    for (int n = 0; n < 60; n++) {
        const auto start = std::chrono::steady_clock::now();
        run();
        const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
        least = std::min(least, taken.count());
    }
    return least;
}

constexpr size_t N_TIMED = 256;  // rows
constexpr size_t LAYERS[4][2] = {{384, 1152}, {384, 384}, {384, 1536}, {1536, 384}};

template <class Isa, bool SHIFTED>
void time_layers(const char* isa) {
    Random random(4);
    for (const auto& [n, n_out] : LAYERS) {
        const size_t width = n;
        const Linear linear = packed<Isa, SHIFTED>(
            {random_blocks(random, n_out * n / INT8_BLOCK, false)}, n);
        Buffer<float> rows(N_TIMED * n), out(N_TIMED * n_out);
        for (size_t i = 0; i < rows.size(); i++) rows[i] = random.next();
        Operand operand(N_TIMED, n);
        const double quantize_s = fastest([&] {
            for (size_t row = 0; row < N_TIMED; row++)
                quantize_row<Isa, SHIFTED>(rows.get() + row * width, width, operand.row(row));
        });
        const double product_s = fastest(
            [&] { multiply<Isa, SHIFTED>(N_TIMED, operand.rows(), linear, out.get()); });
        const double n_operations = 2.0 * N_TIMED * (double)(n * n_out) / 1e9;
        std::printf("%s %zu to %zu: product %.0f G/s, with quantization %.0f G/s\n", isa, n, n_out,
                    n_operations / product_s, n_operations / (product_s + quantize_s));
    }
}

// The products of another compute type, to compare with.
template <class Isa>
void time_others(const char* isa) {
    Random random(5);
    for (const auto& [n, n_out] : LAYERS) {
        const size_t n_units = n / Isa::PER_UNIT, columns = n_out;
        Buffer<uint32_t> units(N_TIMED * n_units), panels(n_out * n_units);
        Buffer<float> out(N_TIMED * n_out);
        for (Buffer<uint32_t>* operand : {&units, &panels}) {
            auto* elements = reinterpret_cast<typename Isa::Element*>(operand->get());
            for (size_t i = 0; i < operand->size() * Isa::PER_UNIT; i++)
                elements[i] = element_of<typename Isa::Element>(random.next());
        }
        const double product_s = fastest([&] {
            product<Isa>(N_TIMED, units.get(), n_units, panels.get(), columns, n_units,
                         [&](size_t row, size_t column, typename Isa::Vec sums) EMBELLAMA_INLINED {
                             Isa::store(out.get() + row * columns + column, sums);
                         });
        });
        std::printf("%s %zu to %zu: product %.0f G/s\n", isa, n, n_out,
                    2.0 * N_TIMED * (double)(n * n_out) / 1e9 / product_s);
    }
}

template <class Isa, bool SHIFTED>
void examine(const std::string& isa, bool timed) {
    const std::string name = isa + (SHIFTED ? " shifted" : " plain");
    for (const size_t n : {32, 96, 384, 1536})
        compare_products<Isa, SHIFTED>(name.c_str(), n, false);
    for (const size_t n : {32, 384}) compare_products<Isa, SHIFTED>(name.c_str(), n, true);
    compare_extremes<Isa, SHIFTED>(name.c_str());
    compare_quantization<Isa, SHIFTED>(name.c_str());
    compare_normalized<Isa, SHIFTED>(name.c_str());
    compare_infinities<Isa, SHIFTED>(name.c_str());
    if (timed) time_layers<Isa, SHIFTED>(name.c_str());
}

template <class Isa>
void examine_both(const char* isa, bool timed) {
    examine<Isa, false>(isa, timed);
    examine<Isa, true>(isa, timed);
}

// Compiled for one CPU, as it has no kernels to choose from.
bool can_run() {
#if defined(__AVX512VNNI__)
    if (!__builtin_cpu_supports("avx512vnni")) return false;
#endif
#if defined(__AVX512BF16__)
    if (!__builtin_cpu_supports("avx512bf16")) return false;
#endif
#if defined(__AVXVNNI__)
    // not by its name, which not all compilers know that know the instructions: see dispatch.cpp
    unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
    if (__get_cpuid_max(0, nullptr) < 7) return false;
    __cpuid_count(7, 1, eax, ebx, ecx, edx);
    if ((eax & (1U << 4)) == 0) return false;
#endif
    return true;
}

}  // namespace

int main(int n_arguments, char** arguments) {
    if (!can_run()) {
        std::printf("this CPU lacks the instructions that this program is compiled for\n");
        return 2;
    }
    [[maybe_unused]] const bool timed =
        n_arguments > 1 && std::strcmp(arguments[1], "time") == 0;
    examine_both<ScalarInt8<ScalarFloat>>("scalar", false);
#if defined(__AVX512VNNI__)
    examine_both<Vnni512<Avx512Float>>("avx512_vnni", timed);
#endif
#if defined(__AVX512VNNI__) && defined(__AVX512VL__) && defined(__AVX2__)
    examine_both<Vnni256<Avx2Float, EvexDot>>("avx512_vnni of 256 bits", timed);
#endif
#if defined(__AVXVNNI__)
    examine_both<Vnni256<Avx2Float, VexDot>>("avx_vnni", timed);
#endif
#if defined(__AVX512BF16__)
    if (timed) time_others<Avx512Bf16>("avx512 bf16");
#endif
#if defined(__AVX512F__)
    if (timed) time_others<Avx512Float>("avx512 f32");
#endif
    std::printf("%d of the comparisons failed\n", n_failed);
    return n_failed > 0;
}
