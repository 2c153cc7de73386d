"""What an exponential costs beside its multiply-adds: one more squaring, and the rest.

    python -m benchmarks.steps

A matrix 16 times as large takes four squarings more, and backward four doublings beside them: a
quarter of the difference is what one costs inside the kernel, whatever else it does. A matrix that
needs none shows the rest: polynomial, commutators, and the memory that comes and goes.
"""

import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

import lierope
from benchmarks.markers import write_between
from benchmarks.speed.forms import skew_of_norm
from benchmarks.speed.record import ROOT, default_path, machine
from benchmarks.speed.roofline import measure_roofline
from lierope.ops import expm_skew

SIDES, ELEMENTS, ROUNDS = (8, 12, 16, 24, 32, 48, 64, 96, 128), 1_200_000, 25
NORMS = (0.3, 0.3 * 2**6, 0.3 * 2**10)  # below both polynomials' thetas; four squarings apart
# In products of n x n matrices, half of one where a half determines it.
FORWARD, BACKWARD, SQUARING, SQUARING_AND_DOUBLING = 3.0, 11.5, 1.0, 2.5
CPU = torch.device("cpu")


def passes(n: int, norm: float) -> tuple[int, Callable[[], Any], Callable[[], Any]]:
    """Number of matrices, and their exponential forward and backward."""
    count = max(16, ELEMENTS // n**2)
    A = skew_of_norm((count, n, n), norm, CPU).requires_grad_()
    grad = torch.randn(count, n, n)
    R = expm_skew(A)
    return (
        count,
        torch.no_grad()(lambda: expm_skew(A)),
        lambda: torch.autograd.grad(R, A, grad, retain_graph=True),
    )


def own_seconds(run: Callable[[], Any]) -> float:
    """The thread's own time of one pass, after one that warms up."""
    run()
    start = time.thread_time()
    run()
    return time.thread_time() - start


def measure(n: int, flops: float) -> dict[str, Any]:
    """Shares of the multiply-add peak, medians of rounds in which the norms take turns."""
    works = [passes(n, norm) for norm in NORMS]
    shares: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        for name, way, fixed, step in (
            ("forward", 1, FORWARD, SQUARING),
            ("backward", 2, BACKWARD, SQUARING_AND_DOUBLING),
        ):
            none, some, more = (own_seconds(work[way]) / work[0] for work in works)  # type: ignore[arg-type]
            product = 2 * n**3 / flops
            shares.setdefault(f"{name} without squarings", []).append(fixed * product / none)
            shares.setdefault(f"{name} squarings", []).append(step * product * 4 / (more - some))
    return {"n": n, **{name: statistics.median(values) for name, values in shares.items()}}


def table(rows: list[dict[str, Any]], about: str) -> str:
    """The rows in Markdown."""
    names = [name for name in rows[0] if name != "n"]
    lines = [about, "", f"| n | {' | '.join(names)} |", "|---:|" + "---:|" * len(names)]
    lines += [f"| {r['n']} | {' | '.join(f'{r[name]:.0%}' for name in names)} |" for r in rows]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write benchmarks/results/steps-<machine>-<instruction set>.json and its table in the docs."""
    torch.set_num_threads(1)
    flops = measure_roofline(1, CPU).flops
    rows = []
    for n in SIDES:
        rows.append(measure(n, flops))
        print(rows[-1], flush=True)
    record = {
        "command": "python -m benchmarks.steps",
        "unit": "share of the multiply-add peak",
        "machine": machine(CPU),
        "flops": flops,
        "torch": torch.__version__,
        "instruction_set": lierope.build_info().instruction_set,
        "products": {
            "forward without squarings": FORWARD,
            "forward squarings": SQUARING,
            "backward without squarings": BACKWARD,
            "backward squarings": SQUARING_AND_DOUBLING,
        },
        "rows": rows,
    }
    path = default_path(CPU)
    path = path.with_name(path.name.replace("speed-", "steps-"))
    path.write_text(json.dumps(record, indent=1) + "\n")
    about = f"{machine(CPU)}, one thread, {flops / 1e9:.0f} GFLOP/s (`python -m benchmarks.steps`)."
    write_between(ROOT / "docs" / "speed.md", "steps", table(rows, about))
    print(f"written: {path}")


if __name__ == "__main__":
    main()
