"""Cayley transform of skew-symmetric matrices, formed or applied by a solve."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lierope.ops import rules
from lierope.ops.autograd import back_to, differentiable, single_precision, under_autocast
from lierope.ops.expm_skew import skew_from_upper


def _composed(s: Tensor) -> Tensor:
    S = skew_from_upper(s)
    eye = torch.eye(s.shape[-1], dtype=s.dtype, device=s.device)
    p: Tensor = torch.linalg.solve(eye + S, eye - S)  # the factors commute
    return p


def _composed_backward(p: Tensor, grad: Tensor) -> Tensor:
    # dP = -2 M dS M with M = (I + P)/2, so Sbar = skew(-1/2 (I + P)^T G (I + P)^T): no solve.
    m = (torch.eye(p.shape[-1], dtype=p.dtype, device=p.device) + p).mT
    inner = m @ grad @ m / -2
    return (inner - inner.mT).triu(1)


_backward = differentiable(torch.ops.lierope.cayley_backward.default, 2, _composed_backward)


def _gradient(
    tensors: Sequence[Tensor], options: Sequence[Any], needs: Sequence[bool], *grads: Tensor
) -> tuple[Tensor]:
    return (_backward(tensors[0], grads[0]),)  # of P alone, which whoever turns by it keeps anyway


_cayley = differentiable(torch.ops.lierope.cayley.default, 1, _composed, _gradient, saved_outputs=1)


@torch.library.register_fake("lierope::cayley")
def _fake(s: Tensor) -> Tensor:
    rules.square("cayley", "s", s)
    return s.new_empty(s.shape)


@torch.library.register_fake("lierope::cayley_backward")
def _fake_backward(p: Tensor, grad: Tensor) -> Tensor:
    return p.new_empty(p.shape)


def cayley(s: Tensor) -> Tensor:
    r"""Cayley transform of the skew-symmetric matrix given by the strict upper triangle of `s`.

    .. math:: P = (I - S)(I + S)^{-1}, \qquad S_{ij} = s_{ij}\ (i < j), \quad S = -S^\top

    P is orthogonal with determinant 1 and never has the eigenvalue −1; S = 0 gives exactly I.
    Torch's `parametrizations.orthogonal(…, "cayley")` and geotorch use half angles: their A is −2S.
    All pivots of I + S are at least 1, so the elimination needs no pivoting.

    Args:
        s: (..., n, n), float32 or float64 (float16 and bfloat16 are computed in float32). Only the
            strict upper triangle is read; the gradient is zero elsewhere.

    Returns:
        (..., n, n), a new contiguous tensor. A matrix with a non-finite entry gives NaN, and only
        that one.

    Raises:
        TypeError: `s` is no dense tensor.
        RuntimeError: `s` is not (..., n, n) with n >= 1, or not of a floating dtype.

    Source: Cayley-STRING, arXiv 2502.02562, section 3.

    Example:
        >>> P = lierope.ops.cayley(torch.randn(8, 64, 64))
        >>> torch.allclose(P @ P.mT, torch.eye(64), atol=1e-5)
        True
    """
    rules.tensors("cayley", s=s)
    return back_to(_cayley(single_precision(s)), s)


def _band(s: Tensor, bandwidth: int) -> Tensor:
    return skew_from_upper(s).triu(-bandwidth).tril(bandwidth)


def _composed_rotate(x: Tensor, s: Tensor, bandwidth: int, transpose: bool) -> Tensor:
    S = -_band(s, bandwidth) if transpose else _band(s, bandwidth)
    P = _composed(S.repeat_interleave(x.shape[-3] // s.shape[0], dim=0))
    return (x.to(s.dtype) @ P.mT).to(x.dtype)


def _rotate_gradient(
    tensors: Sequence[Tensor], options: Sequence[Any], needs: Sequence[bool], *grads: Tensor
) -> tuple[Tensor | None, Tensor | None]:
    x, s = tensors
    bandwidth, transpose = options
    x_grad = _cayley_rotate(grads[0], s, bandwidth, not transpose)
    if not needs[1]:
        return x_grad, None
    if s.shape[-1] <= 256:  # to form P once a head costs less than P x once more for every token
        P = _cayley(s.triu(1).tril(bandwidth))
        of_P = _outer(x, grads[0], s) if transpose else _outer(grads[0], x, s)
        return x_grad, _backward(P, of_P).tril(bandwidth)
    # y = P x: Sbar = skew(-2 u w^T), u = (ybar + P^T ybar)/2, w = (x + P x)/2, with -S for S when
    # transposed.
    outer = _outer(grads[0] + x_grad, x + _cayley_rotate(x, s, bandwidth, transpose), s)
    outer = outer / (2 if transpose else -2)
    return x_grad, (outer - outer.mT).triu(1).tril(bandwidth)


def _outer(y: Tensor, x: Tensor, like: Tensor) -> Tensor:
    """Sum of y xᵀ over the tokens and samples of each of like's heads: (Hs, n, n)."""
    outer = y.to(like.dtype).mT @ x.to(like.dtype)  # (..., H, n, n)
    outer = outer.sum(tuple(range(x.dim() - 3))) if x.dim() > 3 else outer
    return outer.reshape(like.shape[0], -1, *like.shape[1:]).sum(1)


_cayley_rotate = differentiable(
    torch.ops.lierope.cayley_rotate.default, 2, _composed_rotate, _rotate_gradient
)


@torch.library.register_fake("lierope::cayley_rotate")
def _fake_rotate(x: Tensor, s: Tensor, bandwidth: int, transpose: bool) -> Tensor:
    rules.cayley_rotate(x, s, bandwidth)
    return x.new_empty(x.shape)


def cayley_rotate(x: Tensor, s: Tensor, *, bandwidth: int | None = None) -> Tensor:
    r"""Apply the Cayley transform of a (banded) skew matrix to tokens.

    .. math:: y = P x = 2 (I + S)^{-1} x - x, \qquad
        S_{ij} = s_{ij}\ (i < j,\ j - i \le w), \quad S = -S^\top

    Where the band is narrow (4·(w + 1) < n) by a solve that never forms P: O(n·w) operations a
    token after a factorisation of O(n·w²) a head. Else tokens are multiplied by P, formed once a
    head: that is faster than a solve, whose steps wait for each other.

    Args:
        x: (..., H, N, n); float32, float64, bfloat16 or float16.
        s: (Hs, n, n) with Hs a divisor of H; float64 when x is, else float32. Only the strict upper
            triangle is read.
        bandwidth: w; entries further from the diagonal count as zero. None: dense.

    Returns:
        y, a new contiguous tensor of x's shape and dtype.

    Raises:
        TypeError: No dense tensor, no integer.
        ValueError: An integer of more than 64 bits.
        RuntimeError: Shapes, dtypes or devices that do not fit, a negative bandwidth.

    Source: Cayley-STRING, arXiv 2502.02562, section 3 (sparse S and a linear solver).

    Example:
        >>> x, s = torch.randn(2, 8, 196, 64), torch.randn(8, 64, 64)
        >>> y = lierope.ops.cayley_rotate(x, s)
        >>> torch.allclose(y, x @ lierope.ops.cayley(s).mT, atol=1e-4)
        True
    """
    rules.tensors("cayley_rotate", x=x, s=s)
    if under_autocast(x):
        s = single_precision(s)
    if bandwidth is None:
        width = s.shape[-1] if s.dim() > 0 else 0
    else:
        width = rules.whole("cayley_rotate", "bandwidth", bandwidth)
    return _cayley_rotate(x, s, width, False)  # type: ignore[no-any-return]
