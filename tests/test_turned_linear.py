"""Projections with turned rows: the numbers of the plain formula, and no turned weight held."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck
from torch.func import grad, jacfwd, jacrev, jvp, vmap
from torch.nn.functional import linear

from cases import normal
from lierope.swap import attention, swap
from lierope.swap.rows import multiply_rows
from lierope.swap.turned_linear import turned_linear
from tiny_models import EVA, PLAIN, images, vit

Make = Callable[..., nn.Module]
Product = Callable[..., Tensor]
DIM, D = 5, 4
# heads in a projection, bases, projections on each other
LAYOUTS = {"q": (2, 2, 1), "q and k": (2, 2, 2), "shared": (2, 1, 2), "groups": (4, 2, 1)}
layouts = pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())


def plain(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, *, basis: Tensor, num_heads: int
) -> Tensor:
    """The formula, whose product autograd holds."""
    return linear(x, multiply_rows(basis, weight, num_heads), bias)


def inputs(layout: tuple[int, int, int], dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Tokens, basis, weight and bias."""
    heads, bases, projections = layout
    rows = projections * heads * D
    shapes = ((2, 3, DIM), (bases, D, D), (rows, DIM), (rows,))
    drawn = [normal(*shape, seed=seed) for seed, shape in enumerate(shapes)]
    return [t.to(dtype).requires_grad_() for t in drawn]


def called(product: Product, heads: int, x: Tensor, basis: Tensor, *rows: Tensor) -> Tensor:
    return product(x, *rows, basis=basis, num_heads=heads)


@layouts
@pytest.mark.parametrize("biased", [True, False])
def test_derivatives_of_every_order(layout: tuple[int, int, int], biased: bool) -> None:
    given = inputs(layout)[: 4 if biased else 3]
    run = partial(called, turned_linear, layout[0])
    assert gradcheck(run, given, check_forward_ad=True, check_batched_grad=True)
    assert gradgradcheck(run, given, check_fwd_over_rev=True)


@layouts
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("types", ["float32", "float32 basis", "autocast", "autocast float64"])
def test_numbers_of_the_plain_formula(
    layout: tuple[int, int, int], biased: bool, types: str
) -> None:
    given = inputs(layout, torch.float64 if "float64" in types else torch.float32)
    if types == "float32 basis":
        given = [t if i == 1 else t.detach().bfloat16() for i, t in enumerate(given)]
    given = [t.detach().requires_grad_() for t in given[: 4 if biased else 3]]
    found = []
    for product in (turned_linear, plain):
        with torch.autocast("cpu", torch.bfloat16, enabled="autocast" in types):
            y = called(product, layout[0], *given)
        found.append((y, *torch.autograd.grad(y.float().sin().sum(), given)))
    assert found[0][0].dtype == found[1][0].dtype
    assert torch.equal(found[0][0], found[1][0])
    for ours, theirs in zip(found[0][1:], found[1][1:], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


def test_wrong_types_stay_an_error() -> None:
    x, *others = inputs(LAYOUTS["q"], torch.float32)
    with pytest.raises(RuntimeError, match="same dtype"):
        called(turned_linear, 2, x.bfloat16(), *others)


@pytest.mark.parametrize("learned", range(1, 16))
def test_only_what_is_learned_gets_a_gradient(learned: int) -> None:
    given = [t.requires_grad_(bool(learned >> i & 1)) for i, t in enumerate(inputs((2, 2, 2)))]
    results: list[list[Tensor | None]] = []
    for product in (turned_linear, plain):
        called(product, 2, *given).sin().sum().backward()
        results.append([t.grad for t in given])
        for t in given:
            t.grad = None
    for t, ours, theirs in zip(given, *results, strict=True):
        assert (ours is not None) == t.requires_grad
        torch.testing.assert_close(ours, theirs)


@layouts
def test_torch_func(layout: tuple[int, int, int]) -> None:
    given = tuple(t.detach() for t in inputs(layout))

    def loss(product: Product, *args: Tensor) -> Tensor:
        return called(product, layout[0], *args).sin().sum()

    every = (0, 1, 2, 3)
    x, basis, weight, bias = given
    batched = (normal(6, 3, DIM, seed=9), *given[1:])
    mixed = (x, torch.stack([basis, -basis]), torch.stack([weight, weight + 1]), bias)
    transforms: Sequence[Callable[[Product], object]] = (
        lambda p: vmap(grad(partial(loss, p), every), (0, None, None, None))(*batched),
        lambda p: vmap(grad(partial(loss, p), every), (None, 0, 0, None))(*mixed),
        lambda p: jvp(partial(loss, p), given, given)[1],
        lambda p: jacfwd(jacrev(partial(loss, p), 1), 2)(*given),
        lambda p: jacrev(jacfwd(partial(loss, p), 2), 0)(*given),
        lambda p: vmap(partial(loss, p), (0, None, None, None))(*batched),
    )
    for transform in transforms:
        torch.testing.assert_close(transform(turned_linear), transform(plain))


def held(model: nn.Module, x: Tensor, autocast: bool) -> int:
    """Bytes that autograd keeps of a pass besides parameters and inputs."""
    known = {t.untyped_storage().data_ptr() for t in (*model.parameters(), x)}
    kept: dict[int, Tensor] = {}

    def pack(t: Tensor) -> Tensor:
        kept[t.untyped_storage().data_ptr()] = t
        return t

    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t),
        torch.autocast("cpu", torch.bfloat16, enabled=autocast),
    ):
        model(x).sum().backward()
    return sum(t.untyped_storage().nbytes() for key, t in kept.items() if key not in known)


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("encoding", ["cayley", "circulant"])
@pytest.mark.parametrize("kind", [vit, PLAIN["no bias"], EVA["eva02"], EVA["grouped queries"]])
def test_no_turned_weight_is_held(
    kind: Make, encoding: str, autocast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = swap(kind(), encoding)
    ours = held(model, images(), autocast)
    monkeypatch.setattr(attention, "turned_linear", plain)
    layers = [m for m in model.modules() if isinstance(m, attention.SwappedAttention)]
    rows = sum((m.num_heads + m.num_kv_heads) * m.head_dim for m in layers)
    turned = rows * model.embed_dim * (2 if autocast else 4)
    assert held(model, images(), autocast) - ours >= turned > 0


def test_tokens_are_not_held_for_frozen_rows() -> None:
    x, *others = inputs(LAYOUTS["q"])
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        called(turned_linear, 2, x, *(t.detach() for t in others))
    assert [t.shape for t in kept] == [t.shape for t in others[:2]]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_graphs_hold_ordinary_operators() -> None:
    given = inputs(LAYOUTS["q and k"], torch.float32)

    def run(*args: Tensor) -> Tensor:
        return called(turned_linear, 2, *args)

    with torch.no_grad():
        traced = torch.jit.trace(run, tuple(given))
    assert "PythonOp" not in str(traced.graph)
    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    expected = torch.autograd.grad(run(*given).sin().sum(), given)
    for each in (traced, compiled):
        found = torch.autograd.grad(each(*given).sin().sum(), given)
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours, theirs)
