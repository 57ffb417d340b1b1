// IQ1_S and IQ1_M: ternary levels, shifted a little up or down, whose groups of eight are points of a lattice.
//
// A sub-block's weights are sorted, and every way to split them into three runs is tried: a super-block per lane, all
// lanes the same split at the same time. The order of equal weights is the C library's: its qsort, as in the reference.
#include <stdlib.h>

#include "k_quants.h"
#include "kernel.h"
#include "nearest_point.h"

namespace QM_ISA {

namespace {

constexpr float DELTA = 0.125f, LARGEST = 3.402823466e+38f;
constexpr float UP[3] = {-1 + DELTA, DELTA, 1 + DELTA}, DOWN[3] = {-1 - DELTA, -DELTA, 1 - DELTA};

struct IQ1S {
    static constexpr int N = 32;
    static constexpr float EPS = 1e-12f;
};
struct IQ1M {
    static constexpr int N = 16;
    static constexpr float EPS = 1e-7f;
};
template <class T> constexpr int GROUPS = T::N / 8;
template <class T> constexpr int COUNT = SUPER / T::N;

struct Ranked {
    float value;
    int index;
};
int by_value(const void * left, const void * right) {
    const float l = ((const Ranked *) left)->value, r = ((const Ranked *) right)->value;
    return l < r ? -1 : l > r;
}

// One sub-block of every lane: in the file's order, and in ascending order.
template <class T> struct SubBlock {
    alignas(64) float by_lane_x[W][T::N + QM_MAX_LANES], by_lane_w[W][T::N + QM_MAX_LANES];
    alignas(64) float sorted_x[T::N][W], sorted_w[T::N][W];
    alignas(64) int32_t sorted_index[T::N][W];
    Mask<1> zero;
};

// Each weight's place in ascending order. True for lanes in which that order is not unique.
template <int N> QM_INLINE IVec rank(const Vec * x, IVec * ranks) {
    IVec sum = {};
    for (int i = 0; i < N; i++) {
        ranks[i] = IVec{};
        for (int j = 0; j < N; j++) ranks[i] -= x[j] < x[i];
        sum += ranks[i];
    }
    return sum != N * (N - 1) / 2;
}

template <class T> QM_INLINE void sort_like_libc(const float * x, int32_t (*ranks)[W], int lane) {
    Ranked order[T::N];
    for (int i = 0; i < T::N; i++) order[i] = {x[i], i};
    qsort(order, T::N, sizeof(Ranked), by_value);
    for (int j = 0; j < T::N; j++) ranks[order[j].index][lane] = j;
}

template <class T> QM_INLINE void sort_sub_block(const Vec * x, const Vec * w, SubBlock<T> & s) {
    Vec max = magnitude(x[0]);
    for (int i = 1; i < T::N; i++) max = max > magnitude(x[i]) ? max : magnitude(x[i]);
    s.zero = {{max < all(T::EPS)}};
    alignas(64) int32_t places[T::N][W];
    const IVec ties = rank<T::N>(x, (IVec *) places);
    for (int t = 0; t < W; t++) {
        for (int i = 0; i < T::N; i++) {
            s.by_lane_x[t][i] = ((const float *) x)[i * W + t];
            s.by_lane_w[t][i] = ((const float *) w)[i * W + t];
        }
        if (ties[t]) sort_like_libc<T>(s.by_lane_x[t], places, t);
        for (int i = 0; i < T::N; i++) {
            const int j = places[i][t];
            s.sorted_x[j][t] = s.by_lane_x[t][i];
            s.sorted_w[j][t] = s.by_lane_w[t][i];
            s.sorted_index[j][t] = i;
        }
    }
}

// Running sums of weight * x and of weights in ascending order of x; of one half of a sub-block if HALF is 0 or 1.
template <class T, int HALF> QM_INLINE void running_sums(const SubBlock<T> & s, Vec * sum_x, Vec * sum_w) {
    sum_x[0] = sum_w[0] = Vec{};
    for (int j = 0; j < T::N; j++) {
        Vec w, x;
        IVec index;
        memcpy(&w, s.sorted_w[j], sizeof w);
        memcpy(&x, s.sorted_x[j], sizeof x);
        memcpy(&index, s.sorted_index[j], sizeof index);
        const IVec counts = HALF < 0 ? all(-1) : index / 8 == HALF;
        sum_x[j + 1] = counts ? sum_x[j] + w * x : sum_x[j];
        sum_w[j + 1] = counts ? sum_w[j] + w : sum_w[j];
    }
}

// The best split so far: levels 0 before `first`, 1 before `second`, 2 from there; `shift` is the type's own.
struct Split {
    Vec score, scale;
    IVec first, second, shift;
};

QM_INLINE void consider(Vec qx, Vec q2, int first, int second, int shift, Split & best) {
    const IVec better = (q2 > all(0.f)) & (qx * qx > best.score * q2);
    best.scale = better ? qx / q2 : best.scale;
    best.score = better ? best.scale * qx : best.score;
    best.first = better ? all(first) : best.first;
    best.second = better ? all(second) : best.second;
    best.shift = better ? all(shift) : best.shift;
}

QM_INLINE Split no_split() { return {all(-LARGEST), Vec{}, all(-1), all(-1), IVec{}}; }

// Shift 0 is up, 1 down.
QM_INLINE Split best_split(const SubBlock<IQ1S> & s) {
    constexpr int N = IQ1S::N;
    Vec sx[N + 1], sw[N + 1];
    running_sums<IQ1S, -1>(s, sx, sw);
    Split best = no_split();
    for (int i1 = 0; i1 <= N; i1++)
        for (int i2 = i1; i2 <= N; i2++) {
            const Vec x0 = sx[i1] - sx[0], x1 = sx[i2] - sx[i1], x2 = sx[N] - sx[i2];
            const Vec w0 = sw[i1] - sw[0], w1 = sw[i2] - sw[i1], w2 = sw[N] - sw[i2];
            consider(x0 * UP[0] + x1 * UP[1] + x2 * UP[2],
                     w0 * UP[0] * UP[0] + w1 * UP[1] * UP[1] + w2 * UP[2] * UP[2], i1, i2, 0, best);
            consider(x0 * DOWN[0] + x1 * DOWN[1] + x2 * DOWN[2],
                     w0 * DOWN[0] * DOWN[0] + w1 * DOWN[1] * DOWN[1] + w2 * DOWN[2] * DOWN[2], i1, i2, 1, best);
        }
    return best;
}

// Each half of a sub-block has a shift of its own: bit 1 of `shift` is set where the first half goes down, bit 0 for
// the second.
QM_INLINE Split best_split(const SubBlock<IQ1M> & s) {
    constexpr int N = IQ1M::N;
    constexpr float UP1 = UP[0] * UP[0] - UP[1] * UP[1], UP2 = UP[1] * UP[1] - UP[2] * UP[2];
    constexpr float DOWN1 = DOWN[0] * DOWN[0] - DOWN[1] * DOWN[1], DOWN2 = DOWN[1] * DOWN[1] - DOWN[2] * DOWN[2];
    Vec sx[2][N + 1], sw[2][N + 1];
    running_sums<IQ1M, 0>(s, sx[0], sw[0]);
    running_sums<IQ1M, 1>(s, sx[1], sw[1]);
    Split best = no_split();
    for (int i1 = 0; i1 <= N; i1++)
        for (int i2 = i1; i2 <= N; i2++) {
            Vec qx[2][2], q2[2][2];   // by half, then up and down
            for (int h = 0; h < 2; h++) {
                const Vec both = sx[h][i1] + sx[h][i2];
                qx[h][0] = sx[h][N] * UP[2] - both;
                qx[h][1] = sx[h][N] * DOWN[2] - both;
                q2[h][0] = sw[h][N] * UP[2] * UP[2] + sw[h][i1] * UP1 + sw[h][i2] * UP2;
                q2[h][1] = sw[h][N] * DOWN[2] * DOWN[2] + sw[h][i1] * DOWN1 + sw[h][i2] * DOWN2;
            }
            for (int k = 0; k < 4; k++)
                consider(qx[0][k / 2] + qx[1][k % 2], q2[0][k / 2] + q2[1][k % 2], i1, i2, k, best);
        }
    return best;
}

// Whether group k of a sub-block is shifted down.
QM_INLINE IVec goes_down(const IQ1S &, IVec shift, int) { return shift != 0; }
QM_INLINE IVec goes_down(const IQ1M &, IVec shift, int k) { return (shift & (k == 0 ? 2 : 1)) != 0; }

template <class T> struct Result {
    Ints<1> index[SUPER / 8], shift[COUNT<T>];
    UVec code[SUPER / 8];
    Vec scale[COUNT<T>];
    Mask<1> bad;
};

// The levels that a split gives one lane, as the codes of its groups.
template <class T>
QM_INLINE void codes_of(const SubBlock<T> & s, int lane, int first, int second, bool negative, int * codes) {
    for (int k = 0; k < GROUPS<T>; k++) codes[k] = 0;
    for (int j = 0; j < T::N; j++) {
        const int level = j < first ? 0 : j < second ? 1 : 2, i = s.sorted_index[j][lane];
        codes[i / 8] |= (negative ? 2 - level : level) << 2 * (i % 8);
    }
}

// The points of a lane's groups; -1 where there is none. Returns whether all were points from the start.
template <class T>
QM_INLINE bool find_points(const SubBlock<T> & s, int t, float scale, int shift, int * codes) {
    const qm_grid & grid = qm_grid_of(qm_lattice::iq1);
    bool all_on_grid = true;
    for (int k = 0; k < GROUPS<T>; k++) {
        const int32_t place = grid.place[codes[k]];
        if (place >= 0) continue;
        all_on_grid = false;
        const float first = goes_down(T{}, all(shift), k)[0] ? DOWN[0] : UP[0];
        codes[k] = nearest_point<2>(grid.neighbours - 1 - place, s.by_lane_x[t] + 8 * k, s.by_lane_w[t] + 8 * k, scale,
                                    {1.f, first});
    }
    return all_on_grid;
}

struct Fit {
    Vec qx = {}, q2 = {};
};

// Adds the group's weights in order. `factor` is 1, or the odd number that the group's scale is stored as.
QM_INLINE void add_group(const Vec * x, const Vec * w, UVec code, IVec down, Vec factor, Fit & fit) {
    for (int i = 0; i < 8; i++) {
        const IVec level = (IVec) (code >> 2 * i & 3u);
        const Vec q = (to_float(level) + (down ? all(DOWN[0]) : all(UP[0]))) * factor;
        fit.qx += w[i] * q * x[i];
        fit.q2 += w[i] * q * q;
    }
}

template <class T> QM_INLINE void quantize_sub_block(const Vec * x, const Vec * w, int j, Result<T> & r) {
    const qm_grid & grid = qm_grid_of(qm_lattice::iq1);
    SubBlock<T> s;
    sort_sub_block<T>(x, w, s);
    Split best = best_split(s);
    const IVec none = s.zero.v[0] | (best.first < 0), negative = ~none & (best.scale < all(0.f));
    best.scale = none ? Vec{} : negative ? -best.scale : best.scale;
    best.shift = none ? IVec{} : negative ? (T::N == 32 ? 1 : 3) - best.shift : best.shift;
    IVec off_grid = {}, index[GROUPS<T>] = {}, code[GROUPS<T>] = {};
    for (int t = 0; t < W; t++) {
        if (none[t] || r.bad.v[0][t]) continue;
        int codes[GROUPS<T>];
        codes_of<T>(s, t, best.first[t], best.second[t], negative[t] != 0, codes);
        off_grid[t] = find_points(s, t, best.scale[t], best.shift[t], codes) ? 0 : -1;
        for (int k = 0; k < GROUPS<T>; k++) {
            if (codes[k] < 0) r.bad.v[0][t] = -1;
            if (codes[k] < 0) continue;
            code[k][t] = codes[k];
            index[k][t] = grid.place[codes[k]];
        }
    }
    Fit fit;
    for (int k = 0; k < GROUPS<T>; k++)
        add_group(x + 8 * k, w + 8 * k, (UVec) code[k], goes_down(T{}, best.shift, k), all(1.f), fit);
    const IVec improved = off_grid & (fit.qx > all(0.f)) & (fit.q2 > all(0.f));
    r.scale[j] = improved ? fit.qx / fit.q2 : best.scale;
    r.bad.v[0] |= ~(r.scale[j] >= all(0.f));
    r.shift[j] = {{best.shift}};
    for (int k = 0; k < GROUPS<T>; k++) {
        r.index[j * GROUPS<T> + k] = {{index[k]}};
        // Where nothing was found the reference goes on with index 0, whose levels are what it then adds up.
        r.code[j * GROUPS<T> + k] = (UVec) code[k];
    }
}

// Three-bit levels of the sub-blocks' scales; all 0 where the super-block has no scale.
template <class T> QM_INLINE Floats<1> quantize_scales(Result<T> & r, Ints<1> * levels) {
    Floats<1> max = {};
    for (int j = 0; j < COUNT<T>; j++) max = pick(max > at<1>(r.scale, j, 0), max, at<1>(r.scale, j, 0));
    r.bad = r.bad | not_finite(r.scale, COUNT<T>);
    const Floats<1> d = max / 15.f, inverse = 1.f / d;
    r.bad = r.bad | ((max > 0.f) & (d < 1e-30f));
    for (int j = 0; j < COUNT<T>; j++) {
        const Ints<1> level = at_least(at_most(nearest(0.5f * (inverse * at<1>(r.scale, j, 0) - 1.f)), 7), 0);
        levels[j] = pick(max == Floats<1>{}, Ints<1>{}, level);
    }
    return d;
}

template <class T, bool IMATRIX>
QM_INLINE void load_block(const float * const * rows, const float * const * importance, Vec * x, Vec * w,
                          Result<T> & r) {
    load_rows(rows, 0, SUPER, x);
    r.bad = not_finite(x, SUPER);
    if (IMATRIX) {
        load_rows(importance, 0, SUPER, w);
        r.bad = r.bad | not_finite(w, SUPER);
        importance_weights(x, w, SUPER, 2.f * sum_of_squares(x, SUPER).v[0] / 256.f, w);
    } else {
        for (int i = 0; i < SUPER; i++) w[i] = x[i] * x[i];
    }
}

uint32_t quantize_iq1_s(const float * const * rows, const float * const * importance, const float *, uint8_t * dst) {
    Vec x[SUPER], w[SUPER];
    Result<IQ1S> r;
    load_block<IQ1S, true>(rows, importance, x, w, r);
    for (int j = 0; j < 8; j++) quantize_sub_block<IQ1S>(x + 32 * j, w + 32 * j, j, r);
    Ints<1> levels[8], low[32];
    const Floats<1> d = quantize_scales(r, levels) * 1.125f;
    for (int i = 0; i < 32; i++) low[i] = r.index[i] & 255;
    UVec words[12], high[8];
    pack_bytes(low, 8, words);
    const Mask<1> none = d == Floats<1>{};
    for (int j = 0; j < 8; j++) {
        const Ints<1> * q = r.index + 4 * j, shift = pick(none, Ints<1>{}, r.shift[j]);
        const Ints<1> indices = q[0] >> 8 | q[1] >> 8 << 3 | q[2] >> 8 << 6 | q[3] >> 8 << 9;
        high[j] = as_uint((indices | (levels[j] | shift << 3) << 12).v[0]);
    }
    for (int j = 0; j < 4; j++) words[8 + j] = high[2 * j] | high[2 * j + 1] << 16;
    store_blocks<HalfWord::first>(dst, words, 12, half_from(d.v[0]));
    return lane_bits(r.bad | not_finite(d.v, 1));
}

template <bool IMATRIX>
uint32_t quantize_iq1_m(const float * const * rows, const float * const * importance, const float *, uint8_t * dst) {
    Vec x[SUPER], w[SUPER];
    Result<IQ1M> r;
    load_block<IQ1M, IMATRIX>(rows, importance, x, w, r);
    for (int j = 0; j < 16; j++) quantize_sub_block<IQ1M>(x + 16 * j, w + 16 * j, j, r);
    Ints<1> levels[16], low[32], high[16];
    Floats<1> d = quantize_scales(r, levels);
    const Mask<1> none = d == Floats<1>{};
    Fit fit;
    for (int i = 0; i < 32; i++) {
        const Vec factor = to_float(levels[i / 2].v[0] * 2 + 1);
        add_group(x + 8 * i, w + 8 * i, r.code[i], goes_down(IQ1M{}, r.shift[i / 2].v[0], i % 2), factor, fit);
        low[i] = r.index[i] & 255;
    }
    d = pick(Mask<1>{{fit.q2 > all(0.f)}}, Floats<1>{{fit.qx / fit.q2}}, d);
    const UVec half = half_from(pick(none, 0.f, d * 1.1125f).v[0]);
    for (int j = 0; j < 16; j++) {
        const Ints<1> shift = pick(none, Ints<1>{}, r.shift[j]);
        high[j] = r.index[2 * j] >> 8 | r.index[2 * j + 1] >> 8 << 4 | (shift & 1) << 7 | (shift & 2) << 2;
    }
    UVec words[14], scales[4];
    pack_bytes(low, 8, words);
    pack_bytes(high, 4, words + 8);
    for (int j = 0; j < 4; j++) {
        const Ints<1> * l = levels + 4 * j;
        scales[j] = as_uint((l[0] | l[1] << 3 | l[2] << 6 | l[3] << 9).v[0]) | (half >> 4 * j & 15u) << 12;
    }
    words[12] = scales[0] | scales[1] << 16;
    words[13] = scales[2] | scales[3] << 16;
    store_blocks<HalfWord::none>(dst, words, 14, UVec{});
    return lane_bits(r.bad | not_finite(pick(none, 0.f, d).v, 1));
}

}  // namespace

extern const qm_kernel iq1[] = {
    {GGML_TYPE_IQ1_S, true, false, quantize_iq1_s},
    {GGML_TYPE_IQ1_M, false, false, quantize_iq1_m<false>},
    {GGML_TYPE_IQ1_M, true, false, quantize_iq1_m<true>},
};
extern const int iq1_count = sizeof iq1 / sizeof *iq1;

}  // namespace QM_ISA
