"""Zeros of both signs, denormals, the largest numbers, infinities and NaN, operator by operator."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from cases import CASES, OpCase, normal, outputs
from lierope import ops

F32, F64 = torch.float32, torch.float64
BF16, F16 = torch.bfloat16, torch.float16
TINY = {F32: 1e-41, F64: 4.9e-322, BF16: 9.2e-41, F16: 6e-8}
TURNS = [c for c in CASES if not c.name.startswith(("expm_skew", "cayley-", "lie_rotations"))]

# Zeros and denormals.


@pytest.mark.parametrize("dtype", TINY, ids=str)
@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_no_turn_keeps_every_bit(dtype: torch.dtype, zero: float) -> None:
    """Angles of plus and minus zero: denormals, both zeros and the largest numbers come through."""
    largest = torch.finfo(dtype).max
    values = [0.0, -0.0, TINY[dtype], -TINY[dtype], 1.0, -largest, largest, torch.finfo(dtype).tiny]
    q = torch.tensor(values, dtype=dtype).repeat(2, 3, 19, 1)
    own = F64 if dtype == F64 else F32
    turned = {
        "rotate_pairs": ops.rotate_pairs(q, q, torch.full((3, 19, 4), zero, dtype=own)),
        "lie_rotate": ops.lie_rotate(
            q, q, normal(2, 3, 2, 6, dtype=own), torch.full((19, 2), zero, dtype=own)
        ),
    }
    for op, results in turned.items():
        for y in results:
            # x * 1 + y * 0 gives a zero its sign by the sum's rule: zeros are compared as numbers.
            assert torch.equal(y, q), op
    if dtype != torch.float16:
        assert (q[..., 2] != 0).all()


@pytest.mark.parametrize("n", [2, 3, 4, 5, 8, 16, 33])
@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
def test_the_exponential_near_zero(n: int, dtype: torch.dtype) -> None:
    zeros = torch.zeros(19, n, n, dtype=dtype)
    for zero in (zeros, -zeros):
        assert torch.equal(ops.expm_skew(zero), torch.eye(n, dtype=dtype).expand(19, n, n))
        assert torch.equal(ops.cayley(zero), torch.eye(n, dtype=dtype).expand(19, n, n))
    tiny = torch.finfo(dtype).tiny
    for size in (tiny * 2**-10, tiny, 1e-30):
        upper = torch.full((19, n, n), size, dtype=dtype).triu(1)
        expected = torch.eye(n, dtype=dtype) + upper - upper.mT
        torch.testing.assert_close(ops.expm_skew(upper), expected, rtol=1e-5, atol=tiny * 2**-20)


def _still(zero: float) -> dict[str, tuple[Callable[[Tensor], Any], bool]]:
    """What turns by an angle of zero, and whether it keeps every bit: an FFT and back rounds."""
    points, none = normal(19, 2, dtype=F32), torch.full((19, 2), zero)
    modes, coefficients = torch.full((3, 19, 3), zero), normal(2, 3, 1, 8, dtype=F32)
    s = torch.full((3, 8, 8), zero)
    eye = torch.where(torch.eye(4) > 0, 1.0, zero).expand(3, 19, 2, 4, 4)
    return {
        "rotate_blocks": (lambda x: ops.rotate_blocks(x, x, eye), True),
        "rotate_circulant": (lambda x: ops.rotate_circulant(x, x, modes, 8), False),
        "circulant_rotate coefficients": (
            lambda x: ops.circulant_rotate(x, torch.full_like(coefficients, zero), points),
            False,
        ),
        "circulant_rotate positions": (
            lambda x: ops.circulant_rotate(x, coefficients, none),
            False,
        ),
        "cayley_rotate": (lambda x: ops.cayley_rotate(x, s), True),
        "cayley_rotate band": (lambda x: ops.cayley_rotate(x, s, bandwidth=1), True),
    }


@pytest.mark.parametrize("zero", [0.0, -0.0])
@pytest.mark.parametrize("name", _still(0.0))
def test_no_turn_by_any_operator_moves_a_token(name: str, zero: float) -> None:
    function, exactly = _still(zero)[name]
    x = normal(2, 3, 19, 8, dtype=F32)
    x[:, :, 3] = 0
    for y in outputs(function(x)):
        if exactly:
            assert torch.equal(y, x)
        torch.testing.assert_close(y, x, rtol=0, atol=1e-6)


@pytest.mark.parametrize("zero", [0.0, -0.0])
@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
def test_rotations_of_nothing_are_the_identity(dtype: torch.dtype, zero: float) -> None:
    for b in (2, 3, 4, 8, 16):
        generators = normal(2, 3, 1, b * (b - 1) // 2, dtype=dtype)
        points = normal(19, 2, dtype=dtype)
        eye = torch.eye(b, dtype=dtype).expand(3, 19, 1, b, b)
        assert torch.equal(ops.lie_rotations(torch.full_like(generators, zero), points), eye)
        assert torch.equal(ops.lie_rotations(generators, torch.full_like(points, zero)), eye)


def _tokens_of(case: OpCase, dtype: torch.dtype) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """The tokens among a case's inputs, and what turns them."""
    inputs = case.inputs(dtype)
    count = 1 if case.name.startswith(("cayley_rotate", "circulant_rotate")) else 2
    return inputs[:count], inputs[count:]


@pytest.mark.parametrize("zero", [0.0, -0.0])
@pytest.mark.parametrize("case", TURNS, ids=str)
def test_tokens_of_zero_stay_zero(case: OpCase, zero: float) -> None:
    for dtype in TINY:
        x, turn = _tokens_of(case, dtype)
        for y in outputs(case.function(*(torch.full_like(each, zero) for each in x), *turn)):
            assert torch.equal(y, torch.zeros_like(y))


@pytest.mark.parametrize("dtype", TINY, ids=str)
@pytest.mark.parametrize("case", TURNS, ids=str)
def test_denormal_tokens_and_gradients_turn_as_others_do(case: OpCase, dtype: torch.dtype) -> None:
    """To a few steps of the denormals' grid: nothing is flushed to zero, forward or backward.

    A result sums up to twelve products, or goes through an FFT and back, and each rounds by up to
    half a step; what is stored in two bytes is computed in float32 and rounds once.
    """
    smallest, eps = torch.finfo(dtype).tiny, torch.finfo(dtype).eps

    def sunk(x: Tensor) -> Tensor:
        return (x.double() / 8 * smallest).to(dtype)

    def lifted(x: Tensor) -> Tensor:
        return (x.detach().double() / smallest * 8).to(dtype)

    def run(x: list[Tensor], grads: list[Tensor]) -> list[Tensor]:
        leaves = [each.requires_grad_() for each in x]
        results = outputs(case.function(*leaves, *turn))
        return [*results, *torch.autograd.grad(results, leaves, grads)]

    x, turn = _tokens_of(case, dtype)
    low = [sunk(each) for each in x]
    assert all(0 < each.abs().max() < smallest for each in low)
    grads = [sunk(normal(*each.shape, seed=9)) for each in low]
    expected = run([lifted(each) for each in low], [lifted(g) for g in grads])
    for y, e in zip(run(low, grads), expected, strict=True):
        assert y.dtype == dtype
        steps = (lifted(y).double() - e.detach().double()).abs().max() / (8 * eps)
        assert steps <= (12 if dtype in (F32, F64) else 1)


# Infinities, NaN, the largest numbers.


def _isolated() -> dict[str, tuple[Callable[..., Any], tuple[Tensor, ...], int, Any, Any]]:
    """Op -> function, inputs, which input is spoilt, where, and what part of results may change."""
    q = normal(2, 4, 19, 8, dtype=F32)
    token = (slice(None), slice(2, 4), 7)  # of head 1 of 2, which turns heads 2 and 3
    head = (slice(None), slice(2, 4))
    pairs, blocks = normal(2, 19, 4, dtype=F32), normal(2, 19, 2, 4, 4, dtype=F32)
    modes, generators = normal(2, 19, 3, dtype=F32), normal(2, 2, 2, 6, dtype=F32)
    points, coefficients = normal(19, 2, dtype=F32), normal(2, 2, 1, 8, dtype=F32)
    s = normal(2, 8, 8, dtype=F32) / 8
    circulant: Callable[..., Any] = lambda *a: ops.rotate_circulant(*a, 8)  # noqa: E731
    return {
        "rotate_pairs angles": (ops.rotate_pairs, (q, q, pairs), 2, (1, 7, 0), token),
        "rotate_blocks rotations": (ops.rotate_blocks, (q, q, blocks), 2, (1, 7, 0, 1, 2), token),
        "rotate_circulant angles": (circulant, (q, q, modes), 2, (1, 7, 1), token),
        "lie_rotate generators": (
            ops.lie_rotate,
            (q, q, generators, points),
            2,
            (0, 1, 1, 3),
            (*head, slice(None), slice(4, 8)),
        ),
        "lie_rotate q": (ops.lie_rotate, (q, q, generators, points), 0, (1, 2, 7, 5), (1, 2, 7)),
        "lie_rotations generators": (
            ops.lie_rotations,
            (generators, points),
            0,
            (0, 1, 1, 3),
            (1, slice(None), 1),
        ),
        "lie_rotations positions": (
            ops.lie_rotations,
            (generators, points),
            1,
            (7, 1),
            (slice(None), 7),
        ),
        "circulant_rotate coefficients": (
            ops.circulant_rotate,
            (q, coefficients, points),
            1,
            (0, 1, 0, 3),
            head,
        ),
        "circulant_rotate positions": (
            ops.circulant_rotate,
            (q, coefficients, points),
            2,
            (7, 1),
            (slice(None), slice(None), 7),
        ),
        "cayley_rotate s": (ops.cayley_rotate, (q, s), 1, (1, 0, 3), head),
        "cayley_rotate x": (ops.cayley_rotate, (q, s), 0, (1, 2, 7, 5), (1, 2, 7)),
        "cayley_rotate band x": (
            lambda x, s: ops.cayley_rotate(x, s, bandwidth=1),
            (q, s),
            0,
            (1, 2, 7, 5),
            (1, 2, 7),
        ),
    }


ISOLATED = _isolated()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, torch.finfo(F32).max])
@pytest.mark.parametrize("name", ISOLATED)
def test_a_bad_number_stays_in_its_token_or_head(name: str, bad: float) -> None:
    function, inputs, which, where, part = ISOLATED[name]
    spoilt = inputs[which].clone()
    spoilt[where] = bad
    good = outputs(function(*inputs))
    got = outputs(function(*inputs[:which], spoilt, *inputs[which + 1 :]))
    changed = [~(y == e) for y, e in zip(got, good, strict=True)]
    assert any(c[part].any() for c in changed)
    if not math.isfinite(bad):
        assert any(not y[part].isfinite().all() for y in got)
    for c in changed:
        c[part] = False
        assert not c.any()


@pytest.mark.parametrize("name", ISOLATED)
def test_a_bad_gradient_stays_in_its_token(name: str) -> None:
    """Of q or x: what turns them is a sum over tokens, and rightly knows of the bad one."""
    function, inputs, *_ = ISOLATED[name]
    if inputs[0].dim() != 4 or name.startswith("lie_rotations"):
        pytest.skip("turns no tokens")
    leaf = inputs[0].clone().requires_grad_()
    results = outputs(function(leaf, *inputs[1:]))
    grads = [normal(*y.shape, dtype=F32) for y in results]
    (good,) = torch.autograd.grad(results, leaf, grads, retain_graph=True)
    grads[0][1, 2, 7, 3] = math.nan
    (got,) = torch.autograd.grad(results, leaf, grads)
    assert got[1, 2, 7].isnan().any()
    got[1, 2, 7] = good[1, 2, 7]
    assert torch.equal(got, good)


@pytest.mark.parametrize("op", [ops.expm_skew, ops.cayley])
def test_every_place_of_a_bad_number_spoils_its_matrix_alone(op: Callable[..., Any]) -> None:
    for n in (2, 3, 4, 5, 9, 17):
        a = normal(35, n, n, dtype=F32)
        good = op(a)
        for k, (i, j) in enumerate(itertools.combinations(range(n), 2)):
            bad = a.clone()
            bad[k % 35, i, j] = (math.nan, math.inf, -math.inf)[k % 3]
            got = op(bad)
            assert got[k % 35].isnan().all()
            got[k % 35] = good[k % 35]
            assert torch.equal(got, good)
        below = a.clone()
        below.tril_().fill_(math.nan)
        assert torch.equal(op(torch.where(torch.ones(n, n).tril() > 0, below, a)), good)
