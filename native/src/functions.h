// Functions of vectors that no instruction computes.
#pragma once

#include "gemm.h"

namespace embellama {

// eˣ for x ≤ 0; 0 where it would be subnormal.
// 2ⁿ · p(f) with n the nearest integer to x · log2(e) and p of degree 6 on [-1/2, 1/2]: the Taylor
// series of 2ᶠ, whose rest is below 2e-7 there.
template <class Isa>
EMBELLAMA_INLINE typename Isa::Vec exp_of(typename Isa::Vec x) {
    // NaN has to come second to stay NaN: the other way round it would become the limit
    const auto scaled = Isa::max(Isa::set(-126.0f), Isa::mul(x, Isa::set(1.44269504f)));
    const auto whole = Isa::round(scaled);
    const auto rest = Isa::sub(scaled, whole);
    auto p = Isa::set(1.54035304e-4f);
    p = Isa::fma(p, rest, Isa::set(1.33335581e-3f));
    p = Isa::fma(p, rest, Isa::set(9.61812911e-3f));
    p = Isa::fma(p, rest, Isa::set(5.55041087e-2f));
    p = Isa::fma(p, rest, Isa::set(2.40226507e-1f));
    p = Isa::fma(p, rest, Isa::set(6.93147181e-1f));
    p = Isa::fma(p, rest, Isa::set(1.0f));
    return Isa::times_power_of_2(p, whole);
}

// x · Φ(x), Φ the normal distribution: the GELU that BERT was trained with.
// Φ(x) − ½ = x · p(2x²/25 − 1) for |x| ≤ 5, clamped beyond; p of degree 10 by weighted least squares
// for the smallest largest error of the result, which is below 1e-5 in float32 for |x| ≤ 8.
template <class Isa>
EMBELLAMA_INLINE typename Isa::Vec gelu_of(typename Isa::Vec x) {
    const auto near = Isa::min(Isa::max(x, Isa::set(-5.0f)), Isa::set(5.0f));
    const auto at = Isa::fma(near, Isa::mul(near, Isa::set(0.08f)), Isa::set(-1.0f));
    auto p = Isa::set(2.277309555e-3f);
    p = Isa::fma(p, at, Isa::set(-6.278016200e-3f));
    p = Isa::fma(p, at, Isa::set(7.021222137e-3f));
    p = Isa::fma(p, at, Isa::set(-8.329823788e-3f));
    p = Isa::fma(p, at, Isa::set(1.554792449e-2f));
    p = Isa::fma(p, at, Isa::set(-2.421516261e-2f));
    p = Isa::fma(p, at, Isa::set(3.174414688e-2f));
    p = Isa::fma(p, at, Isa::set(-4.031916949e-2f));
    p = Isa::fma(p, at, Isa::set(5.148801110e-2f));
    p = Isa::fma(p, at, Isa::set(-7.030051866e-2f));
    p = Isa::fma(p, at, Isa::set(1.413643019e-1f));
    return Isa::mul(x, Isa::fma(near, p, Isa::set(0.5f)));
}

// 1 / y for y from 1 to 2, where every instruction set multiplies faster than it divides.
// Begins with the quadratic of the smallest largest error, 1/99, and squares that twice by Newton's
// method: 1e-8, which leaves float32's rounding.
// Source: https://en.wikipedia.org/wiki/Division_algorithm, for a divisor from ½ to 1.
template <class Isa>
EMBELLAMA_INLINE typename Isa::Vec reciprocal_of(typename Isa::Vec y) {
    auto found = Isa::fma(y, Isa::set(32.0f / 99.0f), Isa::set(-16.0f / 11.0f));
    found = Isa::fma(y, found, Isa::set(70.0f / 33.0f));
    for (int step = 0; step < 2; step++)
        found = Isa::mul(found, Isa::sub(Isa::set(2.0f), Isa::mul(y, found)));
    return found;
}

// x / (1 + e⁻ˣ). With s = e⁻ᵃ / (1 + e⁻ᵃ) and a = |x| that is x − a·s above 0 and −a·s below.
template <class Isa>
EMBELLAMA_INLINE typename Isa::Vec silu_of(typename Isa::Vec x) {
    const auto negative = Isa::min(x, Isa::sub(Isa::zero(), x));  // −a
    const auto small = exp_of<Isa>(negative);
    const auto share = Isa::mul(small, reciprocal_of<Isa>(Isa::add(small, Isa::set(1.0f))));
    return Isa::fma(negative, share, Isa::max(x, Isa::zero()));
}

}  // namespace embellama
