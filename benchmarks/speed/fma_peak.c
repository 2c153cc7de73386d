// Fused multiply-adds on registers alone: what the processor can do when no memory is touched.
#include <stdint.h>

#if defined(__AVX512F__)
enum { BYTES = 64 };
#elif defined(__AVX__)
enum { BYTES = 32 };
#else
enum { BYTES = 16 };
#endif
enum { CHAINS = 12, LANES = BYTES / sizeof(float) };

typedef float vector __attribute__((vector_size(BYTES)));

// Each chain waits for itself only: twelve cover the latency (4 or 5 cycles) of two units.
// Named one by one, since a compiler keeps an array of them in memory.
// Returns the number of floating-point operations done, two to a multiply-add.
double fma_flops(int64_t rounds, float* sink) {
  const vector zero = {0};
  const vector a = zero + (0.999f + sink[0]), b = zero + 0.001f;
  vector c0 = b, c1 = b + 1, c2 = b + 2, c3 = b + 3, c4 = b + 4, c5 = b + 5;
  vector d0 = b + 6, d1 = b + 7, d2 = b + 8, d3 = b + 9, d4 = b + 10, d5 = b + 11;
  for (int64_t r = 0; r < rounds; r++) {
    c0 = c0 * a + b, c1 = c1 * a + b, c2 = c2 * a + b;
    c3 = c3 * a + b, c4 = c4 * a + b, c5 = c5 * a + b;
    d0 = d0 * a + b, d1 = d1 * a + b, d2 = d2 * a + b;
    d3 = d3 * a + b, d4 = d4 * a + b, d5 = d5 * a + b;
    __asm__ volatile("" : "+r"(r));  // keeps the rounds as written
  }
  const vector sum = c0 + c1 + c2 + c3 + c4 + c5 + d0 + d1 + d2 + d3 + d4 + d5;
  sink[1] = sum[0] + sum[LANES - 1];
  return 2.0 * CHAINS * LANES * (double)rounds;
}
