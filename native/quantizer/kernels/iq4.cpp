// IQ4_NL and IQ4_XS: levels on a fixed uneven grid of sixteen values, sub-blocks of 32 weights.
#include "fit_symmetric.h"
#include "k_quants.h"
#include "kernel.h"
#include "small_blocks.h"
#include "tables.h"

namespace QM_ISA {

namespace {

constexpr int N = BLOCK;
constexpr const int8_t * VALUES = kvalues_iq4nl;   // ascending

// The midpoint between values i and i + 1; exact, and from it on the reference prefers i + 1 (all differences that
// decide are exact: a midpoint is nearer to its values than twice its own size, or has the same exponent).
constexpr float midpoint(int i) { return 0.5f * ((float) VALUES[i] + (float) VALUES[i + 1]); }

struct Table {
    alignas(64) float value[16], mid[16];
    alignas(64) int32_t first[16];   // by the nearest multiple of 16: the least index that can be the answer
};

constexpr Table make_table() {
    Table t = {};
    for (int i = 0; i < 16; i++) t.value[i] = (float) VALUES[i];
    for (int i = 0; i < 15; i++) t.mid[i] = midpoint(i);
    t.mid[15] = __builtin_nanf("");   // never reached, not even by infinity
    for (int bucket = -8; bucket < 8; bucket++)
        for (int i = 0; i < 15; i++) t.first[bucket & 15] += midpoint(i) <= (float) (16 * bucket - 8);
    return t;
}
constexpr Table TABLE = make_table();

constexpr bool two_steps_suffice() {
    for (int i = 0; i + 2 < 15; i++)
        if (midpoint(i + 2) - midpoint(i) <= 16) return false;
    return (int) VALUES[15] <= 119;
}
static_assert(two_steps_suffice(), "the grid of IQ4_NL is not the one this search was made for");

#if QM_LANES >= 8
template <class V, class T> QM_INLINE V look_up(const T * table, IVec index) {
    V low, high;
    memcpy(&low, table, sizeof low);
    memcpy(&high, table + (16 - W), sizeof high);
    if constexpr (W == 16) return __builtin_shuffle(low, index);
    return __builtin_shuffle(low, high, index);
}

QM_INLINE IVec nearest_index(Vec f) {
    Vec near = f > all(-128.f) ? f : all(-128.f);
    near = near < all(119.f) ? near : all(119.f);
    const IVec bucket = as_int(near + 16.f * ROUNDER) & 15;
    IVec index = look_up<IVec>(TABLE.first, bucket);
    index -= f >= look_up<Vec>(TABLE.mid, index);
    index -= f >= look_up<Vec>(TABLE.mid, index);
    return index;
}
QM_INLINE Vec nearest_value(Vec f) { return look_up<Vec>(TABLE.value, nearest_index(f)); }
#else
QM_INLINE IVec nearest_index(Vec f) {
    IVec index = {};
    for (int i = 0; i < 15; i++) index -= f >= all(TABLE.mid[i]);
    return index;
}
QM_INLINE Vec nearest_value(Vec f) {
    Vec value = all(TABLE.value[0]);
    for (int i = 0; i < 15; i++) value = f >= all(TABLE.mid[i]) ? all(TABLE.value[i + 1]) : value;
    return value;
}
#endif

template <int U> QM_INLINE Moments<U> grid_moments(const Vec * x, const Vec * w, Floats<U> inverse) {
    Moments<U> m = {};
    for (int i = 0; i < N; i++) {
        const Floats<U> xi = at<U>(x, i, N), scaled = inverse * xi;
        Floats<U> q;
        QM_EACH q.v[u] = nearest_value(scaled.v[u]);
        const Floats<U> wq = at<U>(w, i, N) * q;
        m.lx = m.lx + wq * xi;
        m.l2 = m.l2 + wq * q;
    }
    return m;
}

// The scale of U sub-blocks; 0 where all weights are next to nothing.
template <int U> QM_INLINE Floats<U> fit_grid(const Vec * x, const Vec * w) {
    const Peak<U> peak = peak_of<U, N>(x);
    Moments<U> m = grid_moments<U>(x, w, 1.f / (-peak.value / TABLE.value[0]));
    Floats<U> scale = pick(m.l2 > 0.f, m.lx / m.l2, 0.f), best = scale * m.lx;
    for (int step = -7; step <= 7; step++) {
        m = grid_moments<U>(x, w, (step + TABLE.value[0]) / peak.value);
        const Mask<U> better = (m.l2 > 0.f) & (m.lx * m.lx > best * m.l2);
        scale = pick(better, m.lx / m.l2, scale);
        best = pick(better, scale * m.lx, best);
    }
    return pick(peak.size < SYMMETRIC_EPS, 0.f, scale);
}

QM_INLINE Floats<1> inverse_or_zero(Floats<1> d) { return pick(d != Floats<1>{}, 1.f / d, 0.f); }

QM_INLINE void grid_levels(const Vec * x, Floats<1> inverse, UVec * words) {
    UVec levels[N / 4];
    for (int i = 0; i < N; i += 4)
        levels[i / 4] = level_word(i, [&](int k) __attribute__((always_inline)) {
            const Vec scaled = inverse.v[0] * x[k];
            return scaled == scaled ? nearest_index(scaled) : all(15);   // so the reference's comparisons end on a NaN
        });
    pack_halves(levels, words);
}

template <bool IMATRIX, int U>
QM_INLINE Mask<1> grid_weights(const Vec * x, const float * const * importance, Vec sigma2, int j, Vec * w) {
    if constexpr (!IMATRIX) {
        for (int i = 0; i < U * N; i++) w[i] = x[i] * x[i];
        return {};
    }
    load_rows(importance, j * N, U * N, w);
    const Mask<1> bad = not_finite(w, U * N);
    importance_weights(x, w, U * N, sigma2, w);
    return bad;
}

template <bool IMATRIX>
uint32_t quantize_nl(const float * const * rows, const float * const * importance, const float *, uint8_t * dst) {
    Vec x[N], w[N];
    load_rows(rows, 0, N, x);
    const Vec sigma2 = sum_of_squares(x, N).v[0] * (2.f / N);
    const Mask<1> bad = not_finite(x, N) | grid_weights<IMATRIX, 1>(x, importance, sigma2, 0, w);
    const Floats<1> scale = fit_grid<1>(x, w);
    UVec words[4];
    grid_levels(x, inverse_or_zero(scale), words);
    store_blocks<HalfWord::first>(dst, words, 4, half_from(scale.v[0]));
    return lane_bits(bad | not_finite(scale.v, 1));
}

template <bool IMATRIX>
uint32_t quantize_xs(const float * const * rows, const float * const * importance, const float *, uint8_t * dst) {
    constexpr int U = 2, COUNT = SUPER / N;
    Vec x[SUPER], scales[COUNT], w[U * N];
    load_rows(rows, 0, SUPER, x);
    const Vec sigma2 = sum_of_squares(x, SUPER).v[0] * (2.f / SUPER);
    Mask<1> bad = not_finite(x, SUPER);
    for (int j = 0; j < COUNT; j += U) {
        bad = bad | grid_weights<IMATRIX, U>(x + j * N, importance, sigma2, j, w);
        put(scales, j, 1, fit_grid<U>(x + j * N, w));
    }
    const Floats<1> d = -peak_of<1, COUNT>(scales).value / 32.f, inverse = inverse_or_zero(d);
    UVec words[34] = {};   // d and the scales' high bits, their low bits, the levels
    words[0] = half_from(d.v[0]);
    for (int j = 0; j < COUNT; j++) {
        const Ints<1> level = at_least(at_most(nearest(inverse * at<1>(scales, j, 0)), 31), -32);
        grid_levels(x + j * N, inverse_or_zero(d * to_float(level)), words + 2 + 4 * j);
        const UVec stored = as_uint(level.v[0] + 32);
        words[0] |= (stored >> 4) << (16 + 2 * j);
        words[1] |= (stored & 15u) << 4 * j;
    }
    store_blocks<HalfWord::none>(dst, words, 34, UVec{});
    return lane_bits(bad | not_finite(scales, COUNT));
}

}  // namespace

extern const qm_kernel iq4[] = {
    {GGML_TYPE_IQ4_NL, false, false, quantize_nl<false>}, {GGML_TYPE_IQ4_NL, true, false, quantize_nl<true>},
    {GGML_TYPE_IQ4_XS, false, false, quantize_xs<false>}, {GGML_TYPE_IQ4_XS, true, false, quantize_xs<true>},
};
extern const int iq4_count = sizeof iq4 / sizeof *iq4;

}  // namespace QM_ISA
