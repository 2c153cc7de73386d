// What the mathematics needs to compile for every processor: host and device marks, a namespace for
// each build.
#pragma once

// One name per instruction set keeps the inline functions of the builds apart: the linker folds
// equal names, and a baseline machine must never be handed the copy that was compiled for AVX-512.
#ifndef LIEROPE_ISA
#define LIEROPE_ISA portable
#endif

#if defined(__CUDACC__)
#define LIEROPE_HD __host__ __device__ __forceinline__
#define LIEROPE_NOINLINE __host__ __device__ __noinline__
#else
#define LIEROPE_HD inline __attribute__((always_inline))
#define LIEROPE_NOINLINE __attribute__((noinline))
#endif

// LIEROPE_INLINED, after the parameters of a lambda: inlined into code however large, or its tile
// of accumulators would go through memory. LIEROPE_RELOAD: what comes after reads memory again,
// rather than what an earlier tile has read, which the compiler would keep on the stack.
#if defined(__CUDACC__)
#define LIEROPE_INLINED
#define LIEROPE_RELOAD()
#else
#define LIEROPE_INLINED __attribute__((always_inline))
#define LIEROPE_RELOAD() asm volatile("" ::: "memory")
#endif

#if defined(__clang__)
#define LIEROPE_UNROLL _Pragma("unroll")
#elif defined(__CUDACC__)
#define LIEROPE_UNROLL _Pragma("unroll")
#else
#define LIEROPE_UNROLL _Pragma("GCC unroll 64")
#endif
