"""Which libraries' transformers a model holds; a library is asked only if it is loaded."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

from torch import nn

from lierope.swap.coordinates import Coordinates
from lierope.swap.seam import Seam

# Each library, and the module that is loaded once a model of it exists.
_LIBRARIES = {
    "timm": "timm.models",
    "torchvision": "torchvision.models.vision_transformer",
    "transformers": "transformers.modeling_utils",
}


def find_seams(
    model: nn.Module, coordinates: Sequence[int] | Coordinates | None, num_prefix_tokens: int
) -> list[Seam]:
    """The transformers in a model, in its order.

    Args:
        model: Anything.
        coordinates: Where given, its `nn.MultiheadAttention` modules are meant, nothing else.
        num_prefix_tokens: For those.

    Raises:
        TypeError: model is not a module.
        ValueError: There is nothing to swap.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"swap: model must be a torch.nn.Module, got {type(model).__name__}")
    if coordinates is not None:
        from lierope.swap.torch_nn import TorchSeam  # noqa: PLC0415

        return [TorchSeam(model, coordinates, num_prefix_tokens)]
    if num_prefix_tokens:
        raise ValueError(
            f"swap: num_prefix_tokens is read off the model without coordinates, "
            f"got {num_prefix_tokens}"
        )
    seams: list[Seam] = []
    for library, loaded in _LIBRARIES.items():
        if sys.modules.get(loaded) is not None:
            seams += import_module(f"lierope.swap.{library}").find(model)
    if not seams:
        raise ValueError(
            "swap: model must be, or hold, a vision transformer of timm, transformers or "
            "torchvision (any other needs coordinates for its torch.nn.MultiheadAttention), "
            f"got {type(model).__name__}"
        )
    order = {name: number for number, (name, _) in enumerate(model.named_modules())}
    return sorted(seams, key=lambda seam: order[seam.name])
