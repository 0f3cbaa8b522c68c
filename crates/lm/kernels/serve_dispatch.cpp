// The kernels of serve.cpp and nf4.cpp, for the processor that the program runs on.

#include "dispatch.h"

KERNEL(low_rank,
       (int kind, const void* x, int64_t x_stride, void* y, int64_t y_stride, const void* const* a, const void* const* b, const int64_t* ranks, const int64_t* at, int64_t rows, int64_t inputs, int64_t outputs),
       (kind, x, x_stride, y, y_stride, a, b, ranks, at, rows, inputs, outputs))
KERNEL(int8_product,
       (int kind, const void* x, int64_t x_stride, const void* q, const void* scales, void* y, int64_t rows, int64_t inputs, int64_t outputs),
       (kind, x, x_stride, q, scales, y, rows, inputs, outputs))
KERNEL(int8_dense,
       (int kind, const void* q, const void* scales, void* y, int64_t rows, int64_t n),
       (kind, q, scales, y, rows, n))
KERNEL(paged_store,
       (int kind, const void* k, const void* v, int64_t k_stride, int64_t v_stride, void* keys, void* values, const int64_t* places, int64_t rows, int64_t groups, int64_t dim),
       (kind, k, v, k_stride, v_stride, keys, values, places, rows, groups, dim))
KERNEL(paged_attention,
       (int kind, const void* q, int64_t q_stride, void* y, int64_t y_stride, const void* keys, const void* values, const int64_t* const* tables, const int64_t* firsts, const int64_t* lasts, const int64_t* at, int64_t rows, int64_t heads, int64_t groups, int64_t dim, float scale),
       (kind, q, q_stride, y, y_stride, keys, values, tables, firsts, lasts, at, rows, heads, groups, dim, scale))
KERNEL(nf4_dense,
       (int kind, const uint8_t* packed, const float* scales, const uint8_t* quants, const float* map, float offset, int64_t block, int64_t outer, const float* code, void* y, int64_t n),
       (kind, packed, scales, quants, map, offset, block, outer, code, y, n))
KERNEL(nf4_product,
       (int kind, const uint8_t* packed, const float* scales, const uint8_t* quants, const float* map, float offset, int64_t block, int64_t outer, const float* code, const void* x, int64_t x_stride, void* y, int64_t rows, int64_t inputs, int64_t outputs),
       (kind, packed, scales, quants, map, offset, block, outer, code, x, x_stride, y, rows, inputs, outputs))
KERNEL(nf4_pack,
       (int kind, const void* x, const float* code, uint8_t* packed, float* scales, int64_t n, int64_t block),
       (kind, x, code, packed, scales, n, block))
