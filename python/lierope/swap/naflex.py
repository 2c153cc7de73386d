"""Positions for timm's NaFlexVit: each patch's own coordinate, in whatever order patches come.

timm itself makes its tables for a row-major grid as large as the largest coordinate says; patches
that are permuted, or masked out of the middle, would get the places of others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lierope.import_timm import timm
from lierope.positions import jitter_positions
from lierope.swap.grid import GridPositions
from lierope.swap.in_flight import PositionsInFlight
from lierope.swap.own_rotation import OwnRotation
from lierope.swap.seam import try_positions
from lierope.swap.timm_rotation import OwnGrid

_DROPS = timm.layers.PatchDropoutWithIndices
_EMBEDS = timm.models.naflexvit.NaFlexEmbeds


class PatchPositions(GridPositions):
    """Positions of cells (row, column): a function of a patch's coordinate, not of its neighbours.

    | mode | position of row i | needs |
    |---|---|---|
    | index | i | |
    | proportional | i / (n_train - 1) | the grid of the model's table |
    | unit | i / (n - 1) | n, the sample's rows |
    | centered | i - (n - 1) / 2 | n |

    n is the sample's largest coordinate among valid patches, plus one: where masking leaves out
    the last rows or columns, choose "index" or "proportional". For a grid of the training size
    every mode is that of `lierope.grid_positions`.
    """

    def __init__(
        self,
        mode: str,
        train_shape: Sequence[int] | None,
        jitter: Mapping[str, Any] | None,
        own: OwnGrid | None = None,
    ) -> None:
        super().__init__(mode, train_shape, jitter)
        self.own = own

    def of_patches(
        self, cells: Tensor, valid: Tensor | None, *, dtype: torch.dtype, training: bool
    ) -> Tensor:
        """Positions (B, N, 2) of cells (B, N, 2); valid (B, N) is False for padding."""
        dtype = torch.float64 if dtype == torch.float64 else torch.float32
        real = cells if valid is None else cells.masked_fill(~valid.bool().unsqueeze(-1), 0)
        sizes = real.amax(1, keepdim=True) + 1
        positions = self._at(cells.to(dtype), sizes.to(dtype))
        return jitter_positions(positions, **self.jitter) if training and self.jitter else positions

    def _build(self, shape: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
        axes = [torch.arange(size, device=device, dtype=dtype) for size in shape]
        cells = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).flatten(0, -2)
        return self._at(cells, torch.stack([axis[-1:] + 1 for axis in axes], -1))

    def _at(self, cells: Tensor, sizes: Tensor) -> Tensor:
        if self.own is not None:
            return self.own.at(cells, sizes)
        if self.mode == "index":
            return cells
        if self.mode == "centered":
            return cells - (sizes - 1) / 2
        if self.mode == "unit":
            return cells / (sizes - 1).clamp(min=1)
        assert self.train_shape is not None
        rows, columns = (max(size - 1, 1) for size in self.train_shape)
        return torch.stack((cells[..., 0] / rows, cells[..., 1] / columns), -1)


def make_positions(
    mode: str,
    train_shape: Sequence[int] | None,
    jitter: Mapping[str, Any] | None,
    own: OwnRotation | None,
) -> PatchPositions:
    """Positions in a mode of `grid_positions`, or as the model's own rotation counts."""
    if own is not None:
        assert isinstance(own.positions, OwnGrid)
        made = PatchPositions("index", None, own.positions.jitter, own.positions)
    elif mode == "proportional" and train_shape is None:
        raise ValueError(
            "swap: positions must be given for a NaFlexVit without pos_embed_grid_size, because "
            "'proportional' counts in units of that grid"
        )
    else:
        made = PatchPositions(mode, train_shape, jitter)
    try_positions(made, train_shape or (1, 1))
    return made


class _Announcer:
    """Hooks of the embedding and of patch dropout: which patches are under way, and where."""

    def __init__(self, positions: PatchPositions, in_flight: PositionsInFlight) -> None:
        self.positions = positions
        self.in_flight = in_flight

    def embedded(
        self, embeds: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], made: Any
    ) -> None:
        """Forward hook of `embeds`: coordinates are given, or the image has a grid."""
        x, grid = made
        words = {"dtype": x.dtype, "training": embeds.training}
        cells = kwargs.get("patch_coord")
        if cells is None:
            found = self.positions(tuple(grid), device=x.device, **words)
        else:
            found = self.positions.of_patches(cells, kwargs.get("patch_valid"), **words)
        self.in_flight.publish(found)

    def dropped(self, patch_drop: nn.Module, args: tuple[Any, ...], made: Any) -> None:
        """Forward hook of `patch_drop`: the positions of the patches that stay."""
        kept = made[1]
        if kept is None:
            return
        positions = self.in_flight.read()
        if positions.ndim == 2:
            left = positions[kept]
        else:
            left = positions.gather(1, kept.unsqueeze(-1).expand(-1, -1, positions.shape[-1]))
        self.in_flight.publish(left)


def check(model: Any, label: str) -> None:
    """Refuse an embedding or a patch dropout that is not timm's."""
    for name, kind in (("embeds", _EMBEDS), ("patch_drop", _DROPS)):
        module = getattr(model, name)
        if type(module) is not kind and not (name == "patch_drop" and module is None):
            raise ValueError(
                f"swap: {label}{name} must be a {kind.__name__}, got {type(module).__name__}"
            )


def install(model: Any, positions: PatchPositions, in_flight: PositionsInFlight) -> None:
    """Wire the embedding, patch dropout and the blocks; the model rotates no more by itself."""
    announcer = _Announcer(positions, in_flight)
    model.embeds.register_forward_hook(announcer.embedded, with_kwargs=True)
    if model.patch_drop is not None:
        model.patch_drop.register_forward_hook(announcer.dropped)
    for block in model.blocks:
        block.register_forward_pre_hook(in_flight.enter_block)
    model.rope = None
    model.rope_is_mixed = False


def remove_table(model: Any) -> None:
    """Take the learned position embedding out, whole or by rows and columns."""
    embeds = model.embeds
    embeds.pos_embed = embeds.pos_embed_y = embeds.pos_embed_x = None
    embeds.pos_embed_type = "none"
