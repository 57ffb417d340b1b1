// Q2_K, Q4_K and Q5_K: sub-blocks with a scale and a minimum, both quantized over the super-block.
#include "fit_min_max.h"
#include "fit_positive.h"
#include "k_quants.h"
#include "kernel.h"

namespace QM_ISA {

namespace {

struct Q2K {
    static constexpr int N = 16, TOP = 3, SCALE_TOP = 15;
    static constexpr bool ABSOLUTE = true;
    static constexpr Steps PLAIN = {-0.5f, 0.1f, 15};
    static constexpr float SIGMA = 1;
};
struct Q4K {
    static constexpr int N = 32, TOP = 15, SCALE_TOP = 63;
    static constexpr bool ABSOLUTE = false;
    static constexpr Steps PLAIN = {-1.f, 0.1f, 20};
    static constexpr float SIGMA = 2;
};
struct Q5K {
    static constexpr int N = 32, TOP = 31, SCALE_TOP = 63;
    static constexpr bool ABSOLUTE = false;
    static constexpr Steps PLAIN = {-0.5f, 0.1f, 15};
    static constexpr float SIGMA = 2;
};
constexpr Steps WEIGHTED = {-0.9f, 0.05f, 36};

template <class T> struct SubBlocks {
    static constexpr int COUNT = SUPER / T::N;
    Vec scale_and_minimum[2 * COUNT];   // all scales, then all minimums (the negated lows)
    Vec weight[COUNT];
    Vec level_scale[COUNT], level_low[COUNT];
    Mask<1> bad;
};

template <class T> QM_INLINE void plain_weights(const Vec * x, int n, Vec * w) {
    Vec base = {};
    if constexpr (T::N == 32) base = square_root(sum_of_squares(x, n).v[0] / 32.f);
    for (int i = 0; i < n; i++) w[i] = base + magnitude(x[i]);
}

template <class T, bool IMATRIX, int U>
QM_INLINE void fit_sub_blocks(const Vec * x, const float * const * importance, Vec sigma2, int j, SubBlocks<T> & s) {
    constexpr int N = T::N, COUNT = SubBlocks<T>::COUNT;
    Vec w[U * N];
    if constexpr (IMATRIX) {
        load_rows(importance, j * N, U * N, w);
        s.bad = s.bad | not_finite(w, U * N);
        importance_weights(x, w, U * N, sigma2, w);
    } else {
        for (int u = 0; u < U; u++) plain_weights<T>(x + u * N, N, w + u * N);
    }
    const auto fit = fit_min_max<U, N, T::ABSOLUTE && !IMATRIX>(x, w, T::TOP, IMATRIX ? WEIGHTED : T::PLAIN);
    for (int u = 0; u < U; u++) {
        s.scale_and_minimum[j + u] = fit.scale.v[u];
        s.scale_and_minimum[COUNT + j + u] = -fit.low.v[u];
        s.level_scale[j + u] = fit.level_scale.v[u];
        s.level_low[j + u] = fit.level_low.v[u];
        s.weight[j + u] = Vec{};
        for (int i = 0; i < N; i++) s.weight[j + u] += w[u * N + i];
        s.bad = s.bad | Mask<1>{{fit.bad.v[u]}};
    }
}

template <class T> struct Scales {
    Vec scale, minimum;                                        // of the super-block, before they are made halves
    Ints<1> scales[SubBlocks<T>::COUNT], minimums[SubBlocks<T>::COUNT];   // bytes
};

template <class T> QM_INLINE Vec quantize_plain(const Vec * values, Ints<1> * levels) {
    constexpr int COUNT = SubBlocks<T>::COUNT;
    Floats<1> max = {};
    for (int j = 0; j < COUNT; j++) max = pick(at<1>(values, j, 0) > max, at<1>(values, j, 0), max);
    const Floats<1> inverse = pick(max > 0.f, (float) T::SCALE_TOP / max, 0.f);
    for (int j = 0; j < COUNT; j++) {
        levels[j] = nearest(inverse * at<1>(values, j, 0)) & 255;
        if (T::N == 32) levels[j] = at_most(levels[j], T::SCALE_TOP);
    }
    return (max / (float) T::SCALE_TOP).v[0];
}

template <class T, bool IMATRIX> QM_INLINE Scales<T> quantize_scales(const SubBlocks<T> & s) {
    constexpr int COUNT = SubBlocks<T>::COUNT;
    Scales<T> q;
    if constexpr (!IMATRIX) {
        q.scale = quantize_plain<T>(s.scale_and_minimum, q.scales);
        q.minimum = quantize_plain<T>(s.scale_and_minimum + COUNT, q.minimums);
        return q;
    }
    const auto fit = fit_positive<2, COUNT>(s.scale_and_minimum, s.weight, T::SCALE_TOP);
    for (int j = 0; j < COUNT; j++) {
        q.scales[j] = {{fit.level[j].v[0]}};
        q.minimums[j] = {{fit.level[j].v[1]}};
        if (T::TOP != 31) continue;
        q.scales[j] = at_most(q.scales[j], T::SCALE_TOP);
        q.minimums[j] = at_most(q.minimums[j], T::SCALE_TOP);
    }
    q.scale = fit.scale.v[0];
    q.minimum = fit.scale.v[1];
    return q;
}

// Packs the quantized scales as the block stores them, and leaves in `q` what a reader will find there.
template <class T> QM_INLINE int pack_scales(Scales<T> & q, UVec * words) {
    Ints<1> bytes[16];
    if constexpr (T::N == 16) {
        for (int j = 0; j < 16; j++) {
            bytes[j] = (q.scales[j] | (q.minimums[j] << 4)) & 255;
            q.scales[j] = bytes[j] & 15;
            q.minimums[j] = bytes[j] >> 4;
        }
        pack_bytes(bytes, 4, words);
        return 4;
    }
    for (int j = 0; j < 4; j++) {
        bytes[j] = (q.scales[j] | (q.scales[j + 4] >> 4) << 6) & 255;
        bytes[j + 4] = (q.minimums[j] | (q.minimums[j + 4] >> 4) << 6) & 255;
        bytes[j + 8] = (q.scales[j + 4] & 15) | (q.minimums[j + 4] & 15) << 4;
        q.scales[j] = bytes[j] & 63;
        q.minimums[j] = bytes[j + 4] & 63;
        q.scales[j + 4] = (bytes[j + 8] & 15) | (bytes[j] >> 6) << 4;
        q.minimums[j + 4] = bytes[j + 8] >> 4 | (bytes[j + 4] >> 6) << 4;
    }
    pack_bytes(bytes, 3, words);
    return 3;
}

// The final levels: by the scales as they are stored, or the search's own where the stored scale is zero.
template <class T>
QM_INLINE void final_levels(const Vec * x, const SubBlocks<T> & s, const Scales<T> & q, Vec d, Vec dmin,
                            UVec * levels) {
    for (int j = 0; j < SubBlocks<T>::COUNT; j++) {
        const Floats<1> scale = {{d * to_float(q.scales[j].v[0])}}, low = {{dmin * to_float(q.minimums[j].v[0])}};
        const Mask<1> kept = scale == Floats<1>{};
        const bool keep = any(kept);
        for (int i = 0; i < T::N; i += 4)
            levels[(j * T::N + i) / 4] = level_word(j * T::N + i, [&](int k) __attribute__((always_inline)) {
                const Floats<1> value = at<1>(x, k, 0);
                Ints<1> level = nearest((value + low) / scale);
                if (__builtin_expect(keep, 0)) {
                    const Floats<1> first = {{s.level_scale[j]}}, from = {{s.level_low[j]}};
                    level = pick(kept, nearest(first * (value - from)), level);
                }
                return at_most(at_least(level, 0), T::TOP).v[0];
            });
    }
}

template <class T>
QM_INLINE void store(uint8_t * dst, const UVec * scales, int count, UVec halves, const UVec * levels) {
    UVec words[44];
    int n = 0;
    if (T::TOP != 3) words[n++] = halves;
    for (int i = 0; i < count; i++) words[n++] = scales[i];
    if (T::TOP == 31) {
        pack_bit(levels, 4, words + n);
        n += 8;
    }
    if (T::TOP == 3) {
        pack_two_bits(levels, words + n);
        words[n + 16] = halves;
        n += 17;
    } else {
        pack_nibbles(levels, words + n);
        n += 32;
    }
    store_blocks<HalfWord::none>(dst, words, n, UVec{});
}

template <class T, bool IMATRIX, int U>
uint32_t quantize(const float * const * rows, const float * const * importance, const float *, uint8_t * dst) {
    Vec x[SUPER];
    load_rows(rows, 0, SUPER, x);
    SubBlocks<T> s;
    s.bad = not_finite(x, SUPER);
    Vec sigma2 = {};
    if (IMATRIX) sigma2 = T::SIGMA * sum_of_squares(x, SUPER).v[0] / 256.f;
    for (int j = 0; j < SubBlocks<T>::COUNT; j += U)
        fit_sub_blocks<T, IMATRIX, U>(x + j * T::N, importance, sigma2, j, s);
    Scales<T> q = quantize_scales<T, IMATRIX>(s);
    UVec packed[4], levels[LEVEL_WORDS];
    const int count = pack_scales(q, packed);
    const UVec d = half_from(q.scale), dmin = half_from(q.minimum);
    final_levels(x, s, q, half_value(d), half_value(dmin), levels);
    store<T>(dst, packed, count, d | dmin << 16, levels);
    return lane_bits(s.bad | not_finite(&q.scale, 1) | not_finite(&q.minimum, 1));
}

}  // namespace

// Sub-blocks side by side, as measured: more keep the units busier, until there are not registers enough.
constexpr int SHORT = 4, LONG = W == 16 ? 4 : 2;

extern const qm_kernel k_min_max[] = {
    {GGML_TYPE_Q2_K, false, false, quantize<Q2K, false, SHORT>},
    {GGML_TYPE_Q2_K, true, false, quantize<Q2K, true, SHORT>},
    {GGML_TYPE_Q4_K, false, false, quantize<Q4K, false, LONG>},
    {GGML_TYPE_Q4_K, true, false, quantize<Q4K, true, LONG>},
    {GGML_TYPE_Q5_K, false, false, quantize<Q5K, false, LONG>},
    {GGML_TYPE_Q5_K, true, false, quantize<Q5K, true, LONG>},
};
extern const int k_min_max_count = sizeof k_min_max / sizeof *k_min_max;

}  // namespace QM_ISA
