"""The kinds of pictures that studies share: dots with intervals, curves, a number against another.

Colours go by arm, the same in all pictures of a study; bands and bars are 95 % intervals, which end
at 0 and 100 % where a share is drawn. Logarithmic pictures have none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.studies.harness.study import Metric
from benchmarks.studies.harness.summary import Estimate, Summary
from lierope.train.plots import COLOURS, clean, figure_of, save

Lines = Mapping[str, float]  # horizontal lines worth knowing, such as chance, by label
_DASHES = ("-", "--", ":", "-.")


def style(summary: Summary, arm: str) -> dict[str, Any]:
    """Colour and dash of an arm; dashes tell arms apart once the eight colours are used up."""
    index = [a.name for a in summary.study.arms].index(arm)
    dash = _DASHES[index // len(COLOURS) % len(_DASHES)]
    return {"color": COLOURS[index % len(COLOURS)], "linestyle": dash}


def dots(
    summary: Summary, metrics: Sequence[Metric], path: Path, lines: Lines | None = None
) -> Path:
    """A panel a metric, a row an arm: every seed's dot, the mean and its interval."""
    height = 0.32 * len(summary.arms) + 1.2
    figure = figure_of(2.2 + 2.9 * len(metrics), height)
    panels = figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
    for panel, metric in zip(panels, metrics, strict=True):
        for row, arm in enumerate(summary.arms):
            _dots_of(panel, summary, arm, metric, row)
        for label, value in (lines or {}).items():
            panel.axvline(metric.scale * value, color="#555555", linewidth=1, linestyle="--")
            panel.annotate(label, (metric.scale * value, 1), xycoords=("data", "axes fraction"),
                           fontsize=7, color="#555555", ha="center", va="bottom")  # fmt: skip
        panel.set_xlabel(metric.heading.replace("<br>", " "))
        clean(panel)
        panel.grid(axis="x", color="#dddddd", linewidth=0.6)
        panel.grid(visible=False, axis="y")
    panels[0].set_yticks(range(len(summary.arms)), summary.arms)
    panels[0].invert_yaxis()
    save(figure, path)
    return path


def _dots_of(panel: Any, summary: Summary, arm: str, metric: Metric, row: int) -> None:
    value = summary.estimate(arm, metric.name)
    if value is None:
        return
    colour = style(summary, arm)["color"]
    seeds = [metric.scale * v for v in summary.values(arm, metric.name).values()]
    panel.plot(seeds, [row] * len(seeds), ".", color=colour, alpha=0.5, markersize=5)
    mean, (low, high) = metric.scale * value.mean, drawn_interval(value, metric.scale)
    panel.errorbar(
        mean, row, xerr=[[mean - low], [high - mean]], fmt="o", color=colour, capsize=3,
        markersize=5,
    )  # fmt: skip


def curves(
    summary: Summary,
    name: str,
    path: Path,
    *,
    xlabel: str,
    ylabel: str,
    scale: float = 1.0,
    lines: Lines | None = None,
    arms: Sequence[str] | None = None,
    logarithmic: bool = False,
) -> Path:
    """A curve of every arm with its band."""
    figure = figure_of(7.2, 4.0)
    axes = figure.add_subplot()
    for arm in arms or summary.arms:
        points = summary.curve(arm, name)
        if points:
            # Intervals that are symmetric about a mean reach below 0.
            band(axes, summary, arm, points, scale, shaded=not logarithmic)
    finish(figure, axes, xlabel, ylabel, {k: scale * v for k, v in (lines or {}).items()})
    if logarithmic:
        axes.set_yscale("log")
    save(figure, path)
    return path


def against(
    summary: Summary,
    metrics: Mapping[float, str],
    path: Path,
    *,
    xlabel: str,
    ylabel: str,
    scale: float = 100.0,
    lines: Lines | None = None,
    arms: Sequence[str] | None = None,
) -> Path:
    """A line an arm: metrics (by x, for example the image size) against x, with intervals."""
    figure = figure_of(7.2, 4.0)
    axes = figure.add_subplot()
    for arm in arms or summary.arms:
        found = ((x, summary.estimate(arm, name)) for x, name in metrics.items())
        points = [(x, value) for x, value in found if value is not None]
        if points:
            band(axes, summary, arm, points, scale, marker="o")
    axes.set_xticks(list(metrics), [f"{x:g}" for x in metrics])
    finish(figure, axes, xlabel, ylabel, {k: scale * v for k, v in (lines or {}).items()})
    save(figure, path)
    return path


def band(
    axes: Any,
    summary: Summary,
    arm: str,
    points: Sequence[tuple[float, Estimate]],
    scale: float,
    marker: str | None = None,
    shaded: bool = True,
) -> None:
    """One arm's line, with its interval as a band where it is to be shaded."""
    x = [point for point, _ in points]
    drawn = style(summary, arm)
    mean = [scale * e.mean for _, e in points]
    axes.plot(x, mean, label=arm, marker=marker, markersize=3.5, linewidth=1.4, **drawn)
    if shaded and not math.isnan(points[0][1].half):
        low, high = zip(*(drawn_interval(e, scale) for _, e in points), strict=True)
        axes.fill_between(x, low, high, color=drawn["color"], alpha=0.12, linewidth=0)


def drawn_interval(value: Estimate, scale: float) -> tuple[float, float]:
    """The scaled interval; that of a share in percent ends at 0 and at 100."""
    low, high = scale * value.low, scale * value.high
    if math.isnan(value.half):
        return scale * value.mean, scale * value.mean
    if scale == 100 and 0 <= value.mean <= 1:
        return max(low, 0.0), min(high, 100.0)
    return low, high


def finish(figure: Any, axes: Any, xlabel: str, ylabel: str, lines: Lines) -> None:
    """Labels, lines worth knowing, and a legend beside the panel."""
    for label, value in lines.items():
        axes.axhline(value, color="#555555", linewidth=1, linestyle="--", label=label)
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    clean(axes)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right upper", frameon=False,
                  fontsize=8)  # fmt: skip
