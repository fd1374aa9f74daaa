// Threads that share a model, each with contexts of its own that come and go, while other models
// are made and freed, and micro-batches that several threads share: for ThreadSanitizer. Rows have to
// be those computed alone, to the last bit.
//
//     threads [rounds] [threads]
#include <atomic>
#include <functional>
#include <thread>

#include "tiny_model.h"

extern "C" const char* __tsan_default_options() { return "halt_on_error=1:abort_on_error=1"; }

namespace {

using tiny::fail;
using tiny::Numbers;

constexpr int64_t N_TOKENS = 120;
constexpr int N_BATCHES = 6;

void run_together(int n_threads, const std::function<void(int)>& work) {
    std::vector<std::thread> threads;
    for (int number = 0; number < n_threads; number++) threads.emplace_back(work, number);
    for (std::thread& thread : threads) thread.join();
}

struct Job {
    tiny::Batch batch;
    int32_t pooling;
    std::vector<float> rows;  // as computed alone
};

struct Shared {
    tiny::Tensors tensors;
    int32_t kernel;
    em_model* model;
    std::vector<Job> jobs;
};

em_model* new_model(const tiny::Tensors& tensors, int32_t kernel) {
    char message[128] = "";
    em_model* model = em_model_new(&tensors.shape, kernel, tensors.list.data(),
                                   (int64_t)tensors.list.size(), message, sizeof message);
    if (model == nullptr) fail("a model was refused:", message);
    return model;
}

em_context* new_context(const em_model* model) {
    char message[128] = "";
    em_context* context = em_context_new(model, N_TOKENS, 1, message, sizeof message);
    if (context == nullptr) fail("a context was refused:", message);
    return context;
}

std::vector<float> rows_of(em_context* context, const em_shape& shape, const Job& job,
                           int32_t n_threads) {
    char message[128] = "";
    std::vector<float> rows((size_t)(job.batch.n_rows(job.pooling) * shape.n_embd));
    const int32_t status =
        em_encode(context, job.batch.ids.data(), job.batch.types.data(), job.batch.offsets.data(),
                  job.batch.n_sequences(), job.pooling, n_threads, rows.data(), message,
                  sizeof message);
    if (status != EM_OK) fail("a batch was refused:", message);
    return rows;
}

Shared make_shared(int32_t kernel) {
    Numbers numbers((uint64_t)kernel + 1);
    const em_shape shape = tiny::small_shape(kernel, numbers);
    Shared shared{tiny::right_tensors(shape, kernel, tiny::Weights::Calm, numbers), kernel, nullptr,
                  {}};
    shared.model = new_model(shared.tensors, kernel);
    shared.tensors.free_what_was_packed();
    em_context* context = new_context(shared.model);
    for (int32_t number = 0; number < N_BATCHES; number++) {
        Job job{tiny::right_batch(shape, N_TOKENS, numbers), number % 4, {}};
        job.rows = rows_of(context, shape, job, 1);
        shared.jobs.push_back(std::move(job));
    }
    em_context_free(context);
    return shared;
}

// One thread's part; every third round goes on with the context of the one before.
void compute(const Shared& shared, int number, long n_rounds, std::atomic<long>& n_compared) {
    em_context* context = nullptr;
    for (long round = 0; round < n_rounds; round++) {
        if (round % 3 != 2) {
            em_context_free(context);
            context = new_context(shared.model);
        }
        const Job& job = shared.jobs[(size_t)(number + round) % shared.jobs.size()];
        const auto rows = rows_of(context, shared.tensors.shape, job,
                                  1 + (int32_t)(round % 4));
        if (std::memcmp(rows.data(), job.rows.data(), rows.size() * sizeof(float)) != 0)
            fail("rows differ from those computed alone");
        n_compared++;
    }
    em_context_free(context);
}

// Models of the same kernel, made and freed while others compute.
void come_and_go(int32_t kernel, long n_models) {
    Numbers numbers((uint64_t)kernel + 100);
    for (long i = 0; i < n_models; i++) {
        const em_shape shape = tiny::small_shape(kernel, numbers);
        em_model_free(
            new_model(tiny::right_tensors(shape, kernel, tiny::Weights::Calm, numbers), kernel));
    }
}

}  // namespace

int main(int n_arguments, char** arguments) {
    const long n_rounds = n_arguments > 1 ? std::atol(arguments[1]) : 20;
    const int n_threads = n_arguments > 2 ? std::atoi(arguments[2]) : 4;
    // the first question that a process asks looks at the CPU: several may ask at once
    std::atomic<int32_t> n_kernels{0};
    run_together(n_threads, [&](int) { n_kernels = em_n_kernels(); });
    for (int32_t kernel = 0; kernel < n_kernels; kernel++) {
        Shared shared = make_shared(kernel);
        std::atomic<long> n_compared{0};
        run_together(n_threads + 1, [&](int number) {
            if (number < n_threads)
                compute(shared, number, n_rounds, n_compared);
            else
                come_and_go(kernel, n_rounds / 4 + 1);
        });
        em_model_free(shared.model);
        std::printf("%s %s: %ld batches of %d threads are those computed alone\n",
                    em_kernel_isa(kernel), em_kernel_compute_type(kernel), n_compared.load(),
                    n_threads);
        if (n_compared != n_rounds * n_threads || n_compared == 0) fail("too few were compared");
    }
    return 0;
}
