"""The same bits for any number of threads, on every call, under deterministic algorithms."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import lierope
from cases import CASES, OpCase, normal, outputs
from lierope import ops

Results = list[Tensor]
F32, F64, BF16 = torch.float32, torch.float64, torch.bfloat16


def _tokens(dtype: torch.dtype, N: int = 131, D: int = 32) -> tuple[Tensor, Tensor]:
    packed = normal(3, N, 8, D, dtype=dtype, seed=1).transpose(1, 2)
    return packed[:, :4], packed[:, 4:6]


def _lie(b: int, dtype: torch.dtype, *sample: int, N: int = 130) -> tuple[Tensor, Tensor]:
    generators = normal(2, 2, 32 // b, b * (b - 1) // 2, dtype=dtype, seed=2) / 4
    return generators, normal(*sample, N, 2, dtype=dtype, seed=3)


# Enough matrices and tokens that each of three threads has some, and a rest.
LARGE: dict[str, Callable[[], tuple[Callable[..., Any], tuple[Tensor, ...]]]] = {
    **{
        f"expm_skew-{n}": lambda n=n: (
            ops.expm_skew,
            (normal(max(7, 20000 // n**2) + 1, n, n, dtype=F32, seed=n),),
        )
        for n in (2, 3, 4, 8, 16, 64)
    },
    "expm_skew-8-f64": lambda: (ops.expm_skew, (normal(401, 8, 8, seed=8),)),
    **{
        f"cayley-{n}": lambda n=n: (ops.cayley, (normal(20000 // n**2 + 1, n, n, dtype=F32),))
        for n in (4, 16)
    },
    **{
        f"lie_rotations-{b}": lambda b=b: (ops.lie_rotations, _lie(b, F32))
        for b in (2, 4, 8, 16, 32)
    },
    **{
        f"lie_rotate-{b}": lambda b=b: (
            lambda *a: ops.lie_rotate(*a, num_prefix_tokens=1),
            (*_tokens(F32), *_lie(b, F32)),
        )
        for b in (2, 4, 8, 10, 16, 32)
    },
    "lie_rotate-8-sample-bf16": lambda: (
        lambda *a: ops.lie_rotate(*a, num_prefix_tokens=1),
        (*_tokens(BF16), *_lie(8, F32, 3)),
    ),
    "lie_rotate-4-f64": lambda: (
        lambda *a: ops.lie_rotate(*a, num_prefix_tokens=1),
        (*_tokens(F64), *_lie(4, F64)),
    ),
    "rotate_pairs": lambda: (ops.rotate_pairs, (*_tokens(F32), normal(2, 131, 16, dtype=F32))),
    "rotate_pairs-bf16-half": lambda: (
        lambda *a: ops.rotate_pairs(*a, interleaved=False),
        (*_tokens(BF16), normal(1, 131, 16, dtype=F32)),
    ),
    **{
        f"rotate_blocks-{b}": lambda b=b: (
            ops.rotate_blocks,
            (*_tokens(F32), normal(2, 131, 32 // b, b, b, dtype=F32)),
        )
        for b in (2, 8, 32)
    },
    **{
        f"rotate_circulant-{b}": lambda b=b: (
            lambda q, k, t: ops.rotate_circulant(q, k, t, b),
            (*_tokens(F32), normal(2, 131, 32 // b * ((b - 1) // 2), dtype=F32)),
        )
        for b in (4, 32)
    },
    "cayley_rotate": lambda: (
        ops.cayley_rotate,
        (_tokens(F32)[0], normal(2, 32, 32, dtype=F32) / 6),
    ),
    "cayley_rotate-band": lambda: (
        lambda x, s: ops.cayley_rotate(x, s, bandwidth=3),
        (_tokens(F32)[0], normal(2, 32, 32, dtype=F32) / 6),
    ),
}


@pytest.fixture(autouse=True)
def threads_as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
    torch.use_deterministic_algorithms(False)


def _run(function: Callable[..., Any], inputs: tuple[Tensor, ...]) -> Results:
    """Results and gradients of every input."""
    leaves = [x.detach().requires_grad_() for x in inputs]
    results = outputs(function(*leaves))
    weights = [
        torch.arange(y.numel(), dtype=torch.float32).sin().view(y.shape).to(y.dtype)
        for y in results
    ]
    return [*(y.detach() for y in results), *torch.autograd.grad(results, leaves, weights)]


def _same(one: Results, other: Results) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("name", LARGE)
def test_any_number_of_threads_gives_the_same_bits(name: str) -> None:
    function, inputs = LARGE[name]()
    torch.set_num_threads(1)
    expected = _run(function, inputs)
    assert not any(y.isnan().any() for y in expected)
    for threads in (2, 3, 5):
        torch.set_num_threads(threads)
        for _ in range(2):
            assert _same(_run(function, inputs), expected), f"{threads} threads"


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("dtype", [F32, F64, BF16], ids=str)
def test_deterministic_algorithms_may_be_asked_for(case: OpCase, dtype: torch.dtype) -> None:
    """Nothing refuses, nothing warns, and the bits are those of any other call."""
    inputs = case.inputs(dtype)
    expected = _run(case.function, inputs)
    torch.use_deterministic_algorithms(True)
    assert _same(_run(case.function, inputs), expected)
    assert _same(_run(case.function, inputs), expected)


def test_deterministic_algorithms_fill_no_memory_that_shows() -> None:
    """Torch fills fresh memory with NaN then: a kernel that leaves a gap would show it."""
    torch.use_deterministic_algorithms(True)
    for case in CASES:
        assert not any(y.isnan().any() for y in _run(case.function, case.inputs(F32))), case.name


@pytest.mark.parametrize("offset", [0, 1, 3])
def test_the_place_in_memory_does_not_matter(offset: int) -> None:
    """Where a tensor begins decides what is aligned, not what is computed."""
    function, inputs = LARGE["rotate_pairs"]()
    inputs = tuple(x.contiguous() for x in inputs)
    expected = _run(function, inputs)
    moved = []
    for x in inputs:
        room = x.new_empty(x.numel() + offset)
        moved.append(room[offset:].view(x.shape).copy_(x))
    assert _same(_run(function, tuple(moved)), expected)


@pytest.mark.parametrize(
    "name", ["mixed", "liere:2", "liere:8", "cayley", "circulant", "dense-string", "comrope-ld"]
)
def test_a_step_of_training_gives_the_same_bits(name: str) -> None:
    def step(threads: int) -> Results:
        torch.set_num_threads(threads)
        torch.manual_seed(0)
        encoding: Any = lierope.encodings.create(name, 32, 4, num_kv_heads=2)
        q, k = (x.detach().requires_grad_() for x in _tokens(F32))
        points = lierope.grid_positions((10, 13), "index")
        y, z = encoding(q, k, points, 1)
        (y.sin().mul(z.cos().repeat_interleave(2, 1))).sum().backward()
        return [y.detach(), z.detach(), q.grad, k.grad, *(p.grad for p in encoding.parameters())]

    one = step(1)
    kernels_only = name in ("mixed", "liere:2", "liere:8")  # torch's own sums promise no bits
    for threads in (2, 3):
        other = step(threads)
        if kernels_only:
            assert _same(other, one)
        assert _same(step(threads), other)
