// ggml's own tables, as constants that the compiler can compute with.
#pragma once

#include <cstdint>

// The header's flavour for CUDA marks each table with a word of its own; here that word makes it a constant expression.
#define GGML_COMMON_IMPL_CUDA
#define __device__ constexpr
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-variable"
#include "ggml-common.h"
#pragma GCC diagnostic pop
#undef __device__
