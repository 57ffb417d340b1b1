// Rows of the input as 32-bit floats, and the verdict of llama.cpp on bytes read and written.
#pragma once

#include <cstddef>
#include <cstdint>

#include "ggml.h"

namespace ladder {

// Widens `count` weights of `type` (F16, BF16 or any type that ggml dequantizes) into `out`; exact.
// Throws a source Failure for types that ggml cannot widen.
void widen(ggml_type type, const void * data, float * out, int64_t count);

// Whether llama.cpp takes these bytes of `type` as valid tensor data: no infinities, no NaNs.
// Same verdict as ggml_validate_row_data, which is asked only when something suspicious is seen.
bool valid_rows(ggml_type type, const void * data, size_t size);

}  // namespace ladder
