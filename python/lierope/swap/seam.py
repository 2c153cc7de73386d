"""The seam between swap and a library: where attention stands and how positions get there."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from lierope.encodings import Encoding
from lierope.swap.attention import SwappedAttention
from lierope.swap.grid import GridPositions
from lierope.swap.own_rotation import OwnRotation
from lierope.swap.places import Place


class Seam(ABC):
    """One transformer inside the model that is swapped. A subclass for each kind there is.

    `swap` asks everything first (`places` to `positions`, which raise where something is not
    understood and change nothing) and only then calls `connect`, `wrap` and `remove_table`.

    Args:
        model: The transformer.
        name: Its name in the whole model, "" when it is the whole model.
    """

    ndim = 2
    """Coordinates of a position: an image has rows and columns."""

    def __init__(self, model: Any, name: str) -> None:
        self.model = model  # Any: the libraries' classes have no types of use
        self.name = name
        self.label = f"{name}." if name else ""

    @abstractmethod
    def places(self) -> list[Place]:
        """Every attention that can be swapped; raises ValueError where one cannot."""

    @abstractmethod
    def grid(self) -> tuple[int, ...] | None:
        """The patch grid that the model has now, None if any size is its size."""

    def check(self, chosen: Sequence[Place], found: Sequence[Place]) -> None:
        """Raise ValueError for what else cannot be: parts of the places, odd modules."""
        return

    def has_table(self) -> bool:
        """Whether there is a learned position embedding to keep or to take out."""
        return False

    def own_rotation(self, jitter: Mapping[str, Any] | None) -> OwnRotation:
        """The rotation that the model has already, for `convert`."""
        raise ValueError(f"swap: convert needs a rotary embedding, but {self.what()} has none")

    def positions(
        self, mode: str, jitter: Mapping[str, Any] | None, own: OwnRotation | None
    ) -> GridPositions:
        """What makes positions; tried once, so that a wrong mode or jitter speaks up here."""
        made = own.positions if own else GridPositions(mode, self.grid(), jitter)
        try_positions(made, self.grid() or (1,) * self.ndim)
        return made

    @abstractmethod
    def connect(self, positions: GridPositions) -> Callable[[Place, Encoding], SwappedAttention]:
        """Wire the model so that positions reach attention; returns what makes an attention."""

    def remove_table(self) -> None:
        """Take the learned position embedding out, if there is one."""
        return

    def finish(self, places: list[Place], encodings: list[Encoding]) -> None:
        """What is left to do once everything stands in its place."""
        return

    def lost_keys(self, removed_table: bool) -> tuple[str, ...]:
        """Keys of the original state dict that are gone; a trailing dot means all that follows."""
        return ()

    def what(self) -> str:
        """The transformer in words: its name, or that it is the model."""
        return self.name or "the model"


def try_positions(positions: GridPositions, grid: Sequence[int]) -> None:
    """Make positions once, leaving the random numbers as they were."""
    rng = torch.get_rng_state()
    positions(grid, device=torch.device("cpu"), dtype=torch.float32, training=True)
    torch.set_rng_state(rng)


def modules_of(model: nn.Module, kinds: tuple[type, ...]) -> dict[str, Any]:
    """Modules of these classes by name, the model itself among them."""
    return {name: module for name, module in model.named_modules() if isinstance(module, kinds)}
