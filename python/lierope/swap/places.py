"""Attention modules and where they stand; choosing some of them by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import nn

from lierope.swap.attention import Heads, SwappedAttention


@dataclass(frozen=True)
class Place:
    """One attention module: its full name, the module that holds it, and under which name."""

    name: str
    parent: nn.Module
    child: str
    heads: Heads

    @property
    def attention(self) -> nn.Module:
        """The module that stands there now."""
        return self.parent.get_submodule(self.child)

    def put(self, module: nn.Module) -> None:
        """Let another module stand there."""
        setattr(self.parent, self.child, module)

    def factory(self) -> dict[str, torch.device | torch.dtype]:
        """Device and type for an encoding: the module's, float32 for the half types."""
        weight = next(self.attention.parameters())
        dtype = torch.float64 if weight.dtype == torch.float64 else torch.float32
        return {"device": weight.device, "dtype": dtype}


def check_unswapped(module: nn.Module, name: str) -> None:
    """Refuse an attention that is swapped already, or whose forward somebody has replaced."""
    if isinstance(module, SwappedAttention):
        encoding = type(module.encoding).__name__
        raise ValueError(f"swap: {name} is swapped already, with {encoding}")
    if "forward" in vars(module):
        raise ValueError(f"swap: {name} has a forward of its own that somebody put there")


def select(
    places: Sequence[Place],
    only: str | Sequence[str] | None,
    skip: str | Sequence[str] | None,
) -> list[Place]:
    """The places whose names match `only` and do not match `skip`."""
    chosen = list(places)
    for word, patterns in (("only", only), ("skip", skip)):
        if patterns is None:
            continue
        listed = [patterns] if isinstance(patterns, str) else list(patterns)
        for pattern in listed:
            if not any(matches(place.name, pattern) for place in places):
                raise ValueError(
                    f"swap: {word} must match names such as {places[0].name!r}, got {pattern!r}"
                )
        hit = [any(matches(place.name, p) for p in listed) == (word == "only") for place in chosen]
        chosen = [place for place, keep in zip(chosen, hit, strict=True) if keep]
    if not chosen:
        raise ValueError("swap: only and skip must leave some attention, got none")
    return chosen


def matches(name: str, pattern: str) -> bool:
    """Whether a pattern means the module of that name, or one that holds it."""
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")
