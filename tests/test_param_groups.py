"""param_groups: who is decayed and how fast each learns, with torch's and timm's optimisers."""

from __future__ import annotations

from functools import partial
from importlib import import_module
from typing import Any

import pytest
import torch
from torch import nn

import lierope
from lierope.encodings import create
from lierope.swap import encodings_of, swap
from lierope.timm import timm
from tiny_models import eva, images, naver, vit

KINDS = {"vit": vit, "eva": eva, "rope": naver}


def by_parameter(groups: list[dict[str, Any]], word: str, default: float) -> dict[int, float]:
    return {id(p): group.get(word, default) for group in groups for p in group["params"]}


def learned(model: nn.Module) -> set[int]:
    return {id(p) for encoding in encodings_of(model).values() for p in encoding.parameters()}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
@pytest.mark.parametrize("share", ["none", "layers"])
def test_each_parameter_stands_in_one_group(kind: Any, share: str) -> None:
    model = swap(kind(), "cayley", share=share)
    model.blocks[0].attn.proj.weight.requires_grad_(False)
    groups = lierope.param_groups(model, lr_scale=3.0, weight_decay=0.1)
    listed = [id(p) for group in groups for p in group["params"]]
    assert sorted(listed) == sorted(id(p) for p in model.parameters() if p.requires_grad)
    decay, scale = by_parameter(groups, "weight_decay", -1), by_parameter(groups, "lr_scale", 1)
    own = learned(model)
    spared = model.no_weight_decay()
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        vector = parameter.ndim == 1 or name in spared or id(parameter) in own
        assert decay[id(parameter)] == (0.0 if vector else 0.1), name
        assert scale[id(parameter)] == (3.0 if id(parameter) in own else 1.0), name


def test_decay_of_an_encoding_only_when_asked() -> None:
    model = swap(vit(), "liere:4")
    for asked in (0.0, 0.02):
        groups = lierope.param_groups(model, encoding_weight_decay=asked)
        decay = by_parameter(groups, "weight_decay", -1)
        assert {decay[key] for key in learned(model)} == {asked}


def test_encodings_outside_of_a_swapped_model() -> None:
    model = nn.ModuleDict({"turn": create("circulant:8", 16, 2), "line": nn.Linear(4, 4)})
    for wrapped in (model, nn.ModuleDict({"module": model})):
        groups = lierope.param_groups(wrapped, lr=1e-2, lr_scale=0.5, no_weight_decay=["*.weight"])
        rates, decay = by_parameter(groups, "lr", 0), by_parameter(groups, "weight_decay", -1)
        assert rates[id(model["turn"].coefficients)] == 5e-3
        assert rates[id(model["line"].weight)] == 1e-2
        assert set(decay.values()) == {0.0}


def test_torchs_optimizer_takes_the_rates() -> None:
    model = swap(vit(), "mixed")
    optimizer = torch.optim.AdamW(lierope.param_groups(model, lr=1e-3, lr_scale=10.0))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    model(images()).square().sum().backward()
    optimizer.step()
    moved = {n: float((p.detach() - before[n]).abs().max()) for n, p in model.named_parameters()}
    assert moved["blocks.0.attn.encoding.frequencies"] == pytest.approx(1e-2, rel=1e-2)
    assert moved["blocks.0.attn.qkv.bias"] == pytest.approx(1e-3, rel=1e-2)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
def test_timms_factory_and_scheduler_take_the_scales(kind: Any) -> None:
    model = swap(kind(), "liere:4")
    create_optimizer = import_module("timm.optim").create_optimizer_v2
    create_scheduler = import_module("timm.scheduler").create_scheduler_v2
    for words in ({}, {"layer_decay": 0.5}):
        groups = partial(lierope.param_groups, lr_scale=10.0, **words)
        optimizer = create_optimizer(model, "adamw", lr=1e-3, param_group_fn=groups)
        scheduler, _ = create_scheduler(optimizer, "cosine", num_epochs=10, warmup_epochs=0)
        scheduler.step(0)
        rates = by_parameter(optimizer.param_groups, "lr", 0)
        decay = by_parameter(optimizer.param_groups, "weight_decay", -1)
        assert all(decay[key] == 0 for key in learned(model))
        for block, layers_above in zip(model.blocks, (2, 1), strict=True):
            factor = 0.5**layers_above if words else 1.0
            assert rates[id(block.attn.proj.weight)] == pytest.approx(1e-3 * factor)
            assert rates[id(block.attn.encoding.generators)] == pytest.approx(1e-2 * factor)


def test_groups_are_those_of_timm_where_no_encoding_is() -> None:
    model, timms = vit(), timm.optim.param_groups_layer_decay
    ours = lierope.param_groups(model, weight_decay=0.1, layer_decay=0.75)
    theirs = timms(model, 0.1, model.no_weight_decay(), layer_decay=0.75)
    for word in ("weight_decay", "lr_scale"):
        assert by_parameter(ours, word, 1) == by_parameter(theirs, word, 1)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"lr": 0.0}, r"^param_groups: lr must be a positive number, got 0\.0$"),
        ({"lr_scale": -1.0}, r"^param_groups: lr_scale must be a positive number, got -1\.0$"),
        ({"layer_decay": 0}, r"^param_groups: layer_decay must be a positive number, got 0$"),
        ({"weight_decay": -0.1}, r"^param_groups: weight_decay must be at least 0, got -0\.1$"),
        (
            {"encoding_weight_decay": float("nan")},
            r"^param_groups: encoding_weight_decay must be at least 0, got nan$",
        ),
        (
            {"layer_decay": 0.5},
            r"^param_groups: layer_decay needs a timm model, .*, got Linear$",
        ),
        (
            {"no_weight_decay": ["gama"]},
            r"^param_groups: no_weight_decay must match names such as 'weight', got 'gama'$",
        ),
    ],
)
def test_errors(words: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        lierope.param_groups(nn.Linear(2, 2), **words)
