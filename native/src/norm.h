// Layer norm of one row, a vector at a time.
#pragma once

#include <cmath>

#include "gemm.h"
#include "model.h"

namespace embellama {

// (x − mean) / √(variance + eps) · scale + shift, with the row's mean and variance taken first.
template <class Isa>
class NormalizedRow {
public:
    using Vec = typename Isa::Vec;

    EMBELLAMA_INLINE NormalizedRow(const float* row, size_t n, const Norm& norm, float eps)
        : row_(row), scale_(norm.scale.get()), shift_(norm.shift.get()) {
        Vec sum = Isa::zero();
        for (size_t at = 0; at < n; at += Isa::LANES) sum = Isa::add(sum, Isa::load(row + at));
        mean_ = Isa::set(Isa::sum(sum) / (float)n);
        Vec squares = Isa::zero();
        for (size_t at = 0; at < n; at += Isa::LANES) {
            const Vec centred = Isa::sub(Isa::load(row + at), mean_);
            squares = Isa::fma(centred, centred, squares);
        }
        factor_ = Isa::set(1.0f / std::sqrt(Isa::sum(squares) / (float)n + eps));
    }

    EMBELLAMA_INLINE Vec at(size_t at) const {
        const Vec scaled = Isa::mul(Isa::sub(Isa::load(row_ + at), mean_), factor_);
        return Isa::fma(scaled, Isa::load(scale_ + at), Isa::load(shift_ + at));
    }

private:
    const float* row_;
    const float* scale_;
    const float* shift_;
    Vec mean_, factor_;
};

}  // namespace embellama
