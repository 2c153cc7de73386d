"""Rotations fixed for good at given positions: what is left of an encoding for inference."""

from __future__ import annotations

import torch
from torch import Tensor

from lierope import ops
from lierope.encodings.base import Encoding


class FixedRotations(Encoding):
    """The rotations that an encoding has at certain positions, as numbers; nothing is learned.

    Whatever positions come, token n turns as the n-th of those it was made for, so that neither
    exponentials nor the making of positions are left: for export and for inference on one grid.

    Args:
        like: The encoding to take the place of; it must have `rotations`.
        positions: (M, C), of its type.

    Raises:
        TypeError: `like` has no rotations that can be fixed.
        ValueError: positions of another shape.
    """

    short_name = "fixed"
    rotations: Tensor

    def __init__(self, like: Encoding, positions: Tensor) -> None:
        make = getattr(like, "rotations", None)
        if not callable(make):
            raise TypeError(
                f"FixedRotations: like must be an encoding with rotations (LieRE), "
                f"got {type(like).__name__}"
            )
        if positions.dim() != 2 or positions.shape[1] != like.ndim:
            raise ValueError(
                f"FixedRotations: positions must have shape (M, {like.ndim}), "
                f"got {tuple(positions.shape)}"
            )
        super().__init__(
            like.head_dim,
            like.num_heads,
            like.ndim,
            num_kv_heads=like.num_kv_heads,
            share=like.share,
            rotary_dim=like.rotary_dim,
        )
        with torch.no_grad():
            self.register_buffer("rotations", make(positions))
        self.train(like.training)

    def rotate(
        self, q: Tensor, k: Tensor, positions: Tensor, num_prefix_tokens: int = 0
    ) -> tuple[Tensor, Tensor]:
        """Multiplies every block of features by its matrix; positions are only counted."""
        if positions.shape[-2] != self.rotations.shape[1]:
            raise ValueError(
                f"FixedRotations: positions must be the {self.rotations.shape[1]} it was made "
                f"for, got {positions.shape[-2]}"
            )
        return ops.rotate_blocks(q, k, self.rotations, num_prefix_tokens=num_prefix_tokens)
