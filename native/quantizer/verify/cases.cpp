#include "cases.h"

#include <cmath>
#include <cstring>

#include "ggml.h"

uint64_t Random::next() {   // splitmix64
    uint64_t z = state += 0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

uint32_t Random::below(uint32_t n) { return (uint32_t) ((next() >> 32) * n >> 32); }

float Random::uniform() { return (float) (next() >> 40) * (1.f / 16777216.f); }

float Random::normal() {
    int64_t sum = 0;
    for (int i = 0; i < 4; i++) {
        const uint64_t bits = next();
        sum += (int64_t) (bits & 0x1fffff) + (int64_t) (bits >> 21 & 0x1fffff) + (int64_t) (bits >> 42 & 0x1fffff);
    }
    return (float) (sum - 6 * 0x1fffffll) * (1.f / 2097152.f);
}

float Random::heavy() {
    const float a = normal(), b = normal(), c = normal();
    return normal() / std::sqrt((a * a + b * b + c * c + 1e-6f) / 3.f);
}

float Random::any_finite() {
    uint32_t bits = (uint32_t) next();
    if ((bits & 0x7f800000) == 0x7f800000) bits ^= 0x40000000;
    float f;
    memcpy(&f, &bits, 4);
    return f;
}

namespace {

float power_of_two(int exponent) { return std::ldexp(1.f, exponent); }

float to_half(float f) { return ggml_fp16_to_fp32(ggml_fp32_to_fp16(f)); }

float to_bf16(float f) { return ggml_bf16_to_fp32(ggml_fp32_to_bf16(f)); }

using Maker = void (*)(Random & r, float * x, int n);

void halves(Random & r, float * x, int n) {
    const float scale = 0.01f + 0.05f * r.uniform();
    for (int i = 0; i < n; i++) x[i] = to_half(scale * r.normal());
}
void floats(Random & r, float * x, int n) {
    const float scale = power_of_two((int) r.below(40) - 25);
    for (int i = 0; i < n; i++) x[i] = scale * r.normal();
}
void heavy_tails(Random & r, float * x, int n) {
    for (int i = 0; i < n; i++) x[i] = to_half(0.02f * r.heavy());
}
void brain_floats(Random & r, float * x, int n) {
    for (int i = 0; i < n; i++) x[i] = to_bf16(0.03f * r.normal());
}
void zeros(Random & r, float * x, int n) {
    const bool negative = r.below(2);
    for (int i = 0; i < n; i++) x[i] = negative ? -0.f : 0.f;
}
void constant(Random & r, float * x, int n) {
    const float value = r.normal() * power_of_two((int) r.below(30) - 15);
    for (int i = 0; i < n; i++) x[i] = value;
}
void spike(Random & r, float * x, int n) {
    const float noise = r.below(2) ? 0.f : 1e-4f;
    for (int i = 0; i < n; i++) x[i] = noise * r.normal();
    x[r.below((uint32_t) n)] = r.normal() * power_of_two((int) r.below(20) - 5);
}
void subnormals(Random & r, float * x, int n) {
    const uint32_t mask = r.below(2) ? 0x807fffff : 0x8000000f;
    for (int i = 0; i < n; i++) {
        const uint32_t bits = (uint32_t) r.next() & mask;
        memcpy(&x[i], &bits, 4);
    }
}
void huge(Random & r, float * x, int n) {
    const float scale = power_of_two(60 + (int) r.below(65));
    for (int i = 0; i < n; i++) x[i] = scale * r.normal();
}
void any_bits(Random & r, float * x, int n) {
    for (int i = 0; i < n; i++) x[i] = r.any_finite();
}
void signed_zeros(Random & r, float * x, int n) {
    for (int i = 0; i < n; i++) x[i] = r.below(4) ? (r.below(2) ? -0.f : 0.f) : to_half(0.01f * r.normal());
}
void negative_zeros_only(Random & r, float * x, int n) {
    for (int i = 0; i < n; i++) x[i] = r.below(2) ? -0.f : 0.f;
}
void narrow(Random & r, float * x, int n) {   // one value and its close neighbours: ranges next to nothing
    const float base = r.normal(), spread = power_of_two(-(int) r.below(24)) * base;
    for (int i = 0; i < n; i++) x[i] = base + spread * r.uniform();
}
void one_sign(Random & r, float * x, int n) {
    const float sign = r.below(2) ? 1.f : -1.f;
    for (int i = 0; i < n; i++) x[i] = sign * std::fabs(0.02f * r.normal());
}
void grid(Random & r, float * x, int n) {   // many ties, in size and in rounding
    const float step = r.below(2) ? 0.5f : 0.01f * r.uniform();
    const uint32_t width = 1 + r.below(33);
    for (int i = 0; i < n; i++) x[i] = step * (float) ((int) r.below(2 * width + 1) - (int) width);
}
void uneven(Random & r, float * x, int n) {   // sub-blocks of different size: stored scales that become zero
    float scale = 1;
    for (int i = 0; i < n; i++) {
        if (i % 16 == 0) scale = r.below(4) ? power_of_two(-(int) r.below(14)) : 0.f;
        x[i] = scale * r.normal();
    }
}
void next_to_nothing(Random & r, float * x, int n) {   // around the smallest magnitudes that the reference heeds
    const float scale = r.below(2) ? 1e-15f : power_of_two(-(int) r.below(126));
    for (int i = 0; i < n; i++) x[i] = scale * r.normal();
}
void ramp(Random & r, float * x, int n) {
    const float step = 0.001f * r.normal();
    for (int i = 0; i < n; i++) x[i] = step * (float) (i - (int) r.below(2));
}
// A round scale, and weights at or next to where the rounding to a level turns.
void near_ties(Random & r, float * x, int n) {
    static const float TOPS[] = {127, 8, 16, 15, 31, 3, 4, 32};
    const float top = TOPS[r.below(8)], scale = power_of_two((int) r.below(20) - 10);
    for (int i = 0; i < n; i++) {
        const float tie = (float) r.below((uint32_t) top) + 0.5f, near = std::nextafter(tie, r.below(2) ? 0.f : top);
        x[i] = (r.below(2) ? -scale : scale) * (r.below(3) ? near : tie);
    }
    for (int i = 0; i < n; i += 16) x[i + (int) r.below(16)] = (r.below(2) ? -scale : scale) * top;
}
void ternary(Random & r, float * x, int n) {
    const float scale = r.uniform();
    for (int i = 0; i < n; i++) x[i] = scale * (float) ((int) r.below(3) - 1);
}
void not_finite(Random & r, float * x, int n) {
    halves(r, x, n);
    const int count = 1 + (int) r.below(3);
    for (int i = 0; i < count; i++) {
        const uint32_t bits = (r.below(2) ? 0x7f800000 : 0x7f800000 | (uint32_t) r.next() >> 9) | r.below(2) << 31;
        memcpy(&x[r.below((uint32_t) n)], &bits, 4);
    }
}

// Ordinary weights first; last what gives infinities or NaNs on the way, of which a platform makes its own bytes.
const Maker MAKERS[] = {halves, floats, heavy_tails, brain_floats,
                        zeros, constant, spike, ramp, narrow, signed_zeros, one_sign, grid, uneven, ternary, near_ties,
                        negative_zeros_only,
                        huge, any_bits, next_to_nothing, subnormals, not_finite};
constexpr uint32_t ORDINARY = 4, PORTABLE = 16, ALL = 21;

Maker any_maker(Random & r, Hostility hostility) {
    static const uint32_t COUNTS[] = {ORDINARY, PORTABLE, ALL};
    return MAKERS[r.below(3) ? r.below(ORDINARY) : r.below(COUNTS[(int) hostility])];
}

}  // namespace

void make_weights(Random & random, Hostility hostility, int block, float * x, int64_t n) {
    const bool mixed = random.below(2);
    Maker maker = any_maker(random, hostility);
    for (int64_t i = 0; i < n; i += block) {
        if (mixed) maker = any_maker(random, hostility);
        maker(random, x + i, (int) (n - i < block ? n - i : block));
    }
}

void make_importances(Random & random, Hostility hostility, float * w, int64_t n) {
    static const uint32_t KINDS[] = {2, 6, 9};
    const uint32_t kind = random.below(3) ? 0 : random.below(KINDS[(int) hostility]);
    const float scale = power_of_two((int) random.below(24) - 12);
    for (int64_t i = 0; i < n; i++) {
        const float z = random.normal();
        switch (kind) {
            case 0: w[i] = scale * z * z; break;                                   // mean squares of activations
            case 1: w[i] = 1.f; break;
            case 2: w[i] = 0.f; break;
            case 3: w[i] = random.below(2) ? 0.f : z * z; break;
            case 4: w[i] = random.below(64) ? 1e-3f * z * z : 1e4f; break;         // a few channels that matter
            case 5: w[i] = std::fabs(random.heavy()); break;
            case 6: w[i] = z * z * (random.below(2) ? 1e30f : 1e-30f); break;
            case 7: w[i] = std::fabs(random.any_finite()); break;
            default: w[i] = random.below(32) ? z * z : (random.below(2) ? INFINITY : NAN);
        }
    }
}
