// The checks that all rotations of q and k share, and the struct they fill.
#pragma once
#include "device.h"

namespace lierope {

// What turns the tokens: angles, rotations or positions and generators.
struct Rotation {
  const char* name;  // the argument, for messages
  int64_t heads;     // its heads, or those of the argument heads_of
  int64_t points;    // its tokens
  int64_t samples;   // its leading batch size, 1 when shared
  const char* heads_of = name;
};

// Checks q and k against each other and against the rotation; num_prefix_tokens tokens are not
// rotated.
Tokens tokens_of(const char* op, const Tensor& q, const Tensor& k, const Rotation& rotation,
                 int64_t num_prefix_tokens);

// Checks the gradients of a rotation's outputs: shape and dtype of q and k.
void check_token_grads(const char* op, const Tensor& q_grad, const Tensor& k_grad, const Tensor& q,
                       const Tensor& k);

// Whether the heads of a token lie side by side in memory, as in a projection (B, N, H, D).
bool heads_side_by_side(const Tensor& q);
// A dense tensor of the shape of x (B, H, N, D), in that order of memory or the usual one.
Tensor empty_rows(const char* op, const Tensor& x, bool heads_side_by_side);

// q and k as the kernels read them, and their outputs; holds the tensors while a kernel runs. The
// outputs keep the order of memory of `order`: attention's result takes that of its queries, and
// the next projection reads it with the heads of a token side by side.
struct TokenTensors {
  Tensor q, k;
  bool side_by_side;
  Tensor q_out, k_out;

  TokenTensors(const char* op, const Tensor& q_, const Tensor& k_) : TokenTensors(op, q_, k_, q_) {}
  TokenTensors(const char* op, const Tensor& q_, const Tensor& k_, const Tensor& order)
      : q(with_unit_last_stride(op, q_)),
        k(with_unit_last_stride(op, k_)),
        side_by_side(heads_side_by_side(order)),
        q_out(empty_rows(op, q_, side_by_side)),
        k_out(empty_rows(op, k_, side_by_side)) {}

  template <class Params>
  void fill(Params& params) {
    params.q = view_of(q);
    params.k = view_of(k);
    fill_outputs(params);
  }

 protected:
  template <class Params>
  void fill_outputs(Params& params) {
    params.q_out = q_out.mutable_data_ptr();
    params.k_out = k_out.mutable_data_ptr();
    params.shape.heads_side_by_side = side_by_side;
  }
};

// The same with the gradients of the forward's outputs; q_out and k_out take the gradients of q and
// k.
struct TokenGradTensors : TokenTensors {
  Tensor q_grad, k_grad;

  TokenGradTensors(const char* op, const Tensor& q_grad_, const Tensor& k_grad_, const Tensor& q_,
                   const Tensor& k_)
      : TokenTensors(op, q_, k_, q_grad_),
        q_grad(with_unit_last_stride(op, q_grad_)),
        k_grad(with_unit_last_stride(op, k_grad_)) {}

  template <class Params>
  void fill(Params& params) {
    fill_outputs(params);
    if constexpr (requires { params.q_rotated; }) {
      params.q_rotated = view_of(q);
      params.k_rotated = view_of(k);
    } else {
      params.q = view_of(q);
      params.k = view_of(k);
    }
    params.q_grad = view_of(q_grad);
    params.k_grad = view_of(k_grad);
  }
};

}  // namespace lierope
