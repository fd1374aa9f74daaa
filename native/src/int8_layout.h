// How 8-bit operands and weights lie in memory.
//
// Both sides of a product are in blocks of 32 values along the inner dimension. A weight's block is
// a row of signed bytes and a scale, as in Q8_0. An operand's is that, or shifted:
//
//     plain    value ≈ scale × byte
//     shifted  value ≈ scale × byte + shift    finer where values lie to one side; a tenth slower
//
// A 32-bit unit has four bytes, so a block has 8 units. The bytes of an operand may have an offset:
// 128 for instructions that multiply unsigned by signed bytes, 0 for those that multiply signed by
// signed. A block's scale and shift are floats; the shift stands for the byte 0, offset included.
//
// A panel of weights, `width` columns wide, has for each block 8 × width units, then width scales
// (float), then width corrections. Where operands are plain these are −offset × the sum of a
// column's 32 bytes (int32), which takes the offset out again; where they are shifted, scale × that
// sum (float), which is what the shift is multiplied by.
#pragma once

#include <cstddef>
#include <cstdint>

namespace embellama {

constexpr size_t INT8_BLOCK = 32;  // values. Source: QK8_0 in ggml-common.h
constexpr size_t INT8_BLOCK_UNITS = INT8_BLOCK / 4;
constexpr size_t INT8_COLUMN_UNITS = INT8_BLOCK_UNITS + 2;  // of a column's block in a panel

// Rows of an operand, one after the other.
struct Int8Rows {
    const uint32_t* units = nullptr;  // (n_rows, 8 × n_blocks)
    const float* scales = nullptr;    // (n_rows, n_blocks)
    const float* shifts = nullptr;    // (n_rows, n_blocks) where they are shifted
    size_t n_blocks = 0;
};

}  // namespace embellama
