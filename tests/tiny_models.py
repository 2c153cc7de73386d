"""Small timm models of every kind that `lierope.swap` takes: 4 x 4 patches, two blocks."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lierope.timm import timm

SIZE = 32
_SMALL = {"img_size": SIZE, "patch_size": 8, "depth": 2, "num_classes": 5}
_NARROW = {"embed_dim": 48, "num_heads": 3}


def make(name: str, **options: Any) -> nn.Module:
    """A timm model by name, small, in eval mode, with weights under which attention matters."""
    torch.manual_seed(0)
    model: nn.Module = timm.create_model(name, **{**_SMALL, **_NARROW, **options}).eval()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            _draw(key, parameter)
    return model


def _draw(key: str, parameter: nn.Parameter) -> None:
    """Weights of unit gain; nothing small, zero or one, so that nothing can be left out unseen."""
    if "gamma" in key or "norm" in key:
        parameter.uniform_(0.5, 1.5)
    elif key.endswith("weight"):
        parameter.normal_(std=parameter[0].numel() ** -0.5)
    elif "rope" not in key:
        parameter.normal_(std=0.5)


def images(batch: int = 2, height: int = SIZE, width: int | None = None) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, 3, height, width or height, generator=generator)


vit = partial(make, "vit_tiny_patch16_224")
eva = partial(make, "eva02_tiny_patch14_224", num_heads=3)
naver = partial(make, "vit_small_patch16_rope_224")
naver_mixed = partial(make, "vit_small_patch16_rope_mixed_224")
dinov3 = partial(make, "vit_small_patch16_dinov3")


BLOCKS = timm.models.vision_transformer


PLAIN: dict[str, Callable[..., nn.Module]] = {
    "plain": vit,
    "registers": partial(vit, reg_tokens=3),
    "no class token": partial(vit, class_token=False, global_pool="avg"),
    "embedding beside class token": partial(vit, no_embed_class=True, reg_tokens=1),
    "dynamic size": partial(vit, dynamic_img_size=True),
    "qk norm": partial(vit, qk_norm=True),
    "scale norm": partial(vit, scale_attn_norm=True, scale_mlp_norm=True),
    "no bias": partial(vit, qkv_bias=False),
    "layer scale": partial(vit, init_values=0.1),
    "pre-norm": partial(vit, pre_norm=True),
    "attention pooling": partial(vit, class_token=False, global_pool="map"),
    "post-norm blocks": lambda **o: vit(block_fn=BLOCKS.ResPostBlock, init_values=0.1, **o),
    "parallel blocks": lambda **o: vit(block_fn=BLOCKS.ParallelThingsBlock, **o),
    "deit": partial(make, "deit_tiny_patch16_224"),
    "distilled": partial(make, "deit_tiny_distilled_patch16_224"),
    "distilled, dynamic": partial(make, "deit_tiny_distilled_patch16_224", dynamic_img_size=True),
}

EVA: dict[str, Callable[..., nn.Module]] = {
    "eva02": eva,
    "eva02, dynamic size": partial(eva, dynamic_img_size=True),
    "fused qkv": partial(eva, qkv_fused=True),
    "qk norm": partial(eva, qk_norm=True),
    "post-norm": partial(eva, use_post_norm=True, init_values=None),
    "separate bias": partial(naver, attn_type="eva", qkv_bias=True),
    "grouped queries": partial(
        eva, attn_type="rope", qkv_fused=False, num_heads=6, num_kv_heads=3, embed_dim=96
    ),
    "rope": naver,
    "rope mixed": naver_mixed,
    "dinov3": dinov3,
    "no rotation of its own": partial(eva, use_rot_pos_emb=False),
}

ALL = {**{f"vit: {n}": m for n, m in PLAIN.items()}, **{f"eva: {n}": m for n, m in EVA.items()}}
