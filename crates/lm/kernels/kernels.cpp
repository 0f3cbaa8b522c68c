// Element-wise steps of a decoder, each in one pass over memory. LibTorch would take one pass for every
// operator in them, which on a CPU with fast bf16 products costs more than the products themselves.
//
// This file is compiled once for each instruction set, named by VARIANT; dispatch.cpp picks one. Rows are
// shared out by OpenMP, whose threads are LibTorch's own. All sums and functions are fp32.

#include <cmath>
#include <cstdint>
#include <cstring>

#include "element.h"

namespace {

template <typename T> inline float rounded(float x) {
    T y;
    store(&y, x);
    return load(y);
}

// e^x within 2 ulp: 2^n times a polynomial of degree 6 on |r| <= ln(2)/2 (coefficients: Taylor's). Below
// -87.3 the result is 0 to fp32's normal range; above 88.7 infinity.
inline float exp_fast(float x) {
    float n = std::nearbyint(x * 1.44269504f);
    n = n < -126.0f ? -126.0f : (n > 128.0f ? 128.0f : n);
    float r = x - n * 0.693359375f;
    r = r + n * 2.12194440e-4f;
    float p = 1.38888889e-3f;
    p = p * r + 8.33333333e-3f;
    p = p * r + 4.16666667e-2f;
    p = p * r + 1.66666667e-1f;
    p = p * r + 0.5f;
    p = p * r * r + r + 1.0f;
    int32_t half = static_cast<int32_t>(n) / 2;
    int32_t rest = static_cast<int32_t>(n) - half;
    uint32_t a_bits = static_cast<uint32_t>(half + 127) << 23;
    uint32_t b_bits = static_cast<uint32_t>(rest + 127) << 23;
    float a, b;
    std::memcpy(&a, &a_bits, 4);
    std::memcpy(&b, &b_bits, 4);
    float y = p * a * b;
    return x < -87.3f ? 0.0f : y;
}

inline float sigmoid(float x) { return 1.0f / (1.0f + exp_fast(-x)); }

// tanh by e^(2x); exact enough where GELU uses it, since small arguments cancel against the 1 of GELU.
inline float tanh_fast(float x) {
    float bounded = x > 9.0f ? 9.0f : (x < -9.0f ? -9.0f : x);
    float e = exp_fast(2.0f * bounded);
    return (e - 1.0f) / (e + 1.0f);
}

constexpr float GELU_A = 0.7978845608f; // sqrt(2 / pi)
constexpr float GELU_B = 0.044715f;

struct Silu {
    static float value(float x) { return x * sigmoid(x); }
    static float slope(float x) {
        float s = sigmoid(x);
        return s * (1.0f + x * (1.0f - s));
    }
};

struct GeluTanh {
    static float value(float x) {
        return 0.5f * x * (1.0f + tanh_fast(GELU_A * (x + GELU_B * x * x * x)));
    }
    static float slope(float x) {
        float t = tanh_fast(GELU_A * (x + GELU_B * x * x * x));
        return 0.5f * (1.0f + t) + 0.5f * x * (1.0f - t * t) * GELU_A * (1.0f + 3.0f * GELU_B * x * x);
    }
};

// y = x * rstd * (w + offset). With no offset the product is rounded before the weight, as transformers does.
template <typename T>
void norm_row(const T* x, const T* w, T* y, int64_t n, float rstd, float offset) {
    if (offset == 0.0f) {
#pragma omp simd
        for (int64_t i = 0; i < n; i++) store(y + i, rounded<T>(load(x[i]) * rstd) * load(w[i]));
    } else {
#pragma omp simd
        for (int64_t i = 0; i < n; i++) store(y + i, load(x[i]) * rstd * (load(w[i]) + offset));
    }
}

template <typename T>
void rms_norm(const T* x, const T* w, T* y, float* rstd, int64_t rows, int64_t n, float eps, float offset, bool known) {
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < rows; row++) {
        const T* from = x + row * n;
        if (!known) {
            float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
            for (int64_t i = 0; i < n; i++) sum += load(from[i]) * load(from[i]);
            rstd[row] = 1.0f / std::sqrt(sum / static_cast<float>(n) + eps);
        }
        norm_row(from, w, y + row * n, n, rstd[row], offset);
    }
}

// dx = rstd * (g - x * rstd^2 * sum(g x) / n) with g = dy * (w + offset).
template <typename T>
void rms_norm_backward(const T* dy, const T* x, const T* w, const float* rstd, T* dx, int64_t rows, int64_t n, float offset) {
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < rows; row++) {
        const T *g = dy + row * n, *from = x + row * n;
        T* to = dx + row * n;
        float sum = 0.0f, r = rstd[row];
#pragma omp simd reduction(+ : sum)
        for (int64_t i = 0; i < n; i++) sum += load(g[i]) * (load(w[i]) + offset) * load(from[i]);
        float mean = sum * r * r / static_cast<float>(n);
#pragma omp simd
        for (int64_t i = 0; i < n; i++)
            store(to + i, (load(g[i]) * (load(w[i]) + offset) - load(from[i]) * mean) * r);
    }
}

template <typename T, typename Activation>
void gated(const T* gate, const T* up, T* y, int64_t count) {
#pragma omp parallel for simd schedule(static)
    for (int64_t i = 0; i < count; i++)
        store(y + i, rounded<T>(Activation::value(load(gate[i]))) * load(up[i]));
}

template <typename T, typename Activation>
void gated_backward(const T* dy, const T* gate, const T* up, T* dgate, T* dup, int64_t count) {
#pragma omp parallel for simd schedule(static)
    for (int64_t i = 0; i < count; i++) {
        float g = load(gate[i]), d = load(dy[i]), u = load(up[i]);
        store(dup + i, d * Activation::value(g));
        store(dgate + i, d * u * Activation::slope(g));
    }
}

// Turns the first 2 * half features of each head: (a, b) -> (a c - b s, b c + a s).
template <typename T>
void rope(const T* x, int64_t stride, const float* cos, const float* sin, T* y, int64_t rows, int64_t heads, int64_t dim, int64_t half, float sign) {
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < rows; row++) {
        const float *c = cos + row * half, *s = sin + row * half;
        for (int64_t head = 0; head < heads; head++) {
            const T* from = x + row * stride + head * dim;
            T* to = y + (row * heads + head) * dim;
#pragma omp simd
            for (int64_t i = 0; i < half; i++) {
                float a = load(from[i]), b = load(from[half + i]), turn = sign * s[i];
                store(to + i, a * c[i] - b * turn);
                store(to + half + i, b * c[i] + a * turn);
            }
            for (int64_t i = 2 * half; i < dim; i++) to[i] = from[i];
        }
    }
}

// Cross-entropy of each row against its target. Writes (softmax - onehot) * weight * scale over the logits
// where the gradient is wanted, and per row the weighted loss and whether the target was the most likely.
template <typename T>
void cross_entropy(T* logits, const int64_t* targets, const float* weights, float scale, float* losses, int64_t* correct, int64_t rows, int64_t n, bool wanted) {
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < rows; row++) {
        T* z = logits + row * n;
        float best = -INFINITY, sum = 0.0f, target = load(z[targets[row]]);
#pragma omp simd reduction(max : best)
        for (int64_t i = 0; i < n; i++) best = load(z[i]) > best ? load(z[i]) : best;
#pragma omp simd reduction(+ : sum)
        for (int64_t i = 0; i < n; i++) sum += exp_fast(load(z[i]) - best);
        float weight = weights ? weights[row] : 1.0f;
        losses[row] = (std::log(sum) + best - target) * weight;
        correct[row] = target >= best;
        if (!wanted) continue;
        float factor = weight * scale / sum;
#pragma omp simd
        for (int64_t i = 0; i < n; i++) store(z + i, exp_fast(load(z[i]) - best) * factor);
        float p = std::exp(target - best) / sum;
        store(z + targets[row], (p - 1.0f) * weight * scale);
    }
}

// Rows of sequence `i` of `x` [T, heads, dim] go from row `i * length` of `y` [n * length, heads * times, dim]
// on, each head `times` times side by side. What a sequence does not fill is zero.
template <typename T>
void gather_heads(const T* x, int64_t stride, const int64_t* starts, const int64_t* lengths, T* y, int64_t n, int64_t length, int64_t heads, int64_t dim, int64_t times) {
    const int64_t width = heads * times * dim;
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < n * length; row++) {
        const int64_t i = row / length, own = row % length;
        T* to = y + row * width;
        if (own >= lengths[i]) {
            std::memset(to, 0, width * sizeof(T));
            continue;
        }
        const T* from = x + (starts[i] + own) * stride;
        if (times == 1) {
            std::memcpy(to, from, width * sizeof(T));
            continue;
        }
        for (int64_t head = 0; head < heads; head++)
            for (int64_t copy = 0; copy < times; copy++)
                std::memcpy(to + (head * times + copy) * dim, from + head * dim, dim * sizeof(T));
    }
}

// The way back: the copies of a head are added up.
template <typename T>
void scatter_heads(const T* x, const int64_t* starts, const int64_t* lengths, T* y, int64_t n, int64_t length, int64_t heads, int64_t dim, int64_t times) {
    const int64_t width = heads * times * dim;
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < n * length; row++) {
        const int64_t i = row / length, own = row % length;
        if (own >= lengths[i]) continue;
        const T* from = x + row * width;
        T* to = y + (starts[i] + own) * heads * dim;
        if (times == 1) {
            std::memcpy(to, from, width * sizeof(T));
            continue;
        }
        for (int64_t head = 0; head < heads; head++)
#pragma omp simd
            for (int64_t j = 0; j < dim; j++) {
                float sum = 0.0f;
                for (int64_t copy = 0; copy < times; copy++) sum += load(from[(head * times + copy) * dim + j]);
                store(to + head * dim + j, sum);
            }
    }
}

} // namespace

#define PASTE2(a, b) a##_##b
#define PASTE(a, b) PASTE2(a, b)
#define NAME(f) PASTE(f, VARIANT)
#define BY_KIND(call_f32, call_bf16) if (kind) { call_bf16; } else { call_f32; }

// `kind` is 0 for fp32 and 1 for bf16 in all of these.
extern "C" {

void NAME(rms_norm)(int kind, const void* x, const void* w, void* y, float* rstd, int64_t rows, int64_t n, float eps, float offset, int known) {
    BY_KIND(rms_norm((const float*)x, (const float*)w, (float*)y, rstd, rows, n, eps, offset, known),
            rms_norm((const bf16*)x, (const bf16*)w, (bf16*)y, rstd, rows, n, eps, offset, known))
}

void NAME(rms_norm_backward)(int kind, const void* dy, const void* x, const void* w, const float* rstd, void* dx, int64_t rows, int64_t n, float offset) {
    BY_KIND(rms_norm_backward((const float*)dy, (const float*)x, (const float*)w, rstd, (float*)dx, rows, n, offset),
            rms_norm_backward((const bf16*)dy, (const bf16*)x, (const bf16*)w, rstd, (bf16*)dx, rows, n, offset))
}

void NAME(gated)(int kind, int gelu, const void* gate, const void* up, void* y, int64_t count) {
    if (gelu) {
        BY_KIND((gated<float, GeluTanh>((const float*)gate, (const float*)up, (float*)y, count)),
                (gated<bf16, GeluTanh>((const bf16*)gate, (const bf16*)up, (bf16*)y, count)))
    } else {
        BY_KIND((gated<float, Silu>((const float*)gate, (const float*)up, (float*)y, count)),
                (gated<bf16, Silu>((const bf16*)gate, (const bf16*)up, (bf16*)y, count)))
    }
}

void NAME(gated_backward)(int kind, int gelu, const void* dy, const void* gate, const void* up, void* dgate, void* dup, int64_t count) {
    if (gelu) {
        BY_KIND((gated_backward<float, GeluTanh>((const float*)dy, (const float*)gate, (const float*)up, (float*)dgate, (float*)dup, count)),
                (gated_backward<bf16, GeluTanh>((const bf16*)dy, (const bf16*)gate, (const bf16*)up, (bf16*)dgate, (bf16*)dup, count)))
    } else {
        BY_KIND((gated_backward<float, Silu>((const float*)dy, (const float*)gate, (const float*)up, (float*)dgate, (float*)dup, count)),
                (gated_backward<bf16, Silu>((const bf16*)dy, (const bf16*)gate, (const bf16*)up, (bf16*)dgate, (bf16*)dup, count)))
    }
}

void NAME(rope)(int kind, const void* x, int64_t stride, const float* cos, const float* sin, void* y, int64_t rows, int64_t heads, int64_t dim, int64_t half, float sign) {
    BY_KIND(rope((const float*)x, stride, cos, sin, (float*)y, rows, heads, dim, half, sign),
            rope((const bf16*)x, stride, cos, sin, (bf16*)y, rows, heads, dim, half, sign))
}

void NAME(cross_entropy)(int kind, void* logits, const int64_t* targets, const float* weights, float scale, float* losses, int64_t* correct, int64_t rows, int64_t n, int wanted) {
    BY_KIND(cross_entropy((float*)logits, targets, weights, scale, losses, correct, rows, n, wanted),
            cross_entropy((bf16*)logits, targets, weights, scale, losses, correct, rows, n, wanted))
}

void NAME(gather_heads)(int kind, const void* x, int64_t stride, const int64_t* starts, const int64_t* lengths, void* y, int64_t n, int64_t length, int64_t heads, int64_t dim, int64_t times) {
    BY_KIND(gather_heads((const float*)x, stride, starts, lengths, (float*)y, n, length, heads, dim, times),
            gather_heads((const bf16*)x, stride, starts, lengths, (bf16*)y, n, length, heads, dim, times))
}

void NAME(scatter_heads)(int kind, const void* x, const int64_t* starts, const int64_t* lengths, void* y, int64_t n, int64_t length, int64_t heads, int64_t dim, int64_t times) {
    BY_KIND(scatter_heads((const float*)x, starts, lengths, (float*)y, n, length, heads, dim, times),
            scatter_heads((const bf16*)x, starts, lengths, (bf16*)y, n, length, heads, dim, times))
}
}
