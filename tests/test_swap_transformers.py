"""swap on models of transformers: same function unrotated, right positions, nothing lost."""

from __future__ import annotations

import copy
import importlib.metadata
import io
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import lierope
from lierope.swap import encodings_of, fold, swap
from lierope.swap.attention import SwappedAttention
from tiny_models import images
from tiny_transformers import (
    ANY_SIZE,
    MODELS,
    clip,
    dinov3,
    make,
    siglip,
    tokens,
    transformers,
    vit,
)

Make = Callable[..., nn.Module]
everywhere = pytest.mark.parametrize("kind", MODELS.values(), ids=MODELS.keys())
with_table = pytest.mark.parametrize(
    "kind",
    [m for n, m in MODELS.items() if n != "dinov3"],
    ids=[n for n in MODELS if n != "dinov3"],
)


def close(a: Tensor, b: Tensor, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@with_table
def test_attention_is_its_own_but_for_the_rotation(kind: Make, implementation: str) -> None:
    model, x = kind(), images()
    model.set_attn_implementation(implementation)
    before = tokens(model, x)
    assert torch.equal(tokens(swap(model, "absolute"), x), before)
    assert sum(isinstance(m, SwappedAttention) for m in model.modules()) == 2


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("encoding", ["axial", "mixed", "liere:4"])
def test_convert_gives_dinov3s_own_tokens(encoding: str, implementation: str) -> None:
    model = dinov3()
    model.set_attn_implementation(implementation)
    before = [tokens(model, images(2, *size)) for size in ((32, 32), (48, 24))]
    swap(model, encoding, convert=True)
    for size, expected in zip(((32, 32), (48, 24)), before, strict=True):
        close(tokens(model, images(2, *size)), expected)


def test_convert_takes_dinov3s_jitter_over() -> None:
    model = swap(dinov3(pos_embed_rescale=2.0), "mixed", convert=True)
    still = tokens(model, images())
    assert torch.equal(tokens(model, images()), still)
    assert not torch.allclose(tokens(model.train(), images()), still, atol=1e-3)


def test_jitter_is_drawn_once_a_training_pass() -> None:
    model = swap(vit(), "mixed", jitter={"rescale": 2.0})
    seen: list[Tensor] = []
    for layer in model.layers:
        layer.attention.register_forward_pre_hook(
            lambda _, args, kwargs: seen.append(kwargs["position_embeddings"]), with_kwargs=True
        )
    model(images())
    model.train()(images())
    assert torch.equal(seen[2], seen[3])
    assert not torch.allclose(seen[0], seen[2])


def test_parameter_groups() -> None:
    model = swap(vit(), "mixed")
    groups = lierope.param_groups(model, weight_decay=0.05)
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    assert len(decay) == len(list(model.parameters()))
    assert all(decay[id(e.frequencies)] == 0 for e in encodings_of(model).values())
    assert decay[id(model.layers[0].mlp.fc1.weight)] == 0.05


@pytest.mark.parametrize("encoding", ["mixed", "cayley"])
@everywhere
def test_every_layer_rotates_and_every_parameter_learns(kind: Make, encoding: str) -> None:
    model = swap(kind(), encoding)
    tokens(model, images()).square().sum().backward()
    found = encodings_of(model)
    assert len(found) == 2
    for name, module in found.items():
        for key, parameter in module.named_parameters():
            assert float(parameter.grad.abs().max()) > 0, f"{name}.{key}"


@everywhere
def test_the_original_state_dict_loads_and_only_encodings_are_new(kind: Make) -> None:
    model = kind()
    original = {key: value.clone() for key, value in model.state_dict().items()}
    swap(model, "cayley")
    new = set(model.state_dict()) - set(original)
    assert new
    assert all(".encoding." in key and "rope" not in key for key in new)
    gone = set(original) - set(model.state_dict())
    assert all("position_embedding" in key for key in gone)
    for name, parameter in model.named_parameters():
        if ".encoding." not in name:
            nn.init.zeros_(parameter)
    model.load_state_dict(original, strict=True)
    for key, value in original.items():
        assert key in gone or torch.equal(model.state_dict()[key], value)
    again = swap(kind(), "cayley")
    again.load_state_dict(model.state_dict(), strict=True)
    close(tokens(again, images()), tokens(model, images()), 0)


@pytest.mark.parametrize("encoding", ["none", "mixed"])
@everywhere
def test_patches_are_a_set_exactly_when_nothing_encodes_position(kind: Make, encoding: str) -> None:
    model, x = swap(kind(), encoding), images()
    prefix = next(m for m in model.modules() if isinstance(m, SwappedAttention)).num_prefix_tokens
    patches = x.unflatten(-1, (4, 8)).unflatten(-3, (4, 8))
    turned = patches.transpose(-4, -2).flatten(-4, -3).flatten(-2).contiguous()
    a, b = tokens(model, x), tokens(model, turned)
    assert a.shape[1] == prefix + 16
    back = b[:, prefix:].unflatten(1, (4, 4)).transpose(1, 2).flatten(1, 2)
    b = torch.cat([b[:, :prefix], back], 1)
    assert (float((a - b).detach().abs().max()) < 1e-4) is (encoding == "none")


@pytest.mark.parametrize("name", MODELS)
def test_images_of_other_sizes(name: str) -> None:
    """Each position is a function of row and column: the upper left of a larger image's grid."""
    model = swap(MODELS[name](), "mixed", positions="index")
    words = {"interpolate_pos_encoding": True} if name in ANY_SIZE else {}
    x = images(1, 48, 24)
    assert torch.isfinite(tokens(model, x, **words)).all()
    attention = next(m for m in model.modules() if isinstance(m, SwappedAttention))
    seen: list[Tensor] = []
    attention.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(kwargs["position_embeddings"]), with_kwargs=True
    )
    tokens(model, x, **words)
    expected = torch.cartesian_prod(torch.arange(6.0), torch.arange(3.0))
    assert torch.equal(seen[0], expected)


@pytest.mark.parametrize("before", [False, True])
@everywhere
def test_outputs_that_transformers_collects(kind: Make, before: bool) -> None:
    model = kind()
    model.set_attn_implementation("eager")
    words = {"output_attentions": True, "output_hidden_states": True}
    if before:  # transformers hangs its hooks in at the first such call
        model(images(), **words)
    swap(model, "mixed")
    found = model(images(), **words)
    assert len(found.attentions) == 2
    assert len(found.hidden_states) == 3
    rows = found.attentions[0].sum(-1)
    close(rows, torch.ones_like(rows))


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("kind", [vit, clip, dinov3, MODELS["dinov2"]], ids=list("vc32"))
@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
def test_checkpointing_changes_no_gradient(kind: Make, reentrant: bool) -> None:
    """Two sizes under way at once: the recomputation needs the positions of its own."""
    model = swap(kind(), "mixed").train()
    words = {} if kind in (dinov3, MODELS["dinov2"]) else {"interpolate_pos_encoding": True}

    def gradients() -> list[Tensor]:
        model.zero_grad()
        loss = sum(
            tokens(model, images(2, *size), **words).square().sum() for size in ((32, 64), (64, 32))
        )
        loss.backward()
        return [p.grad.clone() for e in encodings_of(model).values() for p in e.parameters()]

    plain = gradients()
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    layers = next(m for m in model.modules() if isinstance(m, nn.ModuleList))
    assert all(layer.gradient_checkpointing for layer in layers)
    for found, expected in zip(gradients(), plain, strict=True):
        close(found, expected, 1e-4)


@everywhere
def test_copies_and_stored_models(kind: Make) -> None:
    model = swap(kind(), "mixed")
    before = tokens(model, images())
    twin = copy.deepcopy(model)
    with torch.no_grad():
        next(iter(encodings_of(twin).values())).frequencies.add_(1)
    assert not torch.equal(tokens(twin, images()), before)
    assert torch.equal(tokens(model, images()), before)
    stored = io.BytesIO()
    torch.save(model, stored)
    stored.seek(0)
    assert torch.equal(tokens(torch.load(stored, weights_only=False), images()), before)


class RotatedClassifier(transformers.ViTForImageClassification):  # type: ignore[misc]
    """How a user makes a model that `from_pretrained` can build: a subclass with a head.

    (transformers renames the keys of older checkpoints by class name, so the class of the bare
    `ViTModel` has to stay.)
    """

    def __init__(self, config: object) -> None:
        super().__init__(config)
        swap(self, "mixed")


class RotatedSiglip(transformers.SiglipVisionModel):  # type: ignore[misc]
    def __init__(self, config: object) -> None:
        super().__init__(config)
        swap(self, "mixed")


def last(model: nn.Module) -> Tensor:
    state: Tensor = model(images(), output_hidden_states=True).hidden_states[-1]
    return state


@pytest.mark.parametrize(
    ("cls", "kind"),
    [
        (RotatedClassifier, lambda: make("ViTForImageClassification", "ViTConfig", num_labels=5)),
        (RotatedSiglip, siglip),
    ],
    ids=["vit", "siglip"],
)
def test_save_and_from_pretrained(tmp_path: Path, cls: type, kind: Make) -> None:
    plain = kind()
    plain.save_pretrained(tmp_path / "plain")
    fresh = cls.from_pretrained(tmp_path / "plain").eval()
    for module in encodings_of(fresh).values():  # not what empty memory held
        assert 0.5 < float(module.frequencies.detach().abs().max()) <= 1.0 + 1e-6
    swapped = swap(plain, "mixed")
    for a, b in zip(encodings_of(fresh).values(), encodings_of(swapped).values(), strict=True):
        b.load_state_dict(a.state_dict())
    close(last(fresh), last(swapped))
    fresh.save_pretrained(tmp_path / "swapped")
    again = cls.from_pretrained(tmp_path / "swapped").eval()
    assert torch.equal(last(again), last(fresh))
    fresh.init_weights()
    assert torch.isfinite(last(fresh)).all()


class Shared(transformers.ViTForImageClassification):  # type: ignore[misc]
    def __init__(self, config: object) -> None:
        super().__init__(config)
        swap(self, "mixed", share="all")


def test_shared_encodings_are_stored_once_and_come_back(tmp_path: Path) -> None:
    from safetensors.torch import load_file  # noqa: PLC0415

    model = make("ViTForImageClassification", "ViTConfig", num_labels=5)
    swap(model, "mixed", share="all").save_pretrained(tmp_path)
    stored = [key for key in load_file(tmp_path / "model.safetensors") if ".encoding." in key]
    assert len(stored) == 1
    assert ".0." in stored[0]
    again = Shared.from_pretrained(tmp_path).eval()
    assert len({id(e) for e in encodings_of(again).values()}) == 1
    assert torch.equal(last(again), last(model))


def test_encodings_load_in_full_precision(tmp_path: Path) -> None:
    swap(make("ViTForImageClassification", "ViTConfig"), "mixed").save_pretrained(tmp_path)
    half = RotatedClassifier.from_pretrained(tmp_path, dtype=torch.bfloat16).eval()
    assert half.vit.layers[0].attention.q_proj.weight.dtype == torch.bfloat16
    assert all(e.frequencies.dtype == torch.float32 for e in encodings_of(half).values())
    assert last(half).dtype == torch.bfloat16


def test_inside_larger_models() -> None:
    model = make("ViTForImageClassification", "ViTConfig", num_labels=5)
    swap(model, "mixed")
    assert list(encodings_of(model)) == [f"vit.layers.{i}.attention.encoding" for i in (0, 1)]
    assert model(images()).logits.shape == (2, 5)
    backbone = make("Dinov2Backbone", "Dinov2Config", out_indices=[1, 2])
    maps = swap(backbone, "mixed")(images()).feature_maps
    assert [tuple(m.shape) for m in maps] == [(2, 48, 4, 4)] * 2


def test_clips_text_half_stays() -> None:
    narrow = {"hidden_size": 48, "num_attention_heads": 3, "num_hidden_layers": 1}
    narrow |= {"intermediate_size": 64}
    config = transformers.CLIPConfig(
        text_config={**narrow, "vocab_size": 11, "max_position_embeddings": 6},
        vision_config={**narrow, "image_size": 32, "patch_size": 8},
        projection_dim=16,
    )
    model = swap(transformers.CLIPModel(config).eval(), "mixed")
    assert list(encodings_of(model)) == ["vision_model.encoder.layers.0.self_attn.encoding"]
    out = model(input_ids=torch.ones(2, 6, dtype=torch.long), pixel_values=images())
    assert out.logits_per_image.shape == (2, 2)


def test_attention_pooling_is_left_alone() -> None:
    model = siglip()
    pool = model.head.attention
    assert swap(model, "mixed").head.attention is pool
    assert all(m.num_prefix_tokens == 0 for m in model.modules() if isinstance(m, SwappedAttention))


@pytest.mark.parametrize("encoding", ["cayley", "circulant:8"])
@everywhere
def test_fold(kind: Make, encoding: str) -> None:
    model = swap(kind(), encoding)
    for module in encodings_of(model).values():
        for name, parameter in module.named_parameters():
            if name == "skew":
                nn.init.normal_(parameter, std=0.5)
    before = tokens(model, images())
    close(tokens(fold(model), images()), before)


def test_precision() -> None:
    model, x = swap(vit(), "liere:4"), images()
    exact = tokens(copy.deepcopy(model).double(), x.double())
    close(tokens(model, x).double(), exact, 1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        close(tokens(model, x).double(), exact, 0.2)
    half = copy.deepcopy(model).bfloat16()
    assert all(e.generators.dtype == torch.float32 for e in encodings_of(half).values())
    close(tokens(half, x.bfloat16()).double(), exact, 0.3)


@pytest.mark.parametrize("kind", [vit, dinov3], ids=["vit", "dinov3"])
def test_compile_without_a_break_and_export(kind: Make) -> None:
    torch._dynamo.reset()
    model, x = swap(kind(), "mixed"), images()
    expected = tokens(model, x)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    close(compiled(x).last_hidden_state, expected)
    exported = torch.export.export(model, (x,), strict=False).module()
    close(exported(x).last_hidden_state, expected)


def refused(model: nn.Module, text: str, **words: object) -> None:
    modules = dict(model.named_modules())
    with pytest.raises(ValueError, match=text):
        swap(model, "mixed", **words)
    assert dict(model.named_modules()) == modules
    assert not encodings_of(model)


def test_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    class Mine(type(vit().layers[0].attention)):  # type: ignore[misc]
        pass

    model = vit()
    model.layers[1].attention = Mine(model.config)
    refused(model, r"^swap: layers.1.attention is a Mine, which is unknown; known is ViTAttention$")
    model = vit()
    model.layers[1].attention.forward = model.layers[1].attention.forward
    refused(model, r"^swap: layers.1.attention has a forward of its own that somebody put there$")
    model = vit()
    del model.layers[0].attention.k_proj
    refused(model, r"^swap: layers.0.attention must have q_proj, .*; k_proj is not there$")
    model = vit()
    del model.layers
    refused(model, r"^swap: layers must be there in a ViTModel of transformers 5")
    refused(
        dinov3(), r"^swap: only and skip must cover all layers of the model, a DINOv3", only="*.0.*"
    )
    refused(
        dinov3(), r"^swap: the model must have a position embedding to keep", keep_absolute=True
    )
    refused(
        vit(), r"^swap: convert needs a rotary embedding, but the model has none$", convert=True
    )
    model = vit()
    model.embeddings.patch_embeddings.projection = nn.Identity()
    refused(model, r"^swap: embeddings.patch_embeddings.projection must be a Conv2d, got Identity$")
    model = swap(vit(), "mixed")
    with pytest.raises(ValueError, match=r"^swap: layers.0.attention is swapped already, with Mix"):
        swap(model, "mixed")
    with pytest.raises(ValueError, match=r"^swap: position_embeddings must hold the token positio"):
        model.layers[0].attention(torch.zeros(1, 17, 48))
    monkeypatch.setattr(importlib.metadata, "version", lambda _: "4.57.0")
    refused(vit(), r"^swap: transformers must be at least 5.19, got 4.57.0; pip install 'lierope")


def test_a_language_model_is_no_vision_transformer() -> None:
    config = transformers.BertConfig(
        hidden_size=48, num_hidden_layers=1, num_attention_heads=3, vocab_size=11
    )
    refused(transformers.BertModel(config), r"^swap: model must be, or hold, .*, got BertModel$")
