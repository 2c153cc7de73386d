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
    b: int,
    positions: Tensor,
    norm: float,
    dtype: torch.dtype,
    batch: int = 6,
    parts: tuple[int, int, int] | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """q, k of `batch` sequences with a prefix token, and generators of |A(p)| up to about norm.

    parts: Heads, blocks of a head, features past them.
    """
    generator = torch.Generator().manual_seed(b)
    dims, points = positions.shape[-1], positions.shape[-2]
    # Small blocks share a vector, one of a head in each lane: a full one, and some that are left.
    # Of one larger block the gradient is too few numbers to tell errors from luck by.
    some = (3, 7, 2) if b <= 8 else (2, 3, 0) if b <= 16 else (1, 1, 0)
    heads, blocks, rest = parts or some
    shape = (dims, heads, blocks)
    packed = torch.randn(*shape, b * (b - 1) // 2, generator=generator, dtype=torch.float64)
    A = torch.zeros(*shape, b, b, dtype=torch.float64)
    row, column = torch.triu_indices(b, b, 1)
    A[..., row, column] = packed
    size = torch.linalg.matrix_norm(A - A.mT, 2)[..., None]
    packed = packed * norm / size / positions.double().norm(dim=-1).max()
    q, k = torch.randn(
        2, batch, heads, points + 1, blocks * b + rest, generator=generator, dtype=torch.float64
    )
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


def _errors(got: list[Tensor], exact: list[Tensor], p: float = float("inf")) -> list[float]:
    """By the p-norm of all elements."""
    norm = torch.linalg.vector_norm
    return [
        float(norm(x.double() - e, p) / (norm(e, p) or 1.0))
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
@pytest.mark.parametrize("b", [5, 8, 9, 16, 33, 64])
@pytest.mark.parametrize("grid", GRIDS)
def test_powers_are_as_exact_as_exponentials(grid: str, b: int, norm: float) -> None:
    torch.manual_seed(0)
    positions = GRIDS[grid]()
    batch = positions.shape[0] if positions.dim() == 3 else 6
    inputs = _inputs(b, positions, norm, torch.float32, batch)
    double = tuple(x.double() for x in inputs)
    exact = _lie_rotate(reference.lie_rotate, double, positions.double())
    exact += _lie_rotations(reference.lie_rotations, double[2], positions.double())
    got = {}
    for shared in (True, False):
        _share(shared)
        got[shared] = _lie_rotate(ops.lie_rotate, inputs, positions)
        got[shared] += _lie_rotations(ops.lie_rotations, inputs[2], positions)
    # And roundings: at small norms an exponential's error is that of one or two operations, and a
    # power has one at each step. The largest error is a matter of luck: of 21 blocks rather than
    # one, the worst may be 2.2 times that of the others' worst (the median over draws is 1.0).
    largest = 3.0 if b <= 8 else 2.0
    for p, factor, roundings in ((2.0, 1.5, 2), (float("inf"), largest, 4)):
        errors = (_errors(got[shared], exact, p) for shared in (True, False))
        for powers, exponentials in zip(*errors, strict=True):
            assert powers <= factor * exponentials + roundings * torch.finfo(torch.float32).eps


@pytest.mark.parametrize("b", [7, 8, 12, 64])
def test_doubles_agree_with_the_reference(b: int) -> None:
    positions = lierope.grid_positions((6, 5), dtype=torch.float64)
    inputs = _inputs(b, positions, 20.0, torch.float64)
    exact = _lie_rotate(reference.lie_rotate, inputs, positions)
    assert max(_errors(_lie_rotate(ops.lie_rotate, inputs, positions), exact)) < 1e-12


@pytest.mark.parametrize(("b", "side"), [(5, 7), (8, 7), (9, 14), (16, 14), (32, 7)])
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


@pytest.mark.parametrize("b", [8, 32])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_one_position_spoils_itself_alone(bad: float, b: int) -> None:
    positions = lierope.grid_positions((4, 4))
    q, k, packed = _inputs(b, positions, 9.0, torch.float32)
    turned = packed.shape[2] * b
    clean = ops.lie_rotate(q, k, packed, positions, num_prefix_tokens=1)
    positions[10, 0] = bad
    spoilt = ops.lie_rotate(q, k, packed, positions, num_prefix_tokens=1)
    for before, after in zip(clean, spoilt, strict=True):
        assert after[:, :, 11, :turned].isnan().all()
        after[:, :, 11] = before[:, :, 11]
        torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("b", [8, 16])
def test_a_token_spoils_itself_alone(b: int) -> None:
    positions = lierope.grid_positions((4, 4))
    q, k, packed = _inputs(b, positions, 9.0, torch.float32)
    q[0, 0, 7, 3] = float("nan")
    q_out, k_out = ops.lie_rotate(q, k, packed, positions, num_prefix_tokens=1)
    assert q_out.isnan().any(-1).nonzero().tolist() == [[0, 0, 7]]
    assert not k_out.isnan().any()


@pytest.mark.parametrize("b", [8, 16])
def test_an_infinite_generator_gives_nan_on_all_of_a_ray(b: int) -> None:
    positions = lierope.grid_positions((5,), "index")[1:]
    q, k, packed = _inputs(b, positions, 1.0, torch.float32)
    packed[0, 0, 0, 3] = float("inf")
    outputs = _lie_rotate(ops.lie_rotate, (q, k, packed), positions)
    for y in outputs[:2]:
        assert y[:, 0, 1:, :b].isnan().all()
        assert not y[:, 0, :, b:].isnan().any()
        assert not y[:, 1:].isnan().any()
    assert outputs[4][0, 0, 0].isnan().all()
    assert not outputs[4][0, 0, 1:].isnan().any()


@pytest.mark.parametrize("b", [8, 24])
def test_threads_do_not_matter(b: int) -> None:
    positions = lierope.grid_positions((9, 9))
    inputs = _inputs(b, positions, 9.0, torch.float32)
    one = _lie_rotate(ops.lie_rotate, inputs, positions)
    try:
        torch.set_num_threads(2)
        two = _lie_rotate(ops.lie_rotate, inputs, positions)
    finally:
        torch.set_num_threads(1)
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize(("b", "side", "passes"), [(8, 14, 4), (16, 14, 10), (64, 10, 1)])
def test_a_grid_takes_less_time(b: int, side: int, passes: int) -> None:
    # Blocks of 9 to 16, a position in each lane, need more positions: idle lanes cost as others do.
    positions = lierope.grid_positions((side, side))
    full = (2, 8, 0) if b <= 8 else (1, 1, 0)  # vectors
    q, k, packed = _inputs(b, positions, 2.3 * b, torch.float32, parts=full)
    raw = torch.ops.lierope
    # Rounds in turn, so that a busy machine slows both ways alike; the thread's own time.
    times: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(41):
        for shared, spent in times.items():
            _share(shared)
            start = time.thread_time()
            for _ in range(passes):  # of less than a millisecond, and so noisy, for b = 16
                raw.lie_rotate(q, k, packed, positions, 1)
                raw.lie_rotate_backward(q, k, q, k, packed, positions, 1, False)
            spent.append(time.thread_time() - start)
    # 36 % of the positions are multiples; measured: 0.81 (b = 8 and 16; 0.84 and 0.78 on AVX2) and
    # 0.68 (64). By rounds: medians of each way came to 0.96 on a busy machine.
    shares = (mine / other for mine, other in zip(times[True], times[False], strict=True))
    assert statistics.median(shares) < 0.9
