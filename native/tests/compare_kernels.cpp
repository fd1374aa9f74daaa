// Holds every kernel that this CPU has against the scalar one of the same compute type, on small
// models with random weights, and sequences together against each alone, and by one thread and
// several; through the plain C side.
//
// Prints a line for each comparison, the same ones on every run, and exits 1 if one fails.
#include <algorithm>
#include <cmath>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "embellama_native.h"
#include "random.h"

namespace {

enum Type : int32_t { F32 = 0, F16 = 1, Q8_0 = 8, BF16 = 30 };  // enum ggml_type

const char* name_of(Type type) {
    return type == F32 ? "F32" : type == F16 ? "F16" : type == BF16 ? "BF16" : "Q8_0";
}

uint32_t bits_of(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}

// Half precision, towards zero; 0 below its normal numbers.
uint16_t half_of(float value) {
    const uint32_t bits = bits_of(value), exponent = (bits >> 23) & 0xff;
    const auto sign = (uint16_t)((bits >> 16) & 0x8000);
    if (exponent < 113) return sign;
    return (uint16_t)(sign | (exponent - 112) << 10 | ((bits >> 13) & 0x3ff));
}

// A tensor whose data ends where its memory ends and starts at an odd address, as it may in a file.
struct Weight {
    std::vector<uint8_t> memory = {0};
    em_tensor tensor = {};

    template <class Value>
    void put(Value value) {
        const auto* bytes = reinterpret_cast<const uint8_t*>(&value);
        memory.insert(memory.end(), bytes, bytes + sizeof value);
    }
};

// Values around `centre`, as far as `spread` from it.
Weight random_weight(Random& random, Type type, int64_t n_rows, int64_t n_columns, float centre,
                     float spread) {
    Weight weight;
    for (int64_t i = 0; i < n_rows * n_columns; i++) {
        const float value = centre + spread * random.next();
        if (type == F32) weight.put(value);
        if (type == F16) weight.put(half_of(value));
        if (type == BF16) weight.put((uint16_t)(bits_of(value) >> 16));
        if (type == Q8_0) {
            if (i % 32 == 0) weight.put(half_of(spread / 127.0f));
            weight.put((int8_t)(random.below(255) - 127));
        }
    }
    weight.memory.shrink_to_fit();
    weight.tensor = em_tensor{weight.memory.data() + 1, type, n_rows, n_columns};
    return weight;
}

struct Widths {
    int64_t n_layers, n_embd, n_heads, n_ff;
};

// Widths of a model, its weights, and the tensors that point to them.
struct Recipe {
    em_shape shape = {};
    Type type = F32;
    std::vector<Weight> weights;
    std::vector<em_tensor> tensors;

    Recipe(const Widths& widths, Type type);

private:
    void add(Random& random, size_t place, Type type, int64_t n_rows, int64_t n_columns,
             float centre, float spread);
};

void Recipe::add(Random& random, size_t place, Type type, int64_t n_rows, int64_t n_columns,
                 float centre, float spread) {
    weights.push_back(random_weight(random, type, n_rows, n_columns, centre, spread));
    tensors.at(place) = weights.back().tensor;
}

Recipe::Recipe(const Widths& widths, Type type) : type(type) {
    shape.n_layers = widths.n_layers;
    shape.n_embd = widths.n_embd;
    shape.n_heads = widths.n_heads;
    shape.n_ff = widths.n_ff;
    shape.n_positions = 100;
    shape.n_token_types = 2;
    shape.n_vocab = 50;
    shape.norm_eps = 1e-12f;
    const int64_t n_embd = widths.n_embd, n_ff = widths.n_ff;
    tensors.resize(EM_N_MODEL_TENSORS + (size_t)widths.n_layers * EM_N_LAYER_TENSORS);
    Random random((uint64_t)(n_embd * 1000 + type));
    const auto norm = [&](size_t place) {
        add(random, place, F32, 1, n_embd, 1.0f, 0.2f);
        add(random, place + 1, F32, 1, n_embd, 0.0f, 0.2f);
    };
    // Variance is kept: rows of a norm have components of about 1. Queries and keys are larger, so
    // that a token attends to some more than to others.
    const auto linear = [&](size_t place, int64_t n_out, int64_t n_in, float gain) {
        const float spread = gain * std::sqrt(3.0f / (float)n_in);
        add(random, place, type, n_out, n_in, 0.0f, spread);
        add(random, place + 1, F32, 1, n_out, 0.0f, 0.1f);
    };
    add(random, EM_TOKENS, type, shape.n_vocab, n_embd, 0.0f, 1.0f);
    add(random, EM_POSITIONS, F32, shape.n_positions, n_embd, 0.0f, 0.5f);
    add(random, EM_TOKEN_TYPES, F32, shape.n_token_types, n_embd, 0.0f, 0.5f);
    norm(EM_NORM);
    for (int64_t layer = 0; layer < widths.n_layers; layer++) {
        const size_t start = EM_N_MODEL_TENSORS + (size_t)layer * EM_N_LAYER_TENSORS;
        linear(start + EM_Q, n_embd, n_embd, 1.5f);
        linear(start + EM_K, n_embd, n_embd, 1.5f);
        linear(start + EM_V, n_embd, n_embd, 1.0f);
        linear(start + EM_OUT, n_embd, n_embd, 1.0f);
        norm(start + EM_ATTENTION_NORM);
        linear(start + EM_UP, n_ff, n_embd, 1.0f);
        linear(start + EM_DOWN, n_embd, n_ff, 1.0f);
        norm(start + EM_OUTPUT_NORM);
    }
}

// Sequences laid end to end.
struct Sequences {
    std::vector<int32_t> ids, types, offsets = {0};

    Sequences(const Recipe& recipe, const std::vector<int32_t>& lengths) {
        Random random(7);
        for (const int32_t length : lengths) {
            offsets.push_back(offsets.back() + length);
            for (int32_t i = 0; i < length; i++) {
                ids.push_back(random.below((int32_t)recipe.shape.n_vocab));
                types.push_back(random.below((int32_t)recipe.shape.n_token_types));
            }
        }
    }
    int64_t size() const { return (int64_t)offsets.size() - 1; }
    int32_t n_tokens() const { return offsets.back(); }
};

enum Pooling : int32_t { NONE, MEAN, FIRST, LAST };

int n_failures = 0;

__attribute__((format(printf, 2, 3))) void report(bool holds, const char* format, ...) {
    va_list arguments;
    va_start(arguments, format);
    std::vprintf(format, arguments);
    va_end(arguments);
    std::printf(": %s\n", holds ? "ok" : "FAILED");
    std::fflush(stdout);  // an abort must not swallow what came before it
    if (!holds) n_failures++;
}

[[noreturn]] void die(const std::string& what, const char* message) {
    std::printf("%s: %s\n", what.c_str(), message);
    std::exit(1);
}

std::string title_of(int32_t kernel) {
    return std::string(em_kernel_isa(kernel)) + " " + em_kernel_compute_type(kernel);
}

// One kernel with one model, and room for all sequences.
class Run {
public:
    Run(const Recipe& recipe, int32_t kernel, int64_t n_tokens)
        : n_embd_((size_t)recipe.shape.n_embd), model_(nullptr, em_model_free),
          context_(nullptr, em_context_free) {
        char message[512] = "";
        model_.reset(em_model_new(&recipe.shape, kernel, recipe.tensors.data(),
                                  (int64_t)recipe.tensors.size(), message, sizeof message));
        if (!model_) die(title_of(kernel) + " takes no model", message);
        context_.reset(em_context_new(model_.get(), n_tokens, 1, message, sizeof message));
        if (!context_) die(title_of(kernel) + " makes no context", message);
    }

    // Rows of sequences `first` up to and without `end`, end to end.
    std::vector<float> rows(const Sequences& all, int64_t first, int64_t end, Pooling pooling,
                            int32_t n_threads = 1) {
        const int32_t start = all.offsets[first];
        std::vector<int32_t> offsets;
        for (int64_t i = first; i <= end; i++) offsets.push_back(all.offsets[i] - start);
        const auto n_rows = (size_t)(pooling == NONE ? offsets.back() : end - first);
        std::vector<float> out(n_rows * n_embd_ + BEYOND, UNTOUCHED);
        char message[512] = "";
        const int32_t status =
            em_encode(context_.get(), all.ids.data() + start, all.types.data() + start,
                      offsets.data(), end - first, pooling, n_threads, out.data(), message,
                      sizeof message);
        if (status != EM_OK) die("a batch is refused", message);
        for (size_t i = n_rows * n_embd_; i < out.size(); i++)
            if (out[i] != UNTOUCHED) die("a kernel writes beyond its rows", "");
        out.resize(n_rows * n_embd_);
        return out;
    }
    std::vector<float> together(const Sequences& all, Pooling pooling, int32_t n_threads = 1) {
        return rows(all, 0, all.size(), pooling, n_threads);
    }
    std::vector<float> alone(const Sequences& all, Pooling pooling) {
        std::vector<float> out;
        for (int64_t i = 0; i < all.size(); i++) {
            const auto more = rows(all, i, i + 1, pooling);
            out.insert(out.end(), more.begin(), more.end());
        }
        return out;
    }

private:
    static constexpr size_t BEYOND = 16;  // a vector of the widest kernel
    static constexpr float UNTOUCHED = -12345.0f;
    size_t n_embd_;
    std::unique_ptr<em_model, decltype(&em_model_free)> model_;
    std::unique_ptr<em_context, decltype(&em_context_free)> context_;
};

// How far rows are from others: by their largest component's difference, their components being
// about 1, and by the worst cosine.
struct Distance {
    double largest = 0, one_minus_cosine = 0;
    bool is_finite = true;
};

Distance distance(const std::vector<float>& rows, const std::vector<float>& expected, size_t n) {
    Distance found;
    for (size_t start = 0; start < rows.size(); start += n) {
        double product = 0, square = 0, expected_square = 0;
        for (size_t i = start; i < start + n; i++) {
            const double a = rows[i], b = expected[i];
            found.is_finite = found.is_finite && std::isfinite(a) && std::isfinite(b);
            found.largest = std::max(found.largest, std::fabs(a - b));
            product += a * b;
            square += a * a;
            expected_square += b * b;
        }
        found.one_minus_cosine =
            std::max(found.one_minus_cosine, 1 - product / std::sqrt(square * expected_square));
    }
    return found;
}

struct Tolerance {
    double largest, one_minus_cosine;
};

// float32: kernels add products in one order but with and without fused multiply-adds, and sums of
// a row in different orders: some units of 6e-8 for each of a few hundred terms, grown by a layer.
// Seen: 6e-6 and 2e-12.
constexpr Tolerance FLOATS = {1e-5, 1e-11};
// bfloat16: such a difference decides now and then how a number is rounded to 8 bits, which is off
// by 2^-8 of it then; of what a layer adds up a few numbers are. Seen: 3e-2 and 3e-5.
constexpr Tolerance BFLOATS = {4e-2, 5e-5};
// bfloat16 against float32: all activations and weights are rounded, by up to 2^-9 of each.
constexpr Tolerance ACROSS = {2e-1, 1e-3};
// int8: sums of a block are integers and the same on every kernel, and what is made of them differs
// as float32 does: 2e-6 in one layer. In the next ones that decides now and then which byte a
// number becomes, 1/127 of its block's largest further. Seen: 9e-3 and 6e-6.
constexpr Tolerance BYTES = {2e-2, 2e-5};
// The same where attention is computed in bfloat16, and the scalar kernel's in float32: many
// numbers become another byte. Seen: 7e-2 and 4e-4.
constexpr Tolerance BYTES_BFLOATS = {1.5e-1, 8e-4};
// int8 against float32 of the same weights: all activations are rounded to bytes. Seen: 7e-2 and
// 2e-4.
constexpr Tolerance BYTES_ACROSS = {1.5e-1, 6e-4};

struct Tolerances {
    const char* compute_type;
    Tolerance to_scalar, to_floats;  // of the same compute type, and of float32
};
constexpr Tolerances TOLERANCES[] = {{"f32", FLOATS, FLOATS},
                                     {"bf16", BFLOATS, ACROSS},
                                     {"int8", BYTES, BYTES_ACROSS}};

void hold(const std::string& title, const char* what, const Distance& found,
          const Tolerance& most) {
    const bool holds = found.is_finite && found.largest <= most.largest &&
                       found.one_minus_cosine <= most.one_minus_cosine;
    report(holds, "%s %s: differs by %.1e (at most %.0e), 1 - cosine %.1e (%.0e)", title.c_str(),
           what, found.largest, most.largest, found.one_minus_cosine, most.one_minus_cosine);
}

bool are_same(const std::vector<float>& a, const std::vector<float>& b) {
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), 4 * a.size()) == 0;
}

bool computes_in(int32_t kernel, const char* compute_type) {
    return std::strcmp(em_kernel_compute_type(kernel), compute_type) == 0;
}

// What keeps a kernel from a model, in its own words; null if nothing does.
const char* why_not(int32_t kernel, const Recipe& recipe) {
    const em_shape& shape = recipe.shape;
    const int64_t step = em_kernel_lanes(kernel);
    for (const int64_t width : {shape.n_embd, shape.n_ff, shape.n_embd / shape.n_heads})
        if (width % step != 0) return "is no multiple of";
    if (computes_in(kernel, "int8") && recipe.type != Q8_0) return "is not Q8_0";
    return nullptr;
}

void hold_refusal(const std::string& title, const Recipe& recipe, int32_t kernel) {
    char message[512] = "";
    em_model* model = em_model_new(&recipe.shape, kernel, recipe.tensors.data(),
                                   (int64_t)recipe.tensors.size(), message, sizeof message);
    const bool is_said = std::strstr(message, why_not(kernel, recipe)) != nullptr;
    report(model == nullptr && is_said, "%s refuses: \"%s\"", title.c_str(), message);
    em_model_free(model);
}

int32_t scalar_kernel(const char* compute_type) {
    for (int32_t kernel = 0; kernel < em_n_kernels(); kernel++)
        if (title_of(kernel) == std::string("scalar ") + compute_type) return kernel;
    die("no scalar kernel", compute_type);
}

// Rows of the scalar kernel of a compute type; none where it cannot take the model.
std::vector<float> scalar_rows(const Recipe& recipe, const Sequences& all,
                               const char* compute_type) {
    const int32_t kernel = scalar_kernel(compute_type);
    if (why_not(kernel, recipe) != nullptr) return {};
    return Run(recipe, kernel, all.n_tokens()).together(all, NONE);
}

// What pooling makes of rows of all tokens.
std::vector<float> pooled(const std::vector<float>& rows, size_t n, const Sequences& all,
                          Pooling pooling) {
    std::vector<float> out;
    for (int64_t sequence = 0; sequence < all.size(); sequence++) {
        int32_t start = all.offsets[sequence], end = all.offsets[sequence + 1];
        if (pooling == FIRST) end = start + 1;
        if (pooling == LAST) start = end - 1;
        for (size_t i = 0; i < n; i++) {
            double sum = 0;
            for (int32_t token = start; token < end; token++) sum += rows[(size_t)token * n + i];
            out.push_back((float)(sum / (end - start)));
        }
    }
    return out;
}

constexpr int32_t N_THREADS = 3;

// One kernel on one model.
void compare_one(const std::string& title, Run& run, size_t n_embd, const Sequences& all,
                 Pooling pooling, const std::vector<float>& expected, const Tolerance& most) {
    const auto rows = run.together(all, NONE);
    hold(title, "against scalar", distance(rows, expected, n_embd), most);
    report(are_same(rows, run.alone(all, NONE)), "%s: %d tokens together and alone", title.c_str(),
           all.n_tokens());
    report(are_same(rows, run.together(all, NONE, N_THREADS)), "%s: by 1 thread and by %d",
           title.c_str(), N_THREADS);
    hold(title, "pooled", distance(run.together(all, pooling), pooled(rows, n_embd, all, pooling),
                                   n_embd), FLOATS);
}

// Every kernel on one model.
void compare(const Recipe& recipe, const std::vector<int32_t>& lengths, Pooling pooling) {
    const auto& shape = recipe.shape;
    const auto n_embd = (size_t)shape.n_embd;
    const Sequences all(recipe, lengths);
    // in the order of TOLERANCES
    std::vector<float> expected[3];
    for (int type = 0; type < 3; type++)
        expected[type] = scalar_rows(recipe, all, TOLERANCES[type].compute_type);
    char on[128];
    std::snprintf(on, sizeof on, " on %s, %d layers, %d wide, %d heads, %d inside",
                  name_of(recipe.type), (int)shape.n_layers, (int)shape.n_embd, (int)shape.n_heads,
                  (int)shape.n_ff);
    for (int type = 1; type < 3; type++)
        if (!expected[type].empty())
            hold(std::string("scalar ") + TOLERANCES[type].compute_type + on, "against float32",
                 distance(expected[type], expected[0], n_embd), TOLERANCES[type].to_floats);
    for (int32_t kernel = 0; kernel < em_n_kernels(); kernel++) {
        const std::string title = title_of(kernel) + on;
        if (why_not(kernel, recipe) != nullptr) {
            hold_refusal(title, recipe, kernel);
            continue;
        }
        int type = 0;
        while (!computes_in(kernel, TOLERANCES[type].compute_type)) type++;
        Run run(recipe, kernel, all.n_tokens());
        const bool is_mixed = computes_in(kernel, "int8") && em_kernel_value_bytes(kernel) == 2;
        compare_one(title, run, n_embd, all, pooling, expected[type],
                    is_mixed ? BYTES_BFLOATS : TOLERANCES[type].to_scalar);
    }
}

}  // namespace

int main() {
    for (int32_t kernel = 0; kernel < em_n_kernels(); kernel++)
        std::printf("kernel %s, %d lanes\n", title_of(kernel).c_str(), em_kernel_lanes(kernel));
    // Around the sizes of vectors, tiles and panels. As little as shows something: an emulated CPU
    // does some ten million multiplications a second.
    const std::vector<int32_t> lengths = {1, 2, 3, 4, 5, 7, 8, 9, 17, 100}, few = {3, 1, 30, 18};
    compare(Recipe({2, 64, 4, 96}, F32), lengths, MEAN);
    compare(Recipe({1, 128, 2, 288}, F32), few, LAST);
    compare(Recipe({1, 224, 2, 384}, F32), {17, 3}, FIRST);
    compare(Recipe({1, 96, 3, 160}, F16), few, FIRST);
    compare(Recipe({1, 64, 2, 112}, BF16), few, MEAN);
    compare(Recipe({2, 64, 4, 96}, Q8_0), few, LAST);
    // Heads of 32, 96 and 64, of whole blocks of bytes; what is inside is no whole piece.
    compare(Recipe({2, 64, 2, 160}, Q8_0), lengths, MEAN);
    compare(Recipe({1, 192, 2, 416}, Q8_0), {17, 3}, FIRST);
    compare(Recipe({1, 128, 2, 288}, Q8_0), few, LAST);
    // Heads of 8, 12, 6 and 5: too narrow for some.
    compare(Recipe({2, 40, 5, 72}, F32), lengths, MEAN);
    compare(Recipe({1, 36, 3, 60}, F16), lengths, LAST);
    compare(Recipe({1, 30, 5, 42}, BF16), lengths, FIRST);
    compare(Recipe({2, 15, 3, 21}, F32), lengths, MEAN);
    std::printf("%d of the comparisons failed\n", n_failures);
    return n_failures == 0 ? 0 : 1;
}
