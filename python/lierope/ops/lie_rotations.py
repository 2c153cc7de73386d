"""Rotations from generators and positions: contraction and exponential in one pass."""

from collections.abc import Sequence
from math import isqrt
from typing import Any

import torch
from torch import Tensor

from lierope.ops import rules
from lierope.ops.autograd import differentiable, single_precision, vjp_of
from lierope.ops.expm_skew import LARGEST, composed_expm_skew


def block_size_of(entries: int) -> int:
    """Side b of the skew matrix whose strict upper triangle has `entries` = b(b−1)/2 entries."""
    return (1 + isqrt(1 + 8 * entries)) // 2


def composed_lie_rotations(generators: Tensor, positions: Tensor) -> Tensor:
    """Contraction and exponential by torch's own functions."""
    # Entry (i, j) of the upper triangle lies at its rank in the packed row; all others at a zero
    # behind it.
    entries = generators.shape[-1]
    b = block_size_of(entries)
    order = torch.arange(entries, device=generators.device)
    place = torch.full((b, b), entries, device=generators.device)
    place = place.index_put(tuple(torch.triu_indices(b, b, 1)), order)
    upper = torch.nn.functional.pad(generators, (0, 1))[..., place]
    return composed_expm_skew(torch.einsum("...mc,chgij->...hmgij", positions, upper))


def _composed_backward(
    generators: Tensor, positions: Tensor, grad: Tensor, positions_grad: bool
) -> Any:
    of_generators, of_positions = vjp_of(composed_lie_rotations, (generators, positions), (), grad)
    return of_generators, of_positions if positions_grad else positions.new_zeros(0)


_backward = differentiable(torch.ops.lierope.lie_rotations_backward.default, 3, _composed_backward)


def _gradient(
    tensors: Sequence[Tensor], options: Sequence[Any], needs: Sequence[bool], *grads: Tensor
) -> tuple[Tensor, Tensor | None]:
    of_generators, of_positions = _backward(*tensors, grads[0], needs[1])
    return of_generators, of_positions if needs[1] else None


_lie_rotations = differentiable(
    torch.ops.lierope.lie_rotations.default, 2, composed_lie_rotations, _gradient
)


@torch.library.register_fake("lierope::lie_rotations")
def _fake(generators: Tensor, positions: Tensor) -> Tensor:
    rules.lie("lie_rotations", generators, positions)
    b = block_size_of(int(generators.shape[3]))
    _, H, G, _ = generators.shape
    return generators.new_empty((*positions.shape[:-2], H, positions.shape[-2], G, b, b))


@torch.library.register_fake("lierope::lie_rotations_backward")
def _fake_backward(
    generators: Tensor, positions: Tensor, grad: Tensor, positions_grad: bool
) -> tuple[Tensor, Tensor]:
    of_positions = positions.new_empty(positions.shape if positions_grad else (0,))
    return generators.new_empty(generators.shape), of_positions


def lie_rotations(generators: Tensor, positions: Tensor) -> Tensor:
    r"""Rotation of every token, head and block: exponentials of sums of generators.

    .. math:: R(p) = \exp\Big(\sum_c p_c A_c\Big), \qquad A_c = U_c - U_c^\top

    Args:
        generators: (C, H, G, b(b−1)/2), packed strict upper triangles U, row-major; float32 or
            float64.
        positions: (..., M, C), of the same dtype; any units.

    Returns:
        (..., H, M, G, b, b), orthogonal with determinant 1; new and contiguous. A non-finite
        position gives NaN for its token only.

    Raises:
        TypeError: No dense tensor.
        RuntimeError: Shapes or dtypes that do not fit, or an entry count that is no b(b−1)/2.

    Source: LieRE, arXiv 2406.10322, section 4.

    Example:
        >>> R = lierope.ops.lie_rotations(torch.randn(2, 3, 8, 28), torch.rand(196, 2))
        >>> R.shape
        torch.Size([3, 196, 8, 8, 8])
    """
    rules.tensors("lie_rotations", generators=generators, positions=positions)
    generators, positions = single_precision(generators), single_precision(positions)
    if generators.dim() == 4 and block_size_of(generators.shape[-1]) > LARGEST:
        if not torch.compiler.is_compiling():
            rules.lie("lie_rotations", generators, positions)
        result: Tensor = composed_lie_rotations(generators, positions)
        return result
    return _lie_rotations(generators, positions)  # type: ignore[no-any-return]
