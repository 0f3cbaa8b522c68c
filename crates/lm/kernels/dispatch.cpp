// Entry points of kernels.cpp.

#include "dispatch.h"


KERNEL(rms_norm,
       (int kind, const void* x, const void* w, void* y, float* rstd, int64_t rows, int64_t n, float eps, float offset, int known),
       (kind, x, w, y, rstd, rows, n, eps, offset, known))
KERNEL(rms_norm_backward,
       (int kind, const void* dy, const void* x, const void* w, const float* rstd, void* dx, int64_t rows, int64_t n, float offset),
       (kind, dy, x, w, rstd, dx, rows, n, offset))
KERNEL(gated, (int kind, int gelu, const void* gate, const void* up, void* y, int64_t count),
       (kind, gelu, gate, up, y, count))
KERNEL(gated_backward,
       (int kind, int gelu, const void* dy, const void* gate, const void* up, void* dgate, void* dup, int64_t count),
       (kind, gelu, dy, gate, up, dgate, dup, count))
KERNEL(rope,
       (int kind, const void* x, int64_t stride, const float* cos, const float* sin, void* y, int64_t rows, int64_t heads, int64_t dim, int64_t half, float sign),
       (kind, x, stride, cos, sin, y, rows, heads, dim, half, sign))
KERNEL(cross_entropy,
       (int kind, void* logits, const int64_t* targets, const float* weights, float scale, float* losses, int64_t* correct, int64_t rows, int64_t n, int wanted),
       (kind, logits, targets, weights, scale, losses, correct, rows, n, wanted))
KERNEL(gather_heads,
       (int kind, const void* x, int64_t stride, const int64_t* starts, const int64_t* lengths, void* y, int64_t n, int64_t length, int64_t heads, int64_t dim, int64_t times),
       (kind, x, stride, starts, lengths, y, n, length, heads, dim, times))
KERNEL(scatter_heads,
       (int kind, const void* x, const int64_t* starts, const int64_t* lengths, void* y, int64_t n, int64_t length, int64_t heads, int64_t dim, int64_t times),
       (kind, x, starts, lengths, y, n, length, heads, dim, times))
