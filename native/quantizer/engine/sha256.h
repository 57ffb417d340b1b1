// SHA-256 (FIPS 180-4), with the processor's own instructions where it has them.
//
// One stream is bound by the latency of its rounds; two streams interleaved on one core run at nearly twice
// the rate of one. `update_pair` is for the ladder, where the same bytes feed several digests.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace ladder {

class Sha256 {
public:
    void update(const void * data, size_t size);
    // Ends the stream and returns 64 hexadecimal digits; the object may not be used afterwards.
    std::string finish();

    friend void update_pair(Sha256 & a, const uint8_t * pa, size_t na, Sha256 & b, const uint8_t * pb, size_t nb);

private:
    // Takes bytes until the pending block is whole or the data end.
    void top_up(const uint8_t *& data, size_t & size);
    void keep_rest(const uint8_t * data, size_t size);

    uint32_t state_[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    uint8_t  pending_[64];
    size_t   n_pending_ = 0;
    uint64_t n_total_   = 0;
};

void update_pair(Sha256 & a, const uint8_t * pa, size_t na, Sha256 & b, const uint8_t * pb, size_t nb);

std::string sha256_hex(const std::string & data);

// "sha-ni" or "scalar".
const char * sha256_path();

}  // namespace ladder
