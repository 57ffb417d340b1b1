// Weights and importances to quantize: ordinary ones, and every kind that may upset a search or a rounding.
//
// Only additions, multiplications, divisions and square roots make them: a seed gives the same ones on every machine.
#pragma once

#include <cstdint>
#include <vector>

class Random {
  public:
    explicit Random(uint64_t seed) : state(seed) {}
    uint64_t next();                       // 64 random bits
    uint32_t below(uint32_t n);            // 0 to n - 1
    float uniform();                       // [0, 1)
    float normal();                        // near enough to a normal deviate: the sum of twelve uniform ones
    float heavy();                         // Student's t with three degrees of freedom
    float any_finite();                    // random bits that are no infinity and no NaN

  private:
    uint64_t state;
};

// What real files hold; what is defined on every platform; anything, infinities and NaNs too.
enum class Hostility { ordinary, portable, all };

// `n` weights, `block` of them (at most) of one kind.
void make_weights(Random & random, Hostility hostility, int block, float * x, int64_t n);

// `n` importances, as a matrix from calibration has them, or as none should have them.
void make_importances(Random & random, Hostility hostility, float * w, int64_t n);
