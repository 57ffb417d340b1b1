// The compression function, by what the processor can do.
#pragma once

#include <cstddef>
#include <cstdint>

namespace ladder {

extern const uint32_t sha256_k[64];

void sha256_scalar(uint32_t * state, const uint8_t * data, size_t blocks);

#if defined(__x86_64__)
bool sha256_has_ni();
void sha256_ni(uint32_t * state, const uint8_t * data, size_t blocks);
// Two streams side by side: the latency of one hides behind the other.
void sha256_ni_pair(uint32_t * sa, const uint8_t * da, uint32_t * sb, const uint8_t * db, size_t blocks);
#endif

}  // namespace ladder
