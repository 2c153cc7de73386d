"""Builds the timm model a run names and swaps its encoding in."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from lierope.encodings import Encoding
from lierope.swap import swap
from lierope.train import extras
from lierope.train.config import Settings
from lierope.train.errors import InputError, check, one_line, suggestion


@dataclass(frozen=True)
class Parameters:
    """How many numbers a model learns, and how many of them say where a token is."""

    total: int
    position: int  # the encodings' own, and the learned embedding where it is kept


def build(settings: Settings, in_chans: int, num_classes: int) -> nn.Module:
    """The model of a run, freshly initialised from torch's global random state.

    Raises:
        InputError: an unknown model or encoding, an image size the model cannot take, a model that
            is no vision transformer, an encoding that does not fit its heads.
    """
    model = _create(settings, in_chans, num_classes)
    _check_sizes(model, settings)
    embedding = getattr(model, "pos_embed", None)
    if settings.position_std is not None and isinstance(embedding, nn.Parameter):
        nn.init.normal_(embedding, std=settings.position_std)
    try:
        return swap(
            model,
            settings.encoding,
            share=settings.share,
            positions=settings.positions,
            keep_absolute=settings.keep_absolute,
        )
    except (TypeError, ValueError, NotImplementedError) as error:
        raise InputError(f"encoding {settings.encoding}: {one_line(error)}") from None


def check_buildable(settings: Settings, in_chans: int, num_classes: int) -> None:
    """Builds the model without memory for its weights, to raise what `build` would raise."""
    with torch.device("meta"):
        build(settings, in_chans, num_classes)


def fit_eval_sizes(settings: Settings) -> Settings:
    """Brings the default test sizes of a data set to multiples of the model's patch size."""
    with torch.device("meta"):
        patch = _patch_size(_create(settings, in_chans=3, num_classes=2), settings)[0]
    fitted = (max(1, round(size / patch)) * patch for size in settings.eval_sizes)
    return replace(settings, eval_sizes=tuple(dict.fromkeys(fitted)))


def encodings(model: nn.Module) -> dict[str, Encoding]:
    """The encoding modules of a model by name."""
    return {n: m for n, m in model.named_modules() if isinstance(m, Encoding)}


def parameters(model: nn.Module) -> Parameters:
    """Counts what a model learns."""
    total = sum(p.numel() for p in model.parameters() if p.requires_grad)
    position = sum(p.numel() for p in _learned(model).values())
    embedding = getattr(model, "pos_embed", None)
    if isinstance(embedding, nn.Parameter) and embedding.requires_grad:
        position += embedding.numel()
    return Parameters(total, position)


def undecayed(model: nn.Module) -> set[str]:
    """Names of parameters weight decay must leave alone: the model's own list and every encoding's.

    Decay would pull frequencies and generators to zero, which is to forget positions.
    """
    listed = getattr(model, "no_weight_decay", None)
    names = set(listed()) if callable(listed) else set()
    return names | set(_learned(model))


def _learned(model: nn.Module) -> dict[str, nn.Parameter]:
    # By identity, as layers may share what they learn.
    own = {id(p) for module in encodings(model).values() for p in module.parameters()}
    return {name: p for name, p in model.named_parameters() if id(p) in own}


def _create(settings: Settings, in_chans: int, num_classes: int) -> nn.Module:
    timm, name = extras.extra("timm"), settings.model
    if not timm.is_model(name):
        hint = suggestion(name, timm.list_models())
        raise InputError(f"model: must be a model of timm, got {name}{hint}")
    options: dict[str, Any] = {
        "img_size": settings.image_size,
        "dynamic_img_size": True,
        "in_chans": in_chans,
        "num_classes": num_classes,
    }
    if settings.drop_path:
        options["drop_path_rate"] = settings.drop_path
    options |= settings.model_options
    try:
        model: nn.Module = timm.create_model(name, **options)
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        raise InputError(
            f"model: {name} cannot be built as a vision transformer with {options}: "
            f"{one_line(error)}"
        ) from None
    return model


def _patch_size(model: nn.Module, settings: Settings) -> tuple[int, int]:
    patch = getattr(getattr(model, "patch_embed", None), "patch_size", None)
    if patch is None:
        raise InputError(f"model: must be a vision transformer of patches, got {settings.model}")
    return int(patch[0]), int(patch[1])


def _check_sizes(model: nn.Module, settings: Settings) -> None:
    patch = _patch_size(model, settings)
    for option, sizes in (
        ("image-size", (settings.image_size,)),
        ("eval-sizes", settings.eval_sizes),
    ):
        for size in sizes:
            check(
                all(size % side == 0 for side in patch),
                f"{option}: must be a multiple of the patch size {patch[0]} of {settings.model}, "
                f"got {size}",
            )
