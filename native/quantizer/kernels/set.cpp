// The kernels of one instruction set, for the dispatcher.
#include "block.h"
#include "kernel.h"

namespace QM_ISA {

extern const qm_kernel k_min_max[], k_symmetric[], legacy[], iq4[], flat[], grid_quants[], iq1[];
extern const int k_min_max_count, k_symmetric_count, legacy_count, iq4_count, flat_count, grid_quants_count, iq1_count;

namespace {

void row_squares(const float * const * rows, int64_t n, float * sums) {
    Vec tile[W], sum = {};
    for (int64_t i = 0; i < n; i += W) {
        load_tile(rows, (int) i, tile);
        for (int j = 0; j < W; j++) sum += tile[j] * tile[j];
    }
    memcpy(sums, &sum, sizeof sum);
}

void add(qm_kernel_set & set, const qm_kernel * kernels, int count) {
    for (int i = 0; i < count; i++) set.kernels[set.count++] = &kernels[i];
}

}  // namespace

#define QM_TEXT(x) #x
#define QM_NAME(x) QM_TEXT(x)

qm_kernel_set kernel_set() {
    qm_kernel_set set = {QM_NAME(QM_ISA), W, row_squares, {}, 0};
    add(set, k_min_max, k_min_max_count);
    add(set, k_symmetric, k_symmetric_count);
    add(set, legacy, legacy_count);
    add(set, iq4, iq4_count);
    add(set, flat, flat_count);
    add(set, grid_quants, grid_quants_count);
    add(set, iq1, iq1_count);
    return set;
}

}  // namespace QM_ISA
