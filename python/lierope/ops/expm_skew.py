"""Matrix exponential of skew-symmetric matrices."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lierope.ops import rules
from lierope.ops.autograd import back_to, differentiable, single_precision, vjp_of

LARGEST = 128  # csrc/params/expm_skew.h


def skew_from_upper(a: Tensor) -> Tensor:
    """Skew matrix with the strict upper triangle of `a`."""
    upper = a.triu(1)
    return upper - upper.mT


def _matrix_exp(a: Tensor) -> Tensor:
    # torch 2.13 computes a single matrix of 1-norm 0.05 to 0.6 with a wrong degree-8 coefficient
    # (pytorch#196592); a batch takes another path, so there are always two.
    pair: Tensor = torch.linalg.matrix_exp(torch.stack((a, a)))
    return pair[0]


def composed_expm_skew(a: Tensor) -> Tensor:
    """The exponential by torch's own functions."""
    return _matrix_exp(skew_from_upper(a))


def _composed_backward(a: Tensor, grad: Tensor) -> Tensor:
    # torch squares once more for every doubling of the gradient: hand it one of size 1.
    size = grad.detach().abs().amax(dim=(-2, -1), keepdim=True).clamp_min(1e-30)
    of_a: Tensor = vjp_of(composed_expm_skew, (a,), (), grad / size)[0]
    return of_a * size


_backward = differentiable(torch.ops.lierope.expm_skew_backward.default, 2, _composed_backward)


def _gradient(
    tensors: Sequence[Tensor], options: Sequence[Any], needs: Sequence[bool], *grads: Tensor
) -> tuple[Tensor]:
    return (_backward(tensors[0], grads[0]),)


def _jvp(tensors: Sequence[Tensor], options: Sequence[Any], tangents: Sequence[Tensor]) -> Tensor:
    # dR = R phi(ad_A) dA, and phi(ad_A) = psi(ad_-A) is what the backward computes at -A (numerics:
    # Al-Mohy & Higham 2009).
    (a,), (tangent,) = tensors, tangents
    r = _expm_skew(a)
    inner = _backward(-a, r.mT @ skew_from_upper(tangent))
    result: Tensor = r @ (skew_from_upper(inner) / 2)
    return result


_expm_skew = differentiable(
    torch.ops.lierope.expm_skew.default, 1, composed_expm_skew, _gradient, _jvp
)


@torch.library.register_fake("lierope::expm_skew")
def _fake(a: Tensor) -> Tensor:
    rules.square("expm_skew", "a", a)
    return a.new_empty(a.shape)


@torch.library.register_fake("lierope::expm_skew_backward")
def _fake_backward(a: Tensor, grad: Tensor) -> Tensor:
    return a.new_empty(a.shape)


def expm_skew(a: Tensor) -> Tensor:
    r"""Exponential of the skew-symmetric matrix given by the strict upper triangle of `a`.

    .. math:: R = \exp(A), \qquad A_{ij} = a_{ij}\ (i < j), \quad A = -A^\top

    Computed as C(A²) + A·S(A²) with minimax polynomials, scaling and squaring; the backward
    evaluates ψ(ad_A) skew(RᵀG), ψ(z) = (eᶻ − 1)/z, by doubling, and stores nothing but `a`. R is
    orthogonal with determinant 1; the error grows as the unit roundoff times ‖A‖₂.

    Args:
        a: (..., n, n), float32 or float64 (float16 and bfloat16 are computed in float32). Only the
            strict upper triangle is read; the gradient is zero elsewhere. n above 128 goes through
            `torch.linalg.matrix_exp`.

    Returns:
        (..., n, n), a new contiguous tensor. A matrix with a non-finite entry gives NaN, and only
        that one.

    Raises:
        TypeError: `a` is no dense tensor.
        RuntimeError: `a` is not (..., n, n) with n >= 1, or not of a floating dtype.

    Source: Bader, Blanes, Casas, Seydaoglu (arXiv 2103.10132) for the idea of splitting into even
        and odd parts.

    Example:
        >>> quarter = torch.tensor([[0.0, -torch.pi / 2], [0.0, 0.0]])
        >>> x = torch.tensor([1.0, 0.0])
        >>> torch.allclose(lierope.ops.expm_skew(quarter) @ x, torch.tensor([0.0, 1.0]), atol=1e-6)
        True
    """
    rules.tensors("expm_skew", a=a)
    x = single_precision(a)
    if x.dim() >= 2 and x.shape[-1] == x.shape[-2] and x.shape[-1] > LARGEST:
        rules.full("expm_skew", "a", x)
        return back_to(composed_expm_skew(x), a)
    return back_to(_expm_skew(x), a)
