"""Rotation of queries and keys by generators and positions, with no rotation kept in memory."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lierope.ops import rules
from lierope.ops.autograd import differentiable, single_precision, under_autocast, vjp_of
from lierope.ops.expm_skew import LARGEST
from lierope.ops.lie_rotations import block_size_of, composed_lie_rotations
from lierope.ops.rotate_blocks import composed_rotate_blocks
from lierope.ops.rows import empty_rows


def _composed(
    q: Tensor, k: Tensor, generators: Tensor, positions: Tensor, num_prefix_tokens: int
) -> tuple[Tensor, Tensor]:
    rotations = composed_lie_rotations(generators, positions)
    return composed_rotate_blocks(q, k, rotations, num_prefix_tokens, False)


def _composed_backward(
    q_grad: Tensor,
    k_grad: Tensor,
    q_rotated: Tensor,
    k_rotated: Tensor,
    generators: Tensor,
    positions: Tensor,
    num_prefix_tokens: int,
    positions_grad: bool,
) -> tuple[Tensor, ...]:
    q, k = _composed(q_rotated, k_rotated, -generators, positions, num_prefix_tokens)
    inputs = (q, k, generators, positions)
    *results, of_positions = vjp_of(_composed, inputs, (num_prefix_tokens,), (q_grad, k_grad))
    return (*results, of_positions if positions_grad else positions.new_zeros(0))


def _check(q: Tensor, k: Tensor, generators: Tensor, positions: Tensor, prefix: Any) -> None:
    rules.lie("lie_rotate", generators, positions)
    rules.lie_rotate(q, k, generators, positions, prefix, block_size_of(generators.shape[-1]))


_backward = differentiable(torch.ops.lierope.lie_rotate_backward.default, 6, _composed_backward)


def _gradient(
    tensors: Sequence[Tensor], options: Sequence[Any], needs: Sequence[bool], *grads: Tensor
) -> tuple[Tensor | None, ...]:
    *results, of_positions = _backward(*grads, *tensors, *options, needs[3])
    return (*results, of_positions if needs[3] else None)


_lie_rotate = differentiable(
    torch.ops.lierope.lie_rotate.default, 4, _composed, _gradient, saved_outputs=2
)


@torch.library.register_fake("lierope::lie_rotate")
def _fake(
    q: Tensor, k: Tensor, generators: Tensor, positions: Tensor, num_prefix_tokens: int
) -> tuple[Tensor, Tensor]:
    _check(q, k, generators, positions, num_prefix_tokens)
    return empty_rows(q, q), empty_rows(k, q)


@torch.library.register_fake("lierope::lie_rotate_backward")
def _fake_backward(
    q_grad: Tensor,
    k_grad: Tensor,
    q_rotated: Tensor,
    k_rotated: Tensor,
    generators: Tensor,
    positions: Tensor,
    num_prefix_tokens: int,
    positions_grad: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    of_positions = positions.new_empty(positions.shape if positions_grad else (0,))
    return (
        empty_rows(q_rotated, q_grad),
        empty_rows(k_rotated, q_grad),
        generators.new_empty(generators.shape),
        of_positions,
    )


def lie_rotate(
    q: Tensor, k: Tensor, generators: Tensor, positions: Tensor, *, num_prefix_tokens: int = 0
) -> tuple[Tensor, Tensor]:
    r"""Rotate queries and keys by R(p) = exp(Σ_c p_c A_c), forming each rotation where it is used.

    .. math:: y = \exp\Big(\sum_c p_c A_c\Big) x, \qquad A_c = U_c - U_c^\top

    Equal to `rotate_blocks(q, k, lie_rotations(generators, positions))`, but neither the rotations
    nor their gradients are ever in memory: the backward accumulates skew(Σ ȳ yᵀ) over batch, q and
    k and applies ψ(−ad_A) to it. It keeps y, as attention does, and not x. On a CPU and for b > 8,
    positions that are whole multiples of others, as two fifths of a grid from its origin are, take
    R(np) = R(p)ⁿ and one ψ for all: up to a third less time, unless positions ask for a gradient.

    Args:
        q: (B, Hq, N, D); float32, float64, bfloat16 or float16. Strided inputs are read in place.
        k: (B, Hk, N, D), of q's dtype; Hk may be smaller (grouped-query attention) or 0.
        generators: (C, H, G, b(b−1)/2), packed strict upper triangles U, row-major, with H a
            divisor of Hq and Hk and G·b ≤ D; float64 when q is, else float32.
        positions: (M, C), or (B, M, C) per sample, of the generators' dtype, with M = N −
            num_prefix_tokens; any units.
        num_prefix_tokens: The first tokens (class token, registers), which are copied unrotated.

    Returns:
        q and k rotated: new dense tensors of the same shapes and dtypes, in memory in the order of
        q: (B, N, H, D) where the heads of a token lie side by side, else (B, H, N, D). Features
        past G·b are copied.

    Raises:
        TypeError: No dense tensor, no integer.
        ValueError: An integer of more than 64 bits.
        RuntimeError: Shapes, dtypes or devices that do not fit.

    Source: LieRE, arXiv 2406.10322, section 4.

    Example:
        >>> q, k = torch.randn(2, 2, 3, 197, 64).unbind()
        >>> generators, positions = torch.randn(2, 3, 8, 28), torch.rand(196, 2)
        >>> q, k = lierope.ops.lie_rotate(q, k, generators, positions, num_prefix_tokens=1)
        >>> q.shape
        torch.Size([2, 3, 197, 64])
    """
    rules.tensors("lie_rotate", q=q, k=k, generators=generators, positions=positions)
    prefix = rules.whole("lie_rotate", "num_prefix_tokens", num_prefix_tokens)
    if under_autocast(q):
        generators, positions = single_precision(generators), single_precision(positions)
    if generators.dim() == 4 and block_size_of(generators.shape[-1]) > LARGEST:
        if not torch.compiler.is_compiling():
            _check(q, k, generators, positions, prefix)
        return _composed(q, k, generators, positions, prefix)
    return _lie_rotate(q, k, generators, positions, prefix)  # type: ignore[no-any-return]
