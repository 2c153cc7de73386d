"""fold: the learned basis in the weights for good, the same outputs, and refusals by text."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

from lierope.encodings import LieRE, MixedRoPE
from lierope.encodings.base import multiply_heads
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
STRINGS = ["cayley", "cayley:banded=4", "circulant", "circulant:8", "dense-string", "harope"]


def learned(kind: Make, encoding: str, **words: object) -> nn.Module:
    """A swapped model whose basis is far from the identity."""
    model = swap(kind(), encoding, **words)
    for module in encodings_of(model).values():
        for name, parameter in module.named_parameters():
            if name in ("skew", "skew_u", "skew_v", "log_scales"):
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


@torch.no_grad()
def commute(encoding: LieRE) -> None:
    """Generators in a random basis that all axes share, with one plane that never turns."""
    C, heads, blocks, _ = encoding.generators.shape
    b = encoding.block_size
    basis, _ = torch.linalg.qr(torch.randn(heads, blocks, b, b, dtype=torch.float64))
    flat = torch.zeros(C, heads, blocks, b, b, dtype=torch.float64)
    for plane in range(max(1, b // 2 - (b > 4))):
        flat[..., 2 * plane, 2 * plane + 1] = torch.randn(C, heads, blocks, dtype=torch.float64)
    turned = basis @ (flat - flat.mT) @ basis.mT
    encoding.generators.copy_(turned[(..., *torch.triu_indices(b, b, 1))])


@pytest.mark.parametrize("encoding", ["comrope-ap:4", "comrope-ld:8"])
@pytest.mark.parametrize("name", ["plain", "grouped queries"])
def test_comrope_folds_into_rope(name: str, encoding: str) -> None:
    model, x = swap(MODELS[name](), encoding), images()
    before = model(x)
    fold(model)
    torch.testing.assert_close(model(x), before, rtol=1e-5, atol=2e-5)
    assert {type(e) for e in encodings_of(model).values()} == {MixedRoPE}


@pytest.mark.parametrize("block_size", [4, 16])
@pytest.mark.parametrize("kind", MODELS.values(), ids=MODELS.keys())
def test_liere_that_commutes_folds_into_rope(kind: Make, block_size: int) -> None:
    model, x = swap(kind(), "liere", block_size=block_size), images()
    for encoding in encodings_of(model).values():
        commute(encoding)
    before = model(x)
    fold(model)
    torch.testing.assert_close(model(x), before, rtol=1e-5, atol=2e-5)
    assert {type(e) for e in encodings_of(model).values()} == {MixedRoPE}


@pytest.mark.parametrize(
    ("words", "block_size"),
    [({}, 4), ({}, 3), ({}, 12), ({"rotary_dim": 6}, 3), ({"num_kv_heads": 2}, 6)],
    ids=str,
)
def test_liere_of_one_dimension_is_rope_in_a_basis(words: dict[str, int], block_size: int) -> None:
    torch.manual_seed(0)
    encoding = LieRE(12, 4, 1, block_size=block_size, dtype=torch.float64, **words)
    encoding.generators.data[:, 0, 0] = 0  # one head's first block never turns
    basis, rope = encoding.fold_basis(), encoding.folded()
    assert basis is not None
    eye = torch.eye(12, dtype=torch.float64).expand_as(basis)
    torch.testing.assert_close(basis @ basis.mT, eye)
    q, k = torch.randn(2, 4, 5, 12).double(), torch.randn(2, encoding.num_kv_heads, 5, 12).double()
    p = torch.randn(4, 1, dtype=torch.float64)
    scores = []
    for turn, pair in (
        (encoding, (q, k)),
        (rope, (multiply_heads(q, basis), multiply_heads(k, basis))),
    ):
        a, b = turn(*pair, p, 1)
        scores.append(a @ b.repeat_interleave(4 // b.shape[1], 1).mT)
    torch.testing.assert_close(*scores, rtol=1e-10, atol=1e-10)


@torch.no_grad()
def test_a_text_models_liere_folds() -> None:
    layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, dropout=0.0)
    model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()
    swap(model, "liere:4", coordinates=(9,))
    x = torch.randn(2, 9, 32)
    before = model(x)
    torch.testing.assert_close(fold(model)(x), before, rtol=1e-5, atol=1e-5)
    assert {type(e) for e in encodings_of(model).values()} == {MixedRoPE}


def test_liere_that_does_not_commute_has_no_basis() -> None:
    encoding = LieRE(8, 2, 2, block_size=4)
    assert encoding.fold_basis() is None
    with pytest.raises(ValueError, match=r"^LieRE: folded must be called on generators that comm"):
        encoding.folded()
    encoding.generators.data[0, 0, 0, 0] = torch.nan
    assert encoding.fold_basis() is None


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
