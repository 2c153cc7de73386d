"""timm's seam: VisionTransformer, Eva and NaFlexVit, their attention classes and blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from torch import nn

from lierope.encodings import Encoding
from lierope.import_timm import timm
from lierope.swap import eva, naflex, vision_transformer
from lierope.swap.attention import Heads, SwappedAttention
from lierope.swap.grid import GridPositions
from lierope.swap.in_flight import PositionsInFlight
from lierope.swap.own_rotation import OwnRotation
from lierope.swap.places import Place, check_unswapped
from lierope.swap.seam import Seam, modules_of
from lierope.swap.timm_attention import EvaFamilyAttention, SideChannelAttention
from lierope.swap.timm_rotation import read_rotation

_KNOWN = (timm.layers.Attention, timm.layers.AttentionRope, timm.models.eva.EvaAttention)
_INLINED = (
    timm.models.vision_transformer.ParallelScalingBlock,
    timm.models.vision_transformer.DiffParallelScalingBlock,
)


def find(model: nn.Module) -> list[Seam]:
    """The timm vision transformers in a model."""
    kinds: dict[Any, Any] = {
        timm.models.vision_transformer.VisionTransformer: PlainSeam,
        timm.models.eva.Eva: EvaSeam,
        timm.models.naflexvit.NaFlexVit: NaFlexSeam,
    }
    return [
        next(seam for kind, seam in kinds.items() if isinstance(module, kind))(module, name)
        for name, module in modules_of(model, tuple(kinds)).items()
    ]


class _TimmSeam(Seam):
    def places(self) -> list[Place]:
        places = [
            place
            for number, block in enumerate(self.model.blocks)
            for place in _places_in(block, f"{self.label}blocks.{number}")
        ]
        if not places:
            raise ValueError(f"swap: no attention was found in {self.label}blocks, which is empty")
        return places

    def grid(self) -> tuple[int, ...] | None:
        grid: tuple[int, ...] | None = self.model.patch_embed.grid_size
        return grid

    def has_table(self) -> bool:
        return self.model.pos_embed is not None

    def remove_table(self) -> None:
        self.model.pos_embed = None

    def lost_keys(self, removed_table: bool) -> tuple[str, ...]:
        return ("pos_embed",) if removed_table else ()

    def own_rotation(self, jitter: Mapping[str, Any] | None) -> OwnRotation:
        return read_rotation(getattr(self.model, "rope", None), jitter, self.label)


class PlainSeam(_TimmSeam):
    """`VisionTransformer` and its kin: blocks pass nothing but tokens."""

    def check(self, chosen: Sequence[Place], found: Sequence[Place]) -> None:
        """Patch dropout has to be timm's."""
        vision_transformer.check_patch_drop(self.model, self.label)

    def connect(self, positions: GridPositions) -> Callable[[Place, Encoding], SwappedAttention]:
        """By hooks and the side channel."""
        in_flight = PositionsInFlight()
        vision_transformer.install(self.model, positions, in_flight)
        return _side_channel(self.model, in_flight)

    def remove_table(self) -> None:
        """The distilled DeiT cannot do without its table by itself."""
        vision_transformer.remove_table(self.model)


class EvaSeam(_TimmSeam):
    """`Eva`: blocks pass on what `model.rope` gives."""

    def check(self, chosen: Sequence[Place], found: Sequence[Place]) -> None:
        """All blocks get the same positions, so that none can keep rotary tables."""
        if len(chosen) < len(found):
            raise ValueError(
                f"swap: only and skip must cover all blocks of {self.what()}, an Eva, "
                "which gives all its blocks the same positions"
            )

    def connect(self, positions: GridPositions) -> Callable[[Place, Encoding], SwappedAttention]:
        """By a provider of positions in place of `model.rope`."""
        eva.install(self.model, positions, next(self.model.patch_embed.parameters()))
        prefix = int(self.model.num_prefix_tokens)

        def attention(place: Place, encoding: Encoding) -> SwappedAttention:
            return EvaFamilyAttention(place.attention, encoding, place.heads, prefix)

        return attention

    def lost_keys(self, removed_table: bool) -> tuple[str, ...]:
        """The rotary embedding's tables too."""
        return (*super().lost_keys(removed_table), "rope.")


class NaFlexSeam(_TimmSeam):
    """`NaFlexVit`: the coordinates of every patch, each sample's own."""

    def check(self, chosen: Sequence[Place], found: Sequence[Place]) -> None:
        """Where the model rotates by itself, all blocks have to be swapped."""
        naflex.check(self.model, self.label)
        if self.model.rope is not None and len(chosen) < len(found):
            raise ValueError(
                f"swap: only and skip must cover all blocks of {self.what()}, a NaFlexVit with "
                "a rotary embedding, which the swap takes out"
            )

    def grid(self) -> tuple[int, ...] | None:
        """The grid of the learned table: any size is the model's size."""
        grid: tuple[int, ...] | None = self.model.embeds.pos_embed_grid_size
        return grid

    def has_table(self) -> bool:
        """Learned, whole or by rows and columns."""
        return bool(self.model.embeds.pos_embed_type != "none")

    def remove_table(self) -> None:
        """Both kinds."""
        naflex.remove_table(self.model)

    def lost_keys(self, removed_table: bool) -> tuple[str, ...]:
        """The tables, and the frequencies of the model's own rotation."""
        names = ("pos_embed", "pos_embed_y", "pos_embed_x") if removed_table else ()
        return (*(f"embeds.{name}" for name in names), "rope.")

    def positions(
        self, mode: str, jitter: Mapping[str, Any] | None, own: OwnRotation | None
    ) -> GridPositions:
        """By coordinate, the same for images and for patches."""
        return naflex.make_positions(mode, self.grid(), jitter, own)

    def connect(self, positions: GridPositions) -> Callable[[Place, Encoding], SwappedAttention]:
        """By hooks on the embedding, which sees the coordinates."""
        in_flight = PositionsInFlight()
        assert isinstance(positions, naflex.PatchPositions)
        naflex.install(self.model, positions, in_flight)
        return _side_channel(self.model, in_flight)


def _side_channel(
    model: Any, in_flight: PositionsInFlight
) -> Callable[[Place, Encoding], SwappedAttention]:
    prefix = int(model.num_prefix_tokens)

    def attention(place: Place, encoding: Encoding) -> SwappedAttention:
        return SideChannelAttention(place.attention, encoding, place.heads, prefix, in_flight)

    return attention


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
        if isinstance(module, SwappedAttention) or type(module) in _KNOWN:
            check_unswapped(module, full)
            found = True
            parent, _, child = inner.rpartition(".")
            yield Place(full, block.get_submodule(parent), child, _heads(module))
        elif inner.rpartition(".")[2] == "attn":
            known = ", ".join(sorted(cls.__name__ for cls in _KNOWN))
            raise ValueError(
                f"swap: {full} is a {type(module).__name__}, which is unknown; known are {known}"
            )
    if not found:
        raise ValueError(f"swap: {name} is a {kind}, in which no attention module was found")


def _heads(attention: Any) -> Heads:
    heads = int(attention.num_heads)
    return Heads(heads, int(getattr(attention, "num_kv_heads", heads)), int(attention.head_dim))
