// Several threads on one micro-batch.
//
// A forward pass is a row of steps, each cut into items that whoever is free takes next. Nobody
// waits for a thread to arrive, only for the items of a step to be done: a thread that wakes late,
// or that the system takes off its core, finds less to do. Every item computes what it would
// compute alone, so how many threads there are changes no bit of the result.
#pragma once

#include <cstddef>

namespace embellama {

struct Step;  // how many of its items are taken, and how many are done

// Steps of a forward pass, at most: ten in a layer (run_layer in forward.h), and the embedding.
constexpr size_t most_steps(size_t n_layers) { return 10 * n_layers + 1; }

// One thread's place in a micro-batch. Not inline, because kernels of all CPUs call these.
class Team {
public:
    Team() = default;  // of one
    Team(Step* steps, size_t member, size_t n_members)
        : steps_(steps), member_(member), n_members_(n_members) {}

    bool is_alone() const { return steps_ == nullptr; }
    size_t member() const { return member_; }        // which room is its own: see workspace.h
    size_t n_members() const { return n_members_; }

    size_t take_item();               // the next of this step; past the last if there is none
    void finish_item();
    void end_step(size_t n_items);    // waits until all of them are done

private:
    Step* steps_ = nullptr;   // null: there is nobody else
    size_t n_taken_ = 0;      // of this step's items, then
    size_t member_ = 0;
    size_t n_members_ = 1;
};

}  // namespace embellama
