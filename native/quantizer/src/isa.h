// The kernel sets of this build: which can run here, and which is in use. For the library, its tests and benchmarks.
#pragma once

#include "kernel.h"

struct qm_chosen {
    qm_kernel_set set;
    const qm_kernel * kernel[GGML_TYPE_COUNT][2];   // by type, then without and with importance matrix
};

// What quantmint_quantize_rows uses.
const qm_chosen & qm_in_use();

// All that can run here, best first, ending with "scalar" (ggml's own functions); NULL after the last. `index` from 0.
const qm_chosen * qm_available(int index);

// quantmint_quantize_rows with these kernels.
size_t qm_quantize_rows(const qm_chosen & chosen, enum ggml_type type, const float * src, void * dst, int64_t nrows,
                        int64_t n_per_row, const float * imatrix);
