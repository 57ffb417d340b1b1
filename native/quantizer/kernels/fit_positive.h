// Quantizing the positive scales (and minimums) of a super-block: the reference's make_qp_quants.
#pragma once

#include "lanes.h"

namespace QM_ISA {

constexpr float GROUP_EPS = 1e-15f;   // the reference takes a group whose largest magnitude is below this for zero

template <int U, int N> struct PositiveFit {
    Floats<U> scale;
    Ints<U> level[N];   // 0 to 255: the reference keeps them in bytes, and negative ones wrap
};

template <int U, int N>
QM_INLINE Floats<U> squared_error(const Vec * x, const Vec * w, Floats<U> scale, const Ints<U> * level) {
    Floats<U> error = {};
    for (int i = 0; i < N; i++) {
        const Floats<U> difference = at<U>(x, i, N) - scale * to_float(level[i]);
        error = error + at<U>(w, i, 0) * difference * difference;
    }
    return error;
}

template <int U, int N> QM_INLINE Floats<U> best_inverse(const Vec * x, const Vec * w, Floats<U> max, int top) {
    Ints<U> level[N];
    Floats<U> inverse = (float) top / max;
    for (int i = 0; i < N; i++) level[i] = nearest(inverse * at<U>(x, i, N)) & 255;
    Floats<U> best = squared_error<U, N>(x, w, 1.f / inverse, level);
    for (int step = -4; step <= 4; step++) {
        if (step == 0) continue;
        const Floats<U> trial = (0.1f * step + top) / max;
        for (int i = 0; i < N; i++) level[i] = at_most(nearest(trial * at<U>(x, i, N)), top);
        const Floats<U> error = squared_error<U, N>(x, w, 1.f / trial, level);
        inverse = pick(error < best, trial, inverse);
        best = pick(error < best, error, best);
    }
    return inverse;
}

template <int U> struct Sums {
    Floats<U> lx, l2;
};

// Moves one level to where the other levels want it, if that lowers the error. Returns the lanes that changed.
template <int U>
QM_INLINE Mask<U> improve(Floats<U> x, Floats<U> w, int top, Ints<U> & level, Sums<U> & sums) {
    const Floats<U> wx = w * x, old = to_float(level);
    Floats<U> lx = sums.lx - wx * old, l2 = sums.l2 - w * old * old;
    Mask<U> better = (lx > 0.f) & (l2 > 0.f);
    const Ints<U> moved = at_most(nearest(x * l2 / lx), top);
    better = better & (moved != level);
    const Floats<U> fresh = to_float(moved);
    lx = lx + wx * fresh;
    l2 = l2 + w * fresh * fresh;
    better = better & (lx * lx * sums.l2 > sums.lx * sums.lx * l2);
    level = pick(better, moved & 255, level);
    sums.lx = pick(better, lx, sums.lx);
    sums.l2 = pick(better, l2, sums.l2);
    return better;
}

// x: U groups of N values; w: N weights for each of them. `top` is the highest level.
template <int U, int N> QM_INLINE PositiveFit<U, N> fit_positive(const Vec * x, const Vec * w, int top) {
    Floats<U> max = {};
    for (int i = 0; i < N; i++) max = pick(max > at<U>(x, i, N), max, at<U>(x, i, N));
    const Mask<U> zero = max < GROUP_EPS;
    const Floats<U> inverse = best_inverse<U, N>(x, w, max, top);
    PositiveFit<U, N> fit;
    Sums<U> sums = {};
    for (int i = 0; i < N; i++) {
        const Ints<U> level = at_most(nearest(inverse * at<U>(x, i, N)), top);
        const Floats<U> f = to_float(level), wi = at<U>(w, i, 0);
        fit.level[i] = level & 255;
        sums.lx = sums.lx + wi * at<U>(x, i, N) * f;
        sums.l2 = sums.l2 + wi * f * f;
    }
    for (int round = 0; round < 5; round++) {
        Mask<U> changed = {};
        for (int i = 0; i < N; i++)
            changed = changed | improve(at<U>(x, i, N), at<U>(w, i, 0), top, fit.level[i], sums);
        if (!any(changed & ~zero)) break;   // a lane that did not change would not change in another round either
    }
    fit.scale = pick(zero, 0.f, pick(sums.l2 > 0.f, sums.lx / sums.l2, 0.f));
    for (int i = 0; i < N; i++) fit.level[i] = pick(zero, Ints<U>{}, fit.level[i]);
    return fit;
}

}  // namespace QM_ISA
