"""Small vision models of transformers, of every kind that `lierope.swap` takes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import lierope.timm  # noqa: F401 (a torchvision of another build would stop transformers)

transformers = pytest.importorskip("transformers", minversion="5.19")

_SMALL = {"image_size": 32, "patch_size": 8, "num_hidden_layers": 2}
_SMALL |= {"hidden_size": 48, "num_attention_heads": 3, "intermediate_size": 64}


def make(kind: str, config: str, **options: Any) -> nn.Module:
    """A model by class name, in eval mode, with weights under which attention matters."""
    torch.manual_seed(0)
    settings = getattr(transformers, config)(**{**_SMALL, **options})
    model: nn.Module = getattr(transformers, kind)(settings).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name or "lambda" in name:
                parameter.uniform_(0.5, 1.5)
            elif parameter.ndim > 1 and name.endswith("weight"):
                parameter.normal_(std=parameter[0].numel() ** -0.5)
            else:
                parameter.normal_(std=0.5)
    return model


def tokens(model: nn.Module, images: Tensor, **words: Any) -> Tensor:
    """The last hidden state."""
    state: Tensor = model(images, **words).last_hidden_state
    return state


vit = partial(make, "ViTModel", "ViTConfig")
dinov3 = partial(make, "DINOv3ViTModel", "DINOv3ViTConfig", num_register_tokens=2)
clip = partial(make, "CLIPVisionModel", "CLIPVisionConfig")
siglip = partial(make, "SiglipVisionModel", "SiglipVisionConfig")

MODELS: dict[str, Callable[..., nn.Module]] = {
    "vit": vit,
    "vit without bias": partial(vit, qkv_bias=False),
    "deit": partial(make, "DeiTModel", "DeiTConfig"),
    "dinov2": partial(make, "Dinov2Model", "Dinov2Config"),
    "dinov2 with registers": partial(
        make, "Dinov2WithRegistersModel", "Dinov2WithRegistersConfig", num_register_tokens=3
    ),
    "dinov3": dinov3,
    "clip": clip,
    "siglip": siglip,
}
ANY_SIZE = {"vit", "vit without bias", "deit", "clip", "siglip"}
"""Those that want `interpolate_pos_encoding` for images of other sizes."""
