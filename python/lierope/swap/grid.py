"""Token positions of an image's patch grid, as a swapped model hands them to its attention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lierope.choice import check_choice
from lierope.positions import grid_positions, jitter_positions

JITTER_WORDS = ("subsample", "shift", "jitter", "rescale")
_KEPT_GRIDS = 16


class GridPositions:
    """Positions of a grid of patches, in one mode, with coordinate jitter while training.

    Args:
        mode: A mode of `lierope.grid_positions`.
        train_shape: The grid whose size is the unit of the mode "proportional".
        jitter: Keyword arguments of `lierope.positions.jitter_positions`, or None.
    """

    def __init__(
        self,
        mode: str,
        train_shape: Sequence[int] | None = None,
        jitter: Mapping[str, Any] | None = None,
    ) -> None:
        for word in jitter or {}:
            check_choice("swap", "jitter's keys", word, JITTER_WORDS)
        self.mode = mode
        self.train_shape = None if train_shape is None else tuple(train_shape)
        self.jitter = dict(jitter or {})
        self._kept: dict[tuple[Any, ...], Tensor] = {}

    def __call__(
        self,
        shape: Sequence[int],
        *,
        device: torch.device,
        dtype: torch.dtype,
        training: bool,
    ) -> Tensor:
        """Positions (prod(shape), len(shape)) in float64 for a float64 model, else in float32."""
        dtype = torch.float64 if dtype == torch.float64 else torch.float32
        positions = self._grid(tuple(shape), device, dtype)
        return jitter_positions(positions, **self.jitter) if training and self.jitter else positions

    def _grid(self, shape: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
        if torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None:
            return self._build(shape, device, dtype)
        key = (shape, device, dtype)
        if key not in self._kept:
            # A tensor born in inference mode could not serve a later training step.
            with torch.inference_mode(False):
                positions = self._build(shape, device, dtype)
            if type(positions) is not Tensor:  # a fake tensor must not outlive its mode
                return positions
            if len(self._kept) >= _KEPT_GRIDS:
                self._kept.clear()
            self._kept[key] = positions
        return self._kept[key]

    def _build(self, shape: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
        return grid_positions(
            shape, self.mode, train_shape=self.train_shape, device=device, dtype=dtype
        )

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": {}}
