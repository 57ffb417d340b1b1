#include "sha256.h"

#include <algorithm>
#include <cstring>

#include "sha256_blocks.h"

namespace ladder {

const uint32_t sha256_k[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

namespace {

uint32_t turn(uint32_t x, int n) {
    return x >> n | x << (32 - n);
}

void compress(uint32_t * state, const uint8_t * data, size_t blocks) {
#if defined(__x86_64__)
    static const bool ni = sha256_has_ni();
    if (ni) {
        return sha256_ni(state, data, blocks);
    }
#endif
    sha256_scalar(state, data, blocks);
}

void compress_pair(uint32_t * sa, const uint8_t * da, uint32_t * sb, const uint8_t * db, size_t blocks) {
#if defined(__x86_64__)
    static const bool ni = sha256_has_ni();
    if (ni) {
        return sha256_ni_pair(sa, da, sb, db, blocks);
    }
#endif
    sha256_scalar(sa, da, blocks);
    sha256_scalar(sb, db, blocks);
}

}  // namespace

void sha256_scalar(uint32_t * state, const uint8_t * data, size_t blocks) {
    for (; blocks > 0; --blocks, data += 64) {
        uint32_t w[64];
        for (int i = 0; i < 16; ++i) {
            w[i] = uint32_t(data[4 * i]) << 24 | uint32_t(data[4 * i + 1]) << 16 | uint32_t(data[4 * i + 2]) << 8 | data[4 * i + 3];
        }
        for (int i = 16; i < 64; ++i) {
            const uint32_t s0 = turn(w[i - 15], 7) ^ turn(w[i - 15], 18) ^ w[i - 15] >> 3;
            const uint32_t s1 = turn(w[i - 2], 17) ^ turn(w[i - 2], 19) ^ w[i - 2] >> 10;
            w[i] = w[i - 16] + s0 + w[i - 7] + s1;
        }
        uint32_t v[8];
        std::memcpy(v, state, sizeof v);
        for (int i = 0; i < 64; ++i) {
            const uint32_t choose   = (v[4] & v[5]) ^ (~v[4] & v[6]);
            const uint32_t majority = (v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]);
            const uint32_t t1 = v[7] + (turn(v[4], 6) ^ turn(v[4], 11) ^ turn(v[4], 25)) + choose + sha256_k[i] + w[i];
            const uint32_t t2 = (turn(v[0], 2) ^ turn(v[0], 13) ^ turn(v[0], 22)) + majority;
            for (int j = 7; j > 0; --j) {
                v[j] = v[j - 1];
            }
            v[4] += t1;
            v[0] = t1 + t2;
        }
        for (int i = 0; i < 8; ++i) {
            state[i] += v[i];
        }
    }
}

void Sha256::top_up(const uint8_t *& data, size_t & size) {
    n_total_ += size;
    if (n_pending_ == 0) {
        return;
    }
    const size_t taken = std::min(size, sizeof pending_ - n_pending_);
    std::memcpy(pending_ + n_pending_, data, taken);
    n_pending_ += taken;
    data += taken;
    size -= taken;
    if (n_pending_ == sizeof pending_) {
        compress(state_, pending_, 1);
        n_pending_ = 0;
    }
}

void Sha256::keep_rest(const uint8_t * data, size_t size) {
    const size_t blocks = size / 64;
    compress(state_, data, blocks);
    const size_t rest = size - blocks * 64;
    std::memcpy(pending_ + n_pending_, data + blocks * 64, rest);
    n_pending_ += rest;
}

void Sha256::update(const void * data, size_t size) {
    const uint8_t * bytes = static_cast<const uint8_t *>(data);
    top_up(bytes, size);
    if (size > 0) {
        keep_rest(bytes, size);
    }
}

void update_pair(Sha256 & a, const uint8_t * pa, size_t na, Sha256 & b, const uint8_t * pb, size_t nb) {
    a.top_up(pa, na);
    b.top_up(pb, nb);
    const size_t blocks = std::min(na, nb) / 64;
    compress_pair(a.state_, pa, b.state_, pb, blocks);
    if (na > blocks * 64) {
        a.keep_rest(pa + blocks * 64, na - blocks * 64);
    }
    if (nb > blocks * 64) {
        b.keep_rest(pb + blocks * 64, nb - blocks * 64);
    }
}

std::string Sha256::finish() {
    const uint64_t bits = n_total_ * 8;
    uint8_t tail[72] = {0x80};
    const size_t zeros = (119 - n_pending_) % 64;  // up to the eight bytes of the length
    for (int i = 0; i < 8; ++i) {
        tail[1 + zeros + i] = uint8_t(bits >> (56 - 8 * i));
    }
    update(tail, 1 + zeros + 8);
    std::string hex;
    for (const uint32_t word : state_) {
        for (int shift = 28; shift >= 0; shift -= 4) {
            hex += "0123456789abcdef"[word >> shift & 15];
        }
    }
    return hex;
}

std::string sha256_hex(const std::string & data) {
    Sha256 digest;
    digest.update(data.data(), data.size());
    return digest.finish();
}

const char * sha256_path() {
#if defined(__x86_64__)
    if (sha256_has_ni()) {
        return "sha-ni";
    }
#endif
    return "scalar";
}

}  // namespace ladder
