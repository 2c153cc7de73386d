"""The seam of torch itself: every `nn.MultiheadAttention` of a model whose positions are given."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from lierope.encodings import Encoding
from lierope.swap.attention import Heads, SwappedAttention
from lierope.swap.coordinates import Coordinates
from lierope.swap.grid import GridPositions
from lierope.swap.in_flight import PositionsInFlight
from lierope.swap.own_rotation import OwnRotation
from lierope.swap.places import Place, check_unswapped
from lierope.swap.seam import Seam, try_positions
from lierope.swap.torch_attention import FixedGrid, SwappedMultiheadAttention


class TorchSeam(Seam):
    """Any model with `nn.MultiheadAttention` in it, such as `nn.TransformerEncoder`.

    Args:
        model: The whole model.
        coordinates: A grid's shape, or what the caller sets.
        num_prefix_tokens: Tokens at the front that are not rotated.
    """

    def __init__(
        self, model: Any, coordinates: Sequence[int] | Coordinates, num_prefix_tokens: int
    ) -> None:
        super().__init__(model, "")
        own = isinstance(coordinates, Coordinates)
        if not own and not (
            isinstance(coordinates, (tuple, list, torch.Size))
            and all(isinstance(size, int) and size > 0 for size in coordinates)
            and coordinates
        ):
            raise ValueError(
                "swap: coordinates must be a grid's shape or a lierope.Coordinates, "
                f"got {coordinates!r}"
            )
        if num_prefix_tokens < 0:
            raise ValueError(f"swap: num_prefix_tokens must be 0 or more, got {num_prefix_tokens}")
        self.given = coordinates if isinstance(coordinates, Coordinates) else None
        self.shape = None if isinstance(coordinates, Coordinates) else tuple(coordinates)
        self.ndim = coordinates.ndim if isinstance(coordinates, Coordinates) else len(coordinates)
        self.num_prefix_tokens = num_prefix_tokens

    def places(self) -> list[Place]:
        """Attention on one sequence; what attends to another is for the caller to skip."""
        return find_attention(self.model, "")

    def grid(self) -> tuple[int, ...] | None:
        """The shape that was given, if it was."""
        return self.shape

    def check(self, chosen: Sequence[Place], found: Sequence[Place]) -> None:
        """Refuse what the rotation cannot serve."""
        for place in chosen:
            check_attention(place)

    def positions(
        self, mode: str, jitter: Mapping[str, Any] | None, own: OwnRotation | None
    ) -> GridPositions:
        """Of the given grid."""
        if jitter:
            raise ValueError(
                "swap: jitter must be left out where coordinates are given: jitter them with "
                "lierope.jitter_positions, once a forward pass"
            )
        made = GridPositions(mode, self.shape)
        try_positions(made, self.shape or (1,) * self.ndim)
        return made

    def connect(self, positions: GridPositions) -> Callable[[Place, Encoding], SwappedAttention]:
        """By the source that every attention reads."""
        source: FixedGrid | PositionsInFlight
        if self.given is not None:
            source = self.given
        else:
            assert self.shape is not None
            source = FixedGrid(positions, self.shape)

        def attention(place: Place, encoding: Encoding) -> SwappedAttention:
            watched = isinstance(place.parent, _LAYERS)
            if watched and isinstance(source, Coordinates):
                place.parent.register_forward_pre_hook(source.enter_layer, with_kwargs=True)
            return SwappedMultiheadAttention(
                place.attention,
                encoding,
                place.heads,
                self.num_prefix_tokens,
                source,
                place.name,
                watched,
            )

        return attention

    def finish(self, places: list[Place], encodings: list[Encoding]) -> None:
        """Encoders give no nested tensors, made for the fused path, to the layers swapped."""
        swapped = {place.parent for place in places}
        for module in self.model.modules():
            if isinstance(module, nn.TransformerEncoder) and swapped & set(module.modules()):
                module.use_nested_tensor = False


_LAYERS = (nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)


def find_attention(model: nn.Module, label: str) -> list[Place]:
    """Every `nn.MultiheadAttention` in a module, of that class or a class of its kind."""
    places = []
    for name, module in model.named_modules():
        if not isinstance(module, (nn.MultiheadAttention, SwappedMultiheadAttention)):
            continue
        if not name:
            raise ValueError(
                "swap: model must hold its MultiheadAttention, got one that nothing holds"
            )
        attention: Any = module
        check_unswapped(attention, label + name)
        parent, _, child = name.rpartition(".")
        heads = Heads(attention.num_heads, attention.num_heads, attention.head_dim)
        places.append(Place(label + name, model.get_submodule(parent), child, heads))
    if not places:
        raise ValueError(
            f"swap: model must hold a torch.nn.MultiheadAttention, got {type(model).__name__} "
            "without"
        )
    return places


def check_attention(place: Place) -> None:
    """Refuse attention to another sequence, added keys, and classes that do more."""
    attention: Any = place.attention
    kind = type(attention).__name__
    if type(attention) is not nn.MultiheadAttention:
        raise ValueError(
            f"swap: {place.name} is a {kind}, which is unknown; known is MultiheadAttention"
        )
    if isinstance(place.parent, nn.TransformerDecoderLayer) and place.child == "multihead_attn":
        raise ValueError(
            f"swap: {place.name} attends to another sequence, whose positions are others; skip it"
        )
    if attention.in_proj_weight is None:
        raise ValueError(f"swap: {place.name} takes keys of another width than queries; skip it")
    if attention.bias_k is not None or attention.add_zero_attn:
        raise ValueError(
            f"swap: {place.name} adds keys of its own (add_bias_kv, add_zero_attn), which have "
            "no position"
        )
