"""One set of weights in timm, transformers and torchvision: swapped alike, they say the same."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lierope.swap import encodings_of, fold, swap
from tiny_models import dinov3, images, vit
from tiny_transformers import dinov3 as their_dinov3
from tiny_transformers import tokens, transformers
from tiny_transformers import vit as their_vit

ENCODINGS = ["axial", "mixed", "liere:4", "cayley", "circulant:8", "dense-string"]


def to_transformers(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Keys of timm's plain ViT as transformers 5 names them."""
    found = {
        "embeddings.cls_token": state["cls_token"],
        "embeddings.position_embeddings": state["pos_embed"],
        "embeddings.patch_embeddings.projection.weight": state["patch_embed.proj.weight"],
        "embeddings.patch_embeddings.projection.bias": state["patch_embed.proj.bias"],
        "layernorm.weight": state["norm.weight"],
        "layernorm.bias": state["norm.bias"],
    }
    names = {"attn.proj": "attention.o_proj", "norm1": "layernorm_before"}
    names |= {"norm2": "layernorm_after", "mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2"}
    for i in range(2):
        for kind in ("weight", "bias"):
            parts = state[f"blocks.{i}.attn.qkv.{kind}"].chunk(3)
            for word, part in zip("qkv", parts, strict=True):
                found[f"layers.{i}.attention.{word}_proj.{kind}"] = part
            for ours, theirs in names.items():
                found[f"layers.{i}.{theirs}.{kind}"] = state[f"blocks.{i}.{ours}.{kind}"]
    return found


def to_torchvision(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Keys of timm's plain ViT as torchvision names them."""
    found = {
        "class_token": state["cls_token"],
        "encoder.pos_embedding": state["pos_embed"],
        "conv_proj.weight": state["patch_embed.proj.weight"],
        "conv_proj.bias": state["patch_embed.proj.bias"],
    }
    names = {"norm1": "ln_1", "norm2": "ln_2", "mlp.fc1": "mlp.0", "mlp.fc2": "mlp.3"}
    names |= {"attn.proj": "self_attention.out_proj"}
    for kind in ("weight", "bias"):
        found[f"encoder.ln.{kind}"] = state[f"norm.{kind}"]
        found[f"heads.head.{kind}"] = state[f"head.{kind}"]
        for i in range(2):
            layer = f"encoder.layers.encoder_layer_{i}"
            packed = state[f"blocks.{i}.attn.qkv.{kind}"]
            found[f"{layer}.self_attention.in_proj_{kind}"] = packed
            for ours, theirs in names.items():
                found[f"{layer}.{theirs}.{kind}"] = state[f"blocks.{i}.{ours}.{kind}"]
    return found


def three() -> tuple[nn.Module, nn.Module, nn.Module]:
    from torchvision.models.vision_transformer import VisionTransformer  # noqa: PLC0415

    one = vit()
    two = their_vit(intermediate_size=192, layer_norm_eps=1e-6)
    two.load_state_dict(to_transformers(one.state_dict()), strict=False)
    three = VisionTransformer(32, 8, 2, 3, 48, 192, num_classes=5).eval()
    three.load_state_dict(to_torchvision(one.state_dict()), strict=True)
    return one, two, three


def agree(one: nn.Module, two: nn.Module, three: nn.Module) -> None:
    x = images()
    torch.testing.assert_close(tokens(two, x), one.forward_features(x), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(three(x), one(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_the_same_weights_give_the_same_tokens_in_three_libraries(
    encoding: str, keep: bool
) -> None:
    models = three()
    agree(*models)
    for model in models:
        swap(model, encoding, keep_absolute=keep)
    first = list(encodings_of(models[0]).values())
    for encoding_ in first:
        for name, parameter in encoding_.named_parameters():
            if name == "skew":
                nn.init.normal_(parameter, std=0.5)
    for model in models[1:]:
        for a, b in zip(first, encodings_of(model).values(), strict=True):
            b.load_state_dict(a.state_dict())
    agree(*models)
    if first[0].basis() is not None:
        for model in models:
            fold(model)
        agree(*models)


def test_dinov3_of_timm_and_of_transformers_convert_alike() -> None:
    """Both give their own tokens (tested elsewhere); here their rotations are one."""
    a = swap(dinov3(), "mixed", convert=True)
    b = swap(their_dinov3(), "mixed", convert=True)
    for one, two in zip(encodings_of(a).values(), encodings_of(b).values(), strict=True):
        torch.testing.assert_close(one.frequencies, two.frequencies)
    positions: list[Tensor] = []
    a.blocks[0].attn.register_forward_pre_hook(
        lambda _, args, kwargs: positions.append(kwargs["rope"]), with_kwargs=True
    )
    b.model.layer[0].attention.register_forward_pre_hook(
        lambda _, args, kwargs: positions.append(kwargs["position_embeddings"]), with_kwargs=True
    )
    a(images())
    b(images())
    torch.testing.assert_close(*positions)


def test_an_attention_function_that_somebody_registered_gets_the_rotated_q_and_k() -> None:
    seen: list[tuple[Any, ...]] = []

    def mine(module: Any, q: Tensor, k: Tensor, v: Tensor, mask: Any, **words: Any) -> Any:
        seen.append((q, k, words["scaling"], words["dropout"]))
        return v.transpose(1, 2), None

    transformers.AttentionInterface.register("mine", mine)
    model = swap(their_vit(), "mixed")
    model.set_attn_implementation("mine")
    model(images())
    assert len(seen) == 2
    attention = model.layers[0].attention
    q, k, scaling, p = seen[0]
    assert q.shape == (2, 3, 17, 16)
    assert (scaling, p) == (16**-0.5, 0.0)
    hidden = model.layers[0].layernorm_before(model.embeddings(images()))
    plain = attention.q_proj(hidden).unflatten(-1, (3, 16)).transpose(1, 2)
    positions = torch.cartesian_prod(torch.arange(4.0), torch.arange(4.0))
    torch.testing.assert_close(q, attention.encoding(plain, plain, positions, 1)[0])
    assert k is not q
