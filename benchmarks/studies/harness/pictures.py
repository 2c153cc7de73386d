"""The kinds of pictures that studies share: dots with intervals, curves, a number against another.

Colours go by arm, the same in all pictures of a study; bands and bars are 95 % intervals, which end
where values must: at 0, and at 100 % of a share. Logarithmic pictures have none.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.studies.harness.study import Metric
from benchmarks.studies.harness.summary import Estimate, Summary
from lierope.train.plots import COLOURS, clean, figure_of, save

Lines = Mapping[str, float]  # horizontal lines worth knowing, such as chance, by label
Group = Callable[[str], str]  # of an arm's name: arms of one group share a colour
_DASHES = ("-", "--", ":", "-.")


def style(summary: Summary, arm: str, group: Group | None = None) -> dict[str, Any]:
    """Colour and dash of an arm; dashes tell arms apart once the eight colours are used up."""
    names = [a.name for a in summary.study.arms]
    if group is None:
        index = names.index(arm)
    else:
        index = list(dict.fromkeys(map(group, names))).index(group(arm))
    dash = _DASHES[index // len(COLOURS) % len(_DASHES)]
    return {"color": COLOURS[index % len(COLOURS)], "linestyle": dash}


def dots(
    summary: Summary,
    metrics: Sequence[Metric],
    path: Path,
    lines: Lines | None = None,
    group: Group | None = None,
) -> Path:
    """A panel a metric, a row an arm: every seed's dot, the mean and its interval."""
    height = 0.32 * len(summary.arms) + 1.2
    # Pages show pictures as wide as their text: many panels are narrow, to keep letters large.
    figure = figure_of(2.2 + (2.9 if len(metrics) < 4 else 2.2) * len(metrics), height)
    panels = figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
    for panel, metric in zip(panels, metrics, strict=True):
        for row, arm in enumerate(summary.arms):
            _dots_of(panel, summary, arm, metric, row, style(summary, arm, group)["color"])
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


def _dots_of(panel: Any, summary: Summary, arm: str, metric: Metric, row: int, colour: str) -> None:
    value = summary.estimate(arm, metric.name)
    if value is None:
        return
    seeds = [metric.scale * v for v in summary.values(arm, metric.name).values()]
    panel.plot(seeds, [row] * len(seeds), ".", color=colour, alpha=0.5, markersize=5)
    mean = metric.scale * value.mean
    low, high = drawn_interval(value, metric.scale, metric.largest)
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
    """A line an arm: metrics (by x, for example the image size) against x, with intervals.

    Arms stand beside each other at each x, so that their bars do not hide one another.
    """
    figure = figure_of(7.2, 4.0)
    axes = figure.add_subplot()
    chosen, places = list(arms or summary.arms), sorted(metrics)
    nearest = min((b - a for a, b in itertools.pairwise(places)), default=1.0)
    for index, arm in enumerate(chosen):
        found = ((x, summary.estimate(arm, name)) for x, name in metrics.items())
        aside = 0.5 * nearest * ((index + 0.5) / len(chosen) - 0.5)
        points = [(x + aside, value) for x, value in found if value is not None]
        if points:
            band(axes, summary, arm, points, scale, bars=True)
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
    bars: bool = False,
    shaded: bool = True,
) -> None:
    """One arm's line, with its interval as a band where it is to be shaded, or as bars."""
    x = [point for point, _ in points]
    drawn = style(summary, arm)
    mean = [scale * e.mean for _, e in points]
    axes.plot(x, mean, label=arm, marker="o" if bars else None, markersize=3.5, linewidth=1.4,
              **drawn)  # fmt: skip
    if shaded and not math.isnan(points[0][1].half):
        low, high = zip(*(drawn_interval(e, scale) for _, e in points), strict=True)
        if bars:
            axes.vlines(x, low, high, color=drawn["color"], linewidth=1, alpha=0.6)
        else:
            axes.fill_between(x, low, high, color=drawn["color"], alpha=0.12, linewidth=0)


def drawn_interval(
    value: Estimate, scale: float, largest: float | None = None
) -> tuple[float, float]:
    """The scaled interval, cut where values end: at 0 and at the largest, 1 of a share."""
    if largest is None:
        largest = 1.0 if scale == 100 else math.inf
    if math.isnan(value.half):
        return scale * value.mean, scale * value.mean
    return scale * max(value.low, 0.0), scale * min(value.high, largest)


def finish(figure: Any, axes: Any, xlabel: str, ylabel: str, lines: Lines) -> None:
    """Labels, lines worth knowing, and a legend beside the panel."""
    for label, value in lines.items():
        axes.axhline(value, color="#555555", linewidth=1, linestyle="--", label=label)
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    clean(axes)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right upper", frameon=False,
                  fontsize=8)  # fmt: skip
