// Matrices of 4 bits in bitsandbytes' layout: two elements a byte, the first in the high bits, a factor for
// each block of elements in a row, rows one after another with no regard to blocks.
//
// Compiled once for each instruction set, named by VARIANT; serve_dispatch.cpp picks one. Products and sums
// are not contracted (build.rs says so): a factor is rounded after the product and after the sum, as
// bitsandbytes rounds it, so that every value has its bits.

#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

#include "element.h"

namespace {

constexpr int64_t LEVELS = 16;
// Elements that are decoded at a time; a block is one or several of these, or a half.
constexpr int64_t PIECE = 64;
// Below this, bitsandbytes takes a block's largest value for this.
constexpr float SMALLEST = 1e-38f;

struct Matrix {
    const uint8_t* packed;
    // The factor of each block where there is no second level, else that of each outer block.
    const float* scales;
    // Second level: each block's factor as an index into `map`; null where there is none.
    const uint8_t* quants;
    const float* map;
    float offset;
    int64_t block, outer;
    const float* code;

    float scale(int64_t b) const { return quants ? map[quants[b]] * scales[b / outer] + offset : scales[b]; }
};

// The levels of `n` elements from an even one on.
inline void levels(const uint8_t* from, const float* code, float* y, int64_t n) {
    int64_t i = 0;
#if defined(__AVX512F__)
    const __m512 table = _mm512_loadu_ps(code);
    const __m128i low = _mm_set1_epi8(15);
    for (; i + 16 <= n; i += 16) {
        const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(from + i / 2));
        const __m128i first = _mm_and_si128(_mm_srli_epi16(bytes, 4), low), second = _mm_and_si128(bytes, low);
        const __m512i index = _mm512_cvtepu8_epi32(_mm_unpacklo_epi8(first, second));
        _mm512_storeu_ps(y + i, _mm512_permutexvar_ps(index, table));
    }
#endif
    for (; i < n; ++i) y[i] = code[i % 2 ? from[i / 2] & 15 : from[i / 2] >> 4];
}

// Elements `start` to `start + n` of the matrix.
template <typename T> void decode(const Matrix& m, int64_t start, int64_t n, T* y) {
    float piece[PIECE];
    while (n > 0) {
        const int64_t b = start / m.block, left = (b + 1) * m.block - start;
        int64_t count = n < left ? n : left;
        count = count < PIECE ? count : PIECE;
        if (start % 2) {
            count = 1;
            piece[0] = m.code[m.packed[start / 2] & 15];
        } else {
            levels(m.packed + start / 2, m.code, piece, count);
        }
        const float scale = m.scale(b);
#pragma omp simd
        for (int64_t i = 0; i < count; ++i) store(y + i, piece[i] * scale);
        start += count;
        y += count;
        n -= count;
    }
}

template <typename T> void whole(const Matrix& m, T* y, int64_t n) {
    const int64_t blocks = (n + m.block - 1) / m.block;
#pragma omp parallel for schedule(static)
    for (int64_t b = 0; b < blocks; ++b) {
        const int64_t start = b * m.block, left = n - start;
        decode(m, start, left < m.block ? left : m.block, y + start);
    }
}

constexpr int64_t LANES = 16;

inline float multiply_add(float a, float b, float sum) {
#if defined(__FMA__)
    return __builtin_fmaf(a, b, sum);
#else
    return a * b + sum;
#endif
}

inline float dot(const float* a, const float* x, int64_t n) {
    float sums[LANES] = {};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int64_t l = 0; l < LANES; ++l) sums[l] = multiply_add(a[i + l], x[i + l], sums[l]);
    float sum = 0.0f;
    for (int64_t l = 0; l < LANES; ++l) sum += sums[l];
    for (; i < n; ++i) sum += a[i] * x[i];
    return sum;
}

// y[m][o] = Σ x[m][i]·w[o][i]: each row of the matrix is decoded once for all rows of x.
template <typename T>
void product(const Matrix& w, const T* x, int64_t x_stride, T* y, int64_t rows, int64_t inputs, int64_t outputs) {
    std::vector<float> all(static_cast<size_t>(rows * inputs));
    float* xs = all.data();
    for (int64_t m = 0; m < rows; ++m)
        for (int64_t i = 0; i < inputs; ++i) xs[m * inputs + i] = load(x[m * x_stride + i]);
#pragma omp parallel
    {
        std::vector<float> room(static_cast<size_t>(inputs));
#pragma omp for schedule(static)
        for (int64_t o = 0; o < outputs; ++o) {
            decode(w, o * inputs, inputs, room.data());
            for (int64_t m = 0; m < rows; ++m) store(y + m * outputs + o, dot(room.data(), xs + m * inputs, inputs));
        }
    }
}

// The nearest level of each element divided by its block's largest, and these largest ones.
template <typename T>
void pack(const T* x, const float* code, uint8_t* packed, float* scales, int64_t n, int64_t block) {
    float bounds[LEVELS - 1];
    for (int64_t j = 0; j + 1 < LEVELS; ++j) bounds[j] = (code[j] + code[j + 1]) / 2;
    const int64_t blocks = (n + block - 1) / block;
#pragma omp parallel
    {
        std::vector<float> room(static_cast<size_t>(block + 1));
        std::vector<int32_t> found(static_cast<size_t>(block + 1));
#pragma omp for schedule(static)
        for (int64_t b = 0; b < blocks; ++b) {
            const T* from = x + b * block;
            const int64_t left = n - b * block, count = left < block ? left : block;
            float largest = 0.0f;
#pragma omp simd reduction(max : largest)
            for (int64_t i = 0; i < count; ++i) {
                const float size = std::fabs(load(from[i]));
                largest = size > largest ? size : largest;
            }
            const float divisor = largest < SMALLEST ? SMALLEST : largest, factor = 1.0f / divisor;
            // bitsandbytes multiplies by the inverse, but in a last block that is not full.
            const bool full = count == block;
            scales[b] = full ? largest : divisor;
            room[count] = 0.0f;
            for (int64_t i = 0; i < count; ++i) room[i] = full ? load(from[i]) * factor : load(from[i]) / divisor;
#pragma omp simd
            for (int64_t i = 0; i <= count; ++i) {
                int32_t level = 0;
                for (int64_t j = 0; j + 1 < LEVELS; ++j) level += bounds[j] < room[i];
                found[i] = level;
            }
            uint8_t* to = packed + b * block / 2;
            for (int64_t i = 0; i < count; i += 2) to[i / 2] = static_cast<uint8_t>(found[i] << 4 | found[i + 1]);
        }
    }
}

} // namespace

#define PASTE_(a, b) a##_##b
#define PASTE(a, b) PASTE_(a, b)
#define NAME(f) PASTE(f, VARIANT)
#define MATRIX                                                                                                         \
    { packed, scales, quants, map, offset, block, outer, code }

extern "C" {

void NAME(nf4_dense)(int kind, const uint8_t* packed, const float* scales, const uint8_t* quants, const float* map,
                     float offset, int64_t block, int64_t outer, const float* code, void* y, int64_t n) {
    const Matrix m = MATRIX;
    if (kind == 0)
        whole(m, static_cast<float*>(y), n);
    else
        whole(m, static_cast<bf16*>(y), n);
}

void NAME(nf4_product)(int kind, const uint8_t* packed, const float* scales, const uint8_t* quants, const float* map,
                       float offset, int64_t block, int64_t outer, const float* code, const void* x, int64_t x_stride,
                       void* y, int64_t rows, int64_t inputs, int64_t outputs) {
    const Matrix m = MATRIX;
    if (kind == 0)
        product(m, static_cast<const float*>(x), x_stride, static_cast<float*>(y), rows, inputs, outputs);
    else
        product(m, static_cast<const bf16*>(x), x_stride, static_cast<bf16*>(y), rows, inputs, outputs);
}

void NAME(nf4_pack)(int kind, const void* x, const float* code, uint8_t* packed, float* scales, int64_t n,
                    int64_t block) {
    if (kind == 0)
        pack(static_cast<const float*>(x), code, packed, scales, n, block);
    else
        pack(static_cast<const bf16*>(x), code, packed, scales, n, block);
}

} // extern "C"
