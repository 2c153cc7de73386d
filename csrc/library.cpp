// The library's table of contents: the schema of every operator.
#include <torch/csrc/stable/library.h>

// Conventions: q (B, Hq, N, D), k (B, Hk, N, D) of one dtype; outputs are new and contiguous. The
// first num_prefix_tokens tokens are copied. angles, rotations, generators, positions: float32, or
// float64 when q is float64.
STABLE_TORCH_LIBRARY(lierope, m) {
  // exp of the skew matrix given by the strict upper triangle of a (..., n, n), n <= 128
  m.def("expm_skew(Tensor a) -> Tensor");
  m.def("expm_skew_backward(Tensor a, Tensor grad) -> Tensor");

  // generators (C, H, G, b(b-1)/2), positions (..., M, C) -> rotations (..., H, M, G, b, b)
  m.def("lie_rotations(Tensor generators, Tensor positions) -> Tensor");
  m.def(
      "lie_rotations_backward(Tensor generators, Tensor positions, Tensor grad, "
      "bool positions_grad) -> (Tensor, Tensor)");

  // lie_rotations and rotate_blocks in one pass; no rotation is stored for the backward, which
  // reads what the forward wrote
  m.def(
      "lie_rotate(Tensor q, Tensor k, Tensor generators, Tensor positions, int num_prefix_tokens) "
      "-> (Tensor, Tensor)");
  m.def(
      "lie_rotate_backward(Tensor q_grad, Tensor k_grad, Tensor q_rotated, Tensor k_rotated, "
      "Tensor generators, Tensor positions, int num_prefix_tokens, bool positions_grad) "
      "-> (Tensor, Tensor, Tensor, Tensor)");

  // rotations ((B,) H, M, G, b, b)
  m.def(
      "rotate_blocks(Tensor q, Tensor k, Tensor rotations, int num_prefix_tokens, bool transpose) "
      "-> (Tensor, Tensor)");
  m.def(
      "rotate_blocks_backward(Tensor q_grad, Tensor k_grad, Tensor q, Tensor k, Tensor rotations, "
      "int num_prefix_tokens) -> (Tensor, Tensor, Tensor)");

  // angles ((B,) H, M, D_rotated / 2)
  m.def(
      "rotate_pairs(Tensor q, Tensor k, Tensor angles, int num_prefix_tokens, bool interleaved, "
      "bool inverse) -> (Tensor, Tensor)");
  m.def(
      "rotate_pairs_backward(Tensor q_grad, Tensor k_grad, Tensor q_rotated, Tensor k_rotated, "
      "Tensor angles, int num_prefix_tokens, bool interleaved) -> (Tensor, Tensor, Tensor)");

  // angles ((B,) H, M, G * ((block_size - 1) / 2)): phases of the real FFT of each block
  m.def(
      "rotate_circulant(Tensor q, Tensor k, Tensor angles, int block_size, int num_prefix_tokens, "
      "bool inverse) -> (Tensor, Tensor)");
  m.def(
      "rotate_circulant_backward(Tensor q_grad, Tensor k_grad, Tensor q_rotated, Tensor k_rotated, "
      "Tensor angles, int block_size, int num_prefix_tokens) -> (Tensor, Tensor, Tensor)");

  // P = (I - S)(I + S)^-1 of the skew matrix given by the strict upper triangle of s (..., n, n)
  m.def("cayley(Tensor s) -> Tensor");
  m.def("cayley_backward(Tensor p, Tensor grad) -> Tensor");
  // x (..., H, N, n), s (H or 1, n, n): P x (or P^T x) by a banded solve
  m.def("cayley_rotate(Tensor x, Tensor s, int bandwidth, bool transpose) -> Tensor");
}
