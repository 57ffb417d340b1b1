// Quantizing rows of weights with the bytes of ggml's own ggml_quantize_chunk, several times faster.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ggml.h"

#ifdef __cplusplus
extern "C" {
#endif

// Quantizes `nrows` rows of `n_per_row` weights of `src` into `dst`.
// The bytes equal those of ggml_quantize_chunk(type, src, dst, 0, nrows, n_per_row, imatrix) built for
// x86-64 without fused multiply-add. `imatrix` is NULL or `n_per_row` weights' importances.
// A type, shape or value that no kernel takes goes to ggml_quantize_chunk itself.
// Safe to call from many threads once ggml_quantize_init(type) was called. Returns the bytes written.
//
// A kernel works on 4 to 16 blocks at a time, whatever rows they are of, and fills up its last turn: calls with
// hundreds of blocks or more are the fast ones. It takes up to 64 KiB of the calling thread's stack.
size_t quantmint_quantize_rows(enum ggml_type type, const float * src, void * dst, int64_t nrows, int64_t n_per_row,
                               const float * imatrix);

// The instruction set in use ("avx512", "avx2", "sse42", "neon", "scalar"; the last is ggml's own functions).
// The environment variable QUANTMINT_QUANT_ISA, read once, forces a lesser one; a better one than this CPU has, or a
// name that means nothing, leaves the best.
const char * quantmint_quant_isa(void);

// Whether `type` has a kernel of ours with (or without) an importance matrix, on the instruction set in use.
bool quantmint_quant_has_kernel(enum ggml_type type, bool imatrix);

#ifdef __cplusplus
}
#endif
