#include "sha256_blocks.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>

#define SHA_TARGET __attribute__((target("sha,sse4.1,ssse3")))

namespace ladder {

namespace {

// The state as the instructions want it: the words a, b, e, f and c, d, g, h.
struct Words {
    __m128i abef, cdgh;
};

SHA_TARGET inline Words load_state(const uint32_t * s) {
    return {_mm_set_epi32(int(s[0]), int(s[1]), int(s[4]), int(s[5])),
            _mm_set_epi32(int(s[2]), int(s[3]), int(s[6]), int(s[7]))};
}

SHA_TARGET inline void store_state(uint32_t * s, const Words & w) {
    alignas(16) uint32_t abef[4], cdgh[4];
    _mm_store_si128(reinterpret_cast<__m128i *>(abef), w.abef);
    _mm_store_si128(reinterpret_cast<__m128i *>(cdgh), w.cdgh);
    s[0] = abef[3]; s[1] = abef[2]; s[4] = abef[1]; s[5] = abef[0];
    s[2] = cdgh[3]; s[3] = cdgh[2]; s[6] = cdgh[1]; s[7] = cdgh[0];
}

SHA_TARGET inline __m128i load_words(const uint8_t * p) {
    const __m128i swap = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
    return _mm_shuffle_epi8(_mm_loadu_si128(reinterpret_cast<const __m128i *>(p)), swap);
}

// Four rounds with the schedule words `m` of rounds r .. r+3.
SHA_TARGET inline void rounds(Words & w, __m128i m, int r) {
    const __m128i wk = _mm_add_epi32(m, _mm_loadu_si128(reinterpret_cast<const __m128i *>(sha256_k + r)));
    w.cdgh = _mm_sha256rnds2_epu32(w.cdgh, w.abef, wk);
    w.abef = _mm_sha256rnds2_epu32(w.abef, w.cdgh, _mm_shuffle_epi32(wk, 0x0e));
}

// Words t .. t+3 from the sixteen before them, held in m0 (oldest) .. m3.
SHA_TARGET inline __m128i schedule(__m128i m0, __m128i m1, __m128i m2, __m128i m3) {
    const __m128i mixed = _mm_add_epi32(_mm_sha256msg1_epu32(m0, m1), _mm_alignr_epi8(m3, m2, 4));
    return _mm_sha256msg2_epu32(mixed, m3);
}

}  // namespace

bool sha256_has_ni() {
    unsigned a = 0, b = 0, c = 0, d = 0;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & (1u << 29)) && __builtin_cpu_supports("sse4.1");
}

SHA_TARGET void sha256_ni(uint32_t * state, const uint8_t * data, size_t blocks) {
    Words w = load_state(state);
    for (; blocks > 0; --blocks, data += 64) {
        const Words before = w;
        __m128i m[4];
        for (int i = 0; i < 4; ++i) {
            m[i] = load_words(data + 16 * i);
            rounds(w, m[i], 4 * i);
        }
#pragma GCC unroll 12
        for (int i = 4; i < 16; ++i) {
            m[i & 3] = schedule(m[i & 3], m[(i + 1) & 3], m[(i + 2) & 3], m[(i + 3) & 3]);
            rounds(w, m[i & 3], 4 * i);
        }
        w.abef = _mm_add_epi32(w.abef, before.abef);
        w.cdgh = _mm_add_epi32(w.cdgh, before.cdgh);
    }
    store_state(state, w);
}

SHA_TARGET void sha256_ni_pair(uint32_t * sa, const uint8_t * da, uint32_t * sb, const uint8_t * db, size_t blocks) {
    Words a = load_state(sa), b = load_state(sb);
    for (; blocks > 0; --blocks, da += 64, db += 64) {
        const Words a0 = a, b0 = b;
        __m128i ma[4], mb[4];
        for (int i = 0; i < 4; ++i) {
            ma[i] = load_words(da + 16 * i);
            mb[i] = load_words(db + 16 * i);
            rounds(a, ma[i], 4 * i);
            rounds(b, mb[i], 4 * i);
        }
#pragma GCC unroll 12
        for (int i = 4; i < 16; ++i) {
            ma[i & 3] = schedule(ma[i & 3], ma[(i + 1) & 3], ma[(i + 2) & 3], ma[(i + 3) & 3]);
            mb[i & 3] = schedule(mb[i & 3], mb[(i + 1) & 3], mb[(i + 2) & 3], mb[(i + 3) & 3]);
            rounds(a, ma[i & 3], 4 * i);
            rounds(b, mb[i & 3], 4 * i);
        }
        a.abef = _mm_add_epi32(a.abef, a0.abef);
        a.cdgh = _mm_add_epi32(a.cdgh, a0.cdgh);
        b.abef = _mm_add_epi32(b.abef, b0.abef);
        b.cdgh = _mm_add_epi32(b.cdgh, b0.cdgh);
    }
    store_state(sa, a);
    store_state(sb, b);
}

}  // namespace ladder
#endif
