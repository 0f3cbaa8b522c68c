// The two kinds of elements that kernels read and write; all arithmetic is fp32.

#pragma once

#include <cstdint>
#include <cstring>

namespace {

struct bf16 {
    uint16_t bits;
};

inline float load(float x) { return x; }

inline float load(bf16 x) {
    uint32_t bits = static_cast<uint32_t>(x.bits) << 16;
    float y;
    std::memcpy(&y, &bits, 4);
    return y;
}

inline void store(float* at, float x) { *at = x; }

// Rounds to nearest, ties to even. A NaN stays one, as the quiet NaN that LibTorch writes.
inline void store(bf16* at, float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    at->bits = static_cast<uint16_t>(x == x ? rounded : 0x7fc0);
}

} // namespace
