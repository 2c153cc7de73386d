"""swap on torchvision's VisionTransformer: keys, feature extraction, jitter."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import lierope.timm  # noqa: F401 (a torchvision of another build would not import)
from lierope.swap import encodings_of, swap
from lierope.swap.torch_attention import SwappedMultiheadAttention
from tiny_models import images

DIM, HEADS = 48, 4


def vit(**words: Any) -> nn.Module:
    from torchvision.models.vision_transformer import VisionTransformer  # noqa: PLC0415

    torch.manual_seed(0)
    model: nn.Module = VisionTransformer(32, 8, 2, HEADS, DIM, 64, num_classes=5, **words).eval()
    for name, parameter in model.named_parameters():
        if not name.endswith("ln.weight"):
            nn.init.normal_(parameter, std=DIM**-0.5 if parameter.ndim > 1 else 0.5)
    return model


def close(a: Tensor, b: Tensor, tolerance: float = 2e-6) -> None:
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("keep", [None, True, False])
def test_torchvision(keep: bool | None) -> None:
    model, x = vit(), images()
    before = model(x)
    original = copy.deepcopy(model.state_dict())
    assert torch.equal(swap(copy.deepcopy(model), "absolute")(x), before)
    swap(model, "mixed", keep_absolute=keep)
    assert ("encoder.pos_embedding" in model.state_dict()) is bool(keep)
    new = set(model.state_dict()) - set(original)
    assert new == {
        f"encoder.layers.encoder_layer_{i}.self_attention.encoding.frequencies" for i in (0, 1)
    }
    model.load_state_dict(original, strict=True)
    with torch.no_grad():  # torchvision trains and evaluates by the same module
        quiet = model(x)
    close(quiet, model(x), 1e-5)
    assert not torch.allclose(quiet, before, atol=1e-2)
    model(x).square().sum().backward()
    assert all(float(e.frequencies.grad.abs().max()) > 0 for e in encodings_of(model).values())
    attention = [m for m in model.modules() if isinstance(m, SwappedMultiheadAttention)]
    assert [m.num_prefix_tokens for m in attention] == [1, 1]
    assert torch.equal(copy.deepcopy(model)(x), model(x))


def test_torchvisions_feature_extraction() -> None:
    """torch.fx has to take the attention for a leaf, as it takes torch's own."""
    from torchvision.models.feature_extraction import create_feature_extractor  # noqa: PLC0415

    model = swap(vit(), "mixed")
    leaves = {"leaf_modules": [SwappedMultiheadAttention]}
    name = "encoder.layers.encoder_layer_0"
    traced = create_feature_extractor(model, {f"{name}.add_1": "x"}, tracer_kwargs=leaves)
    seen: list[Tensor] = []
    model.get_submodule(name).register_forward_hook(lambda *a: seen.append(a[2]))
    model(images())
    close(traced(images())["x"], seen[0], 1e-6)
    model = swap(vit(), "mixed", jitter={"shift": 1.0})
    with pytest.raises(NotImplementedError, match=r"^swap: torch.fx cannot trace a model that was"):
        create_feature_extractor(model, {f"{name}.add_1": "x"}, tracer_kwargs=leaves)


def test_torchvisions_jitter_is_drawn_once_a_training_pass() -> None:
    model, x = swap(vit(), "mixed", jitter={"rescale": 2.0}), images()
    still = model(x)
    assert torch.equal(model(x), still)
    model.train()
    seen: list[Tensor] = []
    for module in model.modules():
        if isinstance(module, SwappedMultiheadAttention):
            module.register_forward_hook(lambda m, *_: seen.append(m.source.read()))
    assert not torch.allclose(model(x), still, atol=1e-3)
    assert torch.equal(seen[0], seen[1])


def test_compile_and_export() -> None:
    torch._dynamo.reset()
    model, x = swap(vit(), "mixed"), images()
    close(torch.compile(model, fullgraph=True, backend="aot_eager")(x), model(x), 1e-5)
    close(torch.export.export(model, (x,), strict=False).module()(x), model(x), 1e-5)


def refused(model: nn.Module, text: str, **words: Any) -> None:
    modules = dict(model.named_modules())
    with pytest.raises(ValueError, match=text):
        swap(model, "mixed", **words)
    assert dict(model.named_modules()) == modules


def test_refusals() -> None:
    refused(
        vit(),
        r"^swap: num_prefix_tokens is read off the model without coordinates, got 1$",
        num_prefix_tokens=1,
    )
    model = vit()
    attention = nn.MultiheadAttention(DIM, HEADS)
    model.encoder.layers[1] = nn.ModuleDict({"attention": attention})
    refused(
        model,
        r"^swap: encoder.layers.encoder_layer_1.attention stands in a ModuleDict, which is unk",
    )
