"""torchvision's seam: its VisionTransformer, whose blocks hold `nn.MultiheadAttention`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn
from torchvision.models import vision_transformer as library

from lierope.encodings import Encoding
from lierope.swap.attention import SwappedAttention
from lierope.swap.grid import GridPositions
from lierope.swap.in_flight import PositionsInFlight
from lierope.swap.places import Place
from lierope.swap.seam import Seam, modules_of
from lierope.swap.torch_attention import FixedGrid, SwappedMultiheadAttention
from lierope.swap.torch_nn import check_attention, find_attention


def find(model: nn.Module) -> list[Seam]:
    """The torchvision vision transformers in a model."""
    found = modules_of(model, (library.VisionTransformer,))
    return [TorchvisionSeam(module, name) for name, module in found.items()]


class TorchvisionSeam(Seam):
    """`torchvision.models.VisionTransformer`: one image size, one class token."""

    def places(self) -> list[Place]:
        """The attention of every block."""
        return find_attention(self.model.encoder.layers, f"{self.label}encoder.layers.")

    def grid(self) -> tuple[int, ...]:
        """The only one that the model takes."""
        return (self.model.image_size // self.model.patch_size,) * 2

    def check(self, chosen: Sequence[Place], found: Sequence[Place]) -> None:
        """Refuse what is no attention of an `EncoderBlock`."""
        for place in chosen:
            check_attention(place)
            if type(place.parent) is not library.EncoderBlock:
                kind = type(place.parent).__name__
                raise ValueError(
                    f"swap: {place.name} stands in a {kind}, which is unknown; "
                    "known is EncoderBlock"
                )

    def has_table(self) -> bool:
        """Until it is taken out."""
        return isinstance(self.model.encoder.pos_embedding, nn.Parameter)

    def remove_table(self) -> None:
        """The encoder adds what stands there: a number then, which moves with nothing."""
        del self.model.encoder.pos_embedding
        self.model.encoder.pos_embedding = 0.0

    def lost_keys(self, removed_table: bool) -> tuple[str, ...]:
        """The table."""
        return ("encoder.pos_embedding",) if removed_table else ()

    def connect(self, positions: GridPositions) -> Callable[[Place, Encoding], SwappedAttention]:
        """By the fixed grid, or, where it jitters, drawn once a forward pass."""
        if not positions.jitter:
            return partial(_attention, FixedGrid(positions, self.grid()))
        in_flight = PositionsInFlight()
        announcer = _Announcer(positions, self.grid(), in_flight)
        self.model.encoder.register_forward_pre_hook(announcer)
        for block in self.model.encoder.layers:
            block.register_forward_pre_hook(in_flight.enter_block)
        return partial(_attention, in_flight)


class _Announcer:
    """Forward pre-hook of the encoder: positions of the forward pass that begins."""

    def __init__(
        self, positions: GridPositions, grid: tuple[int, ...], in_flight: PositionsInFlight
    ) -> None:
        self.positions = positions
        self.grid = grid
        self.in_flight = in_flight

    def __call__(self, encoder: nn.Module, args: tuple[Any, ...]) -> None:
        """Draw them."""
        x = args[0]
        if isinstance(x, torch.fx.Proxy):  # the graph would keep positions of another pass
            raise NotImplementedError(
                "swap: torch.fx cannot trace a model that was swapped with jitter; swap without"
            )
        self.in_flight.publish(
            self.positions(self.grid, device=x.device, dtype=x.dtype, training=encoder.training)
        )


def _attention(
    source: FixedGrid | PositionsInFlight, place: Place, encoding: Encoding
) -> SwappedAttention:
    return SwappedMultiheadAttention(
        place.attention, encoding, place.heads, 1, source, place.name, watched=True
    )
