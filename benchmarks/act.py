"""Times of turning few rows with and without forming rotations, and of what the costs choose.

    python -m benchmarks.act

`lie_rotate` at positions of their own turns two rows a rotation; csrc/cpu/act_cost.h chooses how
by constants that follow these times: of one thread, in products of n x n matrices.
"""

import ctypes
import json
import time
from typing import Any

import numpy as np
import torch

import lierope
from benchmarks.speed.record import default_path

SIDES, NORMS, POINTS, HEADS = (32, 48, 64, 96, 128), (0.3, 1.0, 3.0, 10.0, 20.0, 40.0), 64, 2
ops = torch.ops.lierope


def set_mode(mode: str) -> None:
    """The library reads its environment at every call; os.environ alone would not do."""
    ctypes.CDLL(None).setenv(b"LIEROPE_ACT", mode.encode(), 1)


def inputs(n: int, norm: float) -> tuple[torch.Tensor, ...]:
    """q, k, generators of that spectral norm each, positions on the unit sphere."""
    generator = torch.Generator().manual_seed(1)
    packed = torch.randn(2, HEADS, 1, n * (n - 1) // 2, generator=generator)
    row, column = torch.triu_indices(n, n, 1)
    A = torch.zeros(2, HEADS, 1, n, n)
    A[..., row, column] = packed
    packed = packed * (norm / torch.linalg.matrix_norm(A - A.mT, 2))[..., None]
    positions = torch.randn(1, POINTS, 2, generator=generator)
    positions = positions / positions.norm(dim=-1, keepdim=True)
    q, k = torch.randn(2, 1, HEADS, POINTS, n, generator=generator)
    return q, k, packed, positions


def seconds(function: Any, repeats: int = 9) -> float:
    """Median of the thread's own time."""
    function()
    times = []
    for _ in range(repeats):
        start = time.thread_time()
        function()
        times.append(time.thread_time() - start)
    return float(np.median(times)) / (POINTS * HEADS)


def product_seconds(n: int) -> float:
    """Time of one n x n product inside a kernel: what one more squaring costs."""
    set_mode("never")
    q, k, generators, positions = inputs(n, 1.0)
    few, many = (
        seconds(lambda g=generators * f: ops.lie_rotate(q, k, g, positions, 0)) for f in (64, 1024)
    )
    return (many - few) / 4


def measure() -> list[dict[str, Any]]:
    """One row for every side, norm and direction."""
    rows = []
    for n in SIDES:
        unit = product_seconds(n)
        for norm in NORMS:
            q, k, generators, positions = inputs(n, norm)
            yq, yk = ops.lie_rotate(q, k, generators, positions, 0)
            for backward in (False, True):
                if backward:
                    rest = (q, k, yq, yk, generators, positions, 0, False)
                    call = lambda rest=rest: ops.lie_rotate_backward(*rest)  # noqa: E731
                else:
                    call = lambda: ops.lie_rotate(q, k, generators, positions, 0)  # noqa: E731, B023
                row: dict[str, Any] = {"n": n, "norm": norm, "backward": backward}
                for mode in ("never", "always", "cost"):
                    set_mode(mode)
                    row[mode] = seconds(call) / unit
                rows.append(row)
                print(*(f"{key} {value:.4g}" for key, value in row.items()), sep="  ", flush=True)
    return rows


def main() -> None:
    """Measure and write benchmarks/results/act-<machine>-<instruction set>.json."""
    torch.set_num_threads(1)
    rows = measure()
    worst = max(row["cost"] / min(row["never"], row["always"]) for row in rows)
    record = {
        "command": "python -m benchmarks.act",
        "unit": "products of n x n matrices",
        "torch": torch.__version__,
        "instruction_set": lierope.build_info().instruction_set,
        "chosen over best, at worst": worst,
        "rows": rows,
    }
    path = default_path(torch.device("cpu"))
    path = path.with_name(path.name.replace("speed-", "act-"))
    path.write_text(json.dumps(record, indent=1) + "\n")
    print(f"chosen over best, at worst: {worst:.2f}; written: {path}")


if __name__ == "__main__":
    main()
