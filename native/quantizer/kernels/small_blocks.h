// What the types with blocks of 32 weights share.
#pragma once

#include "block.h"

namespace QM_ISA {

constexpr int BLOCK = 32;

// The low four bits of 32 levels: byte j of 16 holds weights j and j + 16.
QM_INLINE void pack_halves(const UVec * levels, UVec * words) {
    for (int i = 0; i < 4; i++) words[i] = (levels[i] & 0x0f0f0f0fu) | (levels[i + 4] & 0x0f0f0f0fu) << 4;
}

// The fifth bits of 32 levels, that of weight j in bit j.
QM_INLINE UVec pack_fifth_bits(const UVec * levels) {
    UVec bits = {};
    for (int i = 0; i < 8; i++) {
        const UVec b = levels[i] >> 4 & 0x01010101u;
        bits |= ((b | b >> 7 | b >> 14 | b >> 21) & 15u) << 4 * i;
    }
    return bits;
}

}  // namespace QM_ISA
