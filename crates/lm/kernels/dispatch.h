// Picks, once, the kernels for the processor that the program runs on. ANNEAL_KERNELS=base or avx2 picks
// simpler ones, for tests and to rule them out as a cause.

#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>

namespace {

enum Level { BASE, AVX2, AVX512 };

Level level() {
#if defined(__x86_64__)
    static const Level found = [] {
        __builtin_cpu_init();
        const char* wanted = std::getenv("ANNEAL_KERNELS");
        const bool only_base = wanted && std::strcmp(wanted, "base") == 0;
        const bool only_avx2 = wanted && std::strcmp(wanted, "avx2") == 0;
        if (only_base) return BASE;
        if (!only_avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
            __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq"))
            return AVX512;
        if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return AVX2;
        return BASE;
    }();
    return found;
#else
    return BASE;
#endif
}

} // namespace

#if defined(__x86_64__)
#define KERNEL(name, parameters, arguments)                                                                             \
    extern "C" {                                                                                                       \
    void name##_base parameters;                                                                                       \
    void name##_avx2 parameters;                                                                                       \
    void name##_avx512 parameters;                                                                                     \
    void anneal_##name parameters {                                                                                    \
        switch (level()) {                                                                                             \
        case AVX512: return name##_avx512 arguments;                                                                   \
        case AVX2: return name##_avx2 arguments;                                                                       \
        case BASE: return name##_base arguments;                                                                       \
        }                                                                                                              \
    }                                                                                                                  \
    }
#else
#define KERNEL(name, parameters, arguments)                                                                             \
    extern "C" {                                                                                                       \
    void name##_base parameters;                                                                                       \
    void anneal_##name parameters { name##_base arguments; }                                                           \
    }
#endif
