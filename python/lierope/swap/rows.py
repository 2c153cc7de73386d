"""Multiply an orthogonal basis into the rows of a projection, head by head: W ← P W."""

from __future__ import annotations

import torch
from torch import Tensor

from lierope.full_precision import without_autocast


def multiply_rows(basis: Tensor, rows: Tensor, num_heads: int) -> Tensor:
    """P_h W_h for every head h.

    Args:
        basis: (H', D, D); H' divides num_heads, head h takes the basis of h·H'//num_heads.
        rows: Weight (num_heads·D, dim) or bias (num_heads·D,).
        num_heads: Heads in the rows.

    Returns:
        A tensor like rows. Arithmetic is in the wider of the two types, never autocast: rounding
        the basis to bfloat16 would cost more than all rotations together.
    """
    shared, D = basis.shape[0], basis.shape[-1]
    wide = torch.promote_types(basis.dtype, rows.dtype)
    with without_autocast(rows):
        per_head = rows.to(wide).reshape(shared, num_heads // shared, D, -1)
        product = basis.to(wide).unsqueeze(1) @ per_head
    return product.reshape(rows.shape).to(rows.dtype)
