// From W blocks in memory to lanes, and back: lane t of every vector belongs to block t.
#pragma once

#include "lanes.h"

namespace QM_ISA {

constexpr IVec COUNTING =
#if QM_LANES == 16
    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
#elif QM_LANES == 8
    {0, 1, 2, 3, 4, 5, 6, 7};
#else
    {0, 1, 2, 3};
#endif

// One step of a transposition: rows H apart exchange their columns H apart.
template <int H> QM_INLINE void exchange(Vec * r) {
    const IVec upper = (COUNTING & H) != 0;
    const IVec first = upper ? COUNTING + (W - H) : COUNTING, second = upper ? COUNTING + W : COUNTING + H;
#pragma GCC unroll 16
    for (int i = 0; i < W; i++) {
        if (i & H) continue;
        const Vec a = r[i], b = r[i + H];
        r[i] = __builtin_shuffle(a, b, first);
        r[i + H] = __builtin_shuffle(a, b, second);
    }
}

// out[i] = element `offset + i` of each of the W rows, for i < W.
QM_INLINE void load_tile(const float * const * rows, int offset, Vec * out) {
    Vec r[W];
#pragma GCC unroll 16
    for (int i = 0; i < W; i++) memcpy(&r[i], rows[i] + offset, sizeof(Vec));
    if constexpr (W > 8) exchange<8>(r);
    if constexpr (W > 4) exchange<4>(r);
    exchange<2>(r);
    exchange<1>(r);
#pragma GCC unroll 16
    for (int i = 0; i < W; i++) out[i] = r[i];
}

// The first `n` elements of W rows (n a multiple of 16).
[[maybe_unused]] static void load_rows(const float * const * rows, int offset, int n, Vec * out) {
    for (int i = 0; i < n; i += W) load_tile(rows, offset + i, out + i);
}

// Lanes whose n values are not all finite. Only ggml itself says what becomes of those.
[[maybe_unused]] static Mask<1> not_finite(const Vec * x, int n) {
    IVec largest = {};
    for (int i = 0; i < n; i++) {
        const IVec size = as_int(x[i]) & 0x7fffffff;
        largest = size > largest ? size : largest;
    }
    return {{largest >= all(0x7f800000)}};
}

QM_INLINE Floats<1> sum_of_squares(const Vec * x, int n) {
    Vec sum = {};
    for (int i = 0; i < n; i++) sum += x[i] * x[i];
    return {{sum}};
}

// Four small unsigned levels as the four bytes of a word, the first in the lowest.
template <int U> QM_INLINE Ints<U> pack4(Ints<U> a, Ints<U> b, Ints<U> c, Ints<U> d) {
    return (a | (b << 8)) | ((c << 16) | (d << 24));
}

// The levels of four weights in the words of their lanes; `level` maps a weight's index to its level.
template <class F> QM_INLINE UVec level_word(int i, F level) {
    return as_uint(pack4<1>({{level(i)}}, {{level(i + 1)}}, {{level(i + 2)}}, {{level(i + 3)}}).v[0]);
}

// Bytes (0 to 255 each), four to a word.
QM_INLINE void pack_bytes(const Ints<1> * bytes, int words_wanted, UVec * words) {
    for (int i = 0; i < words_wanted; i++) {
        const Ints<1> * b = bytes + 4 * i;
        words[i] = as_uint(pack4(b[0], b[1], b[2], b[3]).v[0]);
    }
}

// The weights of the search with an importance matrix: importance * sqrt(sigma2 + x^2).
QM_INLINE void importance_weights(const Vec * x, const Vec * importance, int n, Vec sigma2, Vec * w) {
    for (int i = 0; i < n; i++) w[i] = importance[i] * square_root(sigma2 + x[i] * x[i]);
}

// Writes W blocks that consist of K words and, before or after them, a half word.
enum class HalfWord { none, first, last };
template <HalfWord PLACE> QM_INLINE void store_blocks(uint8_t * dst, const UVec * words, int k, UVec half) {
    const int size = 4 * k + (PLACE == HalfWord::none ? 0 : 2), start = PLACE == HalfWord::first ? 2 : 0;
    const uint32_t * source = (const uint32_t *) words;
    for (int t = 0; t < W; t++) {
        uint8_t * block = dst + (size_t) t * size;
        for (int i = 0; i < k; i++) memcpy(block + start + 4 * i, source + (size_t) i * W + t, 4);
        if (PLACE == HalfWord::none) continue;
        const uint16_t h = (uint16_t) half[t];
        memcpy(block + (PLACE == HalfWord::first ? 0 : 4 * k), &h, 2);
    }
}

}  // namespace QM_ISA
