// Rows of weights to kernels: W blocks at a time, the last ones padded; what a kernel declines goes to ggml.
#include <cstring>

#include "isa.h"
#include "quantmint_quant.h"

namespace {

constexpr size_t LARGEST_BLOCK = 512;   // bytes; checked against the type's own

struct Job {
    const qm_kernel * kernel;
    const float * src;
    uint8_t * dst;
    int64_t n_per_row, block, blocks_per_row;
    size_t block_bytes;
    const float * imatrix;
};

// The rows of one kernel call's lanes: where each block and its importances are, and its row's mean square.
struct Lanes {
    const float * x[QM_MAX_LANES];
    const float * importance[QM_MAX_LANES];
    float mean_square[QM_MAX_LANES];
};

// Consecutive blocks of consecutive rows.
class Cursor {
  public:
    Cursor(const Job & job, const float * mean_squares) : job(job), means(mean_squares) {}

    void fill(Lanes & lanes, int lane) const {
        lanes.x[lane] = job.src + block * job.block;
        lanes.importance[lane] = job.imatrix ? job.imatrix + column * job.block : nullptr;
        lanes.mean_square[lane] = means ? *means : 0.f;
    }
    void advance() {
        block++;
        if (++column < job.blocks_per_row) return;
        column = 0;
        if (means) means++;
    }

  private:
    const Job & job;
    int64_t block = 0, column = 0;
    const float * means;
};

// ggml decides alone on lanes that a kernel declined: block by block, or, where the row matters, row by row.
void redo(const Job & job, int64_t block, bool * redo_row) {
    if (redo_row != nullptr) {
        redo_row[block / job.blocks_per_row] = true;
        return;
    }
    const float * importance = job.imatrix ? job.imatrix + block % job.blocks_per_row * job.block : nullptr;
    uint8_t * out = job.dst + block * job.block_bytes;
    ggml_quantize_chunk(job.kernel->type, job.src + block * job.block, out, 0, 1, job.block, importance);
}

// All rows of a job. `mean_squares` and `redo_row` (by row) only where the kernel needs the row.
void run_rows(const Job & job, int lanes_wide, int64_t nrows, const float * mean_squares, bool * redo_row) {
    alignas(64) uint8_t spare[QM_MAX_LANES * LARGEST_BLOCK];
    Lanes lanes = {};
    Cursor cursor(job, mean_squares);
    const int64_t end = nrows * job.blocks_per_row;
    for (int64_t b = 0; b < end; b += lanes_wide) {
        const int filled = (int) (end - b < lanes_wide ? end - b : lanes_wide);
        for (int t = 0; t < filled; t++, cursor.advance()) cursor.fill(lanes, t);
        for (int t = filled; t < lanes_wide; t++) {
            lanes.x[t] = lanes.x[filled - 1];
            lanes.importance[t] = lanes.importance[filled - 1];
            lanes.mean_square[t] = lanes.mean_square[filled - 1];
        }
        uint8_t * out = job.dst + b * job.block_bytes;
        const bool whole = filled == lanes_wide;
        const uint32_t declined =
            job.kernel->group(lanes.x, lanes.importance, lanes.mean_square, whole ? out : spare);
        if (!whole) memcpy(out, spare, filled * job.block_bytes);
        for (int t = 0; declined != 0 && t < filled; t++)
            if (declined >> t & 1) redo(job, b + t, redo_row);
    }
}

// Kernels that need their row's mean square: as many rows at a time as there are lanes.
void run_with_row_sums(const Job & job, const qm_kernel_set & set, int64_t nrows) {
    for (int64_t first = 0; first < nrows; first += set.lanes) {
        const int64_t count = nrows - first < set.lanes ? nrows - first : set.lanes;
        Job part = job;
        part.src += first * job.n_per_row;
        part.dst += first * job.blocks_per_row * job.block_bytes;
        const float * rows[QM_MAX_LANES];
        for (int t = 0; t < set.lanes; t++) rows[t] = part.src + (t < count ? t : count - 1) * job.n_per_row;
        float means[QM_MAX_LANES + 1] = {};
        bool redo_row[QM_MAX_LANES] = {};
        set.row_squares(rows, job.n_per_row, means);
        for (int t = 0; t < set.lanes; t++) means[t] /= (float) job.n_per_row;
        run_rows(part, set.lanes, count, means, redo_row);
        for (int t = 0; t < count; t++) {
            if (!redo_row[t]) continue;
            uint8_t * out = part.dst + t * job.blocks_per_row * job.block_bytes;
            ggml_quantize_chunk(job.kernel->type, rows[t], out, 0, 1, job.n_per_row, job.imatrix);
        }
    }
}

}  // namespace

size_t qm_quantize_rows(const qm_chosen & chosen, enum ggml_type type, const float * src, void * dst, int64_t nrows,
                        int64_t n_per_row, const float * imatrix) {
    const qm_kernel * kernel = type >= 0 && type < GGML_TYPE_COUNT ? chosen.kernel[type][imatrix != nullptr] : nullptr;
    const int64_t block = kernel ? ggml_blck_size(type) : 0;
    const size_t block_bytes = kernel ? ggml_type_size(type) : 0;
    if (kernel == nullptr || nrows <= 0 || n_per_row <= 0 || n_per_row % block != 0 || block_bytes > LARGEST_BLOCK)
        return ggml_quantize_chunk(type, src, dst, 0, nrows, n_per_row, imatrix);
    const Job job = {kernel, src, (uint8_t *) dst, n_per_row, block, n_per_row / block, block_bytes, imatrix};
    if (kernel->needs_row) run_with_row_sums(job, chosen.set, nrows);
    else run_rows(job, chosen.set.lanes, nrows, nullptr, nullptr);
    return (size_t) (nrows * job.blocks_per_row) * block_bytes;
}

size_t quantmint_quantize_rows(enum ggml_type type, const float * src, void * dst, int64_t nrows, int64_t n_per_row,
                               const float * imatrix) {
    return qm_quantize_rows(qm_in_use(), type, src, dst, nrows, n_per_row, imatrix);
}
