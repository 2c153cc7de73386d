"""Swapped models compiled once for all sizes, and differentiated for each sample, every family."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from cases import normal
from lierope.encodings import create
from lierope.swap import swap
from tiny_models import eva, images, vit

Make = Callable[..., nn.Module]
FAMILIES = ("mixed", "liere:4", "cayley", "circulant")


def agree(results: list[list[Tensor]]) -> None:
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", FAMILIES)
def test_one_graph_serves_all_numbers_of_tokens(name: str) -> None:
    torch._dynamo.reset()
    encoding = create(name, 8, 2)

    def loss(q: Tensor, positions: Tensor) -> Tensor:
        return torch.cat(encoding(q, q, positions, 1)).sin().sum()

    compiled = torch.compile(loss, fullgraph=True, dynamic=True, backend="aot_eager")
    compiled(normal(3, 2, 7, 8).float(), normal(6, 2).float()).backward()
    with torch._dynamo.config.patch(error_on_recompile=True):
        for batch, tokens in ((4, 9), (6, 5)):
            x, p = normal(batch, 2, tokens + 1, 8).float(), normal(tokens, 2).float()
            parameters = list(encoding.parameters())
            agree([list(torch.autograd.grad(f(x, p), parameters)) for f in (compiled, loss)])


@pytest.mark.parametrize(("kind", "encoding"), [(eva, "liere:4")])
def test_one_graph_serves_all_batches(kind: Make, encoding: str) -> None:
    """Image sizes have a graph each: timm writes them into the text of an assertion."""
    torch._dynamo.reset()
    model = swap(kind(depth=1, dynamic_img_size=True), encoding).train()
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend="aot_eager")
    compiled(images(2, 32, 48)).sum().backward()
    with torch._dynamo.config.patch(error_on_recompile=True):
        for batch in (3, 5):
            x, parameters = images(batch, 32, 48), list(model.parameters())
            losses = [run(x).square().sum() for run in (compiled, model)]
            agree([list(torch.autograd.grad(y, parameters)) for y in losses])


@pytest.mark.parametrize("encoding", ["liere:4", "cayley", "circulant"])
@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_gradients_for_each_sample(encoding: str) -> None:
    model, x = swap(vit(depth=1), encoding), images()

    def loss(parameters: dict[str, Tensor], image: Tensor) -> Tensor:
        return functional_call(model, parameters, (image[None],)).square().sum()

    parameters = {name: p.detach() for name, p in model.named_parameters()}
    each = vmap(grad(loss), in_dims=(None, 0))(parameters, x)
    alone = grad(loss)(parameters, x[1])
    assert any("encoding" in name for name in alone)
    for name, gradient in alone.items():
        torch.testing.assert_close(each[name][1], gradient, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("encoding", ["liere:4", "circulant"])
def test_checkpointing_under_compilation(encoding: str) -> None:
    torch._dynamo.reset()
    model = swap(vit(depth=1), encoding).train()
    expected = torch.autograd.grad(model(images()).square().sum(), list(model.parameters()))
    model.set_grad_checkpointing(True)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    found = torch.autograd.grad(compiled(images()).square().sum(), list(model.parameters()))
    for gradient, same in zip(found, expected, strict=True):
        torch.testing.assert_close(gradient, same, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_the_default_compiler() -> None:
    """Inductor's own code around our operators, forward and backward."""
    torch._dynamo.reset()
    encoding, x, p = create("cayley", 8, 2), normal(3, 2, 7, 8).float(), normal(6, 2).float()

    def loss(q: Tensor) -> Tensor:
        return torch.cat(encoding(q, q, p, 1)).sin().sum()

    compiled = torch.compile(loss, fullgraph=True, dynamic=True)
    parameters = list(encoding.parameters())
    agree([list(torch.autograd.grad(run(x), parameters)) for run in (compiled, loss)])
