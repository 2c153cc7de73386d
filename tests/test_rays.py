"""Positions that are multiples of others share an exponential: the same results, for less."""

import statistics
import time
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

import lierope
from lierope import ops, reference
from process import set_variable

pytestmark = pytest.mark.skipif(
    lierope.build_info().instruction_set == "emulated", reason="CUDA forms every rotation"
)
Function = Callable[..., tuple[Tensor, ...]]


def _share(wanted: bool) -> None:
    set_variable("LIEROPE_RAYS", "shared" if wanted else "never")


@pytest.fixture(autouse=True)
def _shared() -> Iterator[None]:
    yield
    _share(True)


def _inputs(
    b: int, positions: Tensor, norm: float, dtype: torch.dtype, batch: int = 6
) -> tuple[Tensor, Tensor, Tensor]:
    """q, k of `batch` sequences with a prefix token, and generators of |A(p)| up to about norm."""
    generator = torch.Generator().manual_seed(b)
    dims, points = positions.shape[-1], positions.shape[-2]
    packed = torch.randn(dims, 1, 1, b * (b - 1) // 2, generator=generator, dtype=torch.float64)
    A = torch.zeros(dims, 1, 1, b, b, dtype=torch.float64)
    row, column = torch.triu_indices(b, b, 1)
    A[..., row, column] = packed
    size = torch.linalg.matrix_norm(A - A.mT, 2)[..., None]
    packed = packed * norm / size / positions.double().norm(dim=-1).max()
    q, k = torch.randn(2, batch, 1, points + 1, b, generator=generator, dtype=torch.float64)
    return q.to(dtype), k.to(dtype), packed.to(dtype)


def _weight(y: Tensor) -> Tensor:
    # Random: the terms of a smooth one cancel in the sums, which then are mostly rounding.
    seed = torch.Generator().manual_seed(y.numel())
    return torch.randn(y.shape, generator=seed).to(y.dtype)


def _lie_rotate(function: Function, inputs: tuple[Tensor, ...], positions: Tensor) -> list[Tensor]:
    """Results and gradients for q, k and generators."""
    inputs = tuple(x.detach().clone().requires_grad_() for x in inputs)
    outputs = function(*inputs, positions, num_prefix_tokens=1)
    weights = [_weight(y) for y in outputs]
    return [*(y.detach() for y in outputs), *torch.autograd.grad(outputs, inputs, weights)]


def _lie_rotations(
    function: Callable[..., Tensor], packed: Tensor, positions: Tensor
) -> list[Tensor]:
    packed = packed.detach().clone().requires_grad_()
    R = function(packed, positions)
    return [R.detach(), *torch.autograd.grad(R, packed, _weight(R))]


def _errors(got: list[Tensor], exact: list[Tensor]) -> list[float]:
    return [
        float((x.double() - e).abs().max() / (e.abs().max() or 1.0))
        for x, e in zip(got, exact, strict=True)
    ]


GRIDS = {
    "proportional": lambda: lierope.grid_positions((7, 5)),
    "layer": lambda: lierope.grid_positions((14, 14)),
    "longer": lambda: lierope.grid_positions((9, 9), train_shape=(7, 7)),
    "index": lambda: lierope.grid_positions((6, 6), "index"),
    "centered": lambda: lierope.grid_positions((6, 4), "centered"),
    "line": lambda: lierope.grid_positions((40,), "index"),
    "video": lambda: lierope.grid_positions((3, 3, 3), "unit"),
    "half": lambda: lierope.grid_positions((7, 5))[torch.randperm(35)[:18]],
    "twice": lambda: lierope.grid_positions((5, 5)).repeat_interleave(2, 0),
    "same": lambda: torch.tensor([[0.3, 0.7], [0.7, 0.2]]).repeat(4, 1),
    "samples": lambda: torch.stack([lierope.grid_positions((6, 6)) * s for s in (1, 0.7, -2)]),
}


@pytest.mark.parametrize("norm", [0.05, 2.0, 60.0])
@pytest.mark.parametrize("b", [9, 16, 33, 64])
@pytest.mark.parametrize("grid", GRIDS)
def test_powers_are_as_exact_as_exponentials(grid: str, b: int, norm: float) -> None:
    torch.manual_seed(0)
    positions = GRIDS[grid]()
    batch = positions.shape[0] if positions.dim() == 3 else 6
    inputs = _inputs(b, positions, norm, torch.float32, batch)
    double = tuple(x.double() for x in inputs)
    exact = _lie_rotate(reference.lie_rotate, double, positions.double())
    exact += _lie_rotations(reference.lie_rotations, double[2], positions.double())
    errors = {}
    for shared in (True, False):
        _share(shared)
        got = _lie_rotate(ops.lie_rotate, inputs, positions)
        got += _lie_rotations(ops.lie_rotations, inputs[2], positions)
        errors[shared] = _errors(got, exact)
    # Twice, and roundings: at small norms an exponential's error is that of one or two operations,
    # and a power has one at each step.
    for powers, exponentials in zip(errors[True], errors[False], strict=True):
        assert powers <= 2 * exponentials + 4 * torch.finfo(torch.float32).eps


@pytest.mark.parametrize("b", [12, 64])
def test_doubles_agree_with_the_reference(b: int) -> None:
    positions = lierope.grid_positions((6, 5), dtype=torch.float64)
    inputs = _inputs(b, positions, 20.0, torch.float64)
    exact = _lie_rotate(reference.lie_rotate, inputs, positions)
    assert max(_errors(_lie_rotate(ops.lie_rotate, inputs, positions), exact)) < 1e-12


@pytest.mark.parametrize(("b", "side"), [(9, 14), (16, 14), (32, 7)])
def test_modes_take_different_ways(b: int, side: int) -> None:
    # Else the tests above would compare one way with itself.
    positions = lierope.grid_positions((side, side))
    inputs = _inputs(b, positions, 20.0, torch.float32)
    shared = _lie_rotate(ops.lie_rotate, inputs, positions)
    _share(False)
    single = _lie_rotate(ops.lie_rotate, inputs, positions)
    assert any(not torch.equal(a, f) for a, f in zip(shared, single, strict=True))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda p: p + 0.01,
        lambda p: p.where(p != p[7], torch.nextafter(torch.nextafter(p, p * 2), p * 2)),
        lambda p: torch.rand(p.shape, generator=torch.Generator().manual_seed(0)),
        lambda p: p * 0,
        lambda p: p.new_tensor([[3e38, 1e-38]]).expand_as(p),
    ],
    ids=["shifted", "two roundings off", "cloud", "origin", "extremes"],
)
def test_what_is_no_multiple_is_left_alone(spoil: Callable[[Tensor], Tensor]) -> None:
    positions = spoil(lierope.grid_positions((5, 5), "index") / 3).contiguous()
    inputs = _inputs(16, lierope.grid_positions((5, 5), "index") / 3, 5.0, torch.float32)
    got = _lie_rotate(ops.lie_rotate, inputs, positions)
    _share(False)
    single = _lie_rotate(ops.lie_rotate, inputs, positions)
    for a, s in zip(got, single, strict=True):
        torch.testing.assert_close(a, s, rtol=1e-4, atol=1e-5, equal_nan=True)


def test_shifted_grids_have_no_rays() -> None:
    positions = lierope.grid_positions((5, 5), "index") + 0.01
    inputs = _inputs(16, positions, 5.0, torch.float32)
    got = _lie_rotate(ops.lie_rotate, inputs, positions)
    _share(False)
    single = _lie_rotate(ops.lie_rotate, inputs, positions)
    assert all(torch.equal(a, s) for a, s in zip(got, single, strict=True))


def test_positions_keep_gradients_of_their_own() -> None:
    positions = lierope.grid_positions((4, 4), dtype=torch.float64).requires_grad_()
    q, k, packed = _inputs(16, positions.detach(), 5.0, torch.float64)
    results = []
    for function in (ops.lie_rotate, reference.lie_rotate):
        outputs = function(q, k, packed, positions, num_prefix_tokens=1)
        results.append(torch.autograd.grad(sum(y.cos().sum() for y in outputs), positions)[0])
    torch.testing.assert_close(*results, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_one_position_spoils_itself_alone(bad: float) -> None:
    positions = lierope.grid_positions((4, 4))
    q, k, packed = _inputs(32, positions, 9.0, torch.float32)
    clean = ops.lie_rotate(q, k, packed, positions, num_prefix_tokens=1)
    positions[10, 0] = bad
    spoilt = ops.lie_rotate(q, k, packed, positions, num_prefix_tokens=1)
    for before, after in zip(clean, spoilt, strict=True):
        assert after[:, :, 11].isnan().all()
        after[:, :, 11] = before[:, :, 11]
        torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5)


def test_a_token_spoils_itself_alone() -> None:
    positions = lierope.grid_positions((4, 4))
    q, k, packed = _inputs(16, positions, 9.0, torch.float32)
    q[0, 0, 7, 3] = float("nan")
    q_out, k_out = ops.lie_rotate(q, k, packed, positions, num_prefix_tokens=1)
    assert q_out.isnan().any(-1).nonzero().tolist() == [[0, 0, 7]]
    assert not k_out.isnan().any()


def test_an_infinite_generator_gives_nan_on_all_of_a_ray() -> None:
    positions = lierope.grid_positions((5,), "index")[1:]
    q, k, packed = _inputs(16, positions, 1.0, torch.float32)
    packed[0, 0, 0, 3] = float("inf")
    outputs = _lie_rotate(ops.lie_rotate, (q, k, packed), positions)
    assert all(y[:, :, 1:].isnan().all() for y in outputs[:2])
    assert outputs[4].isnan().all()


def test_threads_do_not_matter() -> None:
    positions = lierope.grid_positions((9, 9))
    inputs = _inputs(24, positions, 9.0, torch.float32)
    one = _lie_rotate(ops.lie_rotate, inputs, positions)
    try:
        torch.set_num_threads(2)
        two = _lie_rotate(ops.lie_rotate, inputs, positions)
    finally:
        torch.set_num_threads(1)
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize(("b", "side", "passes"), [(16, 14, 10), (64, 10, 1)])
def test_a_grid_takes_less_time(b: int, side: int, passes: int) -> None:
    # Blocks of one position a lane need more positions: idle lanes cost as much as others.
    positions = lierope.grid_positions((side, side))
    q, k, packed = _inputs(b, positions, 2.3 * b, torch.float32)
    raw = torch.ops.lierope
    # Rounds in turn, so that a busy machine slows both ways alike; the thread's own time.
    times: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(11):
        for shared, spent in times.items():
            _share(shared)
            start = time.thread_time()
            for _ in range(passes):  # of less than a millisecond, and so noisy, for b = 16
                raw.lie_rotate(q, k, packed, positions, 1)
                raw.lie_rotate_backward(q, k, q, k, packed, positions, 1, False)
            spent.append(time.thread_time() - start)
    # 36 % of the positions are multiples; measured: 0.68 (b = 64) and 0.81 (16).
    assert statistics.median(times[True]) < 0.9 * statistics.median(times[False])
