"""The second picture of `lierope inspect`: measurements over the layers, and over distance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from lierope.diagnostics import ANGLE_LIMIT
from lierope.train.inspect_tables import Layer, axes_of, has_learned_basis, learned
from lierope.train.plots import COLOURS, clean, figure_of, save

_FLOOR = 1e-9  # of a logarithmic axis: what float32 cannot tell from nothing
_VISIBLE = 1e-3
_BINS = 8


def layers(measured: list[Layer], path: Path) -> None:
    """Panels: angles against float32's limit, errors, structure, and relativity by distance."""
    figure = figure_of(10.5, 7)
    panels = figure.subplots(2, 2).flatten()
    _angles(panels[0], measured)
    _errors(panels[1], measured)
    _structure(panels[2], measured)
    _relativity(panels[3], measured)
    for panel in panels[:3]:
        panel.set_xticks(range(len(measured)), [layer.short for layer in measured],
                         rotation=45 if len(measured) > 6 else 0,
                         ha="right" if len(measured) > 6 else "center", fontsize=8)  # fmt: skip
    for panel in panels:
        clean(panel)
    figure.suptitle(measured[0].report.encoding, fontsize=10)
    save(figure, path)


def _line(panel: Any, values: list[float], label: str, colour: str) -> None:
    panel.plot(range(len(values)), values, "o-", color=colour, label=label, markersize=5)


def _angles(panel: Any, measured: list[Layer]) -> None:
    _line(panel, [x.report.largest_angle for x in measured], "largest angle of a patch", COLOURS[0])
    for axis, name in enumerate(axes_of(measured[0])):
        norms = [x.report.generator_norms[axis].largest for x in measured]
        _line(panel, norms, f"spectral norm along {name}", COLOURS[axis + 1])
    panel.axhline(ANGLE_LIMIT, color="#555555", linewidth=1, linestyle="--",
                  label="float32 off by 1e-5 from here")  # fmt: skip
    panel.set_ylim(bottom=0)
    panel.set_ylabel("radians, or radians per unit of position")
    panel.set_title("Angles", fontsize=10)
    panel.legend(fontsize=8, frameon=False)


def _errors(panel: Any, measured: list[Layer]) -> None:
    lines = {
        "rounding, against float64": [x.report.rounding_error for x in measured],
        "orthogonality, |RᵀR − I|": [x.report.orthogonality_error for x in measured],
    }
    for colour, (label, values) in zip(COLOURS, lines.items(), strict=False):
        _line(panel, [max(value, 1e-8) for value in values], label, colour)
    panel.set_yscale("log")
    panel.set_ylim(1e-8, 1e-2)
    panel.set_title("Errors of float32, largest entry", fontsize=10)
    panel.legend(fontsize=8, frameon=False)


def _structure(panel: Any, measured: list[Layer]) -> None:
    first = measured[0].report
    _line(panel, [x.report.commutator for x in measured], "commutator, at most 0.71", COLOURS[0])
    parameter = learned(first)
    if parameter:
        zeros = [x.report.sparsity[parameter] for x in measured]
        _line(panel, zeros, f"part of {parameter} that is zero", COLOURS[1])
    if has_learned_basis(first):
        away = [x.report.basis_distance or 0.0 for x in measured]
        _line(panel, away, "distance of P from I, at most 2", COLOURS[2])
    panel.set_ylim(0, max(0.1, 1.1 * panel.get_ylim()[1]))
    panel.set_title("Structure", fontsize=10)
    panel.legend(fontsize=8, frameon=False)


def _relativity(panel: Any, measured: list[Layer]) -> None:
    """The median over heads and pairs of about one distance, a line for each layer."""
    largest = max(float(layer.violation.max()) for layer in measured)
    shades = torch.linspace(0.3, 1.0, len(measured)).tolist()
    for layer, shade in zip(measured, shades, strict=True):
        edges = torch.quantile(layer.distances, torch.linspace(0, 1, _BINS + 1))
        bins = torch.bucketize(layer.distances, edges[1:-1])
        x = [float(layer.distances[bins == i].mean()) for i in range(_BINS)]
        y = [max(float(layer.violation[:, bins == i].median()), _FLOOR) for i in range(_BINS)]
        panel.plot(x, y, ".-", color=COLOURS[0], alpha=shade, label=layer.short)
    if largest < _VISIBLE:  # relative but for rounding
        panel.set_yscale("log")
        panel.set_ylim(_FLOOR / 2, 1)
    else:
        panel.axhline(2**0.5, color="#555555", linewidth=1, linestyle="--",
                      label="unrelated rotations")  # fmt: skip
        panel.set_ylim(0, 1.6)
    panel.set_xlabel("distance of the two patches")
    panel.set_title("Relativity: what scores depend on besides b − a", fontsize=10)
    panel.legend(fontsize=8, frameon=False, ncols=1 + len(measured) // 7)
