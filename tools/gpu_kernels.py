"""Runs the main kernels once each after a warm-up, at the sizes of ViT-B/16: what ncu looks at.

`python tools/gpu_kernels.py`; --small runs tiny sizes on whatever device there is.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from lierope import ops

Case = tuple[Callable[..., object], tuple[Tensor, ...]]


def cases(small: bool, device: str) -> dict[str, Case]:
    """Operators with their inputs: q and k of one packed projection in bfloat16."""
    batch, heads, tokens, size = (2, 2, 5, 64) if small else (128, 12, 197, 64)
    dtype = torch.bfloat16

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, device=device)

    packed = normal(batch, tokens, 3, heads, size).to(dtype).permute(2, 0, 3, 1, 4)
    q, k = (packed[i].detach().requires_grad_() for i in (0, 1))
    points = tokens - 1
    positions = torch.rand(points, 2, device=device)
    angles = normal(heads, points, size // 2).requires_grad_()

    def generators(b: int) -> Tensor:
        return (normal(2, heads, size // b, b * (b - 1) // 2) / b).requires_grad_()

    def matrices(n: int) -> Tensor:
        return (normal(heads * points * (size // n), n, n) / n**0.5).requires_grad_()

    prefixed = lambda op: lambda *x: op(*x, num_prefix_tokens=1)  # noqa: E731
    modes = normal(heads, points, (size - 1) // 2).requires_grad_()
    rotations = normal(heads, points, size // 8, 8, 8).requires_grad_()
    return {
        "rotate_pairs": (prefixed(ops.rotate_pairs), (q, k, angles)),
        "rotate_blocks-8": (prefixed(ops.rotate_blocks), (q, k, rotations)),
        "lie_rotate-8": (prefixed(ops.lie_rotate), (q, k, generators(8), positions)),
        "lie_rotate-64": (prefixed(ops.lie_rotate), (q, k, generators(64), positions)),
        "expm_skew-8": (ops.expm_skew, (matrices(8),)),
        "expm_skew-64": (ops.expm_skew, (matrices(64),)),
        "rotate_circulant-64": (
            lambda q, k, t: ops.rotate_circulant(q, k, t, size, num_prefix_tokens=1),
            (q, k, modes),
        ),
        "cayley-64": (ops.cayley, ((normal(heads, size, size) / 8).requires_grad_(),)),
    }


def run(case: Case) -> None:
    """Forward and backward."""
    function, inputs = case
    results = function(*inputs)
    outputs = (results,) if isinstance(results, Tensor) else results
    leaves = [x for x in inputs if x.requires_grad]
    torch.autograd.grad(outputs, leaves, [torch.ones_like(y) for y in outputs])  # type: ignore[union-attr, call-overload]


def main(argv: Sequence[str] | None = None) -> int:
    """Run every case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true")
    args = parser.parse_args(argv)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for name, case in cases(args.small, device).items():
        run(case)
        print(f"{name}: ran on {device}")
    if device == "cuda":
        torch.cuda.synchronize()
    return 0


if __name__ == "__main__":
    sys.exit(main())
