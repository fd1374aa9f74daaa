// One forward pass for each instruction set, chosen when a model is made.
#pragma once

#include "model.h"
#include "team.h"
#include "workspace.h"

namespace embellama {

struct Kernels {
    const char* isa;           // such as "avx512_bf16"
    const char* compute_type;  // "f32" or "bf16": what is multiplied
    Packing packing;
    size_t n_rows;  // of a tile
    // What one thread of a team does of a micro-batch; the first one of them writes to `out`.
    void (*run)(const Model& model, const Batch& batch, Pooling pooling, Workspace& work,
                const Team& team, float* out);
};

// Those of this build that this CPU can run, the fastest first.
const Kernels* const* usable_kernels(size_t* n_kernels);

}  // namespace embellama
