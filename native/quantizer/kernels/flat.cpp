// TQ1_0, TQ2_0 and MXFP4: one scale from the largest magnitude, no search. An importance matrix changes nothing.
#include <math.h>

#include "fit_symmetric.h"
#include "k_quants.h"
#include "kernel.h"
#include "small_blocks.h"
#include "tables.h"

namespace QM_ISA {

namespace {

constexpr float LARGEST = 3.402823466e+38f;

// ---- ternary: levels 0, 1, 2 for -1, 0, 1

struct Ternary {
    Vec x[SUPER];
    Floats<1> d, inverse;
    Mask<1> bad;
};

QM_INLINE void load_ternary(const float * const * rows, Ternary & t) {
    load_rows(rows, 0, SUPER, t.x);
    t.d = peak_of<1, SUPER>(t.x).size;
    t.inverse = pick(t.d != Floats<1>{}, 1.f / t.d, 0.f);
    t.bad = not_finite(t.x, SUPER) | ~(t.inverse <= LARGEST);
}

// Half away from zero, plus one; the magnitude of a scaled weight is at most a little above 1.
QM_INLINE IVec trit(const Ternary & t, int i) {
    return rounded(t.x[i] * t.inverse.v[0]) + 1;
}

uint32_t quantize_tq2_0(const float * const * rows, const float * const *, const float *, uint8_t * dst) {
    Ternary t;
    load_ternary(rows, t);
    UVec levels[LEVEL_WORDS], words[16];
    for (int i = 0; i < SUPER; i += 4)
        levels[i / 4] = level_word(i, [&](int k) __attribute__((always_inline)) { return trit(t, k); });
    pack_two_bits(levels, words);
    store_blocks<HalfWord::last>(dst, words, 16, half_from(t.d.v[0]));
    return lane_bits(t.bad);
}

// Five trits in a byte: their number in base three, scaled up so that a reader's multiplications yield them.
QM_INLINE IVec trits_byte(const Ternary & t, int first, int step, int count) {
    IVec q = {};
    for (int n = 0; n < count; n++) q = q * 3 + trit(t, first + n * step);
    if (count == 4) q = q * 3;
    const UVec by_243 = (as_uint(q * 256 + 242) * 69043u) >> 24;   // exact division by 243 below 2^16
    return (IVec) by_243;
}

uint32_t quantize_tq1_0(const float * const * rows, const float * const *, const float *, uint8_t * dst) {
    Ternary t;
    load_ternary(rows, t);
    Ints<1> bytes[52];
    UVec words[13];
    for (int m = 0; m < 32; m++) bytes[m] = {{trits_byte(t, m, 32, 5)}};
    for (int m = 0; m < 16; m++) bytes[32 + m] = {{trits_byte(t, 160 + m, 16, 5)}};
    for (int m = 0; m < 4; m++) bytes[48 + m] = {{trits_byte(t, 240 + m, 4, 4)}};
    pack_bytes(bytes, 13, words);
    store_blocks<HalfWord::last>(dst, words, 13, half_from(t.d.v[0]));
    return lane_bits(t.bad);
}

// ---- MXFP4: a power of two as scale, levels on the grid of kvalues_mxfp4

QM_INLINE IVec nearest_fp4(Vec x, const Vec * values) {
    IVec best = {};
    Vec error = magnitude(values[0] - x);
    for (int i = 1; i < 16; i++) {
        const Vec other = magnitude(values[i] - x);
        best = other < error ? all(i) : best;
        error = other < error ? other : error;
    }
    return best;
}

// The exponent comes from log2f, one lane at a time: near a power of two its rounding is the library's own affair.
QM_INLINE void fp4_scales(Vec largest, uint8_t * exponents, Vec * values) {
    Vec scale;
    for (int t = 0; t < W; t++) {
        exponents[t] = largest[t] > 0.f ? (uint8_t) (floorf(log2f(largest[t])) - 2 + 127) : 0;
        const uint32_t e = exponents[t], bits = e < 2 ? 0x00200000u << e : (e - 1) << 23;
        float f;
        memcpy(&f, &bits, 4);
        scale[t] = f;
    }
    for (int i = 0; i < 16; i++) values[i] = (float) kvalues_mxfp4[i] * scale;
}

uint32_t quantize_mxfp4(const float * const * rows, const float * const *, const float *, uint8_t * dst) {
    Vec x[BLOCK], values[16];
    load_rows(rows, 0, BLOCK, x);
    const Floats<1> largest = peak_of<1, BLOCK>(x).size;
    // Below 2^-124 the exponent would be negative, and what a byte makes of it is the platform's.
    const Mask<1> bad = not_finite(x, BLOCK) | ((largest > 0.f) & (largest < 1e-36f));
    uint8_t exponents[W];
    fp4_scales(pick(bad, 1.f, largest).v[0], exponents, values);
    UVec levels[BLOCK / 4], words[4];
    for (int i = 0; i < BLOCK; i += 4)
        levels[i / 4] = level_word(i, [&](int k) __attribute__((always_inline)) { return nearest_fp4(x[k], values); });
    pack_halves(levels, words);
    for (int t = 0; t < W; t++) {
        dst[17 * t] = exponents[t];
        for (int i = 0; i < 4; i++) {
            const uint32_t word = words[i][t];
            memcpy(dst + 17 * t + 1 + 4 * i, &word, 4);
        }
    }
    return lane_bits(bad);
}

}  // namespace

extern const qm_kernel flat[] = {
    {GGML_TYPE_TQ1_0, false, false, quantize_tq1_0}, {GGML_TYPE_TQ1_0, true, false, quantize_tq1_0},
    {GGML_TYPE_TQ2_0, false, false, quantize_tq2_0}, {GGML_TYPE_TQ2_0, true, false, quantize_tq2_0},
    {GGML_TYPE_MXFP4, false, false, quantize_mxfp4}, {GGML_TYPE_MXFP4, true, false, quantize_mxfp4},
};
extern const int flat_count = sizeof flat / sizeof *flat;

}  // namespace QM_ISA
