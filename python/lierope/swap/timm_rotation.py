"""Read the rotary embedding of a timm model: its frequencies and its coordinates."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lierope.import_timm import timm
from lierope.swap.grid import GridPositions
from lierope.swap.own_rotation import OwnRotation, axial_frequencies

sincos = timm.layers.pos_embed_sincos

_AUGMENTATIONS = {
    "shift": "shift_coords",
    "jitter": "jitter_coords",
    "rescale": "rescale_coords",
}


class OwnGrid(GridPositions):
    """Coordinates as timm's embedding counts them, columns in its order (x first for "xy")."""

    def __init__(
        self, grid: Mapping[str, Any], unit: float, jitter: Mapping[str, Any] | None
    ) -> None:
        super().__init__("index", None, jitter)
        self.grid = dict(grid)
        self.unit = unit

    def _build(self, shape: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
        coordinates: Tensor = sincos._build_grid(
            list(shape), device=device, dtype=dtype, ndim=2, **self.grid
        )
        return coordinates.flatten(0, -2).mul(self.unit)

    def at(self, cells: Tensor, sizes: Tensor) -> Tensor:
        """Positions of cells (..., N, 2), (row, column), of grids of sizes (..., 1, 2).

        The formulas of timm's `_build_grid`, one cell at a time instead of a grid at a time.
        """
        offset = self.grid.get("grid_offset", 0.0)
        kind = self.grid.get("grid_type", "index")
        if kind == "pixel":
            p = 2 * cells / (sizes - 1).clamp(min=1) - 1
        elif kind == "centered":
            by = self.grid.get("normalize_coords", "separate")
            whole = {"max": sizes.amax(-1, True), "min": sizes.amin(-1, True), "separate": sizes}
            p = (cells + 0.5 + offset) / whole[by]
        else:
            p = cells + offset
        reference = self.grid.get("ref_feat_shape")
        if reference is not None:
            rows, columns = (p / sizes).unbind(-1)
            p = torch.stack((rows * reference[0], columns * reference[1]), -1)
        if kind == "centered":
            p = 2 * p - 1
        return (p.flip(-1) if self.grid["grid_indexing"] == "xy" else p) * self.unit


def read_rotation(embedding: Any, jitter: Mapping[str, Any] | None, label: str) -> OwnRotation:
    """The rotation of `model.rope`, of any type that timm's Eva or NaFlexVit makes.

    Raises:
        ValueError: the model has no rotary embedding, or one of another type.
    """
    if embedding is None:
        raise ValueError(f"swap: convert needs a rotary embedding, but {label}rope is None")
    if jitter is None:
        given = {word: getattr(embedding, name, None) for word, name in _AUGMENTATIONS.items()}
        jitter = {word: value for word, value in given.items() if value is not None}
    grid: dict[str, Any] = {"grid_indexing": getattr(embedding, "grid_indexing", "ij")}
    half = bool(getattr(embedding, "rotate_half", False))
    unit = 1.0
    if isinstance(embedding, sincos.RotaryEmbeddingMixed):
        frequencies = embedding.freqs.detach().transpose(0, 1)
    elif isinstance(embedding, sincos.RotaryEmbeddingCat):
        for name in ("grid_type", "ref_feat_shape", "grid_offset", "normalize_coords"):
            grid[name] = getattr(embedding, name)
        frequencies = axial_frequencies(embedding._compute_bands())
    elif isinstance(embedding, sincos.RotaryEmbeddingDinoV3):
        for name in ("grid_offset", "normalize_coords"):
            grid[name] = getattr(embedding, name)
        grid["grid_type"] = "centered"
        unit = 2 * math.pi  # one period of length 1 is a full turn
        frequencies = axial_frequencies(1 / embedding._compute_periods())
    elif isinstance(embedding, sincos.RotaryEmbeddingMRope):
        half = True
        axis: Any = embedding.axis  # 1 row, 2 column, 0 time, which does not pass in an image
        frequencies = torch.stack([(axis == c) * embedding.inv_freq for c in (1, 2)])
        frequencies = frequencies.reshape(1, 2, 1, -1)
    else:
        kind = type(embedding).__name__
        raise ValueError(f"swap: convert does not know {label}rope, which is a {kind}")
    return OwnRotation(frequencies.clone(), half, OwnGrid(grid, unit, jitter))
