// The plain C side: arguments checked, exceptions turned into messages.
#include <algorithm>
#include <cstring>
#include <new>
#include <stdexcept>
#include <string>

#include "build_model.h"
#include "embellama_native.h"
#include "helpers.h"
#include "kernels.h"
#include "workspace.h"

struct em_model {
    embellama::Model model;
    const embellama::Kernels* kernels;
    mutable embellama::Helpers helpers;
};

struct em_context {
    const em_model* owner;
    embellama::Workspace work;
};

namespace {

constexpr int32_t MOST_THREADS = 1024;

void tell(const char* what, char* message, size_t n_message) {
    if (message == nullptr || n_message == 0) return;
    const size_t n = std::min(std::strlen(what), n_message - 1);
    std::memcpy(message, what, n);
    message[n] = '\0';
}

// Runs something that may throw; returns an em_status.
template <class Work>
int32_t guarded(char* message, size_t n_message, const Work& work) {
    try {
        work();
        return EM_OK;
    } catch (const std::bad_alloc&) {
        tell("memory could not be allocated", message, n_message);
        return EM_NO_MEMORY;
    } catch (const std::exception& error) {
        tell(error.what(), message, n_message);
        return EM_INVALID;
    }
}

const embellama::Kernels* kernel_at(int32_t kernel) {
    size_t n = 0;
    const embellama::Kernels* const* list = embellama::usable_kernels(&n);
    return kernel >= 0 && (size_t)kernel < n ? list[kernel] : nullptr;
}

void check_threads(int32_t n_threads) {
    if (n_threads < 1 || n_threads > MOST_THREADS)
        throw std::invalid_argument(std::to_string(n_threads) + " threads; 1 to " +
                                    std::to_string(MOST_THREADS) + " can be");
}

void check_batch(const embellama::Shape& shape, size_t most_tokens, const int32_t* ids,
                 const int32_t* types, const int32_t* offsets, int64_t n_sequences) {
    const auto refuse = [](const std::string& what) { throw std::invalid_argument(what); };
    if (ids == nullptr || offsets == nullptr || n_sequences < 1 || offsets[0] != 0)
        refuse("no ids, no offsets, or no sequence");
    for (int64_t i = 0; i < n_sequences; i++) {
        const int64_t length = (int64_t)offsets[i + 1] - offsets[i];
        if (length < 1 || length > (int64_t)shape.n_positions)
            refuse("sequence " + std::to_string(i) + " has " + std::to_string(length) +
                   " tokens; it has to have 1 to " + std::to_string(shape.n_positions));
        if ((int64_t)offsets[i + 1] > (int64_t)most_tokens)
            refuse("more tokens than the context's " + std::to_string(most_tokens));
    }
    for (int64_t i = 0; i < offsets[n_sequences]; i++) {
        if (ids[i] < 0 || (size_t)ids[i] >= shape.n_vocab)
            refuse("token id " + std::to_string(ids[i]) + "; the vocabulary has 0 to " +
                   std::to_string(shape.n_vocab - 1));
        if (types != nullptr && (types[i] < 0 || (size_t)types[i] >= shape.n_token_types))
            refuse("token type " + std::to_string(types[i]) + "; there are 0 to " +
                   std::to_string(shape.n_token_types - 1));
    }
}

}  // namespace

extern "C" {

int32_t em_version(void) { return EM_VERSION; }

int32_t em_n_kernels(void) {
    size_t n = 0;
    embellama::usable_kernels(&n);
    return (int32_t)n;
}

const char* em_kernel_isa(int32_t kernel) {
    const auto* found = kernel_at(kernel);
    return found != nullptr ? found->isa : nullptr;
}

const char* em_kernel_compute_type(int32_t kernel) {
    const auto* found = kernel_at(kernel);
    return found != nullptr ? found->compute_type : nullptr;
}

int32_t em_kernel_lanes(int32_t kernel) {
    const auto* found = kernel_at(kernel);
    if (found == nullptr) return 0;
    return (int32_t)found->packing.step();
}

int32_t em_kernel_value_bytes(int32_t kernel) {
    const auto* found = kernel_at(kernel);
    return found != nullptr ? (int32_t)(4 / found->packing.per_unit) : 0;
}

em_model* em_model_new(const em_shape* shape, int32_t kernel, const em_tensor* tensors,
                       int64_t n_tensors, char* message, size_t n_message) {
    em_model* made = nullptr;
    guarded(message, n_message, [&] {
        const auto* kernels = kernel_at(kernel);
        if (kernels == nullptr || shape == nullptr || tensors == nullptr || n_tensors < 0)
            throw std::invalid_argument("no such kernel, no shape, or no tensors");
        made = new em_model{embellama::build_model(*shape, *kernels, tensors, (size_t)n_tensors),
                            kernels, {}};
    });
    return made;
}

void em_model_free(em_model* model) { delete model; }

int64_t em_model_bytes(const em_model* model) {
    return model != nullptr ? (int64_t)embellama::packed_bytes(model->model) : 0;
}

em_context* em_context_new(const em_model* model, int64_t n_tokens, int32_t n_threads,
                           char* message, size_t n_message) {
    em_context* made = nullptr;
    guarded(message, n_message, [&] {
        if (model == nullptr || n_tokens < 1 || n_tokens > (1 << 24))
            throw std::invalid_argument("no model, or n_tokens out of range");
        check_threads(n_threads);
        const auto& kernels = *model->kernels;
        made = new em_context{model, embellama::Workspace(model->model.shape, kernels.packing,
                                                          kernels.n_rows, (size_t)n_tokens,
                                                          (size_t)n_threads)};
    });
    return made;
}

void em_context_free(em_context* context) { delete context; }

int64_t em_context_bytes(const em_context* context) {
    return context != nullptr ? (int64_t)context->work.n_bytes() : 0;
}

int32_t em_encode(em_context* context, const int32_t* ids, const int32_t* types,
                  const int32_t* offsets, int64_t n_sequences, int32_t pooling, int32_t n_threads,
                  float* out, char* message, size_t n_message) {
    return guarded(message, n_message, [&] {
        if (context == nullptr || out == nullptr || pooling < 0 || pooling > 3)
            throw std::invalid_argument("no context, no room for rows, or no such pooling");
        check_threads(n_threads);
        const auto& model = context->owner->model;
        check_batch(model.shape, context->work.n_tokens, ids, types, offsets, n_sequences);
        const embellama::Batch batch{ids, types, offsets, (size_t)n_sequences};
        context->work.make_rooms((size_t)n_threads);
        context->owner->helpers.run(
            embellama::most_steps(model.layers.size()), (size_t)n_threads,
            [&](const embellama::Team& team) {
                context->owner->kernels->run(model, batch, (embellama::Pooling)pooling,
                                             context->work, team, out);
            });
    });
}

}  // extern "C"
