"""Multiply an orthogonal basis into the rows of a projection, head by head: W ← P W."""

from __future__ import annotations

import torch
from torch import Tensor

from lierope.full_precision import without_autocast


def multiply_rows(basis: Tensor, rows: Tensor, num_heads: int) -> Tensor:
    """P_h W_h for every head h.

    Args:
        basis: (H', D, D); H' divides num_heads, head h takes the basis of h·H'//num_heads.
        rows: Weight (S·num_heads·D, dim) or bias (S·num_heads·D,) of S projections on each other.
        num_heads: Heads in each projection.

    Returns:
        A tensor like rows. Arithmetic is in the wider of the two types, never autocast: rounding
        the basis to bfloat16 would cost more than all rotations together.
    """
    wide = torch.promote_types(basis.dtype, rows.dtype)
    with without_autocast(rows):
        product = basis.to(wide).unsqueeze(1) @ _by_head(rows.to(wide), basis, num_heads)
    return product.reshape(rows.shape).to(rows.dtype)


def basis_gradient(basis: Tensor, rows: Tensor, grad: Tensor, num_heads: int) -> Tensor:
    """The basis' gradient for that of `multiply_rows`: the sum of grad_h W_hᵀ over its heads.

    That of rows is `multiply_rows(basis.mT, grad, num_heads)`.
    """
    wide = torch.promote_types(basis.dtype, rows.dtype)
    with without_autocast(rows):
        left, right = (_by_head(t.to(wide), basis, num_heads) for t in (grad, rows))
        outer = left @ right.mT
    return outer.sum((0, 2)).to(basis.dtype)


def _by_head(rows: Tensor, basis: Tensor, num_heads: int) -> Tensor:
    """(S, H', num_heads // H', D, dim or 1)."""
    shared, D = basis.shape[0], basis.shape[-1]
    stacked = rows.shape[0] // (num_heads * D)
    return rows.reshape(stacked, shared, num_heads // shared, D, -1)
