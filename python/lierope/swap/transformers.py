"""transformers' seam: the vision models of version 5, by the names of their classes and parts."""

from __future__ import annotations

import importlib.metadata
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from lierope.encodings import Encoding
from lierope.swap import transformers_loading
from lierope.swap.attention import Heads, SwappedAttention
from lierope.swap.grid import GridPositions
from lierope.swap.in_flight import PositionsInFlight
from lierope.swap.own_rotation import OwnRotation, axial_frequencies
from lierope.swap.places import Place, check_unswapped
from lierope.swap.seam import Seam
from lierope.swap.transformers_attention import attention_like


@dataclass(frozen=True)
class _Kind:
    """Where a model of transformers keeps what swap needs."""

    attention: str
    """Class of its attention."""
    layers: str = "encoder.layer"
    child: str = "attention"
    """The attention's name in a layer."""
    convolution: str = "embeddings.patch_embeddings.projection"
    """Cuts the image into patches, so that its output has the grid."""
    table: str | None = "position_embeddings"
    """The learned position embedding's name in `embeddings`."""
    prefix: int = 1
    """Tokens before the patches, without registers."""


_OLDEST = (5, 19)  # version 5 moved layers and attention about before
_AUGMENTATIONS = ("shift", "jitter", "rescale")
_PARTS = ("q_proj", "k_proj", "v_proj", "head_dim")
_VIT = _Kind("ViTAttention", layers="layers")
_DINOV3 = _Kind(
    "DINOv3ViTAttention", "model.layer", convolution="embeddings.patch_embeddings", table=None
)
_CLIP = _Kind(
    "CLIPAttention",
    "encoder.layers",
    "self_attn",
    "embeddings.patch_embedding",
    "position_embedding",
)
_SIGLIP = replace(_CLIP, attention="SiglipAttention", prefix=0)
_KINDS = {
    "ViTModel": _VIT,
    "DeiTModel": _Kind("DeiTAttention", layers="layers", prefix=2),
    "Dinov2Model": _Kind("Dinov2Attention"),
    "Dinov2Backbone": _Kind("Dinov2Attention"),
    "Dinov2WithRegistersModel": _Kind("Dinov2WithRegistersAttention"),
    "Dinov2WithRegistersBackbone": _Kind("Dinov2WithRegistersAttention"),
    "DINOv3ViTModel": _DINOV3,
    "DINOv3ViTBackbone": _DINOV3,
    "CLIPVisionModel": _CLIP,
    "SiglipVisionModel": _SIGLIP,
}


def find(model: nn.Module) -> list[Seam]:
    """The vision transformers of transformers in a model."""
    seams: list[Seam] = []
    for name, module in model.named_modules():
        kind = _kind_of(module)
        if kind is not None:
            _check_version()
            seams.append(TransformersSeam(module, name, kind, model))
    return seams


def _kind_of(module: nn.Module) -> _Kind | None:
    for cls in type(module).__mro__:
        if _is_of(cls, cls.__name__) and cls.__name__ in _KINDS:
            return _KINDS[cls.__name__]
    return None


def _is_of(cls: type, name: str) -> bool:
    return cls.__module__.startswith("transformers.models.") and cls.__name__ == name


def _check_version() -> None:
    version = importlib.metadata.version("transformers")
    major, minor = (int(part) for part in version.split(".")[:2])
    if (major, minor) < _OLDEST:
        raise ValueError(
            f"swap: transformers must be at least {_OLDEST[0]}.{_OLDEST[1]}, got {version}; "
            "pip install 'lierope[transformers]'"
        )


class CentredGrid(GridPositions):
    """DINOv3's coordinates: patch centres in (-1, 1) along both axes, times 2 pi."""

    def __init__(self, jitter: Mapping[str, Any] | None) -> None:
        super().__init__("index", None, jitter)

    def _build(self, shape: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
        axes = [
            2 * (torch.arange(0.5, size, device=device, dtype=dtype) / size) - 1 for size in shape
        ]
        grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).flatten(0, -2)
        return 2 * math.pi * grid


class TransformersSeam(Seam):
    """A vision model of transformers: layers pass keywords on to their attention."""

    def __init__(self, model: Any, name: str, kind: _Kind, root: nn.Module) -> None:
        super().__init__(model, name)
        self.kind = kind
        self.root = root

    def places(self) -> list[Place]:
        """The attention of every layer."""
        kind, places = self.kind, []
        layers = _part(self.model, kind.layers, self.label)
        for number, layer in enumerate(layers):
            full = f"{self.label}{kind.layers}.{number}.{kind.child}"
            attention: Any = getattr(layer, kind.child, None)
            if isinstance(attention, nn.Module):
                check_unswapped(attention, full)
            if not _is_of(type(attention), kind.attention):
                raise ValueError(
                    f"swap: {full} is a {type(attention).__name__}, which is unknown; "
                    f"known is {kind.attention}"
                )
            absent = [part for part in _PARTS if not hasattr(attention, part)]
            if absent:
                raise ValueError(
                    f"swap: {full} must have {', '.join(_PARTS)}; {absent[0]} is not there"
                )
            heads = _heads(attention)
            places.append(Place(full, layer, kind.child, Heads(heads, heads, attention.head_dim)))
        if not places:
            raise ValueError(f"swap: no attention was found in {self.label}{kind.layers}")
        return places

    def grid(self) -> tuple[int, ...]:
        """That of the image size in the configuration."""
        image, patch = (_pair(getattr(self.model.config, f"{w}_size")) for w in ("image", "patch"))
        return (image[0] // patch[0], image[1] // patch[1])

    def check(self, chosen: Sequence[Place], found: Sequence[Place]) -> None:
        """The patches have to come from a convolution."""
        convolution = _part(self.model, self.kind.convolution, self.label)
        if not isinstance(convolution, nn.Conv2d):
            raise ValueError(
                f"swap: {self.label}{self.kind.convolution} must be a Conv2d, "
                f"got {type(convolution).__name__}"
            )
        if self.kind.table is None and len(chosen) < len(found):
            raise ValueError(
                f"swap: only and skip must cover all layers of {self.what()}, a DINOv3, "
                "which gives all its layers the same positions"
            )

    def has_table(self) -> bool:
        """DINOv3 alone has none."""
        kind = self.kind
        table = None if kind.table is None else getattr(self.model.embeddings, kind.table)
        return transformers_loading.is_table(table)

    def remove_table(self) -> None:
        """The embeddings add what stands there: zero then."""
        if self.has_table():
            _remove_table(self.model.embeddings, str(self.kind.table))

    def lost_keys(self, removed_table: bool) -> tuple[str, ...]:
        """The table, a parameter or a module's."""
        if not removed_table or self.kind.table is None:
            return ()
        return (f"embeddings.{self.kind.table}", f"embeddings.{self.kind.table}.weight")

    def own_rotation(self, jitter: Mapping[str, Any] | None) -> OwnRotation:
        """DINOv3's periods."""
        rotary = getattr(self.model, "rope_embeddings", None)
        if rotary is None:
            return super().own_rotation(jitter)
        if jitter is None:
            config = self.model.config
            given = {word: getattr(config, f"pos_embed_{word}") for word in _AUGMENTATIONS}
            jitter = {word: value for word, value in given.items() if value is not None}
        bands = rotary.inv_freq.detach().float()
        return OwnRotation(axial_frequencies(bands), True, CentredGrid(jitter))

    def connect(self, positions: GridPositions) -> Callable[[Place, Encoding], SwappedAttention]:
        """By a hook that sees the grid and one that adds a keyword to each layer's call."""
        in_flight = PositionsInFlight()
        convolution = _part(self.model, self.kind.convolution, self.label)
        convolution.register_forward_hook(_Announcer(positions, in_flight))
        transformers_loading.install(self.model, self.kind.table)
        registers = getattr(self.model.config, "num_register_tokens", 0)
        prefix = self.kind.prefix + int(registers)

        def attention(place: Place, encoding: Encoding) -> SwappedAttention:
            place.parent.register_forward_pre_hook(in_flight.hand_over, with_kwargs=True)
            return attention_like(place.attention, encoding, place.heads, prefix)

        return attention

    def finish(self, places: list[Place], encodings: list[Encoding]) -> None:
        """Shared encodings are stored once, and every one in full precision."""
        transformers_loading.declare(self.root, places, encodings)


class _Announcer:
    """Forward hook of the patch convolution: its output has the grid."""

    def __init__(self, positions: GridPositions, in_flight: PositionsInFlight) -> None:
        self.positions = positions
        self.in_flight = in_flight

    def __call__(self, convolution: nn.Module, args: tuple[Any, ...], patches: Tensor) -> None:
        """Begin a forward pass."""
        self.in_flight.publish(
            self.positions(
                patches.shape[-2:],
                device=patches.device,
                dtype=patches.dtype,
                training=convolution.training,
            )
        )


class NoTable(nn.Module):
    """In place of a table that is an `nn.Embedding`: adds nothing."""

    def forward(self, ids: Tensor) -> float:
        """Zero, for any ids."""
        return 0.0


def no_table(embeddings: Tensor, height: int, width: int) -> float:
    """In place of `interpolate_pos_encoding`, which would resize the table."""
    return 0.0


def _remove_table(embeddings: Any, name: str) -> None:
    table = getattr(embeddings, name)
    delattr(embeddings, name)
    setattr(embeddings, name, NoTable() if isinstance(table, nn.Module) else 0.0)
    embeddings.interpolate_pos_encoding = no_table


def _part(model: nn.Module, path: str, label: str) -> Any:
    try:
        return model.get_submodule(path)
    except AttributeError as error:
        raise ValueError(
            f"swap: {label}{path} must be there in a {type(model).__name__} of transformers "
            f"{importlib.metadata.version('transformers')}; it is not"
        ) from error


def _heads(attention: Any) -> int:
    found = getattr(attention, "num_attention_heads", None)
    return int(attention.num_heads if found is None else found)


def _pair(size: Any) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])
