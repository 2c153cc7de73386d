"""Positions for timm's Eva family, whose blocks pass on whatever `model.rope` gives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lierope.swap.grid import GridPositions


class PositionProvider(nn.Module):
    """In place of `model.rope`: token coordinates where timm makes tables of sines.

    Eva asks it for `get_embed`, hands the answer to every block unread, and, under patch dropout,
    gathers the kept rows. So jitter is drawn once a forward pass and recomputation sees the same.

    Args:
        positions: Makes positions from a grid.
        feat_shape: Grid of a model of fixed size, None for one of dynamic size.
    """

    anchor: Tensor

    def __init__(
        self,
        positions: GridPositions,
        feat_shape: Sequence[int] | None,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        super().__init__()
        self.positions = positions
        self.feat_shape = None if feat_shape is None else tuple(feat_shape)
        # Holds nothing: it moves with the model, and so says where positions are wanted.
        self.register_buffer("anchor", torch.empty(0, device=device, dtype=dtype), persistent=False)

    def get_embed(self, shape: Sequence[int] | None = None) -> Tensor:
        """Positions (N, C) of a grid, of the model's own where shape is None."""
        grid = self.feat_shape if shape is None else shape
        if grid is None:
            raise ValueError("swap: get_embed: shape must be given for a model of dynamic size")
        return self.positions(
            grid, device=self.anchor.device, dtype=self.anchor.dtype, training=self.training
        )

    def update_feat_shape(self, feat_shape: Sequence[int]) -> None:
        """What `set_input_size` of timm calls."""
        if self.feat_shape is not None:
            self.feat_shape = tuple(feat_shape)

    def no_weight_decay(self) -> set[str]:
        """Nothing: coordinates are not learned."""
        return set()


def install(model: Any, positions: GridPositions, like: Tensor) -> None:
    """Put a position provider where the model keeps its rotary embedding."""
    fixed = None if model.dynamic_img_size else model.patch_embed.grid_size
    provider = PositionProvider(positions, fixed, like.device, like.dtype)
    model.rope = provider.train(model.training)
    model.rope_mixed = False  # tables per layer no more: every layer gets the same coordinates
