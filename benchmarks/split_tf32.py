"""What a tensor-core path would cost CUDA's exponential in accuracy, from a model on the CPU.

    python -m benchmarks.split_tf32

3xTF32 splits each factor in two of 10 bits and leaves out the product of the rests (Ootomo and
Yokota, arXiv 2203.03341). Tensor cores multiply exactly, add eight products to a sum and cut the
result off. Writes benchmarks/results/split_tf32.json and the table of docs/cuda.md.
"""

import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.markers import write_between
from benchmarks.speed.record import write_text

ROOT = Path(__file__).resolve().parents[1]
RECORD, TEXT, MARKER = ROOT / "benchmarks/results/split_tf32.json", ROOT / "docs/cuda.md", "tf32"
# LieRE's initial norms at the far corner are 129 for n = 64 and twice that for n = 128.
CASES, MATRICES = [(64, 1), (64, 10), (64, 129), (128, 1), (128, 10), (128, 258)], 4
Array = npt.NDArray[Any]
Product = Callable[[Array, Array], Array]


def tf32(x: Array) -> Array:
    """The nearest float32 with 10 bits of mantissa, as cvt.rna.tf32 rounds: ties away from 0."""
    return ((x.view(np.uint32) + 0x1000) & np.uint32(0xFFFFE000)).view(np.float32)


def cut_off(x: Array) -> Array:
    """The float32 next to x (float64) on the side of 0."""
    near = x.astype(np.float32)
    return np.where(np.abs(near) > np.abs(x), np.nextafter(near, np.float32(0)), near)


def fp32(x: Array, y: Array) -> Array:
    """One fused multiply-add after the other."""
    total = np.zeros((*x.shape[:-1], y.shape[-1]), np.float32)
    for k in range(x.shape[-1]):
        term = x[..., :, k, None].astype(np.float64) * y[..., k, None, :]
        total = (total + term).astype(np.float32)
    return total


def split_tf32(x: Array, y: Array, apart: bool) -> Array:
    """Sums of a tensor core; with `apart`, each eight terms begin at 0, and fp32 adds them up."""
    high = tf32(x), tf32(y)
    pairs = [(tf32(x - high[0]), high[1]), (high[0], tf32(y - high[1])), high]
    total = np.zeros((*x.shape[:-1], y.shape[-1]), np.float32)
    for k in range(0, x.shape[-1], 8):
        recent = np.zeros_like(total) if apart else total
        for a, b in pairs:
            exact = a[..., :, k : k + 8].astype(np.float64) @ b[..., k : k + 8, :]
            recent = cut_off(recent + exact)
        total = total + recent if apart else recent
    return total


WAYS: dict[str, Product] = {
    "fp32": fp32,
    "3xTF32": partial(split_tf32, apart=False),
    "3xTF32, fp32 sums": partial(split_tf32, apart=True),
}


def coefficients() -> tuple[Array, Array, float]:
    """C, S and the largest norm of the kernels' polynomials for float."""
    text = (ROOT / "csrc/math/coefficients.h").read_text().split("struct SkewExp<float, 6>")[1]
    theta, c, s = re.findall(r"(?:theta = |\] = \{)([^;}]*)", text)[:3]
    numbers = (np.array(t.replace("f", "").split(","), np.float32) for t in (c, s))
    return *numbers, float(theta.rstrip("f"))  # type: ignore[return-value]


def exponential(a: Array, norm: float, product: Product) -> Array:
    """exp(a) - I as CUDA's blocks compute it (cuda/block_exponential.cuh)."""
    c, s, theta = coefficients()
    halvings = max(0, int(np.ceil(np.log2(norm / theta))))
    x = a * np.float32(2.0**-halvings)
    b1 = product(x, x)
    b2 = product(b1, b1)
    b3 = product(b1, b2)

    def even(t: Array) -> Array:
        return t[1] * b1 + t[2] * b2 + t[3] * b3 + product(b3, t[4] * b1 + t[5] * b2 + t[6] * b3)

    e = even(c) + (x + product(x, even(s)))
    for _ in range(halvings):
        e = np.float32(2) * e + product(e, e)
    return e


def error(n: int, norm: float, product: Product) -> float:
    """|computed - exact|_2, the mean over a few matrices of independent normal entries."""
    g = np.random.default_rng(n).standard_normal((MATRICES, n, n))
    a = g - g.swapaxes(-1, -2)
    a = (a * (norm / np.linalg.norm(a, 2, (-2, -1)))[:, None, None]).astype(np.float32)
    values, vectors = np.linalg.eigh(1j * a.astype(np.float64))
    exact = (vectors * np.exp(-1j * values)[:, None, :]) @ vectors.conj().swapaxes(-1, -2)
    found = exponential(a, norm, product) + np.eye(n)
    return float(np.linalg.norm(found - exact.real, 2, (-2, -1)).mean())


def main() -> None:
    """Write the record and its table."""
    rows = [
        {"n": n, "norm": norm} | {name: error(n, norm, way) for name, way in WAYS.items()}
        for n, norm in CASES
    ]
    write_text(RECORD, json.dumps({"unit": "2-norm of the error", "rows": rows}, indent=1) + "\n")
    lines = [["n", "norm", *WAYS], ["---:"] * (2 + len(WAYS))]
    lines += [[f"{x:.2g}" if isinstance(x, float) else str(x) for x in r.values()] for r in rows]
    write_between(TEXT, MARKER, "".join(f"| {' | '.join(line)} |\n" for line in lines))


if __name__ == "__main__":
    main()
