"""Positions: grids in every unit, jitter, and depth lifted to a third coordinate."""

import math

import pytest
import torch

import lierope
from lierope.positions import MODES, lift_depth
from lierope.swap.grid import GridPositions


@pytest.mark.parametrize("ndim", range(1, 7))
@pytest.mark.parametrize("mode", MODES)
def test_grid_is_row_major_and_the_product_of_its_axes(mode: str, ndim: int) -> None:
    shape = (2, 3, 1, 2, 3, 2)[:ndim]
    grid = lierope.grid_positions(shape, mode)
    assert grid.shape == (math.prod(shape), ndim)
    assert grid.dtype == torch.float32
    cells = grid.view(*shape, ndim)
    for axis, size in enumerate(shape):
        line = lierope.grid_positions((size,), mode).squeeze(-1)
        along = cells.movedim(axis, 0)[..., axis]
        assert torch.equal(along, line.view(size, *[1] * (ndim - 1)).expand_as(along))


def test_units_of_each_mode() -> None:
    def line(mode: str, train: int | None = None) -> list[float]:
        grid = lierope.grid_positions((4,), mode, None if train is None else (train,))
        return [round(x, 6) for x in grid.flatten().tolist()]

    assert line("index") == [0, 1, 2, 3]
    assert line("centered") == [-1.5, -0.5, 0.5, 1.5]
    assert line("unit") == line("proportional") == [0, 0.333333, 0.666667, 1]
    assert line("unit", 2) == line("unit")


def test_proportional_range_grows_with_the_image_as_in_liere() -> None:
    grid = lierope.grid_positions((16,), "proportional", (8,), dtype=torch.float64)
    line = torch.linspace(0, 2, 16, dtype=torch.float64)
    torch.testing.assert_close(grid.flatten(), line, rtol=2**-52, atol=0)
    assert torch.isclose(grid[1], torch.tensor([2 / 15], dtype=torch.float64)).all()


def test_grid_type_and_one_cell() -> None:
    assert lierope.grid_positions((2, 2), dtype=torch.float64).dtype == torch.float64
    assert lierope.grid_positions((2, 2), device="meta").shape == (4, 2)
    for mode in MODES:
        assert lierope.grid_positions((1, 1), mode).tolist() == [[0, 0]]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (((2, 2), "indx"), ValueError, "mode must be one of .* got 'indx' .did you mean 'index'"),
        (((),), ValueError, r"grid_positions: shape must have one positive size .* got \(\)"),
        (((2, 0),), ValueError, r"shape must have one positive size for each axis, got \(2, 0\)"),
        (((2, 2), "unit", (0, 1)), ValueError, r"train_shape must have one positive size"),
        (((2, 2), "unit", (2,)), ValueError, r"train_shape must have as many axes as shape"),
        (((2, 2), "unit", None, None, torch.int64), TypeError, "dtype must be torch.float32 or"),
        (((2, 2), "unit", None, None, torch.bfloat16), TypeError, "got torch.bfloat16"),
    ],
)
def test_bad_grids(arguments: tuple[object, ...], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        lierope.grid_positions(*arguments)  # type: ignore[arg-type]


def test_jitter_without_numbers_changes_nothing_and_one_is_the_least() -> None:
    p = lierope.grid_positions((3, 3), "centered")
    assert torch.equal(lierope.jitter_positions(p), p)
    assert torch.equal(lierope.jitter_positions(p, subsample=1, shift=0, jitter=1, rescale=1), p)


def test_shift_moves_all_tokens_alike_and_each_sample_by_itself() -> None:
    p = lierope.grid_positions((3, 3), "index").expand(64, -1, -1)
    moved = lierope.jitter_positions(p, shift=0.5, generator=torch.Generator().manual_seed(0)) - p
    assert torch.allclose(moved, moved[:, :1].expand_as(moved), atol=1e-6)
    assert moved.abs().max() <= 0.5 + 1e-6
    assert moved[:, 0].std(0).min() > 0.2  # uniform in +-0.5: 0.29
    assert len(moved[:, 0, 0].unique()) > 32


def test_subsampling_spreads_a_grid_over_a_longer_range_in_order() -> None:
    grid = lierope.grid_positions((5, 4), "index", dtype=torch.float64)
    many = grid[torch.randperm(20, generator=torch.Generator().manual_seed(1))].expand(512, -1, -1)
    spread = lierope.jitter_positions(
        many, subsample=3.0, generator=torch.Generator().manual_seed(0)
    )
    for axis, size in enumerate((5, 4)):
        old, new = many[..., axis], spread[..., axis]
        lines = torch.stack([new[old == i].view(512, -1) for i in range(size)], 1)
        assert (lines == lines[..., :1]).all()  # a row stays a row
        line = lines[..., 0]
        assert (line.diff(dim=1) >= 1 - 1e-12).all()  # in order, and never closer
        assert line.min() >= 0
        assert line.max() <= 3 * (size - 1)  # a range three times as long
        index = torch.arange(size, dtype=torch.float64)
        mean = index + 2 * (size - 1) * (index + 1) / (size + 1)
        assert (line.mean(0) - mean).abs().max() < 0.3
        assert (line.std(0) > 0.3).all()
    assert not torch.equal(spread[0], spread[1])
    alone = lierope.jitter_positions(torch.ones(1, 2), subsample=4.0)
    assert torch.equal(alone, torch.ones(1, 2))
    assert lierope.jitter_positions(torch.ones(0, 2), subsample=4.0).shape == (0, 2)


def test_subsampling_repeats_with_its_generator_and_passes_gradients() -> None:
    def spread(p: torch.Tensor) -> torch.Tensor:
        generator = torch.Generator().manual_seed(7)
        return lierope.jitter_positions(p, subsample=2.0, generator=generator)

    p = torch.rand(2, 5, 3, dtype=torch.float64, requires_grad=True)
    assert torch.equal(spread(p), spread(p))
    assert torch.autograd.gradcheck(spread, p)
    compiled = torch.compile(
        lambda p: lierope.jitter_positions(p, subsample=2.0), fullgraph=True, backend="aot_eager"
    )
    assert (compiled(p.detach()).sort(-2).values.diff(dim=-2) > 0).all()


def test_a_swapped_models_grid_subsamples_in_training_alone() -> None:
    grid = GridPositions("index", jitter={"subsample": 2.0})
    words = {"device": torch.device("cpu"), "dtype": torch.float32}
    assert torch.equal(grid((3, 3), training=False, **words), grid_of((3, 3)))
    assert not torch.equal(grid((3, 3), training=True, **words), grid_of((3, 3)))


def grid_of(shape: tuple[int, ...]) -> torch.Tensor:
    return lierope.grid_positions(shape, "index")


def test_scalings_are_log_uniform_per_axis_and_common() -> None:
    ones = torch.ones(4096, 1, 2, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    each = lierope.jitter_positions(ones, jitter=2.0, generator=generator).log().squeeze(1)
    both = lierope.jitter_positions(ones, rescale=2.0, generator=generator).log().squeeze(1)
    for draw in (each, both):
        assert draw.abs().max() <= math.log(2)
        assert draw.mean().abs() < 0.03
        assert abs(draw.std().item() - math.log(2) / math.sqrt(3)) < 0.02
    assert not torch.equal(each[:, 0], each[:, 1])
    assert torch.equal(both[:, 0], both[:, 1])


def test_jitter_repeats_with_its_generator_and_passes_gradients() -> None:
    p = torch.rand(5, 3, requires_grad=True)
    words = {"shift": 0.1, "jitter": 1.2, "rescale": 1.5}
    first, second = (
        lierope.jitter_positions(p, **words, generator=torch.Generator().manual_seed(7))
        for _ in range(2)
    )
    assert torch.equal(first, second)
    (gradient,) = torch.autograd.grad(first.sum(), p)
    assert (gradient > 0).all()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"subsample": 0.9}, "subsample must be a number of at least 1.0, got 0.9"),
        ({"shift": -0.1}, "jitter_positions: shift must be a number of at least 0.0, got -0.1"),
        ({"jitter": 0.5}, "jitter must be a number of at least 1.0, got 0.5"),
        ({"rescale": math.nan}, "rescale must be a number of at least 1.0, got nan"),
    ],
)
def test_bad_jitter(words: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        lierope.jitter_positions(torch.zeros(2, 2), **words)  # type: ignore[arg-type]


def test_bad_positions_to_jitter() -> None:
    with pytest.raises(ValueError, match=r"positions must have shape \(M, C\) or \(B, M, C\)"):
        lierope.jitter_positions(torch.zeros(2))
    with pytest.raises(TypeError, match=r"positions must be a floating type, got torch.int64"):
        lierope.jitter_positions(torch.zeros(2, 2, dtype=torch.long))


def test_depth_is_the_mean_of_each_patch() -> None:
    depth = torch.arange(2 * 4 * 6, dtype=torch.float32).view(2, 4, 6)
    grid = lierope.grid_positions((2, 3), "index")
    lifted = lift_depth(depth, grid, 2)
    assert lifted.shape == (2, 6, 3)
    assert torch.equal(lifted[1, :, :2], grid)
    expected = torch.nn.functional.avg_pool2d(depth.unsqueeze(1), 2).flatten(1)
    assert torch.allclose(lifted[..., 2], expected)
    assert torch.equal(lift_depth(depth.unsqueeze(1), grid, (2, 2)), lifted)
    own = grid.expand(2, -1, -1)
    assert torch.equal(lift_depth(depth, own, 2, 2.0, 1.0)[..., 2], 2 * expected + 1)


def test_learned_lift_starts_as_depth_learns_and_stays_float32() -> None:
    lift = lierope.LiftDepth((2, 3)).bfloat16()
    assert {p.dtype for p in lift.parameters()} == {torch.float32}
    depth, grid = torch.rand(2, 4, 6), lierope.grid_positions((2, 2), "index")
    lifted = lift(depth, grid)
    assert torch.equal(lifted, lift_depth(depth, grid, (2, 3)))
    lifted.sum().backward()
    assert lift.weight.grad is not None
    assert torch.isclose(lift.weight.grad, depth.mean() * 8)
    assert lift.bias.grad == 8
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(lift(depth, grid), lifted)
    on_meta = lierope.LiftDepth(2, device="meta").to_empty(device="cpu")
    on_meta.reset_parameters()
    assert (on_meta.weight.item(), on_meta.bias.item()) == (1, 0)


@pytest.mark.parametrize(
    ("depth", "positions", "patch", "message"),
    [
        ((2, 3, 4, 4), (4, 2), 2, r"depth must have shape \(B, H, W\) or \(B, 1, H, W\), got"),
        ((2, 4, 5), (4, 2), 2, "patch_size must divide the depth's 4 x 5 pixels, got 2 x 2"),
        ((2, 4, 4), (3, 2), 2, r"positions must have shape \(4, C\) or \(2, 4, C\), got \(3, 2\)"),
        ((2, 4, 4), (3, 4, 2), 2, r"positions must have shape \(4, C\) or \(2, 4, C\), got"),
    ],
)
def test_bad_depth(
    depth: tuple[int, ...], positions: tuple[int, ...], patch: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        lift_depth(torch.zeros(depth), torch.zeros(positions), patch)
