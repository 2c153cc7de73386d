"""swap on real timm models: same function where nothing is rotated, positions right where it is."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from lierope.encodings import LieRE, MixedRoPE
from lierope.swap import encodings_of, swap
from lierope.swap.attention import SwappedAttention
from lierope.timm import timm
from tiny_models import ALL, EVA, PLAIN, SIZE, dinov3, eva, images, make, naver, naver_mixed, vit

Make = Callable[..., nn.Module]


def everything(cases: dict[str, Make]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("kind", cases.values(), ids=cases.keys())


def close(a: Tensor, b: Tensor, tolerance: float = 2e-5) -> None:
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@everything(PLAIN)
def test_absolute_leaves_a_plain_model_the_same_function(kind: Make) -> None:
    model, x = kind(), images()
    before = model(x)
    assert torch.equal(swap(model, "absolute")(x), before)


@pytest.mark.parametrize("fused", [True, False])
@everything(ALL)
def test_attention_is_timms_own_but_for_the_rotation(kind: Make, fused: bool) -> None:
    model, x = kind(), images()
    for module in model.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = fused
    model.rope = None  # timm then rotates nothing
    model.rope_mixed = False
    swapped = swap(copy.deepcopy(model), "none", keep_absolute=model.pos_embed is not None)
    attention = [m for m in swapped.modules() if isinstance(m, SwappedAttention)]
    assert attention
    assert all(module.fused_attn is fused for module in attention)
    close(swapped(x), model(x), 2e-6)


@pytest.mark.parametrize("option", [{"gated": True}, {"scale_norm": True}])
@pytest.mark.parametrize("mask", ["none", "additive", "boolean", "causal"])
def test_options_and_masks_of_attention(option: dict[str, bool], mask: str) -> None:
    model, x = vit(), images()
    for block in model.blocks:
        block.attn = timm.layers.Attention(48, 3, norm_layer=nn.LayerNorm, **option).eval()
    N = 17
    seen = torch.ones(N, N).tril() + torch.eye(N).roll(5, 0) > 0
    words = {
        "none": {},
        "additive": {"attn_mask": torch.where(seen, 0.0, float("-inf"))},
        "boolean": {"attn_mask": seen},
        "causal": {"is_causal": True},
    }[mask]
    swapped = swap(copy.deepcopy(model), "none", keep_absolute=True)
    for module in (*model.modules(), *swapped.modules()):
        if hasattr(module, "fused_attn"):
            module.fused_attn = mask != "boolean"
    close(swapped(x, **words), model(x, **words), 2e-6)


@pytest.mark.parametrize("encoding", ["mixed", "liere:4", "cayley"])
@everything(ALL)
def test_the_rotation_reaches_every_layer_and_every_parameter_gets_a_gradient(
    kind: Make, encoding: str
) -> None:
    model = swap(kind(), encoding)
    model(images()).square().sum().backward()
    found = encodings_of(model)
    assert len(found) == sum(isinstance(m, SwappedAttention) for m in model.modules()) >= 2
    for name, module in found.items():
        assert name.endswith("attn.encoding")
        for key, parameter in module.named_parameters():
            assert parameter.grad is not None, f"{name}.{key}"
            assert float(parameter.grad.abs().max()) > 0, f"{name}.{key}"


@everything(ALL)
def test_the_original_state_dict_loads_strictly_and_only_encodings_are_new(kind: Make) -> None:
    model = kind()
    original = {key: value.clone() for key, value in model.state_dict().items()}
    swap(model, "cayley")
    encodings = {k: v.clone() for k, v in model.state_dict().items() if ".encoding." in k}
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    with torch.no_grad():
        for key, value in encodings.items():
            model.state_dict()[key].copy_(value)
    model.load_state_dict(original, strict=True)
    now = model.state_dict()
    gone = set(original) - set(now)
    assert gone <= {"pos_embed", "rope.freqs"}
    assert set(now) - set(original) == set(encodings)
    assert not any("rope" in key for key in now)
    for key, value in now.items():
        assert torch.equal(value, encodings.get(key, original.get(key))), key
    again = swap(kind(), "cayley")
    again.load_state_dict(now, strict=True)
    assert torch.equal(again(images()), model(images()))


def test_a_state_dict_with_some_encodings_only_is_refused() -> None:
    model = swap(vit(), "mixed")
    state = model.state_dict()
    del state["blocks.1.attn.encoding.frequencies"]
    with pytest.raises(RuntimeError, match=r"Missing key.*blocks.1.attn.encoding.frequencies"):
        model.load_state_dict(state)


def test_the_original_loads_into_a_model_inside_another() -> None:
    whole = nn.ModuleDict({"backbone": vit(), "head": nn.Linear(5, 2)})
    original = whole.state_dict()
    swap(whole, "mixed")
    assert list(encodings_of(whole)) == [f"backbone.blocks.{i}.attn.encoding" for i in (0, 1)]
    whole.load_state_dict(original, strict=True)


@pytest.mark.parametrize("keep", [None, True, False])
@pytest.mark.parametrize("encoding", ["absolute", "none", "mixed"])
@pytest.mark.parametrize("kind", [vit, eva, PLAIN["distilled"]], ids=["vit", "eva", "distilled"])
def test_keep_absolute(kind: Make, encoding: str, keep: bool | None) -> None:
    model = swap(kind(), encoding, keep_absolute=keep)
    expected = encoding == "absolute" if keep is None else keep
    assert (model.pos_embed is not None) is expected
    assert model(images()).shape == (2, 5)


@pytest.mark.parametrize("kind", [PLAIN["plain"], PLAIN["distilled"], eva], ids=["v", "d", "e"])
@pytest.mark.parametrize("encoding", ["none", "mixed"])
def test_patches_are_a_set_exactly_when_nothing_encodes_position(kind: Make, encoding: str) -> None:
    model, x = swap(kind(), encoding), images()
    patches = x.unflatten(-1, (4, 8)).unflatten(-3, (4, 8))
    shuffled = patches.flip(-4).transpose(-4, -2).flatten(-4, -3).flatten(-2).contiguous()
    difference = (model(x) - model(shuffled)).detach().abs().max()
    assert (float(difference) < 1e-5) is (encoding == "none")


SIZES = [(32, 32), (48, 32), (24, 64)]


@pytest.mark.parametrize("encoding", ["mixed", "liere:4"])
@pytest.mark.parametrize("kind", [vit, PLAIN["distilled"], eva, dinov3], ids=["v", "d", "e", "3"])
def test_dynamic_size_is_the_model_resized(kind: Make, encoding: str) -> None:
    dynamic = swap(kind(dynamic_img_size=True), encoding)
    for height, width in SIZES:
        fixed = swap(kind(), encoding)
        fixed.load_state_dict(dynamic.state_dict())
        fixed.set_input_size(img_size=(height, width))
        x = images(2, height, width)
        close(dynamic(x), fixed(x))


def test_other_token_counts_than_the_embeddings() -> None:
    model = swap(vit(), "mixed")
    model.patch_embed.strict_img_size = False
    assert model(images(1, 48, 24)).shape == (1, 5)


@pytest.mark.parametrize("kind", [vit, PLAIN["registers"], eva, dinov3], ids=["v", "r", "e", "3"])
def test_features(kind: Make) -> None:
    model = swap(kind(), "mixed")
    final, maps = model.forward_intermediates(images(), indices=[0, 1])
    assert [tuple(m.shape) for m in maps] == [(2, 48, 4, 4)] * 2
    close(final, model.forward_features(images()))


def test_features_only_and_feature_extraction_by_fx() -> None:
    wrapped = make("vit_tiny_patch16_224", features_only=True, out_indices=(0, 1), num_classes=0)
    assert isinstance(wrapped, timm.models._features.FeatureGetterNet)
    swap(wrapped, "mixed")
    assert len(wrapped(images())) == 2
    for kind in (vit, eva):
        model = swap(kind(), "cayley")
        _, maps = model.forward_intermediates(images(), indices=[0, 1], output_fmt="NLC")
        traced = timm.models.FeatureGraphNet(model, out_indices=(0, 1))
        tokens = traced(images())
        close(tokens[1][:, model.num_prefix_tokens :], maps[1])


def test_attention_pooling_and_prefixes_are_left_alone() -> None:
    model = vit(class_token=False, global_pool="map")
    pool = model.attn_pool
    assert swap(model, "mixed").attn_pool is pool
    model = swap(PLAIN["distilled"](), "mixed")
    assert all(m.num_prefix_tokens == 2 for m in model.modules() if isinstance(m, SwappedAttention))


@pytest.mark.parametrize(
    ("share", "objects", "heads"),
    [("none", 2, 3), ("heads", 2, 1), ("layers", 1, 3), ("all", 1, 1)],
)
def test_sharing(share: str, objects: int, heads: int) -> None:
    model = swap(vit(), "mixed", share=share)
    found = encodings_of(model)
    assert len(found) == 2
    assert len({id(encoding) for encoding in found.values()}) == objects
    assert all(encoding.frequencies.shape[1] == heads for encoding in found.values())
    model(images()).sum().backward()
    model.load_state_dict(vit().state_dict(), strict=True)


def test_encodings_by_class_block_size_and_selection() -> None:
    model = swap(vit(depth=4), LieRE, block_size=4, only="blocks.[0-2]", skip=["blocks.1.attn"])
    found = encodings_of(model)
    assert list(found) == ["blocks.0.attn.encoding", "blocks.2.attn.encoding"]
    assert all(isinstance(e, LieRE) and e.block_size == 4 for e in found.values())
    assert model(images()).shape == (2, 5)
    assert isinstance(encodings_of(swap(vit(), MixedRoPE))["blocks.0.attn.encoding"], MixedRoPE)


def test_grouped_queries_share_the_rotation_of_their_key() -> None:
    model = swap(EVA["grouped queries"](), "cayley")
    for encoding in encodings_of(model).values():
        assert encoding.frequencies.shape[1] == 3


def test_precision() -> None:
    x = images()
    model = swap(vit(qk_norm=True), "liere:4")
    exact = copy.deepcopy(model).double()(x.double())
    assert exact.dtype == torch.float64
    close(model(x).double(), exact, 1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        close(model(x).double(), exact, 0.1)
    half = copy.deepcopy(model).bfloat16()
    assert half.blocks[0].attn.encoding.generators.dtype == torch.float32
    close(half(x.bfloat16()).double(), exact, 0.2)
    for kind in (eva, naver_mixed):
        model = swap(kind(), "cayley").double()
        assert model(x.double()).dtype == torch.float64


@pytest.mark.parametrize(
    ("kind", "encodings"),
    [
        (naver, ["axial", "mixed", "liere:4", "cayley"]),
        (naver_mixed, ["mixed", "dense-string"]),
        (dinov3, ["axial", "mixed", "liere:4"]),
        (lambda **o: dinov3(qk_norm=True, **o), ["mixed"]),
        (eva, ["axial", "mixed", "cayley"]),
        (lambda **o: eva(rope_type="mrope", qkv_fused=True, **o), ["mixed"]),
    ],
    ids=["rope", "rope mixed", "dinov3", "dinov3 with qk norm", "eva02", "mrope"],
)
@pytest.mark.parametrize("dynamic", [False, True])
def test_convert_gives_timms_own_logits(kind: Make, encodings: list[str], dynamic: bool) -> None:
    x = images(2, 48, 24) if dynamic else images()
    for encoding in encodings:
        model = kind(dynamic_img_size=dynamic)
        expected = model(x)
        close(swap(model, encoding, convert=True)(x), expected, 1e-5)
        if not dynamic:
            model.set_input_size(img_size=(SIZE, 2 * SIZE))
            other = kind()
            other.set_input_size(img_size=(SIZE, 2 * SIZE))
            close(model(images(1, SIZE, 2 * SIZE)), other(images(1, SIZE, 2 * SIZE)), 1e-5)
