"""Sentences about measured differences, for verdicts."""

from __future__ import annotations

import math
from collections.abc import Sequence

from benchmarks.studies.harness.study import Metric
from benchmarks.studies.harness.summary import Summary

_NAMED = 4  # arms that are named one by one; of more, their number and the extremes


def against(
    summary: Summary,
    metric: Metric,
    reference: str | None = None,
    arms: Sequence[str] | None = None,
) -> str:
    """Which arms are better, worse, and not told apart from the reference, with the differences.

    "Better" and "worse" only where the paired test, corrected for the number of arms, says so.
    """
    reference = reference or summary.study.reference or summary.arms[0]
    found = summary.differences(metric.name, reference, arms)
    if not found:
        return f"Too few seeds to test {plain(metric)} against {reference}."
    sign = 1 if metric.higher_is_better else -1
    better = [arm for arm, d in found.items() if d.found and sign * d.estimate.mean > 0]
    worse = [arm for arm, d in found.items() if d.found and sign * d.estimate.mean < 0]
    alike = [arm for arm in found if arm not in (*better, *worse)]

    def named(arms: list[str]) -> str:
        gaps = {
            arm: f"{metric.scale * found[arm].estimate.mean:+.{metric.digits}f}" for arm in arms
        }
        if len(arms) <= _NAMED:
            return ", ".join(f"{arm} ({gap})" for arm, gap in gaps.items())
        low, high = (pick(arms, key=lambda a: found[a].estimate.mean) for pick in (min, max))
        return f"{len(arms)} arms (from {low}, {gaps[low]}, to {high}, {gaps[high]})"

    parts = [f"better: {named(better)}"] if better else []
    parts += [f"worse: {named(worse)}"] if worse else []
    parts += [f"not told apart: {named(alike)}"] if alike else []
    return f"{_sentence(metric)} against {reference}: {'; '.join(parts)}."


def spread(summary: Summary, metric: Metric, arms: Sequence[str] | None = None) -> str:
    """The lowest and the highest mean with their arms."""
    named = [a for a in arms or summary.arms if not math.isnan(summary.mean(a, metric.name))]
    if not named:
        return f"No arm has {plain(metric)}."
    low, high = (summary.best(metric.name, named, highest=h) for h in (False, True))
    values = (f"{metric.scale * summary.mean(arm, metric.name):.{metric.digits}f} ({arm})"
              for arm in (low, high))  # fmt: skip
    return f"{_sentence(metric)}: {' to '.join(values)}."


def plain(metric: Metric) -> str:
    """A metric's heading without Markdown."""
    return metric.heading.replace("<br>", " ")


def _sentence(metric: Metric) -> str:
    text = plain(metric)
    return text[0].upper() + text[1:]
