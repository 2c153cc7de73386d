"""The RoPE family: rotation of pairs of features by given angles."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lierope.ops import rules
from lierope.ops.autograd import differentiable, single_precision, under_autocast, vjp_of
from lierope.ops.rotate_blocks import by_head
from lierope.ops.rows import empty_rows


def _composed(
    q: Tensor, k: Tensor, angles: Tensor, num_prefix_tokens: int, interleaved: bool, inverse: bool
) -> tuple[Tensor, Tensor]:
    pairs = angles.shape[-1]
    shape, axis = ((pairs, 2), -1) if interleaved else ((2, pairs), -2)

    def rotate(x: Tensor) -> Tensor:
        t = by_head(-angles if inverse else angles, x.shape[1], -3)
        rotated = x[:, :, num_prefix_tokens:, : 2 * pairs].unflatten(-1, shape)
        x0, x1 = rotated.to(t.dtype).unbind(axis)
        y = torch.stack((x0 * t.cos() - x1 * t.sin(), x0 * t.sin() + x1 * t.cos()), axis).flatten(
            -2
        )
        rest = torch.cat((y.to(x.dtype), x[:, :, num_prefix_tokens:, 2 * pairs :]), -1)
        return torch.cat((x[:, :, :num_prefix_tokens], rest), 2)

    return rotate(q), rotate(k)


def _composed_backward(
    q_grad: Tensor,
    k_grad: Tensor,
    q_rotated: Tensor,
    k_rotated: Tensor,
    angles: Tensor,
    num_prefix_tokens: int,
    interleaved: bool,
) -> Any:
    options = (num_prefix_tokens, interleaved)
    q, k = _composed(q_rotated, k_rotated, angles, *options, True)
    return vjp_of(_composed, (q, k, angles), (*options, False), (q_grad, k_grad))


_backward = differentiable(torch.ops.lierope.rotate_pairs_backward.default, 5, _composed_backward)


def _gradient(
    tensors: Sequence[Tensor], options: Sequence[Any], needs: Sequence[bool], *grads: Tensor
) -> tuple[Tensor, Tensor, Tensor | None]:
    q_rotated, k_rotated, angles = tensors
    num_prefix_tokens, interleaved, inverse = options
    if not needs[2]:
        return (*_rotate_pairs(*grads, angles, num_prefix_tokens, interleaved, not inverse), None)
    t = -angles if inverse else angles
    q_out, k_out, t_out = _backward(*grads, q_rotated, k_rotated, t, num_prefix_tokens, interleaved)
    return q_out, k_out, -t_out if inverse else t_out


_rotate_pairs = differentiable(
    torch.ops.lierope.rotate_pairs.default, 3, _composed, _gradient, saved_outputs=2
)


@torch.library.register_fake("lierope::rotate_pairs")
def _fake(
    q: Tensor, k: Tensor, angles: Tensor, num_prefix_tokens: int, interleaved: bool, inverse: bool
) -> tuple[Tensor, Tensor]:
    rules.rotate_pairs(q, k, angles, num_prefix_tokens)
    return empty_rows(q, q), empty_rows(k, q)


@torch.library.register_fake("lierope::rotate_pairs_backward")
def _fake_backward(
    q_grad: Tensor,
    k_grad: Tensor,
    q_rotated: Tensor,
    k_rotated: Tensor,
    angles: Tensor,
    num_prefix_tokens: int,
    interleaved: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    return (
        empty_rows(q_rotated, q_grad),
        empty_rows(k_rotated, q_grad),
        angles.new_empty(angles.shape),
    )


def rotate_pairs(
    q: Tensor,
    k: Tensor,
    angles: Tensor,
    *,
    num_prefix_tokens: int = 0,
    interleaved: bool = True,
) -> tuple[Tensor, Tensor]:
    r"""Rotate pairs of features of queries and keys in one pass over memory.

    .. math:: (y_0, y_1) = (x_0 \cos t - x_1 \sin t,\ x_0 \sin t + x_1 \cos t)

    sin and cos are computed once per token and head and shared by the batch.

    Args:
        q: (B, Hq, N, D); float32, float64, bfloat16 or float16. Strided inputs (a packed qkv) are
            read in place.
        k: (B, Hk, N, D), of q's dtype; Hk may be smaller (grouped-query attention) or 0.
        angles: t in radians, (H, M, A), or (B, H, M, A) per sample, with M = N − num_prefix_tokens,
            2A ≤ D and H a divisor of Hq and Hk (head h of Hq uses angles h·H // Hq). float64 when q
            is, else float32.
        num_prefix_tokens: The first tokens (class token, registers), which are copied unrotated.
        interleaved: Pairs are features (2i, 2i+1); else (i, i+A), the "half" layout.

    Returns:
        q and k rotated: new dense tensors of the same shapes and dtypes, in memory in the order of
        q: (B, N, H, D) where the heads of a token lie side by side, else (B, H, N, D). Features
        past 2A are copied.

    Raises:
        TypeError: No dense tensor, no integer.
        ValueError: An integer of more than 64 bits.
        RuntimeError: Shapes, dtypes or devices that do not fit.

    Source: RoPE, arXiv 2104.09864, equation 34; per-head angles as in RoPE-Mixed, arXiv 2403.13298.

    Example:
        >>> q, k = torch.randn(2, 2, 3, 197, 64).unbind()
        >>> angles = torch.rand(3, 196, 32, requires_grad=True)
        >>> q, k = lierope.ops.rotate_pairs(q, k, angles, num_prefix_tokens=1)
        >>> (q @ k.mT).sum().backward()
        >>> angles.grad.shape
        torch.Size([3, 196, 32])
    """
    rules.tensors("rotate_pairs", q=q, k=k, angles=angles)
    prefix = rules.whole("rotate_pairs", "num_prefix_tokens", num_prefix_tokens)
    if under_autocast(q):
        angles = single_precision(angles)
    return _rotate_pairs(q, k, angles, prefix, interleaved, False)  # type: ignore[no-any-return]
