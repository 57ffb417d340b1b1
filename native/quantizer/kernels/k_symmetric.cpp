// Q3_K and Q6_K: sub-blocks with a scale alone, quantized over the super-block.
#include "fit_symmetric.h"
#include "k_quants.h"
#include "kernel.h"

namespace QM_ISA {

namespace {

constexpr int COUNT = 16, N = 16;   // sub-blocks in a super-block, weights in a sub-block

QM_INLINE void squares(const Vec * x, int n, Vec * w) {
    for (int i = 0; i < n; i++) w[i] = x[i] * x[i];
}

// Of all sub-blocks of the super-block.
struct Fits {
    Vec scale[COUNT], weight[COUNT];   // weight: the sum of its weights' weights, where the scales' search wants it
    SymmetricFit<1> kept[COUNT];       // the search's own levels, which stay where a stored scale is zero
};

template <int U> QM_INLINE void keep_fit(const SymmetricFit<U> & fit, int j, Fits & fits) {
    for (int u = 0; u < U; u++) {
        fits.scale[j + u] = fit.scale.v[u];
        fits.kept[j + u] = {{{fit.scale.v[u]}}, {{fit.level_scale.v[u]}}, {{fit.zero.v[u]}}};
    }
}

// Levels by the stored scale d * scales[j]; `kept(k)` gives the search's own level of weight k.
template <class K>
QM_INLINE void final_levels(const Vec * x, Vec d, const Ints<1> * scales, int top, K kept_level, UVec * levels) {
    for (int j = 0; j < COUNT; j++) {
        const Floats<1> scale = {{d * to_float(scales[j].v[0])}};
        const Mask<1> kept = scale == Floats<1>{};
        const bool keep = any(kept);
        for (int i = 0; i < N; i += 4)
            levels[(j * N + i) / 4] = level_word(j * N + i, [&](int k) __attribute__((always_inline)) {
                Ints<1> level = at_least(at_most(nearest(at<1>(x, k, 0) / scale), top - 1), -top) + top;
                if (__builtin_expect(keep, 0)) level = pick(kept, kept_level(j, k), level);
                return level.v[0];
            });
    }
}

// ---- Q3_K

// Six-bit scales: the low four bits of two in a byte, the high two bits of four in a byte.
QM_INLINE void pack_six_bits(const Ints<1> * scales, UVec * words) {
    Ints<1> bytes[12];
    for (int j = 0; j < 8; j++) bytes[j] = (scales[j] & 15) | (scales[j + 8] & 15) << 4;
    for (int j = 0; j < 4; j++)
        bytes[8 + j] = scales[j] >> 4 | scales[j + 4] >> 4 << 2 | scales[j + 8] >> 4 << 4 | scales[j + 12] >> 4 << 6;
    pack_bytes(bytes, 3, words);
}

QM_INLINE void store_q3(uint8_t * dst, const Ints<1> * scales, const UVec * levels, UVec d) {
    UVec words[27];
    pack_bit(levels, 2, words);
    pack_two_bits(levels, words + 8);
    pack_six_bits(scales, words + 24);
    store_blocks<HalfWord::last>(dst, words, 27, d);
}

// Where the first weight of a lane's sub-block lies; the next lies W further.
QM_INLINE int first_weight(int j, int lane) { return j * N * W + lane; }

// Sub-blocks of the super-blocks in all lanes, by their first weights.
struct SubBlocks {
    int first[COUNT * W], count;
};

QM_INLINE void add(SubBlocks & all, int j, uint32_t lanes) {
    for (; lanes != 0; lanes &= lanes - 1) all.first[all.count++] = first_weight(j, __builtin_ctz(lanes));
}

QM_INLINE void copy_weights(const Vec * from, int first, Vec * to, int to_first) {
    for (int i = 0; i < N; i++) ((float *) to)[to_first + i * W] = ((const float *) from)[first + i * W];
}

// Searches these alone, side by side whatever lanes they are from, so that none waits for another that takes longer.
QM_INLINE void descend(const SubBlocks & some, const Vec * x, int top, Vec * levels, Vec * scale) {
    constexpr int U = 4, SIDE = U * W;
    for (int start = 0; start < some.count; start += SIDE) {
        Vec gathered[U * N] = {}, found[U * N];
        const int * first = some.first + start;
        const int n = some.count - start < SIDE ? some.count - start : SIDE;
        for (int k = 0; k < n; k++) copy_weights(x, first[k], gathered, first_weight(k / W, k % W));
        const Floats<U> fit = fit_by_descent<U, N>(gathered, top, found);
        for (int k = 0; k < n; k++) {
            copy_weights(found, first_weight(k / W, k % W), levels, first[k]);
            scale[first[k] / (N * W)][first[k] % W] = fit.v[k / W][k % W];
        }
    }
}

uint32_t quantize_q3_plain(const float * const * rows, const float * const *, const float *, uint8_t * dst) {
    constexpr int U = 2, TOP = 4;
    Vec x[SUPER], searched[SUPER], scale[COUNT];
    load_rows(rows, 0, SUPER, x);
    SubBlocks unsettled = {{}, 0};
    for (int j = 0; j < COUNT; j += U) {
        Mask<U> done;
        const Floats<U> fit = fit_without_descent<U, N>(x + j * N, TOP, searched + j * N, done);
        put(scale, j, 1, fit);
        for (int u = 0; u < U; u++) add(unsettled, j + u, lane_bits<1>({{~done.v[u]}}));
    }
    descend(unsettled, x, TOP, searched, scale);
    const Floats<1> peak = peak_of<1, COUNT>(scale).value;
    const Mask<1> zero = peak == Floats<1>{};
    const Floats<1> inverse = -32.f / peak;
    Ints<1> six[COUNT], signed_scales[COUNT];
    for (int j = 0; j < COUNT; j++) {
        const Ints<1> byte = ((nearest(inverse * at<1>(scale, j, 0)) & 255) << 24) >> 24;   // the reference's int8_t
        six[j] = pick(zero, Ints<1>{}, at_least(at_most(byte, 31), -32) + 32);
        signed_scales[j] = six[j] - 32;
    }
    const UVec d = half_from(pick(zero, 0.f, 1.f / inverse).v[0]);
    UVec levels[LEVEL_WORDS];
    final_levels(x, half_value(d), signed_scales, TOP, [&](int, int k) __attribute__((always_inline)) {
        return Ints<1>{{truncated(searched[k])}};
    }, levels);
    store_q3(dst, six, levels, d);
    return lane_bits(not_finite(x, SUPER) | not_finite(scale, COUNT));
}

uint32_t quantize_q3_weighted(const float * const * rows, const float * const * importance, const float *,
                              uint8_t * dst) {
    constexpr int U = 4, TOP = 4;
    Vec x[SUPER];
    load_rows(rows, 0, SUPER, x);
    Mask<1> bad = not_finite(x, SUPER);
    const Vec sigma2 = 2.f * sum_of_squares(x, SUPER).v[0] / 256.f;
    Fits fits;
    for (int j = 0; j < COUNT; j += U) {
        Vec w[U * N];
        load_rows(importance, j * N, U * N, w);
        bad = bad | not_finite(w, U * N);
        importance_weights(x + j * N, w, U * N, sigma2, w);
        for (int u = 0; u < U; u++) {
            fits.weight[j + u] = Vec{};
            for (int i = 0; i < N; i++) fits.weight[j + u] += w[u * N + i];
        }
        keep_fit(fit_symmetric<U, N>(x + j * N, w, TOP), j, fits);
    }
    bad = bad | not_finite(fits.scale, COUNT);   // sums that overflowed
    const auto block = fit_symmetric<1, COUNT>(fits.scale, fits.weight, 32);
    Ints<1> six[COUNT], signed_scales[COUNT];
    for (int j = 0; j < COUNT; j++) {
        six[j] = symmetric_level(block, at<1>(fits.scale, j, 0), 32);
        signed_scales[j] = six[j] - 32;
    }
    const UVec d = half_from(block.scale.v[0]);
    UVec levels[LEVEL_WORDS];
    final_levels(x, half_value(d), signed_scales, TOP, [&](int j, int k) __attribute__((always_inline)) {
        return symmetric_level(fits.kept[j], at<1>(x, k, 0), TOP);
    }, levels);
    store_q3(dst, six, levels, d);
    return lane_bits(bad | not_finite(block.scale.v, 1));
}

// ---- Q6_K

QM_INLINE void store_q6(uint8_t * dst, const Ints<1> * scales, const UVec * levels, UVec d, Mask<1> zero) {
    UVec words[52], high[LEVEL_WORDS];
    for (int half = 0; half < 2; half++)
        for (int i = 0; i < 8; i++) {
            const UVec * q = levels + 32 * half + i;
            words[16 * half + i] = (q[0] & 0x0f0f0f0fu) | (q[16] & 0x0f0f0f0fu) << 4;
            words[16 * half + 8 + i] = (q[8] & 0x0f0f0f0fu) | (q[24] & 0x0f0f0f0fu) << 4;
        }
    for (int i = 0; i < LEVEL_WORDS; i++) high[i] = levels[i] >> 4;
    pack_two_bits(high, words + 32);
    Ints<1> bytes[COUNT];
    for (int j = 0; j < COUNT; j++) bytes[j] = scales[j] & 255;
    pack_bytes(bytes, 4, words + 48);
    for (int i = 0; i < 52; i++) words[i] = (UVec) zero.v[0] ? UVec{} : words[i];
    store_blocks<HalfWord::last>(dst, words, 52, (UVec) zero.v[0] ? UVec{} : d);
}

template <bool IMATRIX>
uint32_t quantize_q6(const float * const * rows, const float * const * importance, const float *, uint8_t * dst) {
    constexpr int U = 2, TOP = 32;
    Vec x[SUPER];
    load_rows(rows, 0, SUPER, x);
    Mask<1> bad = not_finite(x, SUPER);
    Fits fits;
    for (int j = 0; j < COUNT; j += U) {
        Vec w[U * N];
        if (IMATRIX) {
            load_rows(importance, j * N, U * N, w);
            bad = bad | not_finite(w, U * N);
        } else {
            squares(x + j * N, U * N, w);
        }
        keep_fit(fit_symmetric<U, N>(x + j * N, w, TOP), j, fits);
    }
    const Peak<1> peak = peak_of<1, COUNT>(fits.scale);
    const Floats<1> inverse = -128.f / peak.value;
    const UVec d = half_from((1.f / inverse).v[0]);
    Ints<1> scales[COUNT];
    for (int j = 0; j < COUNT; j++) {
        const Ints<1> scale = at_most(nearest(inverse * at<1>(fits.scale, j, 0)), 127);
        scales[j] = (scale << 24) >> 24;   // the reference's int8_t
    }
    UVec levels[LEVEL_WORDS];
    final_levels(x, half_value(d), scales, TOP, [&](int j, int k) __attribute__((always_inline)) {
        return symmetric_level(fits.kept[j], at<1>(x, k, 0), TOP);
    }, levels);
    store_q6(dst, scales, levels, d, peak.size < SYMMETRIC_EPS);
    return lane_bits(bad | not_finite(fits.scale, COUNT));
}

}  // namespace

extern const qm_kernel k_symmetric[] = {
    {GGML_TYPE_Q3_K, false, false, quantize_q3_plain}, {GGML_TYPE_Q3_K, true, false, quantize_q3_weighted},
    {GGML_TYPE_Q6_K, false, false, quantize_q6<false>}, {GGML_TYPE_Q6_K, true, false, quantize_q6<true>},
};
extern const int k_symmetric_count = sizeof k_symmetric / sizeof *k_symmetric;

}  // namespace QM_ISA
