"""Operators at many sizes: wide and narrow accesses, tiles and their rests, slices of batches."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from cases import compute, moved, normal, outputs
from lierope import build_info, ops, reference

DTYPES = [torch.float64, torch.float32, torch.bfloat16]


def _agree(
    op: str, dtype: torch.dtype, inputs: tuple[Tensor, ...], device: str, **options: Any
) -> None:
    """Values and gradients are those of the reference, within a few roundings.

    Where more are lost (a position's gradient is a sum of thousands of products that cancel), no
    more than twice what the reference loses in the same type.
    """

    def run(function: Callable[..., Any], kind: Any, device: str) -> list[Tensor]:
        placed = inputs if device == "cpu" else [moved(x, device) for x in inputs]
        leaves = [x.detach().to(kind(x.dtype)).requires_grad_() for x in placed]
        results = outputs(function(*leaves, **options))
        # Small: torch.matrix_exp's backward loses digits to gradients larger than the matrix.
        grads = [normal(*y.shape, dtype=dtype, seed=8).to(y) / 1024 for y in results]
        return [x.cpu() for x in (*results, *torch.autograd.grad(results, leaves, grads))]

    got = run(getattr(ops, op), lambda t: t, device)
    exact = run(getattr(reference, op), lambda t: torch.float64, "cpu")
    eps = torch.finfo(dtype).eps * (64 if dtype == torch.float64 else 8)
    for index, (x, e) in enumerate(zip(got, exact, strict=True)):
        assert not x.isnan().any()
        if e.numel() > 0:
            error = (x.double() - e).abs().max()
            if error > eps * e.abs().max():
                plain = run(getattr(reference, op), lambda t: t, "cpu")[index]
                assert error <= 2 * (plain.double() - e).abs().max(), f"{error:.1e}"


def _tokens(dtype: torch.dtype, B: int, H: int, Hk: int, N: int, D: int) -> tuple[Tensor, Tensor]:
    packed = normal(B, N, H + 2 * Hk, D, dtype=dtype, seed=1).transpose(1, 2)
    return packed[:, :H], packed[:, H : H + Hk]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("interleaved", [True, False], ids=["interleaved", "half"])
@pytest.mark.parametrize(
    ("B", "H", "Hk", "Ha", "N", "D", "A", "prefix", "per_sample"),
    [
        (9, 2, 2, 2, 5, 32, 16, 1, False),
        (1, 4, 2, 2, 19, 64, 24, 0, False),
        (3, 2, 2, 1, 4, 48, 16, 2, True),
        (2, 2, 2, 2, 7, 9, 4, 1, False),
        (5, 3, 0, 3, 3, 13, 3, 0, True),
        (33, 1, 1, 1, 2, 16, 8, 0, False),
    ],
)
def test_pairs(
    B: int, H: int, Hk: int, Ha: int, N: int, D: int, A: int, prefix: int, per_sample: bool,
    interleaved: bool, dtype: torch.dtype, device: str,
) -> None:  # fmt: skip
    sample = (B,) if per_sample else ()
    angles = normal(*sample, Ha, N - prefix, A, dtype=compute(dtype), seed=2) * 5
    options = {"num_prefix_tokens": prefix, "interleaved": interleaved}
    _agree("rotate_pairs", dtype, (*_tokens(dtype, B, H, Hk, N, D), angles), device, **options)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("b", [1, 2, 3, 4, 7, 8, 16, 17, 32, 40, 64])
@pytest.mark.parametrize(
    ("B", "H", "Hk", "Ha", "N", "prefix", "per_sample", "rest"),
    [(9, 2, 2, 1, 3, 1, False, 0), (3, 2, 1, 1, 2, 0, True, 3), (35, 1, 0, 1, 2, 1, False, 8)],
    ids=["batch", "sample", "large-batch"],
)
def test_blocks(
    B: int, H: int, Hk: int, Ha: int, N: int, prefix: int, per_sample: bool, rest: int, b: int,
    dtype: torch.dtype, device: str,
) -> None:  # fmt: skip
    sample, blocks = (B,) if per_sample else (), max(1, 16 // b)
    rotations = normal(*sample, Ha, N - prefix, blocks, b, b, dtype=compute(dtype), seed=3)
    tokens = _tokens(dtype, B, H, Hk, N, blocks * b + rest)
    _agree("rotate_blocks", dtype, (*tokens, rotations), device, num_prefix_tokens=prefix)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("b", [3, 4, 5, 6, 8, 9, 12, 16, 20, 27, 32, 64, 90, 256, 375, 600, 1024])
@pytest.mark.parametrize(
    ("B", "H", "Hk", "Ha", "N", "prefix", "per_sample", "rest"),
    [(5, 2, 2, 1, 3, 1, False, 0), (2, 2, 1, 1, 2, 0, True, 3), (17, 1, 0, 1, 2, 1, False, 8)],
    ids=["batch", "sample", "large-batch"],
)
def test_circulants(
    B: int, H: int, Hk: int, Ha: int, N: int, prefix: int, per_sample: bool, rest: int, b: int,
    dtype: torch.dtype, device: str,
) -> None:  # fmt: skip
    sample, blocks = (B,) if per_sample else (), max(1, 48 // b)
    angles = normal(*sample, Ha, N - prefix, blocks * ((b - 1) // 2), dtype=compute(dtype), seed=4)
    tokens = _tokens(dtype, B, H, Hk, N, blocks * b + rest)
    options = {"block_size": b, "num_prefix_tokens": prefix}
    _agree("rotate_circulant", dtype, (*tokens, 3 * angles), device, **options)


@pytest.mark.parametrize(
    ("op", "shape", "options"),
    [
        ("rotate_pairs", (2, 5, 0), {}),
        ("rotate_blocks", (2, 5, 0, 4, 4), {}),
        ("rotate_circulant", (2, 5, 0), {"block_size": 16}),
    ],
)
def test_nothing_to_rotate_is_a_copy(
    op: str, shape: tuple[int, ...], options: dict[str, int], device: str
) -> None:
    tokens = [moved(x, device) for x in _tokens(torch.float32, 3, 2, 2, 5, 9)]
    leaves = [x.detach().requires_grad_() for x in tokens]
    rotated = getattr(ops, op)(*leaves, torch.ones(shape, device=device), **options)
    grads = [torch.rand_like(x) for x in tokens]
    assert all(torch.equal(y, x) for y, x in zip(rotated, tokens, strict=True))
    found = torch.autograd.grad(rotated, leaves, grads)
    assert all(torch.equal(g, e) for g, e in zip(found, grads, strict=True))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("b", [5, 12, 24, 25, 40, 64, 72, 96, 128])
@pytest.mark.parametrize(
    ("B", "H", "Hk", "Ha", "N", "prefix", "per_sample"),
    [(3, 2, 2, 1, 2, 1, False), (2, 2, 1, 1, 2, 0, True), (67, 1, 1, 1, 1, 0, False)],
    ids=["batch", "sample", "large-batch"],
)
def test_lie_blocks(
    B: int, H: int, Hk: int, Ha: int, N: int, prefix: int, per_sample: bool, b: int,
    dtype: torch.dtype, device: str,
) -> None:  # fmt: skip
    sample = (B,) if per_sample else ()
    generators = normal(2, Ha, 1, b * (b - 1) // 2, dtype=compute(dtype), seed=7) / b**0.5
    positions = normal(*sample, N - prefix, 2, dtype=compute(dtype), seed=9)
    tokens = _tokens(dtype, B, H, Hk, N, b + 1)
    inputs = (*tokens, generators, positions / 2)
    _agree("lie_rotate", dtype, inputs, device, num_prefix_tokens=prefix)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("points", [1, 15, 16, 17, 40])
@pytest.mark.parametrize("b", [9, 10, 12, 15, 16])
@pytest.mark.parametrize("per_sample", [False, True], ids=["shared", "sample"])
def test_a_position_in_each_lane(
    per_sample: bool, b: int, points: int, dtype: torch.dtype, device: str
) -> None:
    """Whole groups of lanes and rests, of several samples, more rows than are turned at once."""
    B, prefix, Ha, G = (2, 0, 2, 2) if per_sample else (11, 2, 1, 2)
    sample = (B,) if per_sample else ()
    generators = normal(2, Ha, G, b * (b - 1) // 2, dtype=compute(dtype), seed=7) / b**0.5
    positions = normal(*sample, points, 2, dtype=compute(dtype), seed=9) / 2
    tokens = _tokens(dtype, B, 2, Ha, points + prefix, G * b + 3)
    _agree("lie_rotate", dtype, (*tokens, generators, positions), device, num_prefix_tokens=prefix)
    if dtype != torch.bfloat16:
        _agree("lie_rotations", dtype, (generators, positions), device)


@pytest.mark.parametrize("dtype", DTYPES[:2], ids=str)
@pytest.mark.parametrize("b", [4, 8, 24, 40, 72, 128])
def test_lie_blocks_do_not_turn_a_row_along_itself(b: int, dtype: torch.dtype, device: str) -> None:
    """Where y and its gradient have one and the same feature, no generator has a gradient.

    CUDA's sums are skew to the bit, the CPU's within roundings.
    """
    features = torch.tensor([0, 3, b - 2, b - 1])
    only = torch.eye(b, dtype=dtype)[features].expand(3, 1, 4, b)
    y, grad = (only * normal(3, 1, 4, 1, dtype=dtype, seed=seed) for seed in (1, 2))
    generators = normal(2, 1, 1, b * (b - 1) // 2, dtype=dtype, seed=7) / b**0.5
    inputs = (grad, grad[:, :0], y, y[:, :0], generators, normal(4, 2, dtype=dtype, seed=9))
    backward = torch.ops.lierope.lie_rotate_backward
    results = backward(*(moved(x.contiguous(), device) for x in inputs), 0, True)[2:]
    exact = device == "cuda" or build_info().instruction_set == "emulated"
    bound = 0.0 if exact else 8 * torch.finfo(dtype).eps
    assert max(float(x.abs().max()) for x in results) <= bound


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("b", [3645, 4096])
def test_largest_circulants(b: int, dtype: torch.dtype, device: str) -> None:
    angles = normal(1, 1, (b - 1) // 2, dtype=compute(dtype), seed=4)
    _agree(
        "rotate_circulant", dtype, (*_tokens(dtype, 2, 1, 0, 1, b), angles), device, block_size=b
    )


@pytest.mark.parametrize("dtype", DTYPES[:2], ids=str)
@pytest.mark.parametrize(("count", "n"), [(70, 1), (70, 2), (9, 5), (3, 16), (2, 33), (1, 130)])
def test_cayley(count: int, n: int, dtype: torch.dtype, device: str) -> None:
    _agree("cayley", dtype, (normal(count, n, n, dtype=dtype, seed=5) / n**0.5,), device)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("B", "H", "Hs", "N", "n", "bandwidth"),
    [
        (2, 4, 4, 5, 16, None),
        (1, 2, 2, 70, 9, 3),
        (3, 1, 1, 200, 8, 1),
        (1, 1, 1, 3, 160, 0),
        (2, 2, 1, 3, 264, 2),
    ],
)
def test_cayley_of_tokens(
    B: int, H: int, Hs: int, N: int, n: int, bandwidth: int | None, dtype: torch.dtype, device: str
) -> None:
    s = normal(Hs, n, n, dtype=compute(dtype), seed=6) / n**0.5
    x = _tokens(dtype, B, H, 0, N, n)[0]
    _agree("cayley_rotate", dtype, (x, s), device, bandwidth=bandwidth)


@pytest.mark.parametrize("dtype", DTYPES[:2], ids=str)
@pytest.mark.parametrize("b", [3, 5, 7, 9, 12, 16, 17, 24, 32, 33, 48, 64, 100, 128])
@pytest.mark.parametrize("per_sample", [False, True], ids=["shared", "sample"])
def test_rotations_from_generators(
    b: int, per_sample: bool, dtype: torch.dtype, device: str
) -> None:
    if b > 33 and dtype == torch.float64:
        pytest.skip("plain torch's float64, the truth here, is itself a hundred roundings off")
    sample = (3,) if per_sample else ()
    generators = normal(2, 2, 1, b * (b - 1) // 2, dtype=dtype, seed=9) / b**0.5
    points = normal(*sample, 5, 2, dtype=dtype, seed=10)
    _agree("lie_rotations", dtype, (generators, points), device)


@pytest.mark.parametrize("b", [129, 144])
def test_rotations_wider_than_a_kernel_takes(b: int, device: str) -> None:
    """Composed of torch's operations."""
    generators = normal(2, 1, 1, b * (b - 1) // 2, dtype=torch.float32, seed=9) / b**0.5
    points = normal(3, 2, dtype=torch.float32, seed=10)
    _agree("lie_rotations", torch.float32, (generators, points), device)
