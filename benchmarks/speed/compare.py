"""Comparison with an earlier record: which cases lost more than 5 % of their speed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.speed.measure import Result, Timing

TOLERANCE = 0.05


@dataclass(frozen=True)
class Change:
    """One form of one case against its earlier self.

    Attributes:
        slower: Time now over time then: 1.1 is a loss of ten hundredths.
        beside: The form against which both were timed, so that a slower day of the machine does
            not count; "" where there is none and plain seconds are compared.
        lost: Slower by more than the tolerance, and the quartiles of now and then do not meet.
    """

    name: str
    threads: int
    form: str
    slower: float
    beside: str
    lost: bool


def compare(results: Sequence[Result], reference: Mapping[str, Any]) -> list[Change]:
    """Changes of what is ours: the base of operator cases, the encodings of training steps."""
    earlier = {(r["name"], r["threads"]): r for r in reference["results"]}
    changes = []
    for result in results:
        then = earlier.get((result.case.name, result.threads))
        # Other sizes (--quick) are other cases.
        if then is None or list(then["case"]["shape"]) != list(result.case.shape):
            continue
        changes += _changes(result, {n: Timing(**t) for n, t in then["forms"].items()})
    return changes


def _changes(result: Result, then: Mapping[str, Timing]) -> list[Change]:
    base, now = result.case.base, result.forms
    if base == "lierope":
        if base not in now or base not in then:
            return []
        shared = [peer for peer in result.case.peers if peer in now and peer in then]
        if not shared:
            return [_change(result, base, "", _seconds(now[base]), _seconds(then[base]))]
        # A peer's time over ours: its inverse grows as ours does.
        pair = [_inverse(side[shared[0]]) for side in (now, then)]
        return [_change(result, base, shared[0], *pair)]
    ours = [form for form in now if form in then and form != base]
    return [_change(result, form, base, _ratio(now[form]), _ratio(then[form])) for form in ours]


Spread = tuple[float, float, float]


def _change(result: Result, form: str, beside: str, now: Spread, then: Spread) -> Change:
    slower = now[1] / then[1]
    lost = slower > 1 + TOLERANCE and now[0] > then[2]
    return Change(result.case.name, result.threads, form, slower, beside, lost)


def _seconds(timing: Timing) -> Spread:
    return timing.low, timing.median, timing.high


def _ratio(timing: Timing) -> Spread:
    return timing.ratio_low, timing.ratio, timing.ratio_high


def _inverse(timing: Timing) -> Spread:
    return 1 / timing.ratio_high, 1 / timing.ratio, 1 / timing.ratio_low
