"""What a swapped model says about its parameters: loading of original weights, weight decay."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor, nn

from lierope.encodings import Encoding
from lierope.swap.attention import SwappedAttention


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
    for lost in model.swap_lost_keys:
        whole = lost.endswith(".")
        for key in [k for k in state_dict if k.startswith(prefix + lost)]:
            if whole or key == prefix + lost:
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
    """The names that the library lists, and the encodings': decay would pull rotations to none."""
    by_class: Any = getattr(type(model), "no_weight_decay", None)
    kept: set[str] = set() if by_class is None else set(by_class(model))
    for name, encoding in encodings_of(model).items():
        kept |= {f"{name}.{parameter}" for parameter in encoding.no_weight_decay()}
    return kept


def install(model: Any, lost_keys: tuple[str, ...], *, converted: bool) -> None:
    """Teach a transformer both; bound so that a deep copy, or a pickled one, speaks of itself.

    Args:
        model: The transformer.
        lost_keys: Keys that it has no more; a trailing dot means all that follow.
        converted: Whether its own rotation was taken over.
    """
    again = hasattr(model, "swap_lost_keys")
    model.swap_converted = converted
    model.swap_lost_keys = lost_keys
    model.no_weight_decay = partial(_no_weight_decay, model)
    if not again:  # other layers of it were swapped before
        model.register_load_state_dict_pre_hook(_accept_original)
