// The search for a scale and a minimum of a sub-block: the reference's make_qkx2_quants and make_qkx3_quants, which for
// finite values do the same. One sub-block of a lane after another; U of them side by side.
#pragma once

#include "lanes.h"

namespace QM_ISA {

// The reference tries `count + 1` inverse scales, (first + step * i + highest level) / range.
struct Steps {
    float first, step;
    int count;
};

template <int U> struct MinMaxFit {
    Floats<U> scale, low;               // weight = scale * level + low
    Floats<U> level_scale, level_low;   // the reference's levels: nearest(level_scale * (weight - level_low)), clamped
    Mask<U> bad;                        // lanes where a level would have to be rounded from beyond 2^22
};

template <int U> QM_INLINE Floats<U> level_of(Floats<U> x, Floats<U> low, Floats<U> inverse, float top) {
    return clamped(nearest_float(inverse * (x - low)), 0.f, top);
}

template <bool ABSOLUTE, int U>
QM_INLINE Floats<U> deviation(Floats<U> level, Floats<U> scale, Floats<U> low, Floats<U> x) {
    const Floats<U> difference = scale * level + low - x;
    if constexpr (ABSOLUTE) return magnitude(difference);
    return difference * difference;
}

template <int U, int N> struct MinMaxRange {
    Floats<U> low, high, sum_w, sum_x;
};

template <int U, int N> QM_INLINE MinMaxRange<U, N> range_of(const Vec * x, const Vec * w) {
    MinMaxRange<U, N> r;
    r.low = r.high = at<U>(x, 0, N);
    r.sum_w = at<U>(w, 0, N);
    r.sum_x = r.sum_w * r.low;
#pragma GCC unroll 4
    for (int i = 1; i < N; i++) {
        const Floats<U> xi = at<U>(x, i, N), wi = at<U>(w, i, N);
        r.low = pick(xi < r.low, xi, r.low);
        r.high = pick(xi > r.high, xi, r.high);
        r.sum_w = r.sum_w + wi;
        r.sum_x = r.sum_x + wi * xi;
    }
    r.low = pick(r.low > 0.f, 0.f, r.low);
    return r;
}

// One trial: levels by `inverse`, then the weighted least squares line through them; keeps it where it is better.
template <int U, int N, bool ABSOLUTE>
QM_INLINE void try_inverse(const Vec * x, const Vec * w, const MinMaxRange<U, N> & r, Floats<U> inverse, float top,
                           MinMaxFit<U> & fit, Floats<U> & best) {
    Vec levels[U * N];
    Floats<U> sum_l = {}, sum_l2 = {}, sum_xl = {};
#pragma GCC unroll 4
    for (int i = 0; i < N; i++) {
        const Floats<U> xi = at<U>(x, i, N), level = level_of(xi, fit.low, inverse, top), wl = at<U>(w, i, N) * level;
        put(levels, i, N, level);
        sum_l = sum_l + wl;
        sum_l2 = sum_l2 + wl * level;
        sum_xl = sum_xl + wl * xi;
    }
    const Floats<U> det = r.sum_w * sum_l2 - sum_l * sum_l;
    Floats<U> scale = (r.sum_w * sum_xl - r.sum_x * sum_l) / det, low = (sum_l2 * r.sum_x - sum_l * sum_xl) / det;
    scale = pick(low > 0.f, sum_xl / sum_l2, scale);
    low = pick(low > 0.f, 0.f, low);
    Floats<U> error = {};
#pragma GCC unroll 4
    for (int i = 0; i < N; i++)
        error = error + at<U>(w, i, N) * deviation<ABSOLUTE>(at<U>(levels, i, N), scale, low, at<U>(x, i, N));
    const Mask<U> better = (det > 0.f) & (error < best);
    best = pick(better, error, best);
    fit.level_scale = pick(better, inverse, fit.level_scale);
    fit.level_low = pick(better, fit.low, fit.level_low);
    fit.scale = pick(better, scale, fit.scale);
    fit.low = pick(better, low, fit.low);
}

// x and w: U sub-blocks of N values, one after another. `top` is the highest level.
template <int U, int N, bool ABSOLUTE>
QM_INLINE MinMaxFit<U> fit_min_max(const Vec * x, const Vec * w, int top, Steps steps) {
    const MinMaxRange<U, N> r = range_of<U, N>(x, w);
    const Mask<U> flat = r.high <= r.low;
    MinMaxFit<U> fit;
    Floats<U> inverse = (float) top / (r.high - r.low), best = {};
    fit.scale = 1.f / inverse;
    fit.low = fit.level_low = r.low;
    fit.level_scale = inverse;
    fit.bad = ~roundable(inverse * (r.high - r.low));
#pragma GCC unroll 4
    for (int i = 0; i < N; i++) {
        const Floats<U> xi = at<U>(x, i, N), level = level_of(xi, r.low, inverse, (float) top);
        best = best + at<U>(w, i, N) * deviation<ABSOLUTE>(level, fit.scale, r.low, xi);
    }
    for (int i = 0; i <= steps.count; i++) {
        inverse = (steps.first + steps.step * i + top) / (r.high - fit.low);
        // All arguments of the rounding lie between these two, since a product of rounded differences is monotonic.
        const Mask<U> safe = roundable(inverse * (r.high - fit.low)) & roundable(inverse * (r.low - fit.low));
        fit.bad = fit.bad | ~safe;
        try_inverse<U, N, ABSOLUTE>(x, w, r, inverse, (float) top, fit, best);
    }
    fit.scale = pick(flat, 0.f, fit.scale);
    fit.low = pick(flat, r.low, fit.low);
    fit.level_scale = pick(flat, 0.f, fit.level_scale);
    fit.level_low = pick(flat, 0.f, fit.level_low);
    fit.bad = fit.bad & ~flat;
    return fit;
}

}  // namespace QM_ISA
