#include "rows.h"

#include <cstring>
#include <string>

#include "failure.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace ladder {

namespace {

#if defined(__x86_64__)
__attribute__((target("avx2,f16c"))) void widen_f16_f16c(const uint16_t * in, float * out, int64_t count) {
    int64_t i = 0;
    for (; i + 8 <= count; i += 8) {
        _mm256_storeu_ps(out + i, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i *>(in + i))));
    }
    ggml_fp16_to_fp32_row(in + i, out + i, count - i);
}
#endif

void widen_f16(const uint16_t * in, float * out, int64_t count) {
#if defined(__x86_64__)
    static const bool f16c = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("f16c");
    if (f16c) {
        return widen_f16_f16c(in, out, count);
    }
#endif
    ggml_fp16_to_fp32_row(in, out, count);
}

void widen_bf16(const uint16_t * in, float * out, int64_t count) {
    for (int64_t i = 0; i < count; ++i) {
        const uint32_t bits = uint32_t(in[i]) << 16;
        std::memcpy(out + i, &bits, sizeof bits);
    }
}

// Whether any number has all exponent bits set; written so that compilers turn it into vector code.
template <typename Bits>
bool any_special(const void * data, size_t size, Bits exponent) {
    const Bits * values = static_cast<const Bits *>(data);
    Bits special = 0;
    for (size_t i = 0; i < size / sizeof(Bits); ++i) {
        special |= Bits((values[i] & exponent) == exponent);
    }
    return special != 0;
}

}  // namespace

void widen(ggml_type type, const void * data, float * out, int64_t count) {
    if (type == GGML_TYPE_F16) {
        return widen_f16(static_cast<const uint16_t *>(data), out, count);
    }
    if (type == GGML_TYPE_BF16) {
        return widen_bf16(static_cast<const uint16_t *>(data), out, count);
    }
    const ggml_to_float_t to_float = ggml_get_type_traits(type)->to_float;
    if (!ggml_is_quantized(type) || to_float == nullptr) {
        throw Failure(Blame::source, std::string("ggml cannot widen tensors of type ") + ggml_type_name(type));
    }
    to_float(data, out, count);
}

bool valid_rows(ggml_type type, const void * data, size_t size) {
    const bool suspicious = type == GGML_TYPE_F16  ? any_special<uint16_t>(data, size, 0x7c00)
                          : type == GGML_TYPE_BF16 ? any_special<uint16_t>(data, size, 0x7f80)
                          : type == GGML_TYPE_F32  ? any_special<uint32_t>(data, size, 0x7f800000)
                                                   : true;
    return !suspicious || ggml_validate_row_data(type, data, size);
}

}  // namespace ladder
