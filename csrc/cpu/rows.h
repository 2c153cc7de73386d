// Rows of features of q or k: where each lies, what is read and what is written.
#pragma once
#include <cstdint>
#include <cstring>

#include "../math/portable.h"
#include "../params/tokens.h"

namespace lierope::cpu::LIEROPE_ISA {

// Addresses in a strided (B, H, N, D) tensor whose last stride is 1.
template <class Storage>
struct Rows {
  Storage* data;
  int64_t batch, head, token;  // strides

  LIEROPE_HD Storage* at(int64_t b, int64_t h, int64_t n) const {
    return data + b * batch + h * head + n * token;
  }
};

template <class Storage>
LIEROPE_HD Rows<const Storage> reads(const View& view) {
  return {static_cast<const Storage*>(view.data), view.stride_batch, view.stride_head,
          view.stride_token};
}
template <class Storage>
LIEROPE_HD Rows<Storage> writes(const Tokens& shape, void* out, int64_t heads) {
  const int64_t d = shape.head_dim;
  return {static_cast<Storage*>(out), heads * shape.tokens * d, shape.tokens * d, d};
}

template <class Storage>
LIEROPE_HD void copy_row(const Storage* x, Storage* y, int64_t begin, int64_t end) {
  if (begin < end) std::memcpy(y + begin, x + begin, size_t(end - begin) * sizeof(Storage));
}

// Calls f(h, n) for heads [h0, h1) and tokens [n0, n1) in the order in which memory holds them:
// timm's packed qkv has the heads of a token side by side, a contiguous q the tokens of a head.
template <class F>
LIEROPE_HD void for_rows(const View& view, int64_t h0, int64_t h1, int64_t n0, int64_t n1, F&& f) {
  if (view.stride_head < view.stride_token) {
    for (int64_t n = n0; n < n1; ++n)
      for (int64_t h = h0; h < h1; ++h) f(h, n);
  } else {
    for (int64_t h = h0; h < h1; ++h)
      for (int64_t n = n0; n < n1; ++n) f(h, n);
  }
}

// The rotation that head h of `heads` uses, and the heads that use rotation r.
LIEROPE_HD int64_t rotation_of(int64_t h, int64_t heads, int64_t rotations) {
  return h * rotations / heads;
}
LIEROPE_HD int64_t first_head(int64_t r, int64_t heads, int64_t rotations) {
  return r * heads / rotations;
}

}  // namespace lierope::cpu::LIEROPE_ISA
