"""Find the attention modules of a timm model, and refuse what cannot be swapped, by name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from lierope.swap.attention import SwappedAttention
from lierope.timm import timm

Eva = timm.models.eva.Eva
VisionTransformer = timm.models.vision_transformer.VisionTransformer

KNOWN = (timm.layers.Attention, timm.layers.AttentionRope, timm.models.eva.EvaAttention)
_INLINED = (
    timm.models.vision_transformer.ParallelScalingBlock,
    timm.models.vision_transformer.DiffParallelScalingBlock,
)


@dataclass(frozen=True)
class Place:
    """One attention module: its full name, the module that holds it, and under which name."""

    name: str
    parent: nn.Module
    child: str

    @property
    def attention(self) -> nn.Module:
        """The module that stands there now."""
        return self.parent.get_submodule(self.child)

    def put(self, module: nn.Module) -> None:
        """Let another module stand there."""
        setattr(self.parent, self.child, module)


def find_models(model: nn.Module) -> dict[str, nn.Module]:
    """The timm vision transformers in a model, the model itself among them, by name."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"swap: model must be a torch.nn.Module, got {type(model).__name__}")
    kinds = (VisionTransformer, Eva)
    found: dict[str, nn.Module] = {n: m for n, m in model.named_modules() if isinstance(m, kinds)}
    if not found:
        raise ValueError(
            "swap: model must be, or hold, a timm VisionTransformer or Eva, "
            f"got {type(model).__name__}"
        )
    return found


def find_places(model: Any, prefix: str) -> list[Place]:
    """Every attention module in the blocks of one transformer."""
    places = [
        place
        for number, block in enumerate(model.blocks)
        for place in _places_in(block, f"{prefix}blocks.{number}")
    ]
    if not places:
        raise ValueError(f"swap: no attention was found in {prefix}blocks, which is empty")
    return places


def _places_in(block: nn.Module, name: str) -> Iterator[Place]:
    kind = type(block).__name__
    if isinstance(block, _INLINED):
        raise ValueError(
            f"swap: {name} is a {kind}, whose attention is inlined; "
            "only blocks with an attention module can be swapped"
        )
    found = False
    for inner, module in block.named_modules():
        full = f"{name}.{inner}"
        if isinstance(module, SwappedAttention):
            encoding = type(module.encoding).__name__
            raise ValueError(f"swap: {full} is swapped already, with {encoding}")
        if type(module) in KNOWN:
            found = True
            parent, _, child = inner.rpartition(".")
            yield Place(full, block.get_submodule(parent), child)
        elif inner.rpartition(".")[2] == "attn":
            known = ", ".join(sorted(cls.__name__ for cls in KNOWN))
            raise ValueError(
                f"swap: {full} is a {type(module).__name__}, which is unknown; known are {known}"
            )
    if not found:
        raise ValueError(f"swap: {name} is a {kind}, in which no attention module was found")


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
            if not any(_matches(place.name, pattern) for place in places):
                raise ValueError(
                    f"swap: {word} must match names such as {places[0].name!r}, got {pattern!r}"
                )
        hit = [any(_matches(place.name, p) for p in listed) == (word == "only") for place in chosen]
        chosen = [place for place, keep in zip(chosen, hit, strict=True) if keep]
    if not chosen:
        raise ValueError("swap: only and skip must leave some attention, got none")
    return chosen


def _matches(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")
