// What a compiled set of kernels offers to the dispatcher. Sources of all instruction sets include it: plain data only.
#pragma once

#include <cstddef>
#include <cstdint>

#include "ggml.h"

constexpr int QM_MAX_LANES = 16;

// Quantizes one block per lane. x[t] and weights[t] (NULL without an importance matrix) point at the block of lane t;
// mean_squares[t] is that of its whole row (only where `needs_row`). Writes all lanes' blocks to dst one after another
// and returns a bit for each lane that it could not do exactly as the reference does: those bytes mean nothing.
using qm_group = uint32_t (*)(const float * const * x, const float * const * weights, const float * mean_squares,
                              uint8_t * dst);

struct qm_kernel {
    enum ggml_type type;
    bool imatrix;
    bool needs_row;
    qm_group group;
};

// The sums of squares of W rows, each added up in order.
using qm_row_squares = void (*)(const float * const * rows, int64_t n, float * sums);

struct qm_kernel_set {
    const char * isa;
    int lanes;
    qm_row_squares row_squares;
    const qm_kernel * kernels[48];
    int count;
};
