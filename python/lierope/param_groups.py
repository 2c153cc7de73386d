"""Parameter groups for optimisers: encodings apart, undecayed, with a rate of their own."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable
from fnmatch import fnmatchcase
from typing import Any

from torch import Tensor, nn

from lierope.encodings import Encoding

Group = dict[str, Any]


def param_groups(
    model: nn.Module,
    *,
    lr: float | None = None,
    lr_scale: float = 1.0,
    weight_decay: float = 0.05,
    encoding_weight_decay: float = 0.0,
    layer_decay: float | None = None,
    no_weight_decay: Collection[str] = (),
) -> list[Group]:
    """Groups of a model's trainable parameters, for torch's optimisers or timm's factory.

    For example::

        torch.optim.AdamW(lierope.param_groups(model, lr=1e-3, lr_scale=10))
        timm.optim.create_optimizer_v2(
            model, "adamw", lr=1e-3, param_group_fn=partial(lierope.param_groups, lr_scale=10))

    Generators, frequencies and bases are never decayed unless asked: decay pulls them to no
    rotation, which is to forget positions. Vectors, biases and what the model's own
    `no_weight_decay()` names are not decayed either. A parameter that several layers share stands
    once, in the group of the first.

    Args:
        model: Any module; what is a parameter of an `Encoding` in it counts as the encoding's.
        lr: The learning rate. Given, every group has "lr" (scaled); left out, groups to be scaled
            have timm's "lr_scale", which timm's schedulers multiply with, torch's do not.
        lr_scale: Factor on the encodings' learning rate. Frequencies that count positions in
            patches take smaller steps well, generators at "proportional" positions larger ones.
        weight_decay: Of all other matrices.
        encoding_weight_decay: Of the encodings' parameters.
        layer_decay: timm's layer-wise decay of the learning rate, a factor for each layer below the
            last; needs a timm model. An encoding's rate falls as its layer's does.
        no_weight_decay: More names or patterns (`*.gamma`) not to decay.

    Returns:
        Dicts of "params", "weight_decay", and "lr" or "lr_scale". Tensors that are sharded
        (DTensor) and plain ones never share a group, since optimisers that work on a group at once
        cannot mix them.

    Raises:
        ValueError: A number out of range, or a pattern that names no parameter.

    Example:
        >>> import timm
        >>> model = timm.create_model("vit_tiny_patch16_224", depth=2, num_classes=10)
        >>> model = lierope.swap(model, "cayley")
        >>> groups = lierope.param_groups(model, lr=1e-3, lr_scale=0.3)
        >>> optimizer = torch.optim.AdamW(groups)
    """
    _check_numbers(lr, lr_scale, weight_decay, encoding_weight_decay, layer_decay)
    scales = _layer_scales(model, layer_decay)
    own = {id(p) for m in model.modules() if isinstance(m, Encoding) for p in m.parameters()}
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    undecayed = _undecayed(model, [name for name, _ in named], no_weight_decay)
    groups: dict[tuple[float, float, bool], Group] = {}
    for name, parameter in named:
        scale = scales.get(name, 1.0)
        if id(parameter) in own:
            decay, scale = encoding_weight_decay, scale * lr_scale
        else:
            vector = parameter.ndim <= 1 or name.endswith(".bias")
            decay = 0.0 if vector or name in undecayed else weight_decay
        key = (decay, scale, _is_sharded(parameter))
        groups.setdefault(key, _group(decay, scale, lr))["params"].append(parameter)
    return list(groups.values())


def _group(decay: float, scale: float, lr: float | None) -> Group:
    group: Group = {"params": [], "weight_decay": decay}
    if lr is not None:
        group["lr"] = lr * scale
    elif scale != 1.0:
        group["lr_scale"] = scale
    return group


def _undecayed(model: nn.Module, names: list[str], patterns: Collection[str]) -> set[str]:
    """Names that the model lists, under DDP's or the compiler's prefix too, and those asked for."""
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ValueError(
                f"param_groups: no_weight_decay must match names such as {names[0]!r}, "
                f"got {pattern!r}"
            )
    listed: set[str] = set()
    for prefix, module in model.named_modules():
        own: Any = getattr(module, "no_weight_decay", None)
        # timm's rotary embeddings and encodings have one as well as the whole model
        if callable(own):
            listed |= {f"{prefix}.{name}".lstrip(".") for name in _strings(own())}
    return {
        name
        for name in names
        if name in listed or any(fnmatchcase(name, pattern) for pattern in patterns)
    }


def _strings(found: Any) -> Iterable[str]:
    return [str(name) for name in found or ()]


def _layer_scales(model: nn.Module, layer_decay: float | None) -> dict[str, float]:
    """Factor of each parameter's learning rate, by its layer as timm counts them."""
    if layer_decay is None:
        return {}
    if not hasattr(model, "group_matcher"):
        raise ValueError(
            "param_groups: layer_decay needs a timm model, which knows its layers, "
            f"got {type(model).__name__}"
        )
    from lierope.timm import timm  # noqa: PLC0415

    matcher: Any = model.group_matcher
    layers = timm.models.group_parameters(model, matcher(coarse=False), reverse=True)
    last = max(layers.values())
    return {name: layer_decay ** (last - layer) for name, layer in layers.items()}


def _is_sharded(parameter: Tensor) -> bool:
    tensor = sys.modules.get("torch.distributed.tensor")  # not there: nobody made a DTensor
    return tensor is not None and isinstance(parameter, tensor.DTensor)


def _check_numbers(
    lr: float | None,
    lr_scale: float,
    weight_decay: float,
    encoding_weight_decay: float,
    layer_decay: float | None,
) -> None:
    positive = {"lr": lr, "lr_scale": lr_scale, "layer_decay": layer_decay}
    for name, value in positive.items():
        if value is not None and not 0 < value < float("inf"):
            raise ValueError(f"param_groups: {name} must be a positive number, got {value!r}")
    for name, value in {
        "weight_decay": weight_decay,
        "encoding_weight_decay": encoding_weight_decay,
    }.items():
        if not 0 <= value < float("inf"):
            raise ValueError(f"param_groups: {name} must be at least 0, got {value!r}")
