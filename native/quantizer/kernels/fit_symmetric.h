// The search for the scale of a sub-block whose levels lie around zero: the reference's make_qx_quants (with weights)
// and make_q3_quants.
#pragma once

#include "lanes.h"

namespace QM_ISA {

constexpr float SYMMETRIC_EPS = 1e-15f;   // a sub-block whose largest magnitude is below this counts as zero

template <int U> struct Peak {
    Floats<U> size, value;   // the largest magnitude, and the first value that has it, with its sign
};

template <int U, int N> QM_INLINE Peak<U> peak_of(const Vec * x) {
    Peak<U> p = {};
#pragma GCC unroll 4
    for (int i = 0; i < N; i++) {
        const Floats<U> xi = at<U>(x, i, N), size = magnitude(xi);
        p.value = pick(size > p.size, xi, p.value);
        p.size = pick(size > p.size, size, p.size);
    }
    return p;
}

template <int U> struct SymmetricFit {
    Floats<U> scale;
    Floats<U> level_scale;   // the reference's levels: nearest(level_scale * x), clamped to -top .. top - 1
    Mask<U> zero;
};

template <int U> struct Moments {
    Floats<U> lx, l2;
};

template <int U, int N>
QM_INLINE Moments<U> moments(const Vec * x, const Vec * w, const Vec * wx, Floats<U> inverse, float top) {
    Moments<U> m = {};
#pragma GCC unroll 4
    for (int i = 0; i < N; i++) {
        const Floats<U> level = clamped(nearest_float(inverse * at<U>(x, i, N)), -top, top - 1);
        m.lx = m.lx + at<U>(wx, i, N) * level;
        m.l2 = m.l2 + at<U>(w, i, N) * level * level;
    }
    return m;
}

// x and w: U sub-blocks of N values, one after another. Levels are -top to top - 1.
template <int U, int N> QM_INLINE SymmetricFit<U> fit_symmetric(const Vec * x, const Vec * w, int top) {
    Vec wx[U * N];
    for (int i = 0; i < U * N; i++) wx[i] = w[i] * x[i];
    const Peak<U> peak = peak_of<U, N>(x);
    SymmetricFit<U> fit;
    fit.zero = peak.size < SYMMETRIC_EPS;
    fit.level_scale = (float) -top / peak.value;
    Moments<U> m = moments<U, N>(x, w, wx, fit.level_scale, (float) top);
    fit.scale = pick(m.l2 != Floats<U>{}, m.lx / m.l2, 0.f);
    Floats<U> best = fit.scale * m.lx;
    for (int step = -9; step <= 9; step++) {
        if (step == 0) continue;
        const Floats<U> inverse = -(top + 0.1f * step) / peak.value;
        m = moments<U, N>(x, w, wx, inverse, (float) top);
        const Mask<U> better = (m.l2 > 0.f) & (m.lx * m.lx > best * m.l2);
        fit.level_scale = pick(better, inverse, fit.level_scale);
        fit.scale = pick(better, m.lx / m.l2, fit.scale);
        best = pick(better, fit.scale * m.lx, best);
    }
    fit.scale = pick(fit.zero, 0.f, fit.scale);
    return fit;
}

// What the reference stores for a level: top + level, and 0 for all of a zero sub-block.
template <int U> QM_INLINE Ints<U> symmetric_level(const SymmetricFit<U> & fit, Floats<U> x, int top) {
    const Ints<U> level = at_least(at_most(nearest(fit.level_scale * x), top - 1), -top) + top;
    return pick(fit.zero, Ints<U>{}, level);
}

// The search by coordinate descent, with squares as weights: where it starts.
template <int U, int N> QM_INLINE Moments<U> first_levels(const Vec * x, int top, Floats<U> peak, Vec * levels) {
    const Floats<U> inverse = (float) -top / peak;
    Moments<U> m = {};
    for (int i = 0; i < N; i++) {
        const Floats<U> xi = at<U>(x, i, N), w = xi * xi;
        const Floats<U> level = clamped(nearest_float(inverse * xi), (float) -top, (float) (top - 1));
        put(levels, i, N, level);
        m.lx = m.lx + w * xi * level;
        m.l2 = m.l2 + w * level * level;
    }
    return m;
}

// Where the others want one level; `rest` is the moments without it.
template <int U> QM_INLINE Floats<U> wanted_level(Floats<U> x, int top, Moments<U> rest) {
    return to_float(at_least(at_most(nearest(x * rest.l2 / rest.lx), top - 1), -top));
}

// Lanes in which no level wants to move: there the descent ends where it starts. Each weight is asked by itself, with
// no chain from one to the next.
template <int U, int N>
QM_INLINE Mask<U> settled(const Vec * x, int top, Moments<U> m, const Vec * levels) {
    Mask<U> moves = {};
    for (int i = 0; i < N; i++) {
        const Floats<U> xi = at<U>(x, i, N), w = xi * xi, level = at<U>(levels, i, N);
        const Moments<U> rest = {m.lx - w * xi * level, m.l2 - w * level * level};
        moves = moves | ((rest.lx > 0.f) & (wanted_level(xi, top, rest) != level));
    }
    return ~moves;
}

// Moves one level to where the others want it, if that lowers the error. Returns the lanes that changed.
template <int U>
QM_INLINE Mask<U> improve_symmetric(Floats<U> x, Floats<U> w, Floats<U> wx, int top, Floats<U> & level,
                                    Moments<U> & m) {
    Moments<U> next = {m.lx - wx * level, m.l2 - w * level * level};
    Mask<U> better = next.lx > 0.f;
    const Floats<U> moved = wanted_level(x, top, next);
    better = better & (moved != level);
    next.lx = next.lx + wx * moved;
    next.l2 = next.l2 + w * moved * moved;
    better = better & (next.l2 > 0.f) & (next.lx * next.lx * m.l2 > m.lx * m.lx * next.l2);
    level = pick(better, moved, level);
    m.lx = pick(better, next.lx, m.lx);
    m.l2 = pick(better, next.l2, m.l2);
    return better;
}

// levels[] gets top + level, and 0 for a zero sub-block; the scale is returned.
template <int U, int N>
QM_INLINE Floats<U> end_of_descent(Mask<U> zero, int top, Moments<U> m, Vec * levels) {
    for (int i = 0; i < N; i++) put(levels, i, N, pick(zero, 0.f, at<U>(levels, i, N) + (float) top));
    return pick(zero, 0.f, pick(m.l2 > 0.f, m.lx / m.l2, 0.f));
}

template <int U, int N> QM_INLINE Floats<U> fit_by_descent(const Vec * x, int top, Vec * levels) {
    const Peak<U> peak = peak_of<U, N>(x);
    const Mask<U> zero = peak.size < SYMMETRIC_EPS;
    Moments<U> m = first_levels<U, N>(x, top, peak.value, levels);
    Vec squares[U * N], cubes[U * N];
    for (int i = 0; i < U * N; i++) {
        squares[i] = x[i] * x[i];
        cubes[i] = squares[i] * x[i];
    }
    for (int round = 0; round < 5; round++) {
        Mask<U> changed = {};
        for (int i = 0; i < N; i++) {
            Floats<U> level = at<U>(levels, i, N);
            const Floats<U> w = at<U>(squares, i, N), wx = at<U>(cubes, i, N);
            changed = changed | improve_symmetric(at<U>(x, i, N), w, wx, top, level, m);
            put(levels, i, N, level);
        }
        if (!any(changed & ~zero)) break;   // a lane that did not change would not change in another round either
    }
    return end_of_descent<U, N>(zero, top, m, levels);
}

// The same where nothing moves, which `done` says of each lane.
template <int U, int N> QM_INLINE Floats<U> fit_without_descent(const Vec * x, int top, Vec * levels, Mask<U> & done) {
    const Peak<U> peak = peak_of<U, N>(x);
    const Mask<U> zero = peak.size < SYMMETRIC_EPS;
    const Moments<U> m = first_levels<U, N>(x, top, peak.value, levels);
    done = zero | settled<U, N>(x, top, m, levels);
    return end_of_descent<U, N>(zero, top, m, levels);
}

}  // namespace QM_ISA
