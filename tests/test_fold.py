"""fold: the learned basis in the weights for good, the same outputs, and refusals by text."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

from lierope.encodings import MixedRoPE
from lierope.swap import encodings_of, fold, swap
from tiny_models import EVA, PLAIN, dinov3, eva, images, naver, vit

Make = Callable[..., nn.Module]
MODELS: dict[str, Make] = {
    "plain": vit,
    "no bias": PLAIN["no bias"],
    "registers": PLAIN["registers"],
    "distilled": PLAIN["distilled"],
    "parallel blocks": PLAIN["parallel blocks"],
    "q_bias apart": EVA["separate bias"],
    "separate projections": eva,
    "grouped queries": EVA["grouped queries"],
    "rope": naver,
    "dinov3": dinov3,
}
STRINGS = ["cayley", "cayley:banded=4", "circulant", "circulant:8", "dense-string"]


def learned(kind: Make, encoding: str, **words: object) -> nn.Module:
    """A swapped model whose basis is far from the identity."""
    model = swap(kind(), encoding, **words)
    for module in encodings_of(model).values():
        for name, parameter in module.named_parameters():
            if name == "skew":
                nn.init.normal_(parameter, std=0.5)
    return model


@pytest.mark.parametrize("encoding", STRINGS)
@pytest.mark.parametrize("kind", MODELS.values(), ids=MODELS.keys())
def test_outputs_stay(kind: Make, encoding: str) -> None:
    model, x = learned(kind, encoding), images()
    before = model(x)
    assert fold(model) is model
    torch.testing.assert_close(model(x), before, rtol=1e-5, atol=1e-5)
    for module in encodings_of(model).values():
        assert isinstance(module, MixedRoPE)
        assert module.basis() is None
    assert all("frequencies" in k for k in model.state_dict() if ".encoding." in k)


@pytest.mark.parametrize("share", ["heads", "layers", "all"])
def test_shared_encodings_fold_into_every_layer(share: str) -> None:
    model, x = learned(vit, "cayley", share=share), images()
    before = model(x)
    fold(model)
    torch.testing.assert_close(model(x), before, rtol=1e-5, atol=1e-5)
    shared = len({id(e) for e in encodings_of(model).values()}) == 1
    assert shared is (share != "heads")


def test_the_basis_in_the_weights_is_the_basis_on_the_tokens() -> None:
    """What runs without norm (basis times weights) and with it (basis times tokens) agrees."""
    model, x = learned(vit, "cayley"), images()
    before = model(x)
    for block in model.blocks:  # an identity that is not nn.Identity: tokens are transformed then
        block.attn.q_norm = nn.Dropout(0.0)
    torch.testing.assert_close(model.eval()(x), before, rtol=1e-5, atol=1e-5)


def test_the_basis_does_not_lose_precision_under_autocast() -> None:
    model, x = learned(vit, "cayley"), images()
    folded = fold(copy.deepcopy(model))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model(x), model(x))
        torch.testing.assert_close(model(x), folded(x), rtol=2e-2, atol=2e-2)


def test_a_folded_model_trains_and_is_not_decayed() -> None:
    model = fold(learned(vit, "circulant"))
    model(images()).sum().backward()
    for name, module in encodings_of(model).items():
        assert module.frequencies.grad is not None
        assert f"{name}.frequencies" in model.no_weight_decay()


def refused(model: nn.Module, text: str) -> None:
    state = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=text):
        fold(model)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


def test_refusals() -> None:
    refused(vit(), r"^fold: model must have been swapped, got no swapped attention$")
    refused(swap(vit(), "liere:4"), r"^fold: encodings must have a basis .*, got LieRE$")
    model = learned(PLAIN["qk norm"], "cayley")
    refused(model, r"^fold: blocks.0.attn has a norm between projection and rotation")
    model = learned(vit, "cayley")
    model.blocks[1].attn.qkv = nn.Sequential(model.blocks[1].attn.qkv)  # as an adapter would
    before = model(images())
    refused(model, r"^fold: blocks.1.attn must project by torch.nn.Linear, got Sequential$")
    assert torch.equal(model(images()), before)
