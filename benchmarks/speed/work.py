"""The least that a case must compute and move by our methods: operations and bytes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from benchmarks.speed.cases import BenchCase


@dataclass(frozen=True)
class Work:
    """Operations (a multiply-add is two) and bytes read and written once."""

    flops: float
    bytes: float


# Norm of the sum of LieRE's initial generators at positions in [0, 1]^2, by block size.
_START_NORM = {2: 3.0, 4: 8.4, 8: 18.0, 16: 37.0, 32: 67.0, 64: 129.0}


def work_of(case: BenchCase) -> Work | None:
    """The least work of a case; None where nothing useful can be said."""
    count = _COUNTS.get(case.work)
    return None if count is None else count(case)


def exponential_products(n: int, norm: float, backward: bool) -> float:
    """Products of n x n matrices for one exponential; of symmetric and skew ones half is counted.

    Degree 13 up to norm 3.72, then squarings; backward: a chain of degree 9 from 0.785, squared up
    to the rotation, doublings of 1.5 products, eight commutators. Sizes up to 4 have closed forms
    of a few products.
    """
    if n <= 4:
        return 2.0 if backward else 0.75
    forward = 3.0 + _squarings(norm / 3.72)
    if not backward:
        return forward
    doublings = _squarings(norm / 0.785)
    return forward + 2.5 + 2.5 * doublings + 8


def grid_products(n: int, norm: float, tokens: int, backward: bool) -> float:
    """The same for the cells of a square grid from its corner, on average.

    From blocks of 9 on, cells whose indices have a common divisor are powers of another cell's
    exponential: a product each, and backward a product and a conjugation. The other cells have no
    commutators of their own where the grid has 88 in common, from 54 moments of the cells, sums of
    half matrices.
    """
    alone = exponential_products(n, norm, backward)
    side = math.isqrt(tokens)
    if n < 9:
        return alone
    roots = sum(math.gcd(i, j) < 2 for i in range(side) for j in range(side)) / side**2
    if not backward:
        return roots * alone + (1 - roots)
    commutators = min(8 * roots, roots * 54 / 2 / n + 88 / side**2)
    return roots * (alone - 8) + commutators + (1 - roots) * 3.5


def _squarings(scale: float) -> int:
    return max(0, math.ceil(math.log2(scale)))


def _turning(case: BenchCase) -> Work:
    """Sines and cosines of one angle a pair of features, the same for the whole batch."""
    _, H, N, D = case.shape
    angles = H * N * D / 2
    return Work(20 * angles, 4 * angles)


def _expm_skew(case: BenchCase) -> Work:
    count, n, _ = case.shape
    products = exponential_products(n, case.norm or 1.0, case.backward)
    products += case.backward and n > 4  # R^T G
    # A in, R out; backward reads A and the gradient and writes one.
    matrices = 5 if case.backward else 2
    size = count * n * n * _bytes(case)
    return Work(count * products * 2 * n**3, matrices * size)


def _lie_rotate(case: BenchCase) -> Work:
    B, H, N, D = case.shape
    b = case.option("block_size")
    samples = B if case.option("per_sample") else 1
    norm = _START_NORM[b]
    matrices = samples * H * N * (D // b)
    if case.option("per_sample"):
        products = exponential_products(b, norm, backward=True)
    else:
        products = grid_products(b, norm, N, backward=True)
    exponentials = matrices * products * 2 * b**3
    features = 2 * B * H * N * D  # of q and k
    # R x forward; R^T of the gradient and one outer product a block backward.
    return Work(exponentials + 3 * features * 2 * b, 5 * features * _bytes(case))


def _lie_rotations(case: BenchCase) -> Work:
    H, G, M, b = case.shape
    matrices, backward = H * G * M, case.backward
    products = grid_products(b, _START_NORM[b], M, backward) + backward  # R^T G
    size = matrices * b * b * _bytes(case)
    return Work(matrices * products * 2 * b**3, (2 if backward else 1) * size)


def _rotate_blocks(case: BenchCase) -> Work:
    B, H, N, D = case.shape
    b, features = case.option("block_size"), 2 * B * H * N * D
    passes = 3 if case.backward else 1  # R x; R^T y_grad and y_grad x^T
    rotations = H * N * D * b * (3 if case.backward else 1)  # read twice, and a gradient written
    moved = (5 if case.backward else 2) * features + rotations
    return Work(passes * features * 2 * b, moved * _bytes(case))


def _rotate_pairs(case: BenchCase) -> Work:
    B, H, N, D = case.shape
    features = 2 * B * H * N * D
    passes = (5 if case.option("learned") else 4) if case.backward else 2
    turning = _turning(case)
    flops = 3 * features * (2 if case.backward else 1)
    return Work(flops + turning.flops, passes * features * _bytes(case) + turning.bytes)


def _cayley(case: BenchCase) -> Work:
    count, n, _ = case.shape
    products = 3 if case.backward else 1
    size = count * n * n * _bytes(case)
    return Work(count * products * 2 * n**3, (5 if case.backward else 2) * size)


def _cayley_rotate(case: BenchCase) -> Work:
    B, H, N, D = case.shape
    features, w = B * H * N * D, case.option("bandwidth")
    # Dense: P x forward; P^T of the gradient and one outer product backward. A band of w: two
    # triangular solves of 2 w operations a feature each, and the product with I - S.
    one = 2 * D if w is None else 8 * w
    passes = 3 if case.backward else 1
    return Work(passes * features * one, (5 if case.backward else 2) * features * _bytes(case))


def _circulant(case: BenchCase) -> Work:
    B, H, N, D = case.shape
    features, b = B * H * N * D, case.option("block_size")
    one = 5 * math.log2(b) + 3  # real FFT and inverse, 2.5 log2 b each, and the turn
    turning = _turning(case)
    flops = (3 if case.backward else 1) * features * one + turning.flops
    return Work(flops, (5 if case.backward else 2) * features * _bytes(case) + turning.bytes)


def _vit_step(case: BenchCase) -> Work | None:
    if "autocast" in dict(case.options):
        return None  # the peak is that of float32
    batch, side = case.shape
    D = {"tiny": 192, "small": 384, "base": 768}[case.option("model").split("_")[1]]
    N = (side // 16) ** 2 + 1
    layer = 24 * N * D**2 + 4 * N**2 * D  # projections and MLP; scores and their use
    return Work(3 * batch * 12 * layer, 0.0)


def _bytes(case: BenchCase) -> int:
    dtype: torch.dtype = getattr(torch, case.dtype)
    return dtype.itemsize


_COUNTS: dict[str, Callable[[BenchCase], Work | None]] = {
    "expm_skew": _expm_skew,
    "lie_rotate": _lie_rotate,
    "lie_rotations": _lie_rotations,
    "rotate_blocks": _rotate_blocks,
    "rotate_pairs": _rotate_pairs,
    "cayley": _cayley,
    "cayley_rotate": _cayley_rotate,
    "circulant": _circulant,
    "vit_step": _vit_step,
}
