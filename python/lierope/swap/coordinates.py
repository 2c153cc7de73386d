"""Where the tokens of `nn.MultiheadAttention` are, when only the caller knows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lierope.swap.in_flight import (
    PositionsInFlight,
    refuse_replica,
    running_backward,
    storage_of,
)

_MANY = 256


class Coordinates(PositionsInFlight):
    """Positions that the caller sets before each forward pass, or once if they stay.

        where = lierope.Coordinates(ndim=3)
        lierope.swap(model, "liere:8", coordinates=where)
        where.set(points)                       # (N, 3), or (B, N, 3) for each sample
        model(x)

    Gradients reach the positions. Where activation checkpointing recomputes a
    `nn.TransformerEncoderLayer`, the positions of that forward pass come back; where it recomputes
    something else around the attention, the attention must be given its positions by keyword
    (``attention(x, x, x, positions=points)``), and an error says so.

    Args:
        ndim: C, coordinates of a token.

    Raises:
        ValueError: ndim is not positive.

    Example:
        >>> layer = torch.nn.TransformerEncoderLayer(64, 4, batch_first=True)
        >>> points = lierope.Coordinates(ndim=3)
        >>> layer = lierope.swap(layer, "cayley", coordinates=points)
        >>> points.set(torch.rand(2, 100, 3))
        >>> layer(torch.randn(2, 100, 64)).shape
        torch.Size([2, 100, 64])
    """

    def __init__(self, ndim: int) -> None:
        super().__init__()
        if ndim < 1:
            raise ValueError(f"Coordinates: ndim must be positive, got {ndim}")
        self.ndim = ndim
        self.given: Tensor | None = None

    def set(self, positions: Tensor) -> None:
        """The positions (M, C) or (B, M, C) of the tokens after the prefix, from now on.

        Raises:
            ValueError: positions of another shape.
        """
        if positions.ndim not in (2, 3) or positions.shape[-1] != self.ndim:
            raise ValueError(
                f"Coordinates: positions must have shape (M, {self.ndim}) or (B, M, {self.ndim}), "
                f"got {tuple(positions.shape)}"
            )
        self.given = positions
        self.publish(positions)

    def enter_layer(self, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Forward pre-hook of layers: which positions came with which input."""
        refuse_replica(layer)
        if torch.compiler.is_compiling():
            return
        x = args[0] if args else kwargs.get("src", kwargs.get("tgt"))
        key, backward = storage_of(x), running_backward()
        if backward != -1:
            if key not in self._seen or self._seen[key] is None:
                raise RuntimeError(
                    f"swap: {type(layer).__name__} is recomputed in the backward pass with an "
                    "input that came with no positions, or with several; "
                    "give each forward pass an input of its own"
                )
            self.current, self._backward = self._seen[key], backward
            return
        self.current, self._backward = self.given, backward
        if key is not None:
            # The caller's own tensor may come again, with other positions: then nobody can tell.
            same = self._seen.get(key, self.given) is self.given
            self._seen[key] = self.given if same else None
        if len(self._seen) > _MANY:
            self._forget()

    def read(self) -> Tensor:
        """Positions for the attention that runs now: what is set, or what a recomputation needs."""
        if torch.compiler.is_compiling() or running_backward() == -1:
            self.current = self.given
        return super().read()

    def __deepcopy__(self, memo: dict[int, Any]) -> Coordinates:
        """Copies of a model hear the same caller."""
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "ndim": self.ndim, "given": None}
