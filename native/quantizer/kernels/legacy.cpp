// Q4_0, Q4_1, Q5_0, Q5_1 and Q8_0: blocks of 32 weights with one scale, and a minimum in the _1 types.
#include "fit_min_max.h"
#include "fit_symmetric.h"
#include "kernel.h"
#include "small_blocks.h"

namespace QM_ISA {

namespace {

constexpr int N = BLOCK;
constexpr Steps WEIGHTED = {-0.9f, 0.05f, 36};
constexpr float LARGEST = 3.402823466e+38f;

template <class F> QM_INLINE void level_words(F level, UVec * words) {
    for (int i = 0; i < N; i += 4) words[i / 4] = level_word(i, level);
}

// Blocks of four- or five-bit levels: the half words, the fifth bits if there are, the low four bits.
template <int BITS> QM_INLINE void store_symmetric(uint8_t * dst, UVec d, const UVec * levels) {
    UVec words[5];
    if (BITS == 5) words[0] = pack_fifth_bits(levels);
    pack_halves(levels, words + (BITS - 4));
    store_blocks<HalfWord::first>(dst, words, BITS, d);
}
template <int BITS> QM_INLINE void store_min_max(uint8_t * dst, UVec d, UVec m, const UVec * levels) {
    UVec words[6];
    words[0] = d | m << 16;
    if (BITS == 5) words[1] = pack_fifth_bits(levels);
    pack_halves(levels, words + (BITS - 3));
    store_blocks<HalfWord::none>(dst, words, BITS + 1, UVec{});
}

// 1/d, or 0 for d = 0. Where 1/d overflows (d is subnormal), the reference converts infinities to integers: `bad`.
QM_INLINE Floats<1> inverse_of(Floats<1> d, Mask<1> & bad) {
    const Floats<1> inverse = pick(d != Floats<1>{}, 1.f / d, 0.f);
    bad = bad | ~(magnitude(inverse) <= LARGEST) | ~(magnitude(d) <= LARGEST);
    return inverse;
}

template <int BITS>
uint32_t plain_symmetric(const float * const * rows, const float * const *, const float *, uint8_t * dst) {
    constexpr int TOP = 1 << (BITS - 1);
    Vec x[N];
    load_rows(rows, 0, N, x);
    Mask<1> bad = not_finite(x, N);
    const Floats<1> d = peak_of<1, N>(x).value / (float) -TOP, inverse = inverse_of(d, bad);
    UVec levels[N / 4];
    level_words([&](int i) __attribute__((always_inline)) {
        const Vec shifted = x[i] * inverse.v[0] + (TOP + 0.5f);
        return at_most(Ints<1>{{truncated(shifted)}}, 2 * TOP - 1).v[0];
    }, levels);
    store_symmetric<BITS>(dst, half_from(d.v[0]), levels);
    return lane_bits(bad);
}

template <int BITS>
uint32_t plain_min_max(const float * const * rows, const float * const *, const float *, uint8_t * dst) {
    constexpr int TOP = (1 << BITS) - 1;
    Vec x[N];
    load_rows(rows, 0, N, x);
    Mask<1> bad = not_finite(x, N);
    Floats<1> low = Floats<1>{} + LARGEST, high = -low;
    for (int i = 0; i < N; i++) {
        low = pick(at<1>(x, i, 0) < low, at<1>(x, i, 0), low);
        high = pick(at<1>(x, i, 0) > high, at<1>(x, i, 0), high);
    }
    const Floats<1> d = (high - low) / (float) TOP, inverse = inverse_of(d, bad);
    UVec levels[N / 4];
    level_words([&](int i) __attribute__((always_inline)) {
        const Vec shifted = (x[i] - low.v[0]) * inverse.v[0] + 0.5f;
        return at_most(Ints<1>{{truncated(shifted)}}, TOP).v[0];
    }, levels);
    store_min_max<BITS>(dst, half_from(d.v[0]), half_from(low.v[0]), levels);
    return lane_bits(bad);
}

struct WeightedBlock {
    Vec x[N], w[N];
    Mask<1> bad;
};

QM_INLINE void load_weighted(const float * const * rows, const float * const * importance, const float * mean_squares,
                             WeightedBlock & b) {
    load_rows(rows, 0, N, b.x);
    load_rows(importance, 0, N, b.w);
    Vec sigma2;
    memcpy(&sigma2, mean_squares, sizeof sigma2);
    b.bad = not_finite(b.x, N) | not_finite(b.w, N) | not_finite(&sigma2, 1);
    importance_weights(b.x, b.w, N, sigma2, b.w);
}

template <int BITS>
uint32_t weighted_symmetric(const float * const * rows, const float * const * importance, const float * mean_squares,
                            uint8_t * dst) {
    constexpr int TOP = 1 << (BITS - 1);
    WeightedBlock b;
    load_weighted(rows, importance, mean_squares, b);
    const auto fit = fit_symmetric<1, N>(b.x, b.w, TOP);
    UVec levels[N / 4];
    level_words([&](int i) __attribute__((always_inline)) {
        return symmetric_level(fit, at<1>(b.x, i, 0), TOP).v[0];
    }, levels);
    store_symmetric<BITS>(dst, half_from(fit.scale.v[0]), levels);
    return lane_bits(b.bad | not_finite(fit.scale.v, 1));
}

template <int BITS>
uint32_t weighted_min_max(const float * const * rows, const float * const * importance, const float * mean_squares,
                          uint8_t * dst) {
    constexpr int TOP = (1 << BITS) - 1;
    WeightedBlock b;
    load_weighted(rows, importance, mean_squares, b);
    const auto fit = fit_min_max<1, N, false>(b.x, b.w, TOP, WEIGHTED);
    UVec levels[N / 4];
    level_words([&](int i) __attribute__((always_inline)) {
        const Ints<1> level = nearest(fit.level_scale * (at<1>(b.x, i, 0) - fit.level_low));
        return at_most(at_least(level, 0), TOP).v[0];
    }, levels);
    store_min_max<BITS>(dst, half_from(fit.scale.v[0]), half_from(fit.low.v[0]), levels);
    return lane_bits(b.bad | fit.bad | not_finite(fit.scale.v, 1) | not_finite(fit.low.v, 1));
}

uint32_t quantize_q8_0(const float * const * rows, const float * const *, const float *, uint8_t * dst) {
    Vec x[N];
    load_rows(rows, 0, N, x);
    Mask<1> bad = not_finite(x, N);
    const Floats<1> d = peak_of<1, N>(x).size / 127.f, inverse = inverse_of(d, bad);
    UVec levels[N / 4];
    level_words([&](int i) __attribute__((always_inline)) { return rounded(x[i] * inverse.v[0]) & 255; }, levels);
    store_blocks<HalfWord::first>(dst, levels, N / 4, half_from(d.v[0]));
    return lane_bits(bad);
}

}  // namespace

extern const qm_kernel legacy[] = {
    {GGML_TYPE_Q4_0, false, false, plain_symmetric<4>}, {GGML_TYPE_Q4_0, true, true, weighted_symmetric<4>},
    {GGML_TYPE_Q4_1, false, false, plain_min_max<4>},   {GGML_TYPE_Q4_1, true, true, weighted_min_max<4>},
    {GGML_TYPE_Q5_0, false, false, plain_symmetric<5>}, {GGML_TYPE_Q5_0, true, true, weighted_symmetric<5>},
    {GGML_TYPE_Q5_1, false, false, plain_min_max<5>},   {GGML_TYPE_Q5_1, true, true, weighted_min_max<5>},
    {GGML_TYPE_Q8_0, false, false, quantize_q8_0},      {GGML_TYPE_Q8_0, true, false, quantize_q8_0},
};
extern const int legacy_count = sizeof legacy / sizeof *legacy;

}  // namespace QM_ISA
