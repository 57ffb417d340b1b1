// Vectors of floats and integers, one block of weights per lane, in the words of the compiler's own vector extension.
//
// Every kernel source is compiled once per instruction set. QM_ISA names it and is the namespace of all that is
// compiled for it, so that no function built for AVX-512 can be linked into the path of a lesser machine; for the same
// reason kernels use no templates or inline functions from outside (no standard containers, no <algorithm>).
#pragma once

#include <cstdint>
#include <cstring>

#if !defined(QM_ISA) || !defined(QM_LANES)
#error "compile kernel sources through CMakeLists.txt, which sets QM_ISA and QM_LANES"
#endif

#if defined(__FAST_MATH__) || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "kernels need exact arithmetic and a little-endian machine"
#endif

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#define QM_INLINE static inline __attribute__((always_inline))
#define QM_EACH _Pragma("GCC unroll 8") for (int u = 0; u < U; u++)

namespace QM_ISA {

constexpr int W = QM_LANES;

using Vec = float __attribute__((vector_size(4 * QM_LANES)));
using IVec = int32_t __attribute__((vector_size(4 * QM_LANES)));
using UVec = uint32_t __attribute__((vector_size(4 * QM_LANES)));

// U vectors that go through the same operations side by side. A vector's sums are long chains of dependent additions
// (their order is the reference's); several independent ones keep the arithmetic units busy meanwhile.
template <int U> struct Floats { Vec v[U]; };
template <int U> struct Ints { IVec v[U]; };
template <int U> struct Mask { IVec v[U]; };   // -1 where true, 0 elsewhere

QM_INLINE Vec all(float f) { return f - Vec{}; }
QM_INLINE IVec all(int i) { return i - IVec{}; }
QM_INLINE UVec all(uint32_t i) { return i - UVec{}; }
QM_INLINE IVec as_int(Vec f) { return (IVec) f; }
QM_INLINE UVec as_uint(IVec i) { return (UVec) i; }
QM_INLINE Vec as_float(IVec i) { return (Vec) i; }
QM_INLINE Vec magnitude(Vec f) { return as_float(as_int(f) & 0x7fffffff); }
QM_INLINE Vec to_float(IVec i) { return __builtin_convertvector(i, Vec); }
QM_INLINE IVec truncated(Vec f) { return __builtin_convertvector(f, IVec); }

QM_INLINE Vec square_root(Vec f) {
#if defined(__AVX512F__) && QM_LANES == 16
    return _mm512_sqrt_ps(f);
#elif defined(__AVX__) && QM_LANES == 8
    return _mm256_sqrt_ps(f);
#elif defined(__SSE2__) && QM_LANES == 4
    return _mm_sqrt_ps(f);
#elif defined(__aarch64__) && QM_LANES == 4
    return vsqrtq_f32(f);
#else
    for (int i = 0; i < W; i++) f[i] = __builtin_sqrtf(f[i]);
    return f;
#endif
}

#define QM_BINARY(OP)                                                                                                  \
    template <int U> QM_INLINE Floats<U> operator OP(Floats<U> a, Floats<U> b) {                                       \
        QM_EACH a.v[u] = a.v[u] OP b.v[u];                                                                             \
        return a;                                                                                                      \
    }                                                                                                                  \
    template <int U> QM_INLINE Floats<U> operator OP(Floats<U> a, float b) {                                           \
        QM_EACH a.v[u] = a.v[u] OP b;                                                                                  \
        return a;                                                                                                      \
    }                                                                                                                  \
    template <int U> QM_INLINE Floats<U> operator OP(float a, Floats<U> b) {                                           \
        QM_EACH b.v[u] = a OP b.v[u];                                                                                  \
        return b;                                                                                                      \
    }
QM_BINARY(+)
QM_BINARY(-)
QM_BINARY(*)
QM_BINARY(/)
#undef QM_BINARY

#define QM_COMPARE(OP)                                                                                                 \
    template <int U> QM_INLINE Mask<U> operator OP(Floats<U> a, Floats<U> b) {                                         \
        Mask<U> m;                                                                                                     \
        QM_EACH m.v[u] = a.v[u] OP b.v[u];                                                                             \
        return m;                                                                                                      \
    }                                                                                                                  \
    template <int U> QM_INLINE Mask<U> operator OP(Floats<U> a, float b) {                                             \
        Mask<U> m;                                                                                                     \
        QM_EACH m.v[u] = a.v[u] OP all(b);                                                                             \
        return m;                                                                                                      \
    }                                                                                                                  \
    template <int U> QM_INLINE Mask<U> operator OP(Ints<U> a, Ints<U> b) {                                             \
        Mask<U> m;                                                                                                     \
        QM_EACH m.v[u] = a.v[u] OP b.v[u];                                                                             \
        return m;                                                                                                      \
    }
QM_COMPARE(<)
QM_COMPARE(>)
QM_COMPARE(<=)
QM_COMPARE(>=)
QM_COMPARE(==)
QM_COMPARE(!=)
#undef QM_COMPARE

#define QM_WHOLE(TYPE, OP, SCALAR)                                                                                     \
    template <int U> QM_INLINE TYPE<U> operator OP(TYPE<U> a, TYPE<U> b) {                                             \
        QM_EACH a.v[u] = a.v[u] OP b.v[u];                                                                             \
        return a;                                                                                                      \
    }                                                                                                                  \
    template <int U> QM_INLINE TYPE<U> operator OP(TYPE<U> a, SCALAR b) {                                              \
        QM_EACH a.v[u] = a.v[u] OP b;                                                                                  \
        return a;                                                                                                      \
    }
QM_WHOLE(Mask, &, int)
QM_WHOLE(Mask, |, int)
QM_WHOLE(Ints, +, int)
QM_WHOLE(Ints, -, int)
QM_WHOLE(Ints, &, int)
QM_WHOLE(Ints, |, int)
QM_WHOLE(Ints, <<, int)
QM_WHOLE(Ints, >>, int)
#undef QM_WHOLE

template <int U> QM_INLINE Mask<U> operator~(Mask<U> a) {
    QM_EACH a.v[u] = ~a.v[u];
    return a;
}
template <int U> QM_INLINE Floats<U> operator-(Floats<U> a) {
    QM_EACH a.v[u] = -a.v[u];
    return a;
}
template <int U> QM_INLINE Floats<U> magnitude(Floats<U> a) {
    QM_EACH a.v[u] = magnitude(a.v[u]);
    return a;
}
template <int U> QM_INLINE Floats<U> to_float(Ints<U> a) {
    Floats<U> f;
    QM_EACH f.v[u] = to_float(a.v[u]);
    return f;
}
template <int U> QM_INLINE Floats<U> pick(Mask<U> m, Floats<U> a, Floats<U> b) {
    QM_EACH a.v[u] = m.v[u] ? a.v[u] : b.v[u];
    return a;
}
template <int U> QM_INLINE Floats<U> pick(Mask<U> m, Floats<U> a, float b) { return pick(m, a, Floats<U>{} + b); }
template <int U> QM_INLINE Floats<U> pick(Mask<U> m, float a, Floats<U> b) { return pick(m, Floats<U>{} + a, b); }
template <int U> QM_INLINE Ints<U> pick(Mask<U> m, Ints<U> a, Ints<U> b) {
    QM_EACH a.v[u] = m.v[u] ? a.v[u] : b.v[u];
    return a;
}
template <int U> QM_INLINE Ints<U> at_least(Ints<U> a, int low) {
    QM_EACH a.v[u] = a.v[u] > all(low) ? a.v[u] : all(low);
    return a;
}
template <int U> QM_INLINE Ints<U> at_most(Ints<U> a, int high) {
    QM_EACH a.v[u] = a.v[u] < all(high) ? a.v[u] : all(high);
    return a;
}
template <int U> QM_INLINE Floats<U> clamped(Floats<U> a, float low, float high) {
    QM_EACH {
        a.v[u] = a.v[u] > all(low) ? a.v[u] : all(low);
        a.v[u] = a.v[u] < all(high) ? a.v[u] : all(high);
    }
    return a;
}
template <int U> QM_INLINE bool any(Mask<U> m) {
    IVec seen = m.v[0];
    for (int u = 1; u < U; u++) seen |= m.v[u];
#if defined(__AVX512F__) && QM_LANES == 16
    return _mm512_movepi32_mask((__m512i) seen) != 0;
#elif defined(__AVX__) && QM_LANES == 8
    return _mm256_movemask_ps((__m256) seen) != 0;
#elif defined(__SSE2__) && QM_LANES == 4
    return _mm_movemask_ps((__m128) seen) != 0;
#else
    int32_t found = 0;
    for (int i = 0; i < W; i++) found |= seen[i];
    return found != 0;
#endif
}
template <int U> QM_INLINE uint32_t lane_bits(Mask<U> m) {
    uint32_t bits = 0;
    for (int u = 0; u < U; u++)
        for (int i = 0; i < W; i++) bits |= (uint32_t) (m.v[u][i] & 1) << i;
    return bits;
}

// Element `i` of U sub-blocks that lie `step` elements apart.
template <int U> QM_INLINE Floats<U> at(const Vec * x, int i, int step) {
    Floats<U> f;
    QM_EACH f.v[u] = x[u * step + i];
    return f;
}
template <int U> QM_INLINE void put(Vec * x, int i, int step, Floats<U> f) { QM_EACH x[u * step + i] = f.v[u]; }

constexpr float ROUNDER = 12582912.f;   // 1.5 * 2^23: adding it leaves the nearest integer in the low mantissa bits

// The reference's rounding to an integer, bit for bit, whatever the argument (beyond 2^22 it wraps).
template <int U> QM_INLINE Ints<U> nearest(Floats<U> f) {
    Ints<U> r;
    QM_EACH r.v[u] = (as_int(f.v[u] + ROUNDER) & 0x007fffff) - 0x00400000;
    return r;
}

// The same as a float, for arguments that `roundable` accepts.
template <int U> QM_INLINE Floats<U> nearest_float(Floats<U> f) { return (f + ROUNDER) - ROUNDER; }
template <int U> QM_INLINE Mask<U> roundable(Floats<U> f) { return magnitude(f) <= 4194303.f; }

// Half away from zero, as roundf does; for magnitudes far below 2^22.
QM_INLINE IVec rounded(Vec f) {
    const Vec below_half = as_float(as_int(all(0.49999997f)) | (as_int(f) & (int) 0x80000000));
    return truncated(f + below_half);
}

// IEEE half precision, round to nearest even, with subnormals; overflow gives infinity. Not for NaN.
QM_INLINE UVec half_from(Vec f) {
    const IVec bits = as_int(f), size = bits & 0x7fffffff;
    const IVec normal = (size + 0xfff + ((size >> 13) & 1) - (112 << 23)) >> 13;
    const IVec subnormal = as_int(as_float(size) + 0.5f) - 0x3f000000;
    IVec half = size < all(113 << 23) ? subnormal : normal;
    half = size >= all(143 << 23) ? all(0x7c00) : half;
    return as_uint(half | ((bits >> 16) & 0x8000));
}
QM_INLINE Vec half_value(UVec half) {
    const IVec size = (IVec) (half & 0x7fffu), sign = (IVec) ((half & 0x8000u) << 16);
    const IVec normal = (size << 13) + (112 << 23);
    const IVec subnormal = as_int(to_float(size) * 5.9604644775390625e-8f);
    IVec bits = size < all(0x400) ? subnormal : normal;
    bits = size >= all(0x7c00) ? (size << 13) + (224 << 23) : bits;
    return as_float(bits | sign);
}

}  // namespace QM_ISA
