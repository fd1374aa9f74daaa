#include <algorithm>
#include <memory>
#include <system_error>

#include "helpers.h"

#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#endif

namespace embellama {

// On a cache line of its own: threads that are done with a step read the next one's.
struct alignas(64) Step {
    std::atomic<size_t> n_taken{0};
    std::atomic<size_t> n_done{0};
};

namespace {

// Waits a moment, and from then on lets others have the core: whoever is waited for may need it.
class Patience {
public:
    void wait() {
        if (n_waits_++ < SPINS) {
#if defined(__x86_64__) || defined(_M_X64)
            _mm_pause();
#elif defined(__aarch64__)
            asm volatile("yield");
#endif
        } else {
            std::this_thread::yield();
        }
    }

private:
    static constexpr int SPINS = 2000;  // some 20 to 100 µs, longer than most items
    int n_waits_ = 0;
};

}  // namespace

size_t Team::take_item() {
    if (is_alone()) return n_taken_++;
    return steps_->n_taken.fetch_add(1, std::memory_order_relaxed);
}

void Team::finish_item() {
    if (!is_alone()) steps_->n_done.fetch_add(1, std::memory_order_acq_rel);
}

void Team::end_step(size_t n_items) {
    if (is_alone()) {
        n_taken_ = 0;
        return;
    }
    Patience patience;
    while (steps_->n_done.load(std::memory_order_acquire) < n_items) patience.wait();
    steps_++;
}

struct Helpers::Call {
    const std::function<void(const Team&)>* work;
    Step* steps;
    size_t n_members;
    size_t n_joined = 1;               // under the mutex
    std::atomic<size_t> n_inside{0};
};

Helpers::~Helpers() {
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        is_ending_ = true;
    }
    is_called_.notify_all();
    for (std::thread& thread : threads_) thread.join();
}

void Helpers::run(size_t n_steps, size_t n_members, const std::function<void(const Team&)>& work) {
    if (n_members <= 1) return work(Team());
    const std::unique_ptr<Step[]> steps(new Step[n_steps]);
    Call call{&work, steps.get(), n_members};
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        start_threads(n_wanted_ + n_members - 1);
        n_wanted_ += n_members - 1;
        calls_.push_back(&call);
    }
    for (size_t i = 1; i < n_members; i++) is_called_.notify_one();
    work(Team(steps.get(), 0, n_members));
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        const auto found = std::find(calls_.begin(), calls_.end(), &call);
        if (found != calls_.end()) calls_.erase(found);
        n_wanted_ -= n_members - 1;
    }
    Patience patience;  // all items are done: whoever is inside is about to leave
    while (call.n_inside.load(std::memory_order_acquire) != 0) patience.wait();
}

void Helpers::start_threads(size_t n_threads) {
    calls_.reserve(calls_.size() + 1);
    threads_.reserve(n_threads);
    while (threads_.size() < n_threads) {
        try {
            threads_.emplace_back([this] { wait_for_calls(); });
        } catch (const std::system_error&) {
            return;  // the caller can do it all alone
        }
    }
}

void Helpers::wait_for_calls() {
    std::unique_lock<std::mutex> lock(mutex_);
    while (true) {
        is_called_.wait(lock, [this] { return is_ending_ || !calls_.empty(); });
        if (is_ending_) return;
        const auto lonely =
            std::min_element(calls_.begin(), calls_.end(), [](const Call* one, const Call* other) {
                return one->n_joined < other->n_joined;
            });
        Call& call = **lonely;
        const size_t member = call.n_joined++;
        if (call.n_joined == call.n_members) calls_.erase(lonely);
        call.n_inside.fetch_add(1, std::memory_order_relaxed);
        lock.unlock();
        (*call.work)(Team(call.steps, member, call.n_members));
        call.n_inside.fetch_sub(1, std::memory_order_release);
        lock.lock();
    }
}

}  // namespace embellama
