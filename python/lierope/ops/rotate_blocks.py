"""Block-diagonal rotation of queries and keys by given rotations."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lierope.ops import rules
from lierope.ops.autograd import differentiable, single_precision, under_autocast, vjp_of
from lierope.ops.rows import empty_rows


def by_head(rotation: Tensor, heads: int, head_dim: int) -> Tensor:
    """Repeat angles or rotations for `heads` heads: head h uses h * H // heads."""
    repeats = heads // rotation.shape[head_dim]
    return rotation.repeat_interleave(repeats, dim=head_dim) if repeats != 1 else rotation


def composed_rotate_blocks(
    q: Tensor, k: Tensor, rotations: Tensor, num_prefix_tokens: int, transpose: bool
) -> tuple[Tensor, Tensor]:
    """The rotation by torch's own functions."""
    R = rotations.mT if transpose else rotations
    b = R.shape[-1]
    features = R.shape[-3] * b

    def rotate(x: Tensor) -> Tensor:
        rotated = x[:, :, num_prefix_tokens:, :features].unflatten(-1, (-1, b))
        y = (by_head(R, x.shape[1], -5) @ rotated.to(R.dtype).unsqueeze(-1)).squeeze(-1).flatten(-2)
        rest = torch.cat((y.to(x.dtype), x[:, :, num_prefix_tokens:, features:]), -1)
        return torch.cat((x[:, :, :num_prefix_tokens], rest), 2)

    return rotate(q), rotate(k)


def _composed_backward(
    q_grad: Tensor, k_grad: Tensor, q: Tensor, k: Tensor, rotations: Tensor, num_prefix_tokens: int
) -> Any:
    options = (num_prefix_tokens, False)
    return vjp_of(composed_rotate_blocks, (q, k, rotations), options, (q_grad, k_grad))


_backward = differentiable(torch.ops.lierope.rotate_blocks_backward.default, 5, _composed_backward)


def _gradient(
    tensors: Sequence[Tensor], options: Sequence[Any], needs: Sequence[bool], *grads: Tensor
) -> tuple[Tensor, Tensor, Tensor | None]:
    q, k, rotations = tensors
    num_prefix_tokens, transpose = options
    if not needs[2]:
        return (*_rotate_blocks(*grads, rotations, num_prefix_tokens, not transpose), None)
    R = rotations.mT if transpose else rotations
    q_out, k_out, R_out = _backward(*grads, q, k, R, num_prefix_tokens)
    return q_out, k_out, R_out.mT if transpose else R_out


_rotate_blocks = differentiable(
    torch.ops.lierope.rotate_blocks.default, 3, composed_rotate_blocks, _gradient
)


@torch.library.register_fake("lierope::rotate_blocks")
def _fake(
    q: Tensor, k: Tensor, rotations: Tensor, num_prefix_tokens: int, transpose: bool
) -> tuple[Tensor, Tensor]:
    rules.rotate_blocks(q, k, rotations, num_prefix_tokens)
    return empty_rows(q, q), empty_rows(k, q)


@torch.library.register_fake("lierope::rotate_blocks_backward")
def _fake_backward(
    q_grad: Tensor, k_grad: Tensor, q: Tensor, k: Tensor, rotations: Tensor, num_prefix_tokens: int
) -> tuple[Tensor, Tensor, Tensor]:
    return empty_rows(q, q_grad), empty_rows(k, q_grad), rotations.new_empty(rotations.shape)


def rotate_blocks(
    q: Tensor, k: Tensor, rotations: Tensor, *, num_prefix_tokens: int = 0
) -> tuple[Tensor, Tensor]:
    r"""Rotate queries and keys block by block in one pass over memory.

    .. math:: y_g = R_g x_g \quad\text{for each block } g \text{ of } b \text{ features}

    Args:
        q: (B, Hq, N, D); float32, float64, bfloat16 or float16. Strided inputs are read in place.
        k: (B, Hk, N, D), of q's dtype; Hk may be smaller (grouped-query attention) or 0.
        rotations: (H, M, G, b, b), or (B, H, M, G, b, b) per sample, with M = N −
            num_prefix_tokens, G·b ≤ D and H a divisor of Hq and Hk (head h of Hq uses rotation h·H
            // Hq). float64 when q is, else float32. They need not be orthogonal.
        num_prefix_tokens: The first tokens (class token, registers), which are copied unrotated.

    Returns:
        q and k rotated: new dense tensors of the same shapes and dtypes, in memory in the order of
        q: (B, N, H, D) where the heads of a token lie side by side, else (B, H, N, D). Features
        past G·b are copied.

    Raises:
        TypeError: No dense tensor, no integer.
        ValueError: An integer of more than 64 bits.
        RuntimeError: Shapes, dtypes or devices that do not fit.

    Example:
        >>> q, k = torch.randn(2, 2, 3, 197, 64).unbind()
        >>> R = lierope.ops.expm_skew(torch.randn(3, 196, 8, 8, 8))
        >>> q, k = lierope.ops.rotate_blocks(q, k, R, num_prefix_tokens=1)
    """
    rules.tensors("rotate_blocks", q=q, k=k, rotations=rotations)
    prefix = rules.whole("rotate_blocks", "num_prefix_tokens", num_prefix_tokens)
    if under_autocast(q):
        rotations = single_precision(rotations)
    return _rotate_blocks(q, k, rotations, prefix, False)  # type: ignore[no-any-return]
