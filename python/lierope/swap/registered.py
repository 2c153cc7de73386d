"""Vision transformers with an encoding that timm's registry knows: scripts can name them."""

from __future__ import annotations

import sys
from typing import Any

from torch import nn

from lierope.import_timm import timm
from lierope.swap import swap

_ENCODINGS = {
    "mixed": "mixed",
    "liere8": "liere:8",
    "cayley_string": "cayley",
    "circulant_string": "circulant:16",
}
_SIZES = ("tiny", "small", "base")

NAMES = [f"vit_{size}_patch16_{word}_224" for size in _SIZES for word in _ENCODINGS]
"""What `register` adds: timm's plain ViTs of 16 x 16 patches, without a table of positions."""


def _entry(size: str, word: str) -> Any:
    name = f"vit_{size}_patch16_{word}_224"

    def build(pretrained: bool = False, **options: Any) -> nn.Module:
        if pretrained:
            raise ValueError(
                f"{name}: pretrained must be False, because nobody has published weights; "
                "load a checkpoint, or swap a pretrained model"
            )
        plain: nn.Module = timm.create_model(f"vit_{size}_patch16_224", **options)
        return swap(plain, _ENCODINGS[word])

    build.__name__ = build.__qualname__ = name
    build.__doc__ = f"timm's vit_{size}_patch16_224 with `swap(model, {_ENCODINGS[word]!r})`."
    return build


def register() -> None:
    """Put every name of `NAMES` into timm's registry; a second call changes nothing."""
    module = sys.modules[__name__]
    for size in _SIZES:
        for word in _ENCODINGS:
            entry = _entry(size, word)
            if not timm.is_model(entry.__name__):
                setattr(module, entry.__name__, timm.models.register_model(entry))


__all__ = ["NAMES", "register"]
