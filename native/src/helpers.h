// Threads that wait for micro-batches to help with.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "team.h"

namespace embellama {

// Shared by the contexts of a model. Threads are started when they are first wanted, and sleep
// while there is nothing to do.
class Helpers {
public:
    Helpers() = default;
    Helpers(const Helpers&) = delete;
    Helpers& operator=(const Helpers&) = delete;
    ~Helpers();

    // Calls `work` on this thread, and on up to `n_members` − 1 others while it runs; returns when
    // all of them have. `work` must not throw. Where no thread can be started, fewer take part.
    void run(size_t n_steps, size_t n_members, const std::function<void(const Team&)>& work);

private:
    struct Call;

    void start_threads(size_t n_threads);
    void wait_for_calls();

    std::mutex mutex_;
    std::condition_variable is_called_;
    std::vector<Call*> calls_;  // that may still be joined
    std::vector<std::thread> threads_;
    size_t n_wanted_ = 0;       // helpers of all calls that run
    bool is_ending_ = false;
};

}  // namespace embellama
