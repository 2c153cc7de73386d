// The checks that all rotations of q and k share.
#include "tokens.h"

namespace lierope {

static void check_pair(const char* op, const Tensor& q, const Tensor& k) {
  check_device(op, "q", q);
  check_device(op, "k", k, "q", q);
  LIEROPE_CHECK(q.dim() == 4, op, ": q must have shape (B, H, N, D), got ", shape_of(q));
  LIEROPE_CHECK(k.dim() == 4, op, ": k must have shape (B, H, N, D), got ", shape_of(k));
  LIEROPE_CHECK(q.size(0) == k.size(0) && q.size(2) == k.size(2) && q.size(3) == k.size(3), op,
                ": q and k must agree in batch, tokens and head_dim, got ", shape_of(q), " and ",
                shape_of(k));
  LIEROPE_CHECK(q.scalar_type() == k.scalar_type(), op, ": q and k must have one dtype, got ",
                type_of(q), " and ", type_of(k));
}

static void check_heads(const char* op, const char* which, int64_t heads, const Rotation& r) {
  LIEROPE_CHECK(r.heads > 0 && heads % r.heads == 0, op, ": the heads of ", which,
                " must be a multiple of the heads of ", r.heads_of, ", got ", heads, " and ",
                r.heads);
}

Tokens tokens_of(const char* op, const Tensor& q, const Tensor& k, const Rotation& rotation,
                 int64_t num_prefix_tokens) {
  check_pair(op, q, k);
  const int64_t batch = q.size(0), tokens = q.size(2);
  LIEROPE_CHECK(num_prefix_tokens >= 0 && num_prefix_tokens <= tokens, op,
                ": num_prefix_tokens must be between 0 and the ", tokens, " tokens, got ",
                num_prefix_tokens);
  LIEROPE_CHECK(rotation.points == tokens - num_prefix_tokens, op, ": ", rotation.name,
                " must cover the ", tokens - num_prefix_tokens, " tokens after the prefix, got ",
                rotation.points);
  LIEROPE_CHECK(rotation.samples == 1 || rotation.samples == batch, op, ": the batch of ",
                rotation.name, " must be 1 or that of q, ", batch, ", got ", rotation.samples);
  check_heads(op, "q", q.size(1), rotation);
  check_heads(op, "k", k.size(1), rotation);
  return {storage_type(op, "q", q), batch,     tokens,    q.size(3),
          num_prefix_tokens,        q.size(1), k.size(1), rotation.heads,
          rotation.samples != 1,    false};
}

void check_token_grads(const char* op, const Tensor& q_grad, const Tensor& k_grad, const Tensor& q,
                       const Tensor& k) {
  check_same_shape(op, "q_grad", q_grad, "q", q);
  check_same_shape(op, "k_grad", k_grad, "k", k);
}

bool heads_side_by_side(const Tensor& q) { return q.stride(1) < q.stride(2); }

Tensor empty_rows(const char* op, const Tensor& x, bool heads_side_by_side) {
  if (!heads_side_by_side) return empty(op, x, sizes_of(x));
  // Not a transposed view: autograd would take the result for a view of something.
  const auto at_least_one = [&](int64_t dim) { return x.size(dim) > 1 ? x.size(dim) : 1; };
  const int64_t h = at_least_one(1), n = at_least_one(2), d = at_least_one(3);
  return empty_strided(op, x, {x.size(0), x.size(1), x.size(2), x.size(3)},
                       {n * h * d, d, h * d, 1});
}

}  // namespace lierope
