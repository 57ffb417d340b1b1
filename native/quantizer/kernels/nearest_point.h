// The reference's choice among the neighbours of a combination of levels that is no point of the grid.
//
// All neighbours of one group of weights are judged side by side. The reference sums w_i * (scale * q_i - x_i)^2 over
// the group's weights in order; a q_i has few values, so the terms are made once and looked up by a neighbour's levels.
#pragma once

#include "block.h"
#include "grids.h"

namespace QM_ISA {

// The value of a level: step * level + first.
struct Levels {
    float step, first;
};

constexpr float FARTHEST = 3.402823466e+38f;   // nothing at this distance or beyond is taken

#if QM_LANES >= 8

using Codes = uint16_t __attribute__((vector_size(2 * QM_LANES)));

template <class V> QM_INLINE V lowest(V v) {
#pragma GCC unroll 4
    for (int h = W / 2; h > 0; h /= 2) {
        const V other = __builtin_shuffle(v, COUNTING ^ h);
        v = other < v ? other : v;
    }
    return v;
}

// The terms of a group of 32 >> BITS weights, at [i << BITS | level].
template <int BITS> struct Terms { Vec v[32 / W]; };

// `x` and `w` may be read up to W elements.
template <int BITS> QM_INLINE Terms<BITS> vector_terms(const float * x, const float * w, float scale, Levels q) {
    Vec xs, ws;
    memcpy(&xs, x, sizeof xs);
    memcpy(&ws, w, sizeof ws);
    Terms<BITS> terms;
#pragma GCC unroll 4
    for (int r = 0; r < 32 / W; r++) {
        const IVec entry = COUNTING + r * W, i = entry >> BITS;
        const Vec value = to_float(entry & ((1 << BITS) - 1)) * q.step + q.first;
        const Vec difference = scale * value - __builtin_shuffle(xs, i);
        terms.v[r] = __builtin_shuffle(ws, i) * difference * difference;
    }
    return terms;
}

// The distances of W neighbours.
template <int BITS> QM_INLINE Vec distances(const Terms<BITS> & terms, IVec codes) {
    Vec sum = {};
#pragma GCC unroll 8
    for (int i = 0; i < 32 >> BITS; i++) {
        const int entry = i << BITS;
        const IVec level = (codes >> i * BITS) & ((1 << BITS) - 1);
        sum += __builtin_shuffle(terms.v[entry / W], level | (entry & (W - 1)));
    }
    return sum;
}

// The code of the best neighbour in `list`, or -1 if the reference would find none.
template <int BITS>
QM_INLINE int nearest_point(const uint16_t * list, const float * x, const float * w, float scale, Levels q) {
    const Terms<BITS> terms = vector_terms<BITS>(x, w, scale, q);
    Vec best = all(FARTHEST);
    IVec position = all(0x7fffffff);
    for (int j = 0; j < list[0]; j += W) {
        Codes codes;
        memcpy(&codes, list + 1 + j, sizeof codes);
        const Vec d = distances<BITS>(terms, __builtin_convertvector(codes, IVec));
        position = d < best ? COUNTING + j : position;
        best = d < best ? d : best;
    }
    // The first of those at the smallest distance.
    const int first = lowest(best == lowest(best) ? position : all(0x7fffffff))[0];
    return first == 0x7fffffff ? -1 : list[1 + first];
}

#else

// The terms of a group of 32 >> BITS weights, at [i << BITS | level].
template <int BITS> QM_INLINE void make_terms(const float * x, const float * w, float scale, Levels q, float * terms) {
    for (int e = 0; e < 32; e++) {
        const int i = e >> BITS, level = e & ((1 << BITS) - 1);
        const float difference = scale * (q.step * (float) level + q.first) - x[i];
        terms[e] = w[i] * difference * difference;
    }
}

template <int BITS>
QM_INLINE int nearest_point(const uint16_t * list, const float * x, const float * w, float scale, Levels q) {
    float terms[32], best = FARTHEST;
    make_terms<BITS>(x, w, scale, q, terms);
    int found = -1;
    for (int j = 1; j <= list[0]; j++) {
        float d = 0;
        for (int i = 0; i < 32 >> BITS; i++) d += terms[i << BITS | (list[j] >> BITS * i & ((1 << BITS) - 1))];
        if (d < best) {
            best = d;
            found = list[j];
        }
    }
    return found;
}

#endif

}  // namespace QM_ISA
