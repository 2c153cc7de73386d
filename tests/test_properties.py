"""Laws of the operators over drawn sizes, types, layouts and norms (hypothesis)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

import lierope
from cases import CASES, OpCase, normal, outputs
from lierope import ops, reference
from lierope.diagnostics import relativity_violation, rotation_matrices

F32, F64 = torch.float32, torch.float64
drawn = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)

sizes = st.sampled_from([1, 2, 3, 4, 5, 7, 8, 9, 11, 13, 16, 17, 23, 31, 32, 33])
counts = st.sampled_from([0, 1, 2, 3, 5, 17, 19])
seeds = st.integers(0, 10**6)
norms = st.floats(-8, 6).map(lambda e: 10.0**e)
layouts = st.sampled_from(["dense", "transposed", "sliced", "expanded", "overlapping", "offset"])
storage = st.sampled_from([F64, F32, torch.bfloat16, torch.float16])


def laid_out(x: Tensor, layout: str) -> Tensor:
    """The numbers of x (of some of them, for those that repeat) in another place of memory."""
    if layout == "transposed" and x.dim() >= 2:
        return x.mT.contiguous().mT
    if layout == "sliced":
        return torch.stack((x, torch.full_like(x, math.nan)), -1)[..., 0]
    if layout == "expanded" and x.dim() >= 1 and x.shape[0] > 0:
        return x[:1].expand(x.shape)
    if layout == "overlapping" and x.dim() >= 1 and x.shape[0] > 1 and x.numel() > 0:
        inner = x[0].numel()
        numbers = x.flatten()[: inner + x.shape[0] - 1].contiguous()
        if len(numbers) == inner + x.shape[0] - 1:  # rows that begin one number apart
            return numbers.as_strided(x.shape, (1, *x[0].contiguous().stride()))
    if layout == "offset":
        return torch.cat((x.new_zeros(1), x.flatten()))[1:].view(x.shape)
    return x


def skew(count: int, n: int, norm: float, seed: int, dtype: torch.dtype) -> Tensor:
    """Upper triangles of skew matrices of that spectral norm; below stands what must not count."""
    upper = normal(count, n, n, seed=seed).triu(1)
    size = torch.linalg.matrix_norm(upper - upper.mT, 2) if n > 1 and count else upper.new_ones(())
    upper = upper * (norm / size.clamp_min(1e-300)).view(-1, 1, 1) if n > 1 and count else upper
    return (upper + 7 * torch.ones_like(upper).tril()).to(dtype)


def _norm(a: Tensor) -> float:
    """Largest spectral norm of the skew matrices given by upper triangles."""
    upper = a.double().triu(1)
    return float(torch.linalg.matrix_norm(upper - upper.mT, 2).max()) if a.numel() else 0.0


def error(a: Tensor, b: Tensor) -> float:
    """Largest difference."""
    return float((a.double() - b.double()).abs().max()) if a.numel() else 0.0


# Matrices.


@given(counts, sizes, norms, seeds, st.sampled_from([F32, F64]), layouts)
@drawn
def test_exponentials(
    count: int, n: int, norm: float, seed: int, dtype: torch.dtype, layout: str
) -> None:
    a = laid_out(skew(count, n, norm, seed, dtype), layout)
    norm = _norm(a)  # overlapping rows are others
    r, eps = ops.expm_skew(a), torch.finfo(dtype).eps
    assert r.shape == a.shape
    assert r.is_contiguous()
    limit = 4 * eps * (n + norm)
    assert error(r.mT.double() @ r.double(), torch.eye(n).expand_as(r)) <= limit
    # The minus signs cancel bit for bit, and what stands below the diagonal was never read.
    assert torch.equal(ops.expm_skew(-a), r.mT)
    assert torch.equal(ops.expm_skew(a.triu(1)), r)
    if count and limit < 0.1:
        assert error(torch.linalg.det(r.double()), torch.ones(count)) <= n * limit
    if limit < 1e-2 and norm < 1e3:
        exact = reference.expm_skew(a.double())
        assert error(r, exact) <= limit + 4e-16 * (n + norm) * (2 + math.log2(1 + norm))


@given(counts, sizes, norms, seeds, st.sampled_from([F32, F64]), layouts)
@drawn
def test_cayley_transforms(
    count: int, n: int, norm: float, seed: int, dtype: torch.dtype, layout: str
) -> None:
    s = laid_out(skew(count, n, norm, seed, dtype), layout)
    p = ops.cayley(s)
    # Eliminated in float64 without pivoting, where I + S may grow to the square of its norm.
    limit = 8 * torch.finfo(F64).eps * n * (1 + _norm(s) ** 2)
    limit += 2 * torch.finfo(dtype).eps if dtype == F32 else 0
    assert error(p.mT.double() @ p.double(), torch.eye(n).expand_as(p)) <= limit
    assert torch.equal(ops.cayley(s.triu(1)), p)
    if limit < 1e-2:
        assert error(ops.cayley(-s), p.mT) <= limit
        assert error(p, reference.cayley(s.double())) <= limit
        if count:
            assert error(torch.linalg.det(p.double()), torch.ones(count)) <= n * limit
            x = normal(2, count, 3, n, dtype=dtype, seed=seed)
            y = ops.cayley_rotate(x, s)
            assert error(y, x.double() @ p.double().mT) <= limit * 8
            assert error(y.double().norm(dim=-1), x.double().norm(dim=-1)) <= limit * 8


# Tokens.


@st.composite
def calls(draw: Callable[[Any], Any]) -> tuple[str, tuple[Tensor, ...], dict[str, Any]]:
    """An operator on q and k, what turns them, and its options."""
    op = draw(st.sampled_from(["rotate_pairs", "lie_rotate", "rotate_circulant"]))
    B, N, prefix = draw(counts), draw(counts), draw(st.sampled_from([0, 1, 2]))
    prefix, Ha, group = min(prefix, N), draw(st.sampled_from([1, 2, 3])), draw(st.integers(1, 2))
    Hk = draw(st.sampled_from([0, Ha, 2 * Ha]))
    b, G = draw(st.sampled_from([2, 3, 4, 5, 8, 9])), draw(st.sampled_from([1, 2, 3]))
    rest, seed = draw(st.sampled_from([0, 1, 3])), draw(seeds)
    dtype, size = draw(storage), draw(st.sampled_from([0.0, 1e-8, 1e-3, 1.0, 30.0]))
    own = F64 if dtype == F64 else F32
    D = 2 * G + rest if op == "rotate_pairs" else b * G + rest
    q = laid_out(normal(B, Ha * group, N, D, seed=seed).to(dtype), draw(layouts))
    k = laid_out(normal(B, Hk, N, D, seed=seed + 1).to(dtype), draw(layouts))
    sample = (B,) if draw(st.booleans()) else ()
    options: dict[str, Any] = {"num_prefix_tokens": prefix}
    if op == "lie_rotate":
        C = draw(st.sampled_from([1, 2, 3]))
        turn = (
            normal(C, Ha, G, b * (b - 1) // 2, seed=seed),
            normal(*sample, N - prefix, C) * size,
        )
    elif op == "rotate_pairs":
        turn = (normal(*sample, Ha, N - prefix, G, seed=seed) * size,)
        options["interleaved"] = draw(st.booleans())
    else:
        turn = (normal(*sample, Ha, N - prefix, G * ((b - 1) // 2), seed=seed) * size,)
        options["block_size"] = b
    return op, (q, k, *(laid_out(x.to(own), draw(layouts)) for x in turn)), options


def _scale(dtype: torch.dtype) -> float:
    return torch.finfo(dtype).eps * (1 if dtype in (F64, F32) else 0.51)


@given(calls())
@settings(drawn, max_examples=120)
def test_rotations_of_tokens(call: tuple[str, tuple[Tensor, ...], dict[str, Any]]) -> None:
    op, (q, k, *turn), options = call
    kept = [x.clone() for x in (q, k, *turn)]
    results = getattr(ops, op)(q, k, *turn, **options)
    exact = getattr(reference, op)(*(x.double() for x in (q, k, *turn)), **options)
    angle = max((float(x.abs().max()) for x in turn if x.numel()), default=0.0)
    roundings = 16 + (40 * angle if op == "lie_rotate" else 2 * angle)
    eps = torch.finfo(turn[0].dtype).eps * roundings + _scale(q.dtype)
    for x, y, e in zip((q, k), results, exact, strict=True):
        assert (y.shape, y.dtype) == (x.shape, x.dtype)
        assert error(y, e) <= eps * max(1.0, float(x.abs().max()) if x.numel() else 0.0) * 2
        lengths = [z.double().norm(dim=-1) for z in (x, y)]
        assert error(*lengths) <= eps * 4 * (float(lengths[0].max()) if x.numel() else 0.0)
        prefix = options["num_prefix_tokens"]
        assert torch.equal(y[:, :, :prefix], x[:, :, :prefix])
    assert all(torch.equal(x, before) for x, before in zip((q, k, *turn), kept, strict=True))
    # R(-p) = R(p)^T takes every token back.
    back = getattr(ops, op)(*results, *turn[:-1], -turn[-1], **options)
    for x, y in zip((q, k), back, strict=True):
        assert error(x, y) <= eps * 4 * max(1.0, float(x.abs().max()) if x.numel() else 0.0)


@given(calls())
@settings(drawn, max_examples=40)
def test_broadcasting_is_repeating(call: tuple[str, tuple[Tensor, ...], dict[str, Any]]) -> None:
    """Shared over the batch or repeated, one head for all or one each: the same numbers."""
    op, (q, k, *turn), options = call
    if turn[-1].dim() == (2 if op == "lie_rotate" else 3):
        repeated = turn[-1].expand(q.shape[0], *turn[-1].shape)
        results = [
            getattr(ops, op)(q, k, *turn[:-1], last, **options) for last in (turn[-1], repeated)
        ]
        for y, z in zip(*results, strict=True):
            torch.testing.assert_close(y, z, rtol=4e-6, atol=4e-6)
    one = [x.clone() for x in turn]
    heads = {"lie_rotate": 1}.get(op, one[0].dim() - 3)
    single = one[0].narrow(heads, 0, 1)
    every = single.repeat_interleave(turn[0].shape[heads], heads)
    alone, spread = (getattr(ops, op)(q, k, x, *one[1:], **options) for x in (single, every))
    for y, z in zip(alone, spread, strict=True):
        torch.testing.assert_close(y, z, rtol=4e-6, atol=4e-6)


RELATIVE = ["mixed", "axial", "cayley", "circulant", "dense-string", "comrope-ld", "liere:2"]


@given(
    st.sampled_from(RELATIVE),
    st.integers(1, 4),
    st.sampled_from([8, 16, 24]),
    seeds,
    st.sampled_from([1e-3, 1.0, 50.0]),
)
@drawn
@torch.no_grad()
def test_scores_depend_on_the_difference_of_positions(
    name: str, ndim: int, head_dim: int, seed: int, extent: float
) -> None:
    torch.manual_seed(seed)
    encoding = lierope.encodings.create(name, head_dim, 2, ndim, dtype=F64)
    for parameter in encoding.parameters():
        parameter.add_(torch.randn_like(parameter), alpha=0.2)
    a, b, shift = ((torch.rand(3, ndim, dtype=F64) - 0.5) * extent for _ in range(3))
    limit = 1e-12 * (1 + 20 * extent)
    assert relativity_violation(encoding, a, b).max() <= limit
    at = [rotation_matrices(encoding, p) for p in (a, b, a + shift, b + shift)]
    assert error(at[0].mT @ at[1], at[2].mT @ at[3]) <= 10 * limit
    assert error(torch.linalg.det(at[0]), torch.ones(2, 3)) <= limit
    back = rotation_matrices(encoding, torch.stack((torch.zeros_like(a[0]), a[0], -a[0])))
    basis = back[:, :1].mT
    assert error(back[:, 1:2] @ basis, (back[:, 2:] @ basis).mT) <= 10 * limit


@given(st.sampled_from(CASES), st.lists(st.booleans(), min_size=4, max_size=4))
@drawn
def test_gradients_for_any_choice_of_inputs(case: OpCase, wanted: list[bool]) -> None:
    inputs = case.inputs(F64)
    leaves = [x.clone().requires_grad_(w) for x, w in zip(inputs, wanted, strict=False)]
    every = [x.clone().requires_grad_() for x in inputs]
    results = outputs(case.function(*leaves))
    needs = any(x.requires_grad for x in leaves)
    assert all(y.requires_grad == needs for y in results)
    if needs:
        sum(y.sin().sum() for y in results).backward()
        sum(y.sin().sum() for y in outputs(case.function(*every))).backward()
        for x, full in zip(leaves, every, strict=True):
            assert (x.grad is not None) == x.requires_grad
            if x.grad is not None:
                torch.testing.assert_close(x.grad, full.grad, rtol=1e-11, atol=1e-11)
