"""What transformers does to a swapped model beside calling it: initialise, save, load."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn

from lierope.encodings import Encoding
from lierope.swap.places import Place


def install(model: Any, table: str | None) -> None:
    """Let `from_pretrained` of a class that swaps itself, and `init_weights`, know encodings.

    transformers builds such a model on the meta device, gives empty memory to what a checkpoint
    does not hold and then calls `_init_weights` for it, which knows transformers' modules alone.

    Args:
        model: The transformer; other models inside it (encoders) initialise their own modules.
        table: Name of the learned position embedding in `embeddings`.
    """
    for module in model.modules():
        if hasattr(module, "_init_weights"):
            module._init_weights = partial(_init_weights, module, table)


def _init_weights(model: Any, table: str | None, module: Any) -> None:
    own = type(model)._init_weights
    if isinstance(module, Encoding):
        if not all(getattr(p, "_is_hf_initialized", False) for p in module.parameters()):
            module.reset_parameters()
        return
    taken: Any = None if table is None else getattr(module, table, None)
    if taken is None or is_table(taken) or module is not model.embeddings:
        own(model, module)
        return
    delattr(module, str(table))  # it would be initialised: something of its kind stands in
    like = next(module.parameters())
    empty = torch.empty(1, 1, like.shape[-1], device=like.device, dtype=like.dtype)
    stand_in = nn.Embedding(1, 1) if isinstance(taken, nn.Module) else nn.Parameter(empty)
    setattr(module, str(table), stand_in)
    own(model, module)
    delattr(module, str(table))
    setattr(module, str(table), taken)


def is_table(found: object) -> bool:
    """Whether a learned position embedding stands there, not what the swap puts in its place."""
    return isinstance(found, (nn.Parameter, nn.Embedding))


def declare(root: Any, places: list[Place], encodings: list[Encoding]) -> None:
    """Tell `save_pretrained` and `from_pretrained` which encodings are one, and their precision.

    Args:
        root: The whole model, on which these are called.
        places: Where swapped attention stands, by names in the whole model.
        encodings: What each has.
    """
    first: dict[Encoding, str] = {}
    tied: dict[str, str] = {}
    for place, encoding in zip(places, encodings, strict=True):
        attention: Any = place.attention
        names = [f"encoding.{name}" for name, _ in encoding.named_parameters()]
        source = first.setdefault(encoding, place.name)
        if source != place.name:
            attention._tied_weights_keys = {name: name for name in names}
            tied |= {f"{place.name}.{name}": f"{source}.{name}" for name in names}
    if hasattr(root, "all_tied_weights_keys"):
        root.all_tied_weights_keys = {**root.all_tied_weights_keys, **tied}
        exact = {f"{place.child}.encoding" for place in places}
        root._keep_in_fp32_modules_strict = {*(root._keep_in_fp32_modules_strict or ()), *exact}
