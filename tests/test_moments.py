"""One series for all positions of a block, from their moments: the same gradients, for less."""

import statistics
import time
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

import lierope
from lierope import ops, reference
from process import set_variable

pytestmark = pytest.mark.skipif(
    lierope.build_info().instruction_set == "emulated", reason="CUDA has a series for each position"
)
EPS = torch.finfo(torch.float32).eps
# Sides from 17 on: floats up to 16 may have a position in each lane, where moments do not pay.


def _set_mode(mode: str) -> None:
    set_variable("LIEROPE_MOMENTS", mode)


@pytest.fixture(autouse=True)
def _by_cost() -> Iterator[None]:
    yield
    _set_mode("cost")


def _cloud(points: int, dims: int) -> Tensor:
    generator = torch.Generator().manual_seed(points)
    return torch.rand(points, dims, generator=generator, dtype=torch.float64)


def _generators(b: int, positions: Tensor, norm: float, heads: int = 1) -> Tensor:
    """Packed generators of |A(p)| up to about norm."""
    generator = torch.Generator().manual_seed(b)
    dims, m = positions.shape[-1], b * (b - 1) // 2
    packed = torch.randn(dims, heads, 1, m, generator=generator, dtype=torch.float64)
    size = torch.linalg.matrix_norm(_skew(packed, b), 2)[..., None]
    scaled: Tensor = packed * norm / size / positions.norm(dim=-1).max()
    return scaled


def _skew(packed: Tensor, b: int) -> Tensor:
    A = packed.new_zeros(*packed.shape[:-1], b, b)
    row, column = torch.triu_indices(b, b, 1)
    A[..., row, column] = packed
    return A - A.mT


def _features(packed: Tensor, b: int, points: int, batch: int = 6) -> tuple[Tensor, Tensor]:
    """Queries and keys; with more rows than are ever turned without their rotation."""
    generator = torch.Generator().manual_seed(b)
    shape = (2, batch, packed.shape[1], points, b)
    q, k = torch.randn(shape, generator=generator, dtype=torch.float64).to(packed.dtype)
    return q, k


def _gradients(
    packed: Tensor, positions: Tensor, exact: bool = False, batch: int = 6
) -> tuple[Tensor, Tensor]:
    """Gradients of generators, by lie_rotate and by lie_rotations."""
    b = round((2 * packed.shape[-1]) ** 0.5 + 0.5)
    q, k = _features(packed, b, positions.shape[-2], batch)
    if exact:
        packed, positions, q, k = (x.double() for x in (packed, positions, q, k))
    packed = packed.detach().clone().requires_grad_()
    source = reference if exact else ops
    results: list[Tensor] = []
    for outputs in (
        source.lie_rotate(q, k, packed, positions),
        (source.lie_rotations(packed, positions),),
    ):
        weights = [torch.arange(y.numel(), dtype=y.dtype).view_as(y).cos() for y in outputs]
        results += torch.autograd.grad(outputs, packed, weights)
    return results[0], results[1]


def _both(packed: Tensor, positions: Tensor, batch: int = 6) -> Iterator[tuple[Tensor, Tensor]]:
    """For each operator the gradient from moments and that of a series for each position."""
    found = []
    for mode in ("always", "never"):
        _set_mode(mode)
        found.append(_gradients(packed, positions, batch=batch))
    return zip(*found, strict=True)


def _error(got: Tensor, exact: Tensor) -> float:
    return float((got.double() - exact).abs().max() / (exact.abs().max() or 1.0))


def _assert_as_exact(packed: Tensor, positions: Tensor, batch: int = 6) -> None:
    exact = _gradients(packed, positions, exact=True, batch=batch)
    roundings = 4 if packed.dtype == torch.float32 else 64  # the reference itself errs in float64
    for (moments, series), e in zip(_both(packed, positions, batch), exact, strict=True):
        limit = 2 * _error(series, e) + roundings * torch.finfo(packed.dtype).eps
        assert _error(moments, e) <= limit


@pytest.mark.parametrize("norm", [0.0, 1e-3, 0.5, 9.0, 60.0, 300.0])
@pytest.mark.parametrize("b", [17, 24, 33, 64])
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_moments_are_as_exact_as_series(dims: int, b: int, norm: float) -> None:
    positions = _cloud(40, dims)
    packed = _generators(b, positions, norm)
    _assert_as_exact(packed.float(), positions.float())


@pytest.mark.parametrize("norm", [0.0, 2.0, 100.0])
@pytest.mark.parametrize(("dims", "b"), [(1, 64), (2, 17), (2, 33), (3, 24)])
def test_doubles_are_as_exact(dims: int, b: int, norm: float) -> None:
    positions = _cloud(36, dims)
    _assert_as_exact(_generators(b, positions, norm), positions)


POSITIONS = {
    "grid": lambda: lierope.grid_positions((9, 7)).double(),
    "pixels": lambda: lierope.grid_positions((6, 6), "index").double() * 1e4,
    "centered": lambda: lierope.grid_positions((8, 8), "centered").double(),
    "one": lambda: _cloud(1, 2),
    "samples": lambda: torch.stack([_cloud(30, 2), _cloud(30, 2) * 5 - 2, _cloud(30, 2) * 0]),
    "many": lambda: _cloud(700, 2),  # several chunks
    "axis": lambda: _cloud(40, 2) * torch.tensor([1.0, 0.0]),
    "spread": lambda: _cloud(40, 2) * torch.logspace(-12, 0, 40, dtype=torch.float64)[:, None],
}


@pytest.mark.parametrize("norm", [0.5, 40.0])
@pytest.mark.parametrize("name", POSITIONS)
def test_positions_of_all_kinds(name: str, norm: float) -> None:
    positions = POSITIONS[name]()
    batch = positions.shape[0] if positions.dim() == 3 else 6
    packed = _generators(24, positions, norm, heads=2)
    _assert_as_exact(packed.float(), positions.float(), batch)


@pytest.mark.parametrize("difference", [0.0, 1e-4, 1e-2])
@pytest.mark.parametrize("norm", [5.0, 200.0])
def test_generators_that_cancel(norm: float, difference: float) -> None:
    # Words of A_x and A_y are then far larger than powers of A_x p_x + A_y p_y.
    positions = 1 + _cloud(48, 2) * difference
    packed = _generators(32, positions, norm)
    packed[1] = -packed[0] + difference * packed[1]
    _assert_as_exact(packed.float(), positions.float())


@pytest.mark.parametrize("unit", [-120, -60, -1, 13, 60, 110])
def test_units_of_positions_do_not_matter(unit: int) -> None:
    positions = _cloud(40, 2).float()
    packed = _generators(24, positions.double(), 3.0).float()
    _set_mode("always")
    scale = 2.0**unit
    base = _gradients(packed, positions)
    for scaled, expected in zip(_gradients(packed / scale, positions * scale), base, strict=True):
        assert torch.equal(scaled, expected * scale)


@pytest.mark.parametrize("size", [1e-42, 1e-30, 1e-6, 0.0])
@pytest.mark.parametrize("which", [0, 1])
def test_one_generator_that_is_next_to_nothing(which: int, size: float) -> None:
    positions = _cloud(40, 2).float()
    packed = _generators(24, positions.double(), 3.0).float()
    packed[which] *= size
    _assert_as_exact(packed, positions)


@pytest.mark.parametrize("size", [1e-42, 1e-38, 1e-25, 1e30, 3e38])
def test_one_axis_of_extreme_coordinates(size: float) -> None:
    positions = (_cloud(40, 2) * torch.tensor([1.0, size])).float()
    packed = _generators(24, _cloud(40, 2), 3.0).float()
    packed[1] = packed[1] / size if size > 1 else packed[1]
    for moments, series in _both(packed, positions):
        for m, s in zip(moments, series, strict=True):
            assert m.isfinite().all() == s.isfinite().all()
            if s.isfinite().all():
                scale = float(s.abs().max())
                assert (m.double() - s.double()).abs().max() <= 8 * EPS * scale + 1e-43


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_bad_generator_spoils_its_block_alone(bad: float) -> None:
    positions = _cloud(40, 2).float()
    packed = _generators(24, positions.double(), 3.0, heads=3).float()
    packed[1, 1, 0, 5] = bad
    for moments, series in _both(packed, positions):
        assert moments[:, 1].isnan().all()
        assert torch.equal(moments.isnan(), series.isnan())
        assert moments[:, [0, 2]].isfinite().all()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e38])
def test_a_bad_position_gives_nan(bad: float) -> None:
    positions = _cloud(40, 2).float()
    packed = _generators(24, positions.double(), 300.0).float()
    positions[7, 1] = bad
    for moments, series in _both(packed, positions):
        assert series.isnan().all()
        assert moments.isnan().all()


def test_a_bad_token_gives_nan() -> None:
    positions = _cloud(40, 2).float()
    packed = _generators(24, positions.double(), 3.0, heads=2).float().requires_grad_()
    q, k = _features(packed, 24, 40)
    q[0, 0, 3, 2] = float("nan")
    _set_mode("always")
    outputs = ops.lie_rotate(q, k, packed, positions)
    (gradient,) = torch.autograd.grad([y.sum() for y in outputs], packed)
    assert gradient[:, 0].isnan().any()
    assert gradient[:, 1].isfinite().all()


@pytest.mark.parametrize(("points", "heads"), [(40, 1), (700, 1), (90, 5), (40, 40)])
def test_threads_do_not_matter(points: int, heads: int) -> None:
    positions = _cloud(points, 2).float()
    packed = _generators(24, positions.double(), 9.0, heads).float()
    _set_mode("always")
    one = _gradients(packed, positions)
    try:
        torch.set_num_threads(2)
        two = _gradients(packed, positions)
    finally:
        torch.set_num_threads(1)
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize(
    ("dims", "b", "points", "expected"),
    [
        (1, 17, 40, True),
        (1, 64, 40, True),
        (2, 24, 196, True),
        (2, 64, 196, True),
        (2, 64, 8, False),  # the commutators of the common series
        (3, 17, 1000, False),  # more moments than the series has products
        (3, 64, 500, True),
        (6, 32, 100, False),
        (40, 17, 20, False),
    ],
)
def test_moments_where_they_cost_less(dims: int, b: int, points: int, expected: bool) -> None:
    # By another rounding, since nothing else tells the ways apart.
    positions = _cloud(points, dims).float()
    packed = _generators(b, positions.double(), 2.0).float()
    _set_mode("cost")
    chosen = _gradients(packed, positions, batch=5)
    _set_mode("never")
    series = _gradients(packed, positions, batch=5)
    assert any(not torch.equal(a, s) for a, s in zip(chosen, series, strict=True)) == expected


def test_moments_beyond_all_memory_are_not_taken() -> None:
    positions = _cloud(20, 40).float()  # two billion monomials
    packed = _generators(17, positions.double(), 2.0).float()
    assert all(torch.equal(m, s) for m, s in _both(packed, positions))


def test_positions_with_gradients_have_a_series_each() -> None:
    positions = _cloud(100, 2)
    packed = _generators(24, positions, 5.0)
    q, k = _features(packed, 24, 100)
    results = []
    for mode in ("always", "never"):
        _set_mode(mode)
        leaves = [x.clone().requires_grad_() for x in (packed, positions)]
        outputs = ops.lie_rotate(q, k, *leaves)
        results.append(torch.autograd.grad([y.cos().sum() for y in outputs], leaves))
    assert all(torch.equal(a, s) for a, s in zip(*results, strict=True))


def test_nothing_gives_zeros() -> None:
    packed = _generators(24, _cloud(5, 2), 5.0).float().requires_grad_()
    _set_mode("always")
    for points, batch in ((0, 6), (5, 0)):
        q, k = _features(packed, 24, points, batch)
        outputs = ops.lie_rotate(q, k, packed, _cloud(points, 2).float())
        (gradient,) = torch.autograd.grad([y.sum() for y in outputs], packed)
        assert gradient.count_nonzero() == 0


def test_beside_rows_that_are_turned_without_a_rotation() -> None:
    # Of 4 rows, those of small norm: their gradient comes without a series.
    positions = _cloud(60, 2)
    packed = _generators(48, positions, 30.0)
    _assert_as_exact(packed.float(), positions.float(), batch=2)


@pytest.mark.parametrize(("b", "most"), [(64, 0.92), (24, 0.95)])
def test_a_grid_takes_less_time(b: int, most: float) -> None:
    positions = lierope.grid_positions((14, 14))
    packed = _generators(b, positions.double(), 2.0 * b).float()
    q, k = _features(packed, b, 196, batch=8)
    # Rounds in turn, so that a busy machine slows both ways alike; the thread's own time.
    times: dict[str, list[float]] = {"cost": [], "never": []}
    for _ in range(9):
        for mode, spent in times.items():
            _set_mode(mode)
            start = time.thread_time()
            torch.ops.lierope.lie_rotate_backward(q, k, q, k, packed, positions, 0, False)
            spent.append(time.thread_time() - start)
    # Measured: 0.79 (b = 64) and 0.8 (24); less where norms are smaller.
    assert statistics.median(times["cost"]) < most * statistics.median(times["never"])
