"""Turning few rows without forming rotations: the same results, and chosen where it is faster."""

import statistics
import time
from collections.abc import Callable, Iterator

import pytest
import torch

import lierope
from lierope import ops, reference
from process import set_variable

pytestmark = pytest.mark.skipif(
    lierope.build_info().instruction_set == "emulated", reason="CUDA forms every rotation"
)


def _set_mode(mode: str) -> None:
    set_variable("LIEROPE_ACT", mode)


@pytest.fixture(autouse=True)
def _by_cost() -> Iterator[None]:
    yield
    _set_mode("cost")


def _inputs(
    n: int, norm: float, dtype: torch.dtype, points: int = 6
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """q, k (2 sequences), generators of that spectral norm each, positions of length 1."""
    generator = torch.Generator().manual_seed(n)
    packed = torch.randn(3, 1, 1, n * (n - 1) // 2, generator=generator, dtype=torch.float64)
    row, column = torch.triu_indices(n, n, 1)
    A = torch.zeros(3, 1, 1, n, n, dtype=torch.float64)
    A[..., row, column] = packed
    packed = packed * (norm / torch.linalg.matrix_norm(A - A.mT, 2))[..., None]
    positions = torch.randn(2, points, 3, generator=generator, dtype=torch.float64)
    positions = positions / positions.norm(dim=-1, keepdim=True)
    q, k = torch.randn(2, 2, 1, points + 1, n, generator=generator, dtype=torch.float64)
    q, k, packed, positions = (x.to(dtype).requires_grad_() for x in (q, k, packed, positions))
    return q, k, packed, positions


def _results(
    function: Callable[..., tuple[torch.Tensor, ...]], inputs: tuple[torch.Tensor, ...]
) -> list[torch.Tensor]:
    outputs = function(*inputs, num_prefix_tokens=1)
    weights = [torch.arange(y.numel(), dtype=y.dtype).view_as(y).cos() for y in outputs]
    return [*outputs, *torch.autograd.grad(outputs, inputs, weights)]


def _errors(got: list[torch.Tensor], exact: list[torch.Tensor]) -> list[float]:
    return [
        float((x.detach().double() - e).abs().max() / (e.abs().max() or 1.0))
        for x, e in zip(got, (e.detach() for e in exact), strict=True)
    ]


@pytest.mark.parametrize("norm", [0.0, 1e-3, 0.5, 7.0, 30.0])
@pytest.mark.parametrize("n", [32, 33, 64, 128])
def test_acting_is_as_exact_as_forming(n: int, norm: float) -> None:
    inputs = _inputs(n, norm, torch.float64)
    exact = _results(reference.lie_rotate, inputs)
    for dtype, roundings in ((torch.float32, 4), (torch.float64, 64)):
        cast = tuple(x.detach().to(dtype).requires_grad_() for x in inputs)
        _set_mode("always")
        acted = _errors(_results(ops.lie_rotate, cast), exact)
        _set_mode("never")
        formed = _errors(_results(ops.lie_rotate, cast), exact)
        # Twice, and roundings: at small norms both errors are those of one or two operations, and
        # in float64 the reference errs as much as what it judges.
        for a, f in zip(acted, formed, strict=True):
            assert a <= 2 * f + roundings * torch.finfo(dtype).eps


def test_modes_take_different_ways() -> None:
    # Else the test above would compare one way with itself.
    inputs = _inputs(64, 5.0, torch.float32)
    _set_mode("always")
    acted = _results(ops.lie_rotate, inputs)
    _set_mode("never")
    formed = _results(ops.lie_rotate, inputs)
    assert any(not torch.equal(a, f) for a, f in zip(acted, formed, strict=True))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e6])
def test_one_position_spoils_itself_alone(bad: float) -> None:
    q, k, packed, positions = _inputs(32, 1.0, torch.float32)
    clean = ops.lie_rotate(q, k, packed, positions, num_prefix_tokens=1)
    with torch.no_grad():
        positions[1, 2, 0] = bad
    spoilt = ops.lie_rotate(q, k, packed, positions, num_prefix_tokens=1)
    for before, after in zip(clean, spoilt, strict=True):
        same = (before == after).all(-1)[:, 0]
        assert same.sum() == same.numel() - 1
        assert not same[1, 3]


def test_threads_do_not_matter() -> None:
    inputs = _inputs(48, 3.0, torch.float32, points=40)
    one = _results(ops.lie_rotate, inputs)
    try:
        torch.set_num_threads(2)
        two = _results(ops.lie_rotate, inputs)
    finally:
        torch.set_num_threads(1)
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize(("n", "norm"), [(32, 0.5), (32, 40.0), (64, 3.0), (64, 60.0), (128, 10.0)])
def test_the_cheaper_way_is_chosen(n: int, norm: float, backward: bool) -> None:
    q, k, packed, positions = (x.detach() for x in _inputs(n, norm, torch.float32, points=24))
    q, k = q[:, :, 1:], k[:, :, 1:]
    raw = torch.ops.lierope

    def call() -> None:
        if backward:
            raw.lie_rotate_backward(q, k, q, k, packed, positions, 0, False)
        else:
            raw.lie_rotate(q, k, packed, positions, 0)

    # Rounds in turn, so that a busy machine slows all ways alike; the thread's own time.
    times: dict[str, list[float]] = {"never": [], "always": [], "cost": []}
    for _ in range(7):
        for mode, spent in times.items():
            _set_mode(mode)
            start = time.thread_time()
            call()
            spent.append(time.thread_time() - start)
    median = {mode: statistics.median(spent) for mode, spent in times.items()}
    assert median["cost"] <= 1.5 * min(median["never"], median["always"]), median
