// IQ2_XXS, IQ2_XS, IQ2_S, IQ3_XXS and IQ3_S: groups of 8 or 4 weights, whose magnitudes' levels are a lattice's point.
//
// A super-block per lane for levels and sums; but the neighbours of one group's levels are judged side by side.
#include "fit_positive.h"
#include "k_quants.h"
#include "kernel.h"
#include "nearest_point.h"

namespace QM_ISA {

namespace {

enum class Refine { off_grid_groups, all_if_any_off_grid, always };

struct IQ2 {
    static constexpr int BITS = 2, LEVELS = 3, STEPS = 9;
    static constexpr float STEP = 0.1f;
};
struct IQ2XXS : IQ2 {
    static constexpr int N = 32, STEPS = 6;
    static constexpr qm_lattice LATTICE = qm_lattice::iq2_xxs;
    static constexpr bool EVEN_SIGNS = true;
    static constexpr Refine REFINE = Refine::always;
    static constexpr float SIGMA = 1, EPS = 1e-15f, STRETCH = 1;
};
struct IQ2XS : IQ2 {
    static constexpr int N = 16;
    static constexpr qm_lattice LATTICE = qm_lattice::iq2_xs;
    static constexpr bool EVEN_SIGNS = true;
    static constexpr Refine REFINE = Refine::off_grid_groups;
    static constexpr float SIGMA = 1, EPS = 1e-15f, STRETCH = 1;
};
struct IQ2S : IQ2 {
    static constexpr int N = 16;
    static constexpr qm_lattice LATTICE = qm_lattice::iq2_s;
    static constexpr bool EVEN_SIGNS = false;
    static constexpr Refine REFINE = Refine::off_grid_groups;
    static constexpr float SIGMA = 2, EPS = 1e-8f, STRETCH = 0.9875f;
};
struct IQ3 {
    static constexpr int BITS = 3, LEVELS = 8, N = 32;
    static constexpr float STEP = 0.2f, SIGMA = 2;
};
struct IQ3XXS : IQ3 {
    static constexpr int STEPS = 15;
    static constexpr qm_lattice LATTICE = qm_lattice::iq3_xxs;
    static constexpr bool EVEN_SIGNS = true;
    static constexpr Refine REFINE = Refine::off_grid_groups;
    static constexpr float EPS = 1e-8f, STRETCH = 1.0125f;
};
struct IQ3S : IQ3 {
    static constexpr int STEPS = 9;
    static constexpr qm_lattice LATTICE = qm_lattice::iq3_s;
    static constexpr bool EVEN_SIGNS = false;
    static constexpr Refine REFINE = Refine::all_if_any_off_grid;
    static constexpr float EPS = 1.4e-45f, STRETCH = 1.033f;   // everything but zero counts
};

template <class T> constexpr int DIMS = 32 >> T::BITS;         // weights in a group
template <class T> constexpr int GROUPS = T::N / DIMS<T>;      // groups in a sub-block
template <class T> constexpr int COUNT = SUPER / T::N;         // sub-blocks

// One sub-block of every lane.
template <class T> struct SubBlock {
    static constexpr int N = T::N;
    Vec x[N], w[N], wx[N];                        // magnitudes, except where a sign was flipped; weights; products
    alignas(64) float by_lane_x[W][N + QM_MAX_LANES], by_lane_w[W][N + QM_MAX_LANES];   // w: its square root
    Ints<1> signs[N / 8];
    Mask<1> zero;
};

// A point of the grid for each group, and whether the levels were one to begin with.
template <class T> struct Points {
    Ints<1> code[GROUPS<T>];
    Mask<1> on_grid[GROUPS<T>];
};

template <class T, bool IMATRIX>
QM_INLINE Mask<1> load_weights(const float * const * importance, Vec sigma2, int j, const Vec * x, Vec * w) {
    if constexpr (IMATRIX) {
        load_rows(importance, j * T::N, T::N, w);
        const Mask<1> bad = not_finite(w, T::N);
        importance_weights(x, w, T::N, sigma2, w);
        return bad;
    }
    for (int i = 0; i < T::N; i++) w[i] = T::BITS == 3 ? x[i] * x[i] : 0.25f * sigma2 + x[i] * x[i];
    return {};
}

// Eight weights' magnitudes and sign bits. Where the type has room for seven signs only, their number must be even: the
// sign of the weight that matters least gives way.
template <bool EVEN> QM_INLINE Ints<1> split_signs(const Vec * x, const Vec * w, Vec * size) {
    Ints<1> signs = {};
    IVec flips = {};
    for (int i = 0; i < 8; i++) {
        const IVec positive = x[i] >= all(0.f);
        size[i] = positive ? x[i] : -x[i];
        signs.v[0] |= ~positive & (1 << i);
        flips ^= ~positive & 1;
    }
    if (!EVEN) return signs;
    Vec least = w[0] * x[0] * x[0];
    IVec which = {};
    for (int i = 1; i < 8; i++) {
        const Vec matter = w[i] * x[i] * x[i];
        which = matter < least ? all(i) : which;
        least = matter < least ? matter : least;
    }
    for (int i = 0; i < 8; i++) {
        const IVec flip = (which == i) & (flips != 0);
        size[i] = flip ? -size[i] : size[i];
        signs.v[0] ^= flip & (1 << i);
    }
    return signs & 127;
}

template <class T> QM_INLINE void spread(const Vec * x, float (*rows)[T::N + QM_MAX_LANES]) {
    const float * source = (const float *) x;
    for (int t = 0; t < W; t++)
        for (int i = 0; i < T::N; i++) rows[t][i] = source[i * W + t];
}

template <class T, bool IMATRIX>
QM_INLINE Mask<1> load_sub_block(const Vec * x, const float * const * importance, Vec sigma2, int j, SubBlock<T> & s) {
    const Mask<1> bad = load_weights<T, IMATRIX>(importance, sigma2, j, x, s.w);
    for (int k = 0; k < T::N / 8; k++) s.signs[k] = split_signs<T::EVEN_SIGNS>(x + 8 * k, s.w + 8 * k, s.x + 8 * k);
    Vec roots[T::N];
    for (int i = 0; i < T::N; i++) {
        roots[i] = square_root(s.w[i]);
        s.wx[i] = s.w[i] * s.x[i];
    }
    spread<T>(s.x, s.by_lane_x);
    spread<T>(roots, s.by_lane_w);
    return bad;
}

template <class T> QM_INLINE Ints<1> code_of(const Vec * x, Floats<1> inverse) {
    Ints<1> code = {};
    for (int i = 0; i < DIMS<T>; i++) {
        const Ints<1> level = at_least(at_most(nearest(0.5f * (inverse * at<1>(x, i, 0) - 1.f)), T::LEVELS - 1), 0);
        code = code | level << T::BITS * i;
    }
    return code;
}

// The points for one inverse scale. `wanted` has the lanes that matter; those without any point become `bad`.
template <class T>
QM_INLINE Points<T> points_for(const SubBlock<T> & s, Floats<1> inverse, Floats<1> scale, Mask<1> wanted,
                               Mask<1> & bad) {
    const qm_grid & grid = qm_grid_of(T::LATTICE);
    alignas(64) int32_t codes[GROUPS<T>][W], off[GROUPS<T>][W];
    Points<T> points;
    for (int k = 0; k < GROUPS<T>; k++) {
        const Ints<1> code = code_of<T>(s.x + k * DIMS<T>, inverse);
        memcpy(codes[k], &code, sizeof codes[k]);
    }
    for (int t = 0; t < W; t++) {
        if (!wanted.v[0][t]) {
            for (int k = 0; k < GROUPS<T>; k++) codes[k][t] = off[k][t] = 0;
            continue;
        }
        for (int k = 0; k < GROUPS<T>; k++) {
            const int32_t place = grid.place[codes[k][t]];
            off[k][t] = place < 0 ? -1 : 0;
            if (place >= 0) continue;
            const int i = k * DIMS<T>;
            codes[k][t] = nearest_point<T::BITS>(grid.neighbours - 1 - place, s.by_lane_x[t] + i, s.by_lane_w[t] + i,
                                                 scale.v[0][t], {2.f, 1.f});
        }
    }
    for (int k = 0; k < GROUPS<T>; k++) {
        IVec code, off_grid;
        memcpy(&code, codes[k], sizeof code);
        memcpy(&off_grid, off[k], sizeof off_grid);
        bad.v[0] |= code < 0;
        points.code[k] = {{code}};
        points.on_grid[k] = {{~off_grid}};
    }
    return points;
}

struct GridMoments {
    Floats<1> qx, q2;
};

template <class T> QM_INLINE GridMoments moments_of(const SubBlock<T> & s, const Points<T> & points) {
    GridMoments m = {};
    for (int k = 0; k < GROUPS<T>; k++)
        for (int i = 0; i < DIMS<T>; i++) {
            const Ints<1> level = (points.code[k] >> T::BITS * i) & ((1 << T::BITS) - 1);
            const Floats<1> q = to_float((level << 1) + 1);
            m.qx = m.qx + at<1>(s.wx, k * DIMS<T> + i, 0) * q;
            m.q2 = m.q2 + at<1>(s.w, k * DIMS<T> + i, 0) * q * q;
        }
    return m;
}

template <class T> QM_INLINE void take(Mask<1> where, const Points<T> & from, Points<T> & to) {
    for (int k = 0; k < GROUPS<T>; k++) {
        to.code[k] = pick(where, from.code[k], to.code[k]);
        to.on_grid[k] = (from.on_grid[k] & where) | (to.on_grid[k] & ~where);
    }
}

// The scale to start from, and the range that the trials divide the highest value by; which sub-blocks count as zero.
template <class T> QM_INLINE Floats<1> start(SubBlock<T> & s, Floats<1> & range) {
    constexpr int TOP = 2 * T::LEVELS - 1;
    range = at<1>(s.x, 0, 0);
    for (int i = 1; i < T::N; i++) range = pick(range > at<1>(s.x, i, 0), range, at<1>(s.x, i, 0));
    s.zero = range < T::EPS;
    if constexpr (T::LATTICE != qm_lattice::iq2_xxs) return range / (float) TOP;
    const Floats<1> scale = fit_positive<1, T::N>(s.x, s.w, T::LEVELS + 1).scale;
    range = scale * (float) T::LEVELS;
    s.zero = s.zero | (range <= 0.f);
    return scale;
}

// Once the best trial is known: the points nearest at its own scale, where the trial's levels were off the grid.
template <class T>
QM_INLINE void refine(const SubBlock<T> & s, Points<T> & kept, Floats<1> & scale, Mask<1> & bad) {
    Mask<1> any_off = {};
    for (int k = 0; k < GROUPS<T>; k++) any_off = any_off | ~kept.on_grid[k];
    Mask<1> wanted = (scale > 0.f) & ~s.zero;
    if (T::REFINE != Refine::always) wanted = wanted & any_off;
    if (!any(wanted)) return;
    const Points<T> again = points_for(s, 1.f / scale, scale, wanted, bad);
    for (int k = 0; k < GROUPS<T>; k++) {
        const Mask<1> where = T::REFINE == Refine::off_grid_groups ? wanted & ~kept.on_grid[k] : wanted;
        kept.code[k] = pick(where, again.code[k], kept.code[k]);
    }
    const GridMoments m = moments_of(s, kept);
    scale = pick(wanted & (m.q2 > 0.f), m.qx / m.q2, scale);
}

template <class T> struct Result {
    Ints<1> index[SUPER / DIMS<T>], signs[SUPER / 8];
    Vec scale[COUNT<T>];
    Mask<1> some_zero, all_zero, bad;
};

template <class T>
QM_INLINE void keep(int j, const SubBlock<T> & s, const Points<T> & kept, Floats<1> scale, Result<T> & r) {
    const qm_grid & grid = qm_grid_of(T::LATTICE);
    const Mask<1> negative = scale < 0.f;   // the reference then turns all signs
    constexpr int ALL_SIGNS = T::EVEN_SIGNS ? 127 : 255;
    for (int k = 0; k < GROUPS<T>; k++) {
        Ints<1> index = {};
        for (int t = 0; t < W; t++)
            if (!s.zero.v[0][t] && kept.code[k].v[0][t] >= 0) index.v[0][t] = grid.place[kept.code[k].v[0][t]];
        r.bad.v[0] |= index.v[0] < 0;
        r.index[j * GROUPS<T> + k] = index;
    }
    for (int k = 0; k < T::N / 8; k++) {
        const Ints<1> turned = {{s.signs[k].v[0] ^ (negative.v[0] & ALL_SIGNS)}};
        r.signs[j * T::N / 8 + k] = pick(s.zero, Ints<1>{}, turned);
    }
    scale = pick(s.zero, 0.f, pick(negative, -scale, scale));
    r.bad = r.bad | ~(scale >= 0.f);
    r.some_zero = r.some_zero | s.zero;
    r.all_zero = r.all_zero & s.zero;
    r.scale[j] = scale.v[0];
}

template <class T, bool IMATRIX>
QM_INLINE void quantize_sub_block(const Vec * x, const float * const * importance, Vec sigma2, int j, Result<T> & r) {
    constexpr int TOP = 2 * T::LEVELS - 1;
    SubBlock<T> s;
    r.bad = r.bad | load_sub_block<T, IMATRIX>(x, importance, sigma2, j, s);
    Floats<1> range, scale = start(s, range), best = {};
    Points<T> kept;
    for (int k = 0; k < GROUPS<T>; k++) {
        kept.code[k] = {};
        kept.on_grid[k] = {{all(T::REFINE == Refine::all_if_any_off_grid ? 0 : -1)}};
    }
    const Mask<1> wanted = ~(s.zero | r.bad);
    for (int step = -T::STEPS; step <= T::STEPS; step++) {
        const Floats<1> inverse = (TOP + step * T::STEP) / range;
        const Points<T> points = points_for(s, inverse, 1.f / inverse, wanted, r.bad);
        const GridMoments m = moments_of(s, points);
        const Mask<1> better = (m.q2 > 0.f) & (m.qx * m.qx > best * m.q2);
        scale = pick(better, m.qx / m.q2, scale);
        best = pick(better, scale * m.qx, best);
        take(better, points, kept);
    }
    refine(s, kept, scale, r.bad);
    keep(j, s, kept, scale, r);
}

// The super-block's scale as a half, and the sub-blocks' levels of it.
template <class T> QM_INLINE UVec quantize_scales(Result<T> & r, Ints<1> * levels) {
    Floats<1> max = {};
    for (int j = 0; j < COUNT<T>; j++) max = pick(max > at<1>(r.scale, j, 0), max, at<1>(r.scale, j, 0));
    r.bad = r.bad | not_finite(r.scale, COUNT<T>);
    const Mask<1> zero = max == Floats<1>{};
    const Floats<1> d = max / 31.f, inverse = 1.f / d;
    for (int j = 0; j < COUNT<T>; j++) {
        const Ints<1> level = at_least(at_most(nearest(0.5f * (inverse * at<1>(r.scale, j, 0) - 1.f)), 15), 0);
        levels[j] = pick(zero, Ints<1>{}, level);
    }
    if (T::EVEN_SIGNS) {   // these types clear a super-block that has no scale
        for (Ints<1> & index : r.index) index = pick(zero, Ints<1>{}, index);
        for (Ints<1> & signs : r.signs) signs = pick(zero, Ints<1>{}, signs);
    }
    return half_from(pick(zero, 0.f, d * T::STRETCH).v[0]);
}

// ---- layouts: indices, signs, levels of the scales

QM_INLINE void put_nibbles(const Ints<1> * levels, int count, UVec * words) {
    Ints<1> bytes[8];
    for (int i = 0; i < count / 2; i++) bytes[i] = levels[2 * i] | levels[2 * i + 1] << 4;
    pack_bytes(bytes, count / 8, words);
}

QM_INLINE int lay_out(const Result<IQ2XXS> & r, const Ints<1> * levels, UVec * words) {
    for (int j = 0; j < 8; j++) {
        const Ints<1> * s = r.signs + 4 * j;
        pack_bytes(r.index + 4 * j, 1, words + 2 * j);
        words[2 * j + 1] = as_uint((s[0] | s[1] << 7 | s[2] << 14 | s[3] << 21 | levels[j] << 28).v[0]);
    }
    return 16;
}

QM_INLINE int lay_out(const Result<IQ2XS> & r, const Ints<1> * levels, UVec * words) {
    for (int j = 0; j < 16; j++) {
        const Ints<1> first = r.index[2 * j] | r.signs[2 * j] << 9;
        const Ints<1> second = r.index[2 * j + 1] | r.signs[2 * j + 1] << 9;
        words[j] = as_uint((first | second << 16).v[0]);
    }
    put_nibbles(levels, 16, words + 16);
    return 18;
}

QM_INLINE int lay_out(const Result<IQ2S> & r, const Ints<1> * levels, UVec * words) {
    Ints<1> low[32], high[8];
    for (int i = 0; i < 32; i++) low[i] = r.index[i] & 255;
    for (int i = 0; i < 8; i++) {
        const Ints<1> * q = r.index + 4 * i;
        high[i] = q[0] >> 8 | q[1] >> 8 << 2 | q[2] >> 8 << 4 | q[3] >> 8 << 6;
    }
    pack_bytes(low, 8, words);
    pack_bytes(r.signs, 8, words + 8);
    pack_bytes(high, 2, words + 16);
    put_nibbles(levels, 16, words + 18);
    return 20;
}

QM_INLINE int lay_out(const Result<IQ3XXS> & r, const Ints<1> * levels, UVec * words) {
    pack_bytes(r.index, 16, words);
    for (int j = 0; j < 8; j++) {
        const Ints<1> * s = r.signs + 4 * j;
        words[16 + j] = as_uint((s[0] | s[1] << 7 | s[2] << 14 | s[3] << 21 | levels[j] << 28).v[0]);
    }
    return 24;
}

QM_INLINE int lay_out(const Result<IQ3S> & r, const Ints<1> * levels, UVec * words) {
    Ints<1> low[64], high[8];
    for (int i = 0; i < 64; i++) low[i] = r.index[i] & 255;
    for (int j = 0; j < 8; j++) {
        high[j] = {};
        for (int k = 0; k < 8; k++) high[j] = high[j] | (r.index[8 * j + k] >> 8) << k;
    }
    pack_bytes(low, 16, words);
    pack_bytes(high, 2, words + 16);
    pack_bytes(r.signs, 8, words + 18);
    put_nibbles(levels, 8, words + 26);
    return 27;
}

template <class T, bool IMATRIX>
uint32_t quantize(const float * const * rows, const float * const * importance, const float *, uint8_t * dst) {
    Vec x[SUPER];
    load_rows(rows, 0, SUPER, x);
    const Vec sigma2 = T::SIGMA * sum_of_squares(x, SUPER).v[0] / 256.f;
    Result<T> r;
    r.bad = not_finite(x, SUPER);
    r.some_zero = {};
    r.all_zero = ~r.some_zero;
    for (int j = 0; j < COUNT<T>; j++) quantize_sub_block<T, IMATRIX>(x + j * T::N, importance, sigma2, j, r);
    // The reference stores IQ3_S's sub-blocks after one of zeros where that one should be: rare, so left to it.
    if (T::LATTICE == qm_lattice::iq3_s) r.bad = r.bad | (r.some_zero & ~r.all_zero);
    Ints<1> levels[COUNT<T>];
    const UVec d = quantize_scales(r, levels);
    UVec words[27];
    const int count = lay_out(r, levels, words);
    store_blocks<HalfWord::first>(dst, words, count, d);
    return lane_bits(r.bad);
}

}  // namespace

extern const qm_kernel grid_quants[] = {
    {GGML_TYPE_IQ2_XXS, true, false, quantize<IQ2XXS, true>}, {GGML_TYPE_IQ2_XS, true, false, quantize<IQ2XS, true>},
    {GGML_TYPE_IQ2_S, false, false, quantize<IQ2S, false>},   {GGML_TYPE_IQ2_S, true, false, quantize<IQ2S, true>},
    {GGML_TYPE_IQ3_XXS, false, false, quantize<IQ3XXS, false>},
    {GGML_TYPE_IQ3_XXS, true, false, quantize<IQ3XXS, true>},
    {GGML_TYPE_IQ3_S, false, false, quantize<IQ3S, false>},   {GGML_TYPE_IQ3_S, true, false, quantize<IQ3S, true>},
};
extern const int grid_quants_count = sizeof grid_quants / sizeof *grid_quants;

}  // namespace QM_ISA
