"""LieRE in eval mode: rotations are kept, dropped when something changes, and never in the way."""

from __future__ import annotations

import copy
import io
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import functional_call, jvp, vmap

from cases import normal
from lierope import ops
from lierope.encodings import LieRE
from lierope.encodings.rotation_cache import Tag
from lierope.swap import encodings_of, swap
from tiny_models import images, vit

Q, K = normal(2, 4, 6, 8, dtype=torch.float32), normal(2, 4, 6, 8, dtype=torch.float32, seed=1)
POINTS = normal(5, 2, dtype=torch.float32, seed=2)


@pytest.fixture
def liere() -> LieRE:
    torch.manual_seed(0)
    return LieRE(8, 4, block_size=4).eval()


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """Grows with every call of lie_rotations."""
    calls: list[None] = []
    original = ops.lie_rotations

    def counted(*args: Tensor) -> Tensor:
        calls.append(None)
        return original(*args)

    monkeypatch.setattr(ops, "lie_rotations", counted)
    return calls


def check(encoding: LieRE, positions: Tensor = POINTS) -> None:
    """What eval gives is what training gives."""
    expected = ops.lie_rotate(Q, K, encoding.generators, positions, num_prefix_tokens=1)
    for y, e in zip(encoding(Q, K, positions, 1), expected, strict=True):
        torch.testing.assert_close(y, e, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_kept_while_nothing_changes(liere: LieRE, made: list[None]) -> None:
    for _ in range(3):
        check(liere)
    check(liere, POINTS.clone())
    assert len(made) == 1
    with torch.inference_mode():
        check(liere)
    assert len(made) == 1


CHANGES: dict[str, Any] = {
    "in place": lambda e: e.generators.mul_(1.1),
    "behind the version counter": lambda e: e.generators.data.mul_(1.1),
    "other data": lambda e: setattr(e.generators, "data", e.generators.data * 1.1),
    "another parameter": lambda e: setattr(
        e, "generators", torch.nn.Parameter(e.generators.detach() * 1.1)
    ),
    "load_state_dict": lambda e: e.load_state_dict({"generators": e.generators * 1.1}),
    "assigned": lambda e: e.load_state_dict({"generators": e.generators * 1.1}, assign=True),
    "reset_parameters": lambda e: e.reset_parameters(),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
@torch.no_grad()
def test_dropped_when_a_parameter_changes(liere: LieRE, made: list[None], change: Any) -> None:
    check(liere)
    change(liere)
    check(liere)
    check(liere)
    assert len(made) == 2


@torch.no_grad()
def test_dropped_for_other_positions_and_types(liere: LieRE, made: list[None]) -> None:
    check(liere)
    moved = POINTS.clone()
    check(liere, moved)
    check(liere, moved.mul_(0.5))
    assert len(made) == 2
    liere.double()
    wide = liere(Q.double(), K.double(), moved.double(), 1)
    assert len(made) == 3
    assert wide[0].dtype == torch.float64
    liere.float()
    check(liere, moved)


def test_an_optimizers_step_is_seen(liere: LieRE, made: list[None]) -> None:
    optimizer = torch.optim.SGD(liere.parameters(), lr=1.0)
    with torch.no_grad():
        check(liere)
    sum(y.sum() for y in liere(Q, K, POINTS, 1)).backward()  # eval mode, with gradients
    assert liere.generators.grad is not None
    assert len(made) == 1
    optimizer.step()
    with torch.no_grad():
        check(liere)
    assert len(made) == 2


@torch.no_grad()
def test_not_kept_where_it_would_be_wrong_or_large(liere: LieRE, made: list[None]) -> None:
    liere.train()
    check(liere)
    liere.eval()
    check(liere, POINTS.expand(2, -1, -1))  # positions of each sample
    liere.kept_bytes = 100
    check(liere)
    assert not made


def test_out_of_the_way_of_transforms(liere: LieRE, made: list[None]) -> None:
    with torch.no_grad():
        check(liere)
        batched = vmap(lambda p: liere(Q, K, p, 1)[0])(torch.stack((POINTS, 2 * POINTS)))
        _, slope = jvp(lambda p: liere(Q, K, p, 1)[0], (POINTS,), (POINTS,))
        other = {"generators": liere.generators.detach() * 1.1}
        changed = functional_call(liere, other, (Q, K, POINTS, 1))[0]
        check(liere)
        torch.testing.assert_close(batched[1], liere(Q, K, 2 * POINTS, 1)[0])
        twin = copy.deepcopy(liere)
        twin.generators.copy_(other["generators"])
        torch.testing.assert_close(changed, twin(Q, K, POINTS, 1)[0])
        assert slope.abs().max() > 0.1
        torch._dynamo.reset()
        compiled = torch.compile(liere, backend="eager", fullgraph=True)
        for _ in range(2):
            found = compiled(Q, K, POINTS, 1)[0]
            torch.testing.assert_close(found, liere(Q, K, POINTS, 1)[0], rtol=1e-5, atol=1e-5)
            liere.generators.mul_(0.9)
    positions = POINTS.clone().requires_grad_()
    liere(Q, K, positions, 1)[0].sum().backward()
    assert positions.grad is not None


@torch.no_grad()
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_a_trace_holds_no_rotations(liere: LieRE, made: list[None]) -> None:
    args = (Q[:, :, 1:], K[:, :, 1:], POINTS)
    liere(*args)
    traced = torch.jit.trace(liere, args)
    liere.generators.mul_(0.5)  # the trace's too: they are the same
    torch.testing.assert_close(traced(*args)[0], liere(*args)[0], rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_a_copy_and_a_stored_one_keep_nothing(liere: LieRE, made: list[None]) -> None:
    check(liere)
    stored = io.BytesIO()
    torch.save(liere, stored)
    stored.seek(0)
    for twin in (copy.deepcopy(liere), torch.load(stored, weights_only=False)):
        before = len(made)
        check(twin)
        assert len(made) == before + 1
    assert set(liere.state_dict()) == {"generators"}


def test_elsewhere_memory_and_version_tell() -> None:
    """As on a device that must not be looked at; the memory is held, so it is never another's."""
    x = normal(4, 4)
    tag = Tag(x, by_value=False)
    assert tag.fits(x)
    assert not tag.fits(x.clone())
    assert not tag.fits(x.mT)
    assert not tag.fits(x[:2])
    assert not tag.fits(x.float())
    x.mul_(1.0)
    assert not tag.fits(x)
    parameter = torch.nn.Parameter(normal(3))
    tag = Tag(parameter, by_value=False)
    with torch.no_grad():
        parameter.add_(1)
    assert not tag.fits(parameter)


@torch.no_grad()
def test_threads_may_share_an_encoding(liere: LieRE) -> None:
    grids = [POINTS * s for s in (1.0, 0.5, 0.25)]
    expected = [ops.lie_rotate(Q, K, liere.generators, p, num_prefix_tokens=1)[0] for p in grids]

    def work(i: int) -> float:
        with torch.no_grad():
            return float((liere(Q, K, grids[i % 3], 1)[0] - expected[i % 3]).abs().max())

    with ThreadPoolExecutor(4) as pool:
        assert max(pool.map(work, range(60))) < 1e-5


@torch.no_grad()
def test_a_swapped_model_keeps_a_grid_for_each_layer(made: list[None]) -> None:
    model = swap(vit(dynamic_img_size=True), "liere:4")
    assert torch.equal(model(images()), model(images()))
    assert len(made) == len(encodings_of(model)) == 2
    model(images(1, 48))
    assert len(made) == 4
