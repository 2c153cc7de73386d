"""The tables of `lierope inspect`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from lierope.diagnostics import ANGLE_LIMIT, Report
from lierope.train.extras import extra

_AXES = {1: ("x",), 2: ("y", "x"), 3: ("t", "y", "x")}


@dataclass(frozen=True)
class Layer:
    """One encoding of a model: where it sits, its diagnosis, and what its heads do."""

    name: str
    report: Report
    frequencies: Tensor  # (C, H, planes) in radians per unit of position, largest first
    distances: Tensor  # (M,) between random pairs of positions
    violation: Tensor  # (H, M): what scores depend on besides the difference of the pair

    @property
    def short(self) -> str:
        """The name without what all layers share."""
        return self.name.removesuffix(".attn.encoding")


LEGEND = f"""\
How fast, along each axis: radians per unit of position, over heads and planes; the largest is the
spectral norm of that axis's generator. Angle: the largest that a patch turns by; float32 rounds it
by 6e-8 of itself, so that beyond {ANGLE_LIMIT:.0f} radians (!) rotations are off by more than 1e-5.
Rounding: what was measured against float64. Orthogonality: largest entry of |RtR - I|. Commutator:
0 if the axes' rotations commute. Relativity: how far scores are from depending on b - a alone,
|R(a)tR(b) - R(0)tR(b-a)| / sqrt(D), the largest over pairs in the training grid. Zeros: entries of
what is learned that are at most a thousandth of the largest."""


def show(console: Any, layers: list[Layer], heads: bool) -> None:
    """Prints two tables of layers, with `heads` one of heads, and the legend."""
    console.print(layers[0].report.encoding, highlight=False)
    console.print(_angles(layers))
    console.print(_structure(layers))
    if heads:
        console.print(_head_table(layers))
    print(LEGEND)


def axes_of(layer: Layer) -> tuple[str, ...]:
    """Names of the position axes."""
    count = len(layer.frequencies)
    return _AXES.get(count, tuple(str(axis) for axis in range(count)))


def learned(report: Report) -> str | None:
    """The parameter whose zeros mean something: matrices, not frequencies."""
    names = [name for name in report.sparsity if name != "frequencies"]
    return names[0] if names else None


def has_learned_basis(report: Report) -> bool:
    """Whether P moves: the circulant's is Fourier's, whatever it learns."""
    return report.basis_distance is not None and "skew" in report.shapes


def _angles(layers: list[Layer]) -> Any:
    table = extra("rich.table").Table(title="how fast")
    table.add_column("layer", no_wrap=True)
    axes = [f"along {axis}:\nmedian, max" for axis in axes_of(layers[0])]
    for column in (*axes, "largest\nangle", "rounding"):
        table.add_column(column, justify="right", no_wrap=True)
    for layer in layers:
        report = layer.report
        mark = " !" if report.largest_angle > ANGLE_LIMIT else ""
        table.add_row(
            layer.short,
            *(f"{x.median:.2g}, {x.largest:.3g}" for x in report.frequencies),
            f"{report.largest_angle:.3g}{mark}",
            f"{report.rounding_error:.0e}",
        )
    return table


def _structure(layers: list[Layer]) -> Any:
    first = layers[0].report
    table = extra("rich.table").Table(title="what kind")
    table.add_column("layer", no_wrap=True)
    columns = ["orthogonality", "commutator", "relativity"]
    columns += ["zeros"] if learned(first) else []
    columns += ["P from I"] if has_learned_basis(first) else []
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    for layer in layers:
        report = layer.report
        cells = [f"{report.orthogonality_error:.0e}", f"{report.commutator:.2g}"]
        cells += [f"{report.relativity_violation.largest:.2g}"]
        parameter = learned(report)
        cells += [f"{100 * report.sparsity[parameter]:.0f} %"] if parameter else []
        cells += [f"{report.basis_distance:.3f}"] if has_learned_basis(report) else []
        table.add_row(layer.short, *cells)
    return table


def _head_table(layers: list[Layer]) -> Any:
    table = extra("rich.table").Table(title="each head: median / largest frequency")
    table.add_column("layer", no_wrap=True)
    table.add_column("head", justify="right")
    for axis in axes_of(layers[0]):
        table.add_column(f"along {axis}", justify="right")
    table.add_column("relativity", justify="right")
    for layer in layers:
        for head in range(layer.frequencies.shape[1]):
            values = layer.frequencies[:, head]
            cells = [f"{float(v.median()):.3g} / {float(v.max()):.3g}" for v in values]
            cells += [f"{float(layer.violation[head].max()):.2g}"]
            table.add_row(layer.short, str(head), *cells)
    return table
