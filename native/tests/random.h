// Random numbers for what compares kernels.
#pragma once

#include <cstdint>

namespace {

// The same numbers on every machine, which the standard library's distributions do not promise.
// Source: Steele, Lea and Flood, "Fast splittable pseudorandom number generators" (SplitMix64).
class Random {
public:
    explicit Random(uint64_t seed) : state_(seed) {}

    uint64_t bits() {
        uint64_t z = state_ += 0x9e3779b97f4a7c15;
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
        z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
        return z ^ (z >> 31);
    }
    int32_t below(int32_t n) { return (int32_t)(bits() >> 33) % n; }
    // From -1 to 1.
    float next() { return (float)((int32_t)(bits() >> 40) - (1 << 23)) / (float)(1 << 23); }

private:
    uint64_t state_;
};

}  // namespace
