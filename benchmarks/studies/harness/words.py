"""Sentences about measured differences, for verdicts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from benchmarks.studies.harness.study import Metric
from benchmarks.studies.harness.summary import Difference, Estimate, Summary

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
    found = list(summary.differences(metric.name, reference, arms).values())
    if not found:
        return f"Too few seeds to test {plain(metric)} against {name(reference)}."
    text = f"{_subject(metric)} against {name(reference)}: {_sorted(summary, metric, found)}"
    known = {d.arm for d in found} | {reference}
    untested = [a for a in arms or summary.arms if a not in known]
    if untested:
        text += f"; in too few seeds to test: {listed(untested)}"
    return f"{text}."


def pairs(summary: Summary, metric: Metric, what: str, chosen: Sequence[tuple[str, str]]) -> str:
    """The first arm of each pair against its second, all tested together; `what` names the pairs.

    Says nothing where none of the arms is there.
    """
    found = summary.compared(metric.name, chosen)
    return f"{_subject(metric)}, {what}: {_sorted(summary, metric, found)}." if found else ""


def brief(
    summary: Summary,
    metric: Metric,
    reference: str | None = None,
    arms: Sequence[str] | None = None,
) -> str:
    """What `against` says without the numbers: a study's answer in a sentence."""
    reference = reference or summary.study.reference or summary.arms[0]
    found = list(summary.differences(metric.name, reference, arms).values())
    if not found:
        return f"Too few seeds to test {plain(metric)} against {name(reference)}."
    parts = []
    for heading, group in _groups(metric, found):
        named = listed([d.arm for d in group])
        parts.append(f"{heading}: {named if len(group) <= _NAMED else f'{len(group)} arms'}")
    return f"{_subject(metric, unit=False)} against {name(reference)}: {'; '.join(parts)}."


def kept(
    summary: Summary, before: str, after: str, points: float, arms: Sequence[str] | None = None
) -> tuple[list[str], list[str], list[str]]:
    """Arms by what a disturbance does to a share: kept, lost, and neither shown.

    Kept: the whole interval of the change lies within so many points of 0. Lost: it lies below 0.
    """
    held, lost, unclear = [], [], []
    for arm in arms or summary.arms:
        change = summary.change(arm, before, after)
        if change is None or math.isnan(change.half):
            continue
        if max(abs(change.low), abs(change.high)) <= points / 100:
            held.append(arm)
        elif change.high < 0:
            lost.append(arm)
        else:
            unclear.append(arm)
    return held, lost, unclear


def disturbed(summary: Summary, before: str, after: str, points: float) -> str:
    """`kept` as a sentence's end: who keeps the accuracy, and how that of others changes."""
    held, lost, unclear = kept(summary, before, after, points)

    def shown(arm: str) -> str:
        change = summary.change(arm, before, after)
        return f"{name(arm)} ({interval(change, 100, 1)})" if change else name(arm)

    text = f"{listed(held)} keep their accuracy"
    text += f"; change in points: {', '.join(map(shown, lost))}" if lost else ""
    return text + (f"; neither shown: {', '.join(map(shown, unclear))}" if unclear else "")


def spread(summary: Summary, metric: Metric, arms: Sequence[str] | None = None) -> str:
    """The lowest and the highest mean with their arms."""
    named = [a for a in arms or summary.arms if not math.isnan(summary.mean(a, metric.name))]
    if not named:
        return f"No arm has {plain(metric)}."
    low, high = (summary.best(metric.name, named, highest=h) for h in (False, True))
    values = (f"{metric.scale * summary.mean(arm, metric.name):.{metric.digits}f} ({name(arm)})"
              for arm in (low, high))  # fmt: skip
    text = plain(metric)
    return f"{text[0].upper()}{text[1:]}: {' to '.join(values)}."


def interval(value: Estimate, scale: float, digits: int, sign: bool = True) -> str:
    """Mean ± half the interval."""
    mean = round(scale * value.mean, digits) + 0.0  # no "-0.0"
    text = f"{mean:{'+' if sign else ''}.{digits}f}"
    return text if math.isnan(value.half) else f"{text} ± {scale * value.half:.{digits}f}"


def name(arm: str) -> str:
    """An arm as sentences have it: names hold commas, and one of them is `none`."""
    return f"`{arm}`"


def listed(arms: Sequence[str], empty: str = "no arm") -> str:
    """The arms' names."""
    return ", ".join(map(name, arms)) or empty


def own_start(summary: Summary) -> str:
    """What comparisons with LieRE leave open where arms start as their papers have them."""
    if not any("liere:8" in arm for arm in summary.arms):
        return ""
    return (
        "LieRE's blocks start from larger angles than the other rotations; how much of a gap to "
        "them is the start's doing is not measured here, as it is in the studies of initial "
        "frequencies and of point clouds."
    )


def plain(metric: Metric) -> str:
    """A metric's heading without Markdown."""
    return metric.heading.replace("<br>", " ")


def _subject(metric: Metric, unit: bool = True) -> str:
    text, percent, _ = plain(metric).partition(", %")
    text = text[0].upper() + text[1:]
    return f"{text} in points" if percent and unit else text


Group = tuple[str, list[Difference]]


def _groups(metric: Metric, found: Sequence[Difference]) -> list[Group]:
    sign = -1 if metric.higher_is_better is False else 1
    up, down = ("higher", "lower") if metric.higher_is_better is None else ("better", "worse")

    def chosen(which: Callable[[Difference], bool]) -> list[Difference]:
        return [d for d in found if which(d)]

    groups = [
        (up, chosen(lambda d: d.found and sign * d.estimate.mean > 0)),
        (down, chosen(lambda d: d.found and sign * d.estimate.mean <= 0)),
        ("apart only without the correction", chosen(lambda d: d.doubtful)),
        ("not told apart", chosen(lambda d: not d.found and not d.doubtful)),
    ]
    return [(heading, group) for heading, group in groups if group]


def _sorted(summary: Summary, metric: Metric, found: Sequence[Difference]) -> str:
    def shown(d: Difference) -> str:
        gap = interval(d.estimate, metric.scale, metric.digits)
        few = d.estimate.count < len(summary.seeds)
        return f"{gap} in {d.estimate.count} seeds" if few else gap

    parts = []
    for heading, group in _groups(metric, found):
        if len(group) <= _NAMED:
            named = ", ".join(f"{name(d.arm)} ({shown(d)})" for d in group)
        else:
            low, high = (pick(group, key=lambda d: d.estimate.mean) for pick in (min, max))
            ends = f"from {name(low.arm)}, {shown(low)}, to {name(high.arm)}, {shown(high)}"
            same = low.estimate.mean == high.estimate.mean
            named = f"{len(group)} arms ({f'each {shown(low)}' if same else ends})"
        parts.append(f"{heading}: {named}")
    return "; ".join(parts)
