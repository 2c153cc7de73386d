"""What a swapped model says about its parameters: loading of original weights, weight decay."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor, nn

from lierope.encodings import Encoding
from lierope.swap.attention import SwappedAttention
from lierope.swap.eva import PositionProvider


def encodings_of(model: nn.Module) -> dict[str, Encoding]:
    """The encodings in a swapped model by module name; a shared one stands under each name."""
    return {
        f"{name}.encoding".lstrip("."): module.encoding
        for name, module in model.named_modules()
        if isinstance(module, SwappedAttention)
    }


def _accept_original(model: Any, state_dict: dict[str, Tensor], prefix: str, *_: object) -> None:
    """Let the state dict of the model as it was before the swap load strictly.

    Encodings keep their values when the state dict knows none of them (some but not all is still
    an error), and the tables that the swap took out are passed over. A converted model refuses:
    its weights may be in another order, and its frequencies are part of what the weights learned.
    """
    if model.pos_embed is None:
        state_dict.pop(f"{prefix}pos_embed", None)
    if isinstance(getattr(model, "rope", None), PositionProvider):
        for key in [key for key in state_dict if key.startswith(f"{prefix}rope.")]:
            del state_dict[key]
    own: dict[str, Tensor] = {}
    for name, encoding in encodings_of(model).items():
        encoding.state_dict(destination=own, prefix=f"{prefix}{name}.")
    if any(key in state_dict for key in own):
        return
    if model.swap_converted and any(key.startswith(prefix) for key in state_dict):
        raise ValueError(
            "swap: a model swapped with convert=True loads weights saved after the swap; "
            "load the original weights before it"
        )
    state_dict.update(own)


def _no_weight_decay(model: nn.Module) -> set[str]:
    """The names that timm lists, and the encodings': decay would pull rotations to none."""
    model_class: Any = type(model)
    kept: set[str] = set(model_class.no_weight_decay(model))
    for name, encoding in encodings_of(model).items():
        kept |= {f"{name}.{parameter}" for parameter in encoding.no_weight_decay()}
    return kept


def install(model: Any, *, converted: bool) -> None:
    """Teach a transformer both; bound so that a deep copy, or a pickled one, speaks of itself."""
    model.swap_converted = converted
    model.register_load_state_dict_pre_hook(_accept_original)
    model.no_weight_decay = partial(_no_weight_decay, model)
