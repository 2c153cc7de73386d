"""Swapped models under copying, pickling, torch.func, export and the meta device."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from lierope.swap import encodings_of, swap
from lierope.timm import timm
from tiny_models import PLAIN, dinov3, eva, images, vit

Make = Callable[..., nn.Module]
KINDS = {"plain": vit, "distilled": PLAIN["distilled"], "eva": eva, "dinov3": dinov3}
everywhere = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())


@everywhere
def test_a_copy_is_a_model_of_its_own(kind: Make) -> None:
    model = swap(kind(dynamic_img_size=True), "mixed")
    model(images())
    twin = copy.deepcopy(model)
    before = model(images())
    with torch.no_grad():
        twin.blocks[0].attn.encoding.frequencies.add_(1)
    twin(images(2, 48))
    assert torch.equal(model(images()), before)
    assert not torch.equal(twin(images()), before)
    twin.blocks = twin.blocks[:1]
    assert "blocks.1.attn.encoding.frequencies" in model.no_weight_decay()
    assert "blocks.1.attn.encoding.frequencies" not in twin.no_weight_decay()


@everywhere
def test_a_whole_model_can_be_stored(kind: Make) -> None:
    model = swap(kind(dynamic_img_size=True), "mixed")
    before = model(images(2, 48))
    stored = io.BytesIO()
    torch.save(model, stored)
    stored.seek(0)
    loaded = torch.load(stored, weights_only=False)
    assert torch.equal(loaded(images(2, 48)), before)
    loaded.load_state_dict(kind().state_dict(), strict=True)


@everywhere
@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_gradients_for_each_sample(kind: Make) -> None:
    model, x = swap(kind(), "mixed"), images()

    def loss(parameters: dict[str, Tensor], image: Tensor) -> Tensor:
        return functional_call(model, parameters, (image[None],)).square().sum()

    parameters = {name: p.detach() for name, p in model.named_parameters()}
    each = vmap(grad(loss), in_dims=(None, 0))(parameters, x)
    alone = grad(loss)(parameters, x[1])
    for name, gradient in alone.items():
        torch.testing.assert_close(each[name][1], gradient, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [vit, eva], ids=["vit", "eva"])
@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.filterwarnings("ignore:While compiling, we found certain side effects")
def test_export(kind: Make, strict: bool) -> None:
    model, x = swap(kind(), "mixed"), images()
    exported = torch.export.export(model, (x,), strict=strict).module()
    torch.testing.assert_close(exported(x), model(x))
    assert torch.equal(model(x), copy.deepcopy(model)(x))


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "eva02_tiny_patch14_224"])
def test_a_model_built_on_the_meta_device(name: str) -> None:
    with torch.device("meta"):
        model = timm.create_model(name, img_size=56, patch_size=14, depth=2, num_classes=5)
        swap(model, "mixed")
    model.to_empty(device="cpu")
    model.init_weights()
    for module in model.modules():
        if hasattr(module, "init_non_persistent_buffers"):
            module.init_non_persistent_buffers()
    assert all(
        float(e.frequencies.detach().abs().max()) > 0.5 for e in encodings_of(model).values()
    )
    assert bool(model.eval()(images(2, 56)).isfinite().all())


@pytest.mark.parametrize("encoding", ["mixed", "liere:4", "cayley", "circulant"])
def test_shapes_on_the_meta_device(encoding: str) -> None:
    model = swap(vit(), encoding).to("meta")
    model(images().to("meta")).sum().backward()
    assert all(p.grad is not None and p.grad.shape == p.shape for p in model.parameters())
