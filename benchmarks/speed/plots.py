"""One picture a family: time of every form, case by case, above what the machine can do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.speed.measure import Result
from benchmarks.speed.tables import title

# Okabe and Ito's colours, told apart by colour-blind readers; the base is black.
_COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#D55E00", "#0072B2", "#F0E442", "#999999")
_MARKS = "osD^vP*X"
_LIMIT = "limit: copy, multiply-add"


def plot_family(family: str, results: Sequence[Result], path: Path) -> None:
    """Write the picture; its format follows the suffix."""
    import matplotlib as mpl  # noqa: PLC0415

    mpl.use("Agg")
    from matplotlib import pyplot  # noqa: PLC0415

    threads = sorted({result.threads for result in results})
    names = list(dict.fromkeys(result.case.name for result in results))
    draw = _bars if len(names) == 1 else _lines
    width = 4.2 if len(names) == 1 else max(4.2, 0.5 * len(names) + 1.5)
    figure, axes = pyplot.subplots(
        1, len(threads), figsize=(width * len(threads) + 1, 4.2), sharey=True, squeeze=False
    )
    for ax, count in zip(axes[0], threads, strict=True):
        draw(ax, [result for result in results if result.threads == count])
        ax.set_title(f"{count} thread{'s' if count > 1 else ''}", fontsize=10)
        ax.grid(True, which="major", alpha=0.3)
    if draw is _lines:
        axes[0][0].set_ylabel("ms, median (log)")
        handles, labels = _legend(axes[0])
        axes[0][-1].legend(
            handles, labels, fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5)
        )
    figure.suptitle(title(family, results), fontsize=11)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    # No date in the file: the same numbers give the same picture.
    dated = {"Date": None} if path.suffix == ".svg" else None
    figure.savefig(path, dpi=130, bbox_inches="tight", metadata=dated)
    pyplot.close(figure)


def _lines(ax: Any, results: Sequence[Result]) -> None:
    """Forms over the cases, time in logarithm, a series joined by a line; the limit dashed."""
    forms = list(dict.fromkeys(f for r in results for f in (r.case.base, *r.case.peers)))
    for number, form in enumerate(forms):
        style = {
            "color": _colour(number),
            "marker": _MARKS[number % len(_MARKS)],
            "linewidth": 1.8 if number == 0 else 1.0,
            "markersize": 5,
            "capsize": 2,
        }
        timings = [(x, r.forms[form]) for x, r in enumerate(results) if form in r.forms]
        for run in _runs(results, [x for x, _ in timings]):
            chosen = [t for x, t in timings if x in run]
            middles = [1e3 * t.median for t in chosen]
            below = [1e3 * (t.median - t.low) for t in chosen]
            above = [1e3 * (t.high - t.median) for t in chosen]
            ax.errorbar(run, middles, yerr=(below, above), label=form, **style)
    limits = {x: 1e3 * r.limit for x, r in enumerate(results) if r.limit is not None}
    for run in _runs(results, list(limits)):
        ends = [run[0] - 0.3, *run, run[-1] + 0.3]
        heights = [limits[x] for x in (run[0], *run, run[-1])]
        ax.plot(ends, heights, "k--", linewidth=1, label=_LIMIT)
    labels = [result.case.name.partition("/")[2] for result in results]
    ax.set_yscale("log")
    ax.set_xticks(range(len(labels)), labels, rotation=60, ha="right", fontsize=8)


def _runs(results: Sequence[Result], places: Sequence[int]) -> list[list[int]]:
    """Places cut where one series ends and the next begins."""
    runs: list[list[int]] = []
    series = ""
    for x in places:
        if not runs or not series or results[x].case.series != series:
            runs.append([])
        series = results[x].case.series
        runs[-1].append(x)
    return runs


def _bars(ax: Any, results: Sequence[Result]) -> None:
    """Forms of one case as bars, the fastest on top; the limit a dashed line."""
    (result,) = results
    forms = [f for f in (result.case.base, *result.case.peers) if f in result.forms]
    times = [1e3 * result.forms[form].median for form in forms]
    colours = ["black" if form == result.case.base else _COLOURS[1] for form in forms]
    ax.barh(range(len(forms)), times, color=colours, height=0.7)
    ax.set_yticks(range(len(forms)), forms, fontsize=8)
    if not ax.yaxis_inverted():
        ax.invert_yaxis()
    for y, form in enumerate(forms):
        if form != result.case.base:
            ax.text(times[y], y, f" {result.forms[form].ratio:.2f}×", va="center", fontsize=8)
    ax.margins(x=0.18)
    if result.limit is not None:
        ax.axvline(1e3 * result.limit, color="k", linestyle="--", linewidth=1)
    ax.set_xlabel("ms, median")


def _colour(number: int) -> str:
    return "black" if number == 0 else _COLOURS[(number - 1) % len(_COLOURS)]


def _legend(axes: Sequence[Any]) -> tuple[list[Any], list[str]]:
    found: dict[str, Any] = {}
    for ax in axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    found = dict(sorted(found.items(), key=lambda item: item[0] == _LIMIT))  # the limit last
    return list(found.values()), list(found)
