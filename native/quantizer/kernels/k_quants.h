// What the super-block types share: 256 weights, levels held as bytes in words, and how those bytes are laid out.
#pragma once

#include "block.h"

namespace QM_ISA {

constexpr int SUPER = 256;
constexpr int LEVEL_WORDS = SUPER / 4;   // word i holds the levels of weights 4i to 4i + 3, one in each byte

// Two-bit levels: of each 128 weights, byte l of 32 holds weights l, l + 32, l + 64 and l + 96.
QM_INLINE void pack_two_bits(const UVec * levels, UVec * words) {
    for (int half = 0; half < 2; half++)
        for (int i = 0; i < 8; i++) {
            const UVec * q = levels + 32 * half + i;
            words[8 * half + i] = (q[0] & 0x03030303u) | (q[8] & 0x03030303u) << 2 | (q[16] & 0x03030303u) << 4 |
                                  (q[24] & 0x03030303u) << 6;
        }
}

// The low four bits: of each 64 weights, byte l of 32 holds weights l and l + 32.
QM_INLINE void pack_nibbles(const UVec * levels, UVec * words) {
    for (int part = 0; part < 4; part++)
        for (int i = 0; i < 8; i++) {
            const UVec * q = levels + 16 * part + i;
            words[8 * part + i] = (q[0] & 0x0f0f0f0fu) | (q[8] & 0x0f0f0f0fu) << 4;
        }
}

// Bit `bit` of every level: bit j of byte l of 32 belongs to weight 32 j + l.
QM_INLINE void pack_bit(const UVec * levels, int bit, UVec * words) {
    for (int i = 0; i < 8; i++) {
        words[i] = UVec{};
        for (int j = 0; j < 8; j++) words[i] |= (levels[8 * j + i] >> bit & 0x01010101u) << j;
    }
}

}  // namespace QM_ISA
