"""`lierope bench`: the operators beside plain torch on the user's machine, in alternation."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lierope import ops, reference
from lierope.train import checkpoints, report
from lierope.train.atomic import write_json
from lierope.train.errors import InputError, check
from lierope.train.extras import extra

_SHAPE, _QUICK_SHAPE = (8, 12, 196, 64), (2, 4, 64, 64)
_BLOCK = 8
_SECONDS, _QUICK_SECONDS = 4.0, 0.5  # spent on a case, about
_MIN_ROUNDS, _MAX_ROUNDS = 5, 200

Function = Callable[..., Tensor | tuple[Tensor, ...]]


@dataclass(frozen=True)
class Case:
    """One operator, the same in plain torch, and the tensors both are given."""

    name: str
    shape: str
    ours: Function
    plain: Function
    inputs: tuple[Tensor, ...]


@dataclass(frozen=True)
class Timing:
    """Medians over rounds in which both were timed, in seconds, and how far their outputs lie."""

    name: str
    shape: str
    ours: float
    plain: float
    difference: float
    rounds: int


def bench(quick: bool, shape: str | None, threads: int | None, output: Path | None) -> int:
    """Times every case and prints a table; `output` also gets the numbers as JSON."""
    check(threads is None or threads >= 1, f"threads: must be at least 1, got {threads}")
    if threads is not None:
        torch.set_num_threads(threads)
    sizes = _parse(shape) if shape else (_QUICK_SHAPE if quick else _SHAPE)
    rich = extra("rich.table")
    console = extra("rich.console").Console()
    timings = []
    for case in cases(sizes, quick):
        if console.is_terminal:
            console.print(f"timing {case.name} {case.shape}", end="\r", highlight=False)
        timings.append(measure(case, _QUICK_SECONDS if quick else _SECONDS))
    used = torch.get_num_threads()
    table = rich.Table(
        title=f"forward + backward, float32, {report.processor()}, "
        f"{used} thread{'s' if used > 1 else ''}"
    )
    table.add_column("operator", no_wrap=True)
    table.add_column("shape", no_wrap=True)
    for heading in ("lierope\nms", "plain torch\nms", "times\nfaster", "largest\ndifference"):
        table.add_column(heading, justify="right")
    for t in timings:
        table.add_row(
            t.name,
            t.shape,
            f"{1e3 * t.ours:.3g}",
            f"{1e3 * t.plain:.3g}",
            f"{t.plain / t.ours:.1f}",
            f"{t.difference:.0e}",
        )
    console.print(table)
    print("medians of alternating rounds; difference: largest between the two outputs")
    if output is not None:
        write_json(output, _record(timings, used))
    return 0


def cases(sizes: tuple[int, int, int, int], quick: bool) -> list[Case]:
    """The exponential by itself at two sizes, then the rotations of q and k (B, H, N, D)."""
    random = torch.Generator().manual_seed(0)

    def normal(*shape: int, deviation: float = 1.0) -> Tensor:
        return torch.randn(shape, generator=random) * deviation

    B, H, N, D = sizes
    q, k = normal(B, H, N, D), normal(B, H, N, D)
    side = math.isqrt(N)
    axis = torch.arange(side, dtype=torch.float32)
    positions = torch.cartesian_prod(axis, axis) / side
    angles = torch.einsum("cha,nc->hna", normal(2, H, D // 2), positions)
    generators = normal(2, H, D // _BLOCK, _BLOCK * (_BLOCK - 1) // 2)
    less = 16 if quick else 1
    shape = ",".join(str(size) for size in sizes)
    return [
        *(
            Case("expm_skew", f"{count // less},{n},{n}", ops.expm_skew, _matrix_exp,
                 (normal(count // less, n, n, deviation=n**-0.5),))
            for count, n in ((18816, 8), (2352, 64))
        ),
        Case("rotate_pairs", shape, ops.rotate_pairs, _rotate_pairs, (q, k, angles)),
        Case("lie_rotate", f"{shape} b={_BLOCK}", ops.lie_rotate, reference.lie_rotate,
             (q, k, generators, positions)),
    ]  # fmt: skip


def measure(case: Case, seconds: float) -> Timing:
    """Times both forms in alternation, so that a change of the machine's speed meets both."""
    ours, plain = _pass(case.ours, case.inputs), _pass(case.plain, case.inputs)
    with torch.no_grad():
        pairs = zip(
            _outputs(case.ours, case.inputs), _outputs(case.plain, case.inputs), strict=True
        )
        difference = max(float((a - b).abs().max()) for a, b in pairs)
    start = time.perf_counter()
    ours(), plain()
    once = time.perf_counter() - start
    rounds = min(_MAX_ROUNDS, max(_MIN_ROUNDS, int(seconds / once)))
    times = [(_timed(ours), _timed(plain)) for _ in range(rounds)]
    first, second = (statistics.median(column) for column in zip(*times, strict=True))
    return Timing(case.name, case.shape, first, second, difference, rounds)


def _pass(function: Function, inputs: tuple[Tensor, ...]) -> Callable[[], None]:
    """One forward and backward pass to every input, with gradients of ones."""
    leaves = [x.clone().requires_grad_() for x in inputs]

    def run() -> None:
        outputs = function(*leaves)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        torch.autograd.grad(outputs, leaves, [torch.ones_like(y) for y in outputs])

    return run


def _outputs(function: Function, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    outputs = function(*inputs)
    return outputs if isinstance(outputs, tuple) else (outputs,)


def _timed(function: Callable[[], None]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def _matrix_exp(a: Tensor) -> Tensor:
    upper = a.triu(1)
    result: Tensor = torch.linalg.matrix_exp(upper - upper.mT)
    return result


def _rotate_pairs(q: Tensor, k: Tensor, angles: Tensor) -> tuple[Tensor, ...]:
    # The best eager form we know: sine and cosine once for q and k, no complex numbers.
    cos, sin = angles.cos(), angles.sin()

    def rotate(x: Tensor) -> Tensor:
        x0, x1 = x.view(*x.shape[:-1], -1, 2).unbind(-1)
        return torch.stack((x0 * cos - x1 * sin, x0 * sin + x1 * cos), -1).flatten(-2)

    return rotate(q), rotate(k)


def _parse(shape: str) -> tuple[int, int, int, int]:
    try:
        B, H, N, D = (int(size) for size in shape.split(","))
    except ValueError:
        raise InputError(f"shape: must be four numbers B,H,N,D, got {shape}") from None
    check(min(B, H, N, D) >= 1, f"shape: must be positive, got {shape}")
    check(math.isqrt(N) ** 2 == N, f"shape: N must be a square number of patches, got {N}")
    check(D % _BLOCK == 0, f"shape: D must be a multiple of {_BLOCK}, got {D}")
    return B, H, N, D


def _record(timings: list[Timing], threads: int) -> dict[str, Any]:
    return {
        "versions": checkpoints.versions(),
        "processor": report.processor(),
        "threads": threads,
        "unit": "seconds, forward + backward, median",
        "cases": [vars(timing) for timing in timings],
    }
