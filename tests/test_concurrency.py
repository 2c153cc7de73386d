"""Operators called at once: from many threads, autograd's own, and processes of data loaders."""

from __future__ import annotations

import multiprocessing
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

import lierope
from cases import KERNELS, OpCase, normal, outputs
from lierope import ops

WAIT = 120  # seconds, after which something hangs


def _run(case: OpCase) -> list[Tensor]:
    leaves = [x.detach().clone().requires_grad_() for x in case.inputs(torch.float32)]
    results = outputs(case.function(*leaves))
    return [
        *(y.detach() for y in results),
        *torch.autograd.grad(sum(y.sin().sum() for y in results), leaves),
    ]


def _same(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.fixture(autouse=True)
def no_test_hangs() -> Iterator[None]:
    """A deadlock fails the test rather than the whole run."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"nothing came within {WAIT} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(WAIT)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


# Threads.


@pytest.mark.parametrize("each", [1, 2])
def test_many_threads_at_once_compute_what_one_does(
    each: int, threads: Callable[[int], None]
) -> None:
    """Eight threads, all kernels in eight orders, forward and backward, each thread a pool."""
    expected = {case.name: _run(case) for case in KERNELS}
    together = threading.Barrier(8)

    def work(number: int) -> list[str]:
        torch.set_num_threads(each)
        together.wait(WAIT)
        order = KERNELS[number:] + KERNELS[:number]
        return [case.name for case in order if not _same(_run(case), expected[case.name])]

    threads(each)
    with ThreadPoolExecutor(8) as pool:
        assert [wrong for wrongs in pool.map(work, range(8)) for wrong in wrongs] == []


def _large() -> tuple[Tensor, ...]:
    q, k = normal(2, 4, 257, 32, dtype=torch.float32), normal(2, 2, 257, 32, dtype=torch.float32)
    return q, k, normal(2, 2, 4, 28, dtype=torch.float32) / 4, normal(257, 2, dtype=torch.float32)


def test_threads_that_share_inputs_and_split_the_work(threads: Callable[[int], None]) -> None:
    """The same tensors, read by six threads at once, each of which asks for two more."""
    threads(2)
    shared = _large()

    def once(_: int = 0) -> list[Tensor]:
        torch.set_num_threads(2)
        leaves = [x.detach().requires_grad_() for x in shared]
        y, z = ops.lie_rotate(*leaves)  # type: ignore[arg-type]
        return [y.detach(), *torch.autograd.grad(y.sin().sum() + z.cos().sum(), leaves)]

    expected = once()
    with ThreadPoolExecutor(6) as pool:
        assert all(_same(got, expected) for got in pool.map(once, range(24)))


def test_gradients_of_one_leaf_from_many_threads_add_up() -> None:
    """Autograd accumulates into one tensor from backward passes in many threads."""
    generators = torch.ones(2, 2, 1, 28, dtype=torch.float64, requires_grad=True)
    points = normal(5, 2)

    def work(number: int) -> None:
        ops.lie_rotations(generators, points * number).square().sum().add(
            ops.lie_rotations(generators, points * number)[..., 0].sum()
        ).backward()

    for number in range(8):
        work(number)
    expected = generators.grad
    assert expected is not None
    generators.grad = None
    pool = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in pool:
        thread.start()
    for thread in pool:
        thread.join(WAIT)
    assert generators.grad is not None
    torch.testing.assert_close(generators.grad, expected, rtol=1e-12, atol=1e-12)


class _Reentrant(torch.autograd.Function):
    """Runs a backward pass inside a backward pass: in one of autograd's threads when deep."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, depth: int) -> Tensor:
        ctx.save_for_backward(x)
        ctx.depth = depth
        return x.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        with torch.enable_grad():
            inner = x.detach().requires_grad_()
            y = ops.expm_skew(inner)
            if ctx.depth:
                y = _Reentrant.apply(y, ctx.depth - 1)
            (of_x,) = torch.autograd.grad((y * grad).sum(), inner)
        return of_x, None


def test_backward_passes_inside_backward_passes() -> None:
    """Past sixty of them, autograd goes on in a thread of a pool of its own."""
    a, grad = normal(3, 4, 4) / 8, normal(3, 4, 4, seed=1)
    expected = grad
    points = [a]
    for _ in range(69):
        points.append(ops.expm_skew(points[-1]))
    for x in reversed(points):
        leaf = x.detach().requires_grad_()
        (expected,) = torch.autograd.grad((ops.expm_skew(leaf) * expected).sum(), leaf)

    leaf = a.clone().requires_grad_()
    _Reentrant.apply(leaf, 69).backward(grad)
    assert leaf.grad is not None
    assert leaf.grad.isfinite().all()
    again = a.clone().requires_grad_()
    _Reentrant.apply(again, 69).backward(grad)
    assert torch.equal(leaf.grad, again.grad)


def test_modules_replicated_over_threads(threads: Callable[[int], None]) -> None:
    """One encoding, many threads, in eval mode too, where LieRE keeps the rotations of a grid."""
    threads(1)
    torch.manual_seed(0)
    encoding = lierope.LieRE(32, 4, block_size=8).eval()
    grids = [lierope.grid_positions((n, n), "unit") for n in (3, 4, 5)]
    q = {len(p): normal(2, 4, len(p), 32, dtype=torch.float32) for p in grids}

    def work(number: int) -> Tensor:
        points = grids[number % 3]
        with torch.no_grad():
            return encoding(q[len(points)], q[len(points)], points)[0]

    expected = [work(number) for number in range(3)]
    with ThreadPoolExecutor(6) as pool:
        for number, got in enumerate(pool.map(work, range(60))):
            assert torch.equal(got, expected[number % 3])


# Processes.


class Rotated(Dataset[list[Tensor]]):
    """Every kernel's results, computed where the loader reads, with the gradients where it may be.

    torch itself refuses a backward pass in a process forked after one in its parent.
    """

    def __init__(self, gradients: bool) -> None:
        self._gradients = gradients

    def __len__(self) -> int:
        return len(KERNELS)

    def __getitem__(self, index: int) -> list[Tensor]:
        torch.set_num_threads(2)  # a loader's processes have one each, unless they ask
        case = KERNELS[index]
        if self._gradients:
            return _run(case)
        return list(outputs(case.function(*case.inputs(torch.float32))))


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_operators_in_the_processes_of_a_loader(start: str, threads: Callable[[int], None]) -> None:
    """A forked child has none of its parent's threads: it must not wait for them."""
    threads(2)
    q, k, generators, points = _large()
    leaf = generators.requires_grad_()
    ops.lie_rotate(q, k, leaf, points)[0].sum().backward()  # the parent's threads are at work
    expected = [_run(case) for case in KERNELS]
    loader = DataLoader(
        Rotated(start != "fork"),
        batch_size=None,
        num_workers=2,
        multiprocessing_context=start,
        timeout=90,
    )
    for got, e in zip(loader, expected, strict=True):
        assert _same(list(got), e[: len(got)])
    assert _same(_run(KERNELS[0]), expected[0])


def _in_child(pipe: Any, inputs: tuple[Tensor, ...], grads: tuple[Tensor, ...]) -> None:
    results = ops.lie_rotate(*inputs)  # type: ignore[arg-type]
    back = torch.ops.lierope.lie_rotate_backward(*grads, *results, *inputs[2:], 0, True)
    pipe.send([x.numpy() for x in (*results, *back)])


def test_a_fork_in_the_middle_of_work_in_other_threads(threads: Callable[[int], None]) -> None:
    """Forked while four threads are inside operators, and two threads of the pool behind each."""
    threads(2)
    inputs = _large()
    results = ops.lie_rotate(*inputs)  # type: ignore[arg-type]
    grads = tuple(y.clone() for y in results)
    back = torch.ops.lierope.lie_rotate_backward(*grads, *results, *inputs[2:], 0, True)
    expected = [*results, *back]
    done = threading.Event()

    def busy() -> None:
        torch.set_num_threads(2)
        while not done.is_set():
            ops.lie_rotate(*inputs)  # type: ignore[arg-type]

    pool = [threading.Thread(target=busy, daemon=True) for _ in range(4)]
    for thread in pool:
        thread.start()
    try:
        for _ in range(5):
            for got, e in zip(_forked(inputs, grads), expected, strict=True):
                assert torch.equal(torch.from_numpy(got), e)
    finally:
        done.set()
        for thread in pool:
            thread.join(WAIT)


def _forked(inputs: tuple[Tensor, ...], grads: tuple[Tensor, ...]) -> Any:
    """What a forked process computes; fails when it hangs."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)
    child = context.Process(target=_in_child, args=(there, inputs, grads))
    child.start()
    there.close()
    try:
        assert here.poll(60), "the forked process hangs"
        return here.recv()
    finally:
        child.join(10)
        if child.is_alive():
            child.kill()
