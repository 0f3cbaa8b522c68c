// What a decode step of many sequences needs beside matrix products: low-rank parts of adapters that
// differ from row to row, and attention over a cache of blocks.
//
// Compiled once for each instruction set, named by VARIANT; serve_dispatch.cpp picks one. Sums are fp32.

#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "element.h"

namespace {

// Tokens of a block of the cache; `paged.rs` has the same number.
constexpr int64_t BLOCK = 32;

// Independent partial sums, so that the compiler may use whole vectors.
constexpr int64_t LANES = 16;

template <typename T> inline float dot(const T* a, const T* x, int64_t n) {
    float sums[LANES] = {};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int64_t l = 0; l < LANES; ++l) sums[l] += load(a[i + l]) * load(x[i + l]);
    float sum = 0.0f;
    for (int64_t l = 0; l < LANES; ++l) sum += sums[l];
    for (; i < n; ++i) sum += load(a[i]) * load(x[i]);
    return sum;
}

// y[at[i]] += (x[at[i]]·a[i]^T)·b[i], with a[i] `[r, inputs]` and b[i] `[r, outputs]`.
template <typename T>
void low_rank_rows(const T* x, int64_t x_stride, T* y, int64_t y_stride, const void* const* a, const void* const* b,
                   const int64_t* ranks, const int64_t* at, int64_t rows, int64_t inputs, int64_t outputs) {
#pragma omp parallel if (rows > 1)
    {
        std::vector<float> sums(static_cast<size_t>(outputs));
#pragma omp for schedule(static)
        for (int64_t i = 0; i < rows; ++i) {
            const T* xi = x + at[i] * x_stride;
            T* yi = y + at[i] * y_stride;
            const T* ai = static_cast<const T*>(a[i]);
            const T* bi = static_cast<const T*>(b[i]);
            for (int64_t o = 0; o < outputs; ++o) sums[o] = load(yi[o]);
            for (int64_t r = 0; r < ranks[i]; ++r) {
                const float low = dot(ai + r * inputs, xi, inputs);
                const T* row = bi + r * outputs;
                float* into = sums.data();
                for (int64_t o = 0; o < outputs; ++o) into[o] += low * load(row[o]);
            }
            for (int64_t o = 0; o < outputs; ++o) store(yi + o, sums[o]);
        }
    }
}

// Rows of an int8 matrix that are turned to fp32 together.
constexpr int64_t GROUP = 4;

// The value of q in a row is scale·q·STEP: a 127th, as bitsandbytes has it.
constexpr float STEP = 0.007874015718698502f;

// y[m][o] = scales[o]·STEP·Σ x[m][i]·q[o][i]. Each row of the matrix is read and turned to fp32 once for all rows of x.
template <typename T>
void int8_rows(const T* x, int64_t x_stride, const int8_t* q, const float* scales, T* y, int64_t rows, int64_t inputs,
               int64_t outputs) {
    std::vector<float> all(static_cast<size_t>(rows * inputs));
    float* xs = all.data();
    for (int64_t m = 0; m < rows; ++m)
        for (int64_t i = 0; i < inputs; ++i) xs[m * inputs + i] = load(x[m * x_stride + i]);
#pragma omp parallel
    {
        std::vector<float> room(static_cast<size_t>(GROUP * inputs));
        float* w = room.data();
#pragma omp for schedule(static)
        for (int64_t o = 0; o < outputs; o += GROUP) {
            const int64_t count = outputs - o < GROUP ? outputs - o : GROUP;
            for (int64_t i = 0; i < count * inputs; ++i) w[i] = static_cast<float>(q[o * inputs + i]);
            for (int64_t m = 0; m < rows; ++m)
                for (int64_t g = 0; g < count; ++g)
                    store(y + m * outputs + o + g,
                          scales[o + g] * STEP * dot(w + g * inputs, xs + m * inputs, inputs));
        }
    }
}

// y[r] = scales[r]·q[r]·STEP.
template <typename T>
void int8_whole(const int8_t* q, const float* scales, T* y, int64_t rows, int64_t n) {
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < rows; ++r)
        for (int64_t i = 0; i < n; ++i) store(y + r * n + i, scales[r] * static_cast<float>(q[r * n + i]) * STEP);
}

// Keys lie as `[block, group, dim, BLOCK]`, values as `[block, group, BLOCK, dim]`; places[i] is
// block·BLOCK + offset.
template <typename T>
void store_rows(const T* k, const T* v, int64_t k_stride, int64_t v_stride, T* keys, T* values, const int64_t* places,
                int64_t rows, int64_t groups, int64_t dim) {
#pragma omp parallel for schedule(static) if (rows > 8)
    for (int64_t i = 0; i < rows; ++i) {
        const int64_t block = places[i] / BLOCK, offset = places[i] % BLOCK;
        for (int64_t g = 0; g < groups; ++g) {
            const int64_t base = (block * groups + g) * dim * BLOCK;
            const T* ki = k + i * k_stride + g * dim;
            const T* vi = v + i * v_stride + g * dim;
            for (int64_t c = 0; c < dim; ++c) keys[base + c * BLOCK + offset] = ki[c];
            std::memcpy(values + base + offset * dim, vi, sizeof(T) * dim);
        }
    }
}

// One query row against the tokens first..=last of its sequence, for the query heads of one group.
template <typename T>
void attend_group(const T* q, T* y, const T* keys, const T* values, const int64_t* table, int64_t first, int64_t last,
                  int64_t group, int64_t groups, int64_t times, int64_t dim, float scale, std::vector<float>& room) {
    const int64_t from = first / BLOCK, until = last / BLOCK + 1, width = (until - from) * BLOCK;
    room.resize(static_cast<size_t>(times * (width + dim)));
    float* scores = room.data();
    float* sums = scores + times * width;
    for (int64_t j = from; j < until; ++j) {
        const T* block = keys + (table[j] * groups + group) * dim * BLOCK;
        for (int64_t h = 0; h < times; ++h) {
            float part[BLOCK] = {};
            for (int64_t c = 0; c < dim; ++c) {
                const float qc = load(q[h * dim + c]);
                for (int64_t t = 0; t < BLOCK; ++t) part[t] += qc * load(block[c * BLOCK + t]);
            }
            std::memcpy(scores + h * width + (j - from) * BLOCK, part, sizeof part);
        }
    }
    const int64_t begin = first - from * BLOCK, end = last - from * BLOCK + 1;
    for (int64_t h = 0; h < times; ++h) {
        float* row = scores + h * width;
        float largest = -INFINITY, sum = 0.0f;
        for (int64_t t = begin; t < end; ++t) largest = row[t] > largest ? row[t] : largest;
        for (int64_t t = begin; t < end; ++t) {
            row[t] = std::exp((row[t] - largest) * scale);
            sum += row[t];
        }
        for (int64_t t = begin; t < end; ++t) row[t] /= sum;
    }
    std::memset(sums, 0, sizeof(float) * times * dim);
    for (int64_t t = begin; t < end; ++t) {
        const int64_t block = table[from + t / BLOCK];
        const T* value = values + ((block * groups + group) * BLOCK + t % BLOCK) * dim;
        for (int64_t h = 0; h < times; ++h) {
            const float p = scores[h * width + t];
            float* into = sums + h * dim;
            for (int64_t c = 0; c < dim; ++c) into[c] += p * load(value[c]);
        }
    }
    for (int64_t i = 0; i < times * dim; ++i) store(y + i, sums[i]);
}

template <typename T>
void attend_rows(const T* q, int64_t q_stride, T* y, int64_t y_stride, const T* keys, const T* values,
                 const int64_t* const* tables, const int64_t* firsts, const int64_t* lasts, const int64_t* at,
                 int64_t rows, int64_t heads, int64_t groups, int64_t dim, float scale) {
    const int64_t times = heads / groups;
#pragma omp parallel if (rows * groups > 1)
    {
        std::vector<float> room;
#pragma omp for schedule(dynamic, 1)
        for (int64_t job = 0; job < rows * groups; ++job) {
            const int64_t i = job / groups, g = job % groups, offset = g * times * dim;
            attend_group(q + at[i] * q_stride + offset, y + at[i] * y_stride + offset, keys, values, tables[i],
                         firsts[i], lasts[i], g, groups, times, dim, scale, room);
        }
    }
}

} // namespace

#define PASTE_(a, b) a##_##b
#define PASTE(a, b) PASTE_(a, b)
#define NAME(f) PASTE(f, VARIANT)

extern "C" {

void NAME(low_rank)(int kind, const void* x, int64_t x_stride, void* y, int64_t y_stride, const void* const* a,
                    const void* const* b, const int64_t* ranks, const int64_t* at, int64_t rows, int64_t inputs,
                    int64_t outputs) {
    if (kind == 0)
        low_rank_rows(static_cast<const float*>(x), x_stride, static_cast<float*>(y), y_stride, a, b, ranks, at, rows,
                      inputs, outputs);
    else
        low_rank_rows(static_cast<const bf16*>(x), x_stride, static_cast<bf16*>(y), y_stride, a, b, ranks, at, rows,
                      inputs, outputs);
}

void NAME(int8_product)(int kind, const void* x, int64_t x_stride, const void* q, const void* scales, void* y,
                        int64_t rows, int64_t inputs, int64_t outputs) {
    const int8_t* matrix = static_cast<const int8_t*>(q);
    const float* factors = static_cast<const float*>(scales);
    if (kind == 0)
        int8_rows(static_cast<const float*>(x), x_stride, matrix, factors, static_cast<float*>(y), rows, inputs, outputs);
    else
        int8_rows(static_cast<const bf16*>(x), x_stride, matrix, factors, static_cast<bf16*>(y), rows, inputs, outputs);
}

void NAME(int8_dense)(int kind, const void* q, const void* scales, void* y, int64_t rows, int64_t n) {
    const int8_t* matrix = static_cast<const int8_t*>(q);
    const float* factors = static_cast<const float*>(scales);
    if (kind == 0)
        int8_whole(matrix, factors, static_cast<float*>(y), rows, n);
    else
        int8_whole(matrix, factors, static_cast<bf16*>(y), rows, n);
}

void NAME(paged_store)(int kind, const void* k, const void* v, int64_t k_stride, int64_t v_stride, void* keys,
                       void* values, const int64_t* places, int64_t rows, int64_t groups, int64_t dim) {
    if (kind == 0)
        store_rows(static_cast<const float*>(k), static_cast<const float*>(v), k_stride, v_stride,
                   static_cast<float*>(keys), static_cast<float*>(values), places, rows, groups, dim);
    else
        store_rows(static_cast<const bf16*>(k), static_cast<const bf16*>(v), k_stride, v_stride,
                   static_cast<bf16*>(keys), static_cast<bf16*>(values), places, rows, groups, dim);
}

void NAME(paged_attention)(int kind, const void* q, int64_t q_stride, void* y, int64_t y_stride, const void* keys,
                           const void* values, const int64_t* const* tables, const int64_t* firsts,
                           const int64_t* lasts, const int64_t* at, int64_t rows, int64_t heads, int64_t groups,
                           int64_t dim, float scale) {
    if (kind == 0)
        attend_rows(static_cast<const float*>(q), q_stride, static_cast<float*>(y), y_stride,
                    static_cast<const float*>(keys), static_cast<const float*>(values), tables, firsts, lasts, at,
                    rows, heads, groups, dim, scale);
    else
        attend_rows(static_cast<const bf16*>(q), q_stride, static_cast<bf16*>(y), y_stride,
                    static_cast<const bf16*>(keys), static_cast<const bf16*>(values), tables, firsts, lasts, at, rows,
                    heads, groups, dim, scale);
}

} // extern "C"
