"""Positions for timm's VisionTransformer and its kin, whose blocks pass nothing but tokens.

`patch_embed` tells the grid (a hook), `patch_drop` is replaced by `PatchPositions`, which turns the
grid into positions, drops the same patches from both and announces the result to the attention
modules, and each block remembers what belongs to its input (see `in_flight`).
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lierope.import_timm import timm
from lierope.swap.grid import GridPositions
from lierope.swap.in_flight import PositionsInFlight

PatchDropout = timm.layers.PatchDropout


class GridOfInput:
    """The patch grid of the image under way, told by a forward hook on patch_embed."""

    def __init__(self, patch_embed: Any) -> None:
        self.fixed: tuple[int, int] | None = patch_embed.grid_size
        self.seen: tuple[int, int] | None = None

    def observe(self, patch_embed: Any, args: tuple[Any, ...], patches: Any) -> None:
        """Forward hook of patch_embed."""
        self.fixed = patch_embed.grid_size
        self.seen = None
        if isinstance(patches, torch.fx.Proxy):
            return  # being traced: patch_drop works with the fixed grid
        if patches.ndim == 4:  # dynamic_img_size: (B, H, W, dim)
            self.seen = (patches.shape[1], patches.shape[2])
        elif not getattr(patch_embed, "strict_img_size", True):
            self.seen = patch_embed.dynamic_feat_size(args[0].shape[-2:])

    def take(self) -> tuple[int, int]:
        """The grid of this forward pass; forgotten once taken."""
        grid, self.seen = self.seen or self.fixed, None
        if grid is None:
            raise RuntimeError("swap: the patch grid is unknown, because patch_embed has no size")
        return grid


@timm.layers.register_notrace_module
class PatchPositions(nn.Module):
    """In place of `patch_drop`: drops patches as timm does, and their positions with them.

    Uses the random numbers that timm's PatchDropout would. Without patch dropout it only announces
    the positions of the grid.
    """

    def __init__(
        self,
        patch_drop: Any,
        num_prefix_tokens: int,
        grid: GridOfInput,
        positions: GridPositions,
        in_flight: PositionsInFlight,
    ) -> None:
        super().__init__()
        drops = isinstance(patch_drop, PatchDropout)
        self.prob = float(patch_drop.prob) if drops else 0.0
        self.ordered = bool(patch_drop.ordered) if drops else False
        self.num_prefix_tokens = num_prefix_tokens
        self.grid = grid
        self.positions = positions
        self.in_flight = in_flight
        self.train(patch_drop.training)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens x (B, N, dim), with the prefix tokens in front."""
        positions = self.positions(
            self.grid.take(), device=x.device, dtype=x.dtype, training=self.training
        )
        x, kept = timm.layers.patch_dropout.patch_dropout_forward(
            x, self.prob, self.num_prefix_tokens, self.ordered, self.training
        )
        if kept is not None:
            positions = positions[kept]
        self.in_flight.publish(positions)
        return x

    def extra_repr(self) -> str:
        """The probability, the one thing a reader asks for."""
        return f"prob={self.prob}"


def _prefix_and_patches(model: Any, x: Tensor) -> Tensor:
    """`_pos_embed` of the distilled DeiT without its table, which timm's own cannot do without."""
    prefix = [token.expand(x.shape[0], -1, -1) for token in (model.cls_token, model.dist_token)]
    return torch.cat((*prefix, x.reshape(x.shape[0], -1, x.shape[-1])), dim=1)


def install(model: Any, positions: GridPositions, in_flight: PositionsInFlight) -> None:
    """Wire patch_embed, patch_drop and the blocks of a plain ViT to the side channel."""
    grid = GridOfInput(model.patch_embed)
    model.patch_embed.register_forward_hook(grid.observe)
    model.patch_drop = PatchPositions(
        model.patch_drop, model.num_prefix_tokens, grid, positions, in_flight
    )
    for block in model.blocks:
        block.register_forward_pre_hook(in_flight.enter_block)


def remove_table(model: Any) -> None:
    """Take the learned position embedding out of a plain ViT."""
    model.pos_embed = None
    if hasattr(model, "dist_token"):
        model._pos_embed = partial(_prefix_and_patches, model)


def check_patch_drop(model: Any, name: str) -> None:
    """Refuse a patch_drop that is neither timm's nor absent, since its indices stay unknown."""
    drop = model.patch_drop
    if not isinstance(drop, (PatchDropout, nn.Identity)):
        raise ValueError(
            f"swap: {name}patch_drop must be a PatchDropout or Identity, got {type(drop).__name__}"
        )
