// The bits of dropout's mask, as csrc/cpu/dropout_mask.h draws them: Philox 4x64-10 of (block, step, site) under the
// key (seed, 0). One call of it serves eight elements.
#pragma once

#include "cuda/gpu/gpu.h"

namespace minillm::dropout {
struct PhiloxKey { uint64_t seed, step, site; };

DEVICE void philox_round(uint64_t (&c)[4], uint64_t k0, uint64_t k1) {
    typedef unsigned __int128 Wide;
    const Wide a = Wide(0xD2E7470EE14C6C93u) * c[0], b = Wide(0xCA5A826395121157u) * c[2];
    c[0] = uint64_t(b >> 64) ^ c[1] ^ k0;
    c[1] = uint64_t(b);
    c[2] = uint64_t(a >> 64) ^ c[3] ^ k1;
    c[3] = uint64_t(a);
}

// keep of the elements 8 * block ... 8 * block + 7, one bit each, the first lowest. complement: 2^32 - ceil(p * 2^32).
DEVICE uint32_t keep_block(uint64_t block, const PhiloxKey& key, uint64_t complement) {
    uint64_t c[4] = {block + 1, key.step, key.site, 0};
    UNROLL_FOR (uint64_t round = 0; round < 10; round++)
        philox_round(c, key.seed + round * 0x9E3779B97F4A7C15u, round * 0xBB67AE8584CAA73Bu);
    uint64_t keep = 0;
    UNROLL_FOR (int word = 3; word >= 0; word--) {  // bits + (2^32 - threshold) reaches 2^32 if kept
        keep = keep * 2 + (((c[word] >> 32) + complement) >> 32);
        keep = keep * 2 + (((c[word] & 0xFFFFFFFFu) + complement) >> 32);
    }
    return uint32_t(keep);
}
}  // namespace minillm::dropout
