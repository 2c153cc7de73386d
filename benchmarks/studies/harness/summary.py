"""Means, 95 % intervals and paired tests over the seeds of a study's runs."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.studies.harness.record import Row
from benchmarks.studies.harness.study import Study
from lierope.train.extras import extra

LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds with Student's 95 % interval (one seed: no interval)."""

    mean: float
    low: float
    high: float
    count: int

    @property
    def half(self) -> float:
        """Half the width of the interval; NaN of one seed."""
        return (self.high - self.low) / 2


@dataclass(frozen=True)
class Difference:
    """An arm minus another over the seeds both have: Student's paired test.

    `p` is corrected by Holm's method for all that was tested with it, `alone` is not.
    """

    arm: str
    reference: str
    metric: str
    estimate: Estimate
    p: float
    alone: float

    @property
    def found(self) -> bool:
        """Whether the arms were told apart at the 5 % level."""
        return self.p < 1 - LEVEL

    @property
    def doubtful(self) -> bool:
        """Whether they would have been, had nothing else been tested."""
        return not self.found and self.alone < 1 - LEVEL


def estimate(values: Sequence[float]) -> Estimate:
    """Mean and interval of numbers that are independent and nearly normal."""
    mean, count = statistics.fmean(values), len(values)
    if count == 1:
        return Estimate(mean, math.nan, math.nan, 1)
    error = statistics.stdev(values) / math.sqrt(count)
    half = float(extra("scipy.stats").t.ppf((1 + LEVEL) / 2, count - 1)) * error
    return Estimate(mean, mean - half, mean + half, count)


class Summary:
    """A study's runs, by arm and metric."""

    def __init__(self, study: Study, rows: Sequence[Row]) -> None:
        self.study = study
        self.rows = list(rows)
        present = {row["arm"] for row in rows}
        self.arms = [arm.name for arm in study.arms if arm.name in present]
        self.seeds = sorted({row["seed"] for row in rows})

    def outcomes(self, arm: str) -> dict[int, dict[str, Any]]:
        """The outcomes of an arm's runs that did not fail, by seed."""
        return {
            row["seed"]: row["outcome"]
            for row in self.rows
            if row["arm"] == arm and "outcome" in row
        }

    def failures(self, arm: str) -> list[str]:
        """Why runs of an arm failed."""
        return [row["failed"] for row in self.rows if row["arm"] == arm and "failed" in row]

    def values(self, arm: str, metric: str) -> dict[int, float]:
        """A metric of an arm's runs by seed; empty where it does not apply."""
        found = {s: o["metrics"].get(metric) for s, o in self.outcomes(arm).items()}
        return {seed: float(value) for seed, value in found.items() if value is not None}

    def estimate(self, arm: str, metric: str) -> Estimate | None:
        """Mean and interval over the seeds; None where no run has the metric."""
        values = list(self.values(arm, metric).values())
        return estimate(values) if values else None

    def mean(self, arm: str, metric: str) -> float:
        """The mean over the seeds; NaN where no run has the metric."""
        found = self.estimate(arm, metric)
        return found.mean if found else math.nan

    def best(self, metric: str, arms: Sequence[str] | None = None, highest: bool = True) -> str:
        """The arm of the highest (or lowest) mean among those that have the metric."""
        named = [a for a in arms or self.arms if not math.isnan(self.mean(a, metric))]
        return (max if highest else min)(named, key=lambda arm: self.mean(arm, metric))

    def differences(
        self, metric: str, reference: str | None = None, arms: Sequence[str] | None = None
    ) -> dict[str, Difference]:
        """Every arm against the reference; an arm with fewer than two seeds in common is absent."""
        reference = reference or self.study.reference or self.arms[0]
        pairs = [(arm, reference) for arm in arms or self.arms if arm != reference]
        return {d.arm: d for d in self.compared(metric, pairs)}

    def compared(self, metric: str, pairs: Sequence[tuple[str, str]]) -> list[Difference]:
        """The first of each pair of arms against the second, where they share two seeds or more."""
        found = []
        for arm, reference in pairs:
            mine, base = self.values(arm, metric), self.values(reference, metric)
            both = [(mine[seed], base[seed]) for seed in mine if seed in base]
            if len(both) > 1:
                gap = estimate([a - b for a, b in both])
                found.append((arm, reference, gap, _paired_p(both)))
        corrected = holm([p for *_, p in found])
        return [
            Difference(arm, reference, metric, gap, p, alone)
            for (arm, reference, gap, alone), p in zip(found, corrected, strict=True)
        ]

    def change(self, arm: str, before: str, after: str) -> Estimate | None:
        """A metric of an arm's runs minus another of the same runs; None where no run has both."""
        first, second = self.values(arm, before), self.values(arm, after)
        gaps = [second[seed] - first[seed] for seed in second if seed in first]
        return estimate(gaps) if gaps else None

    def rank_correlation(self, x: str, y: str, arms: Sequence[str]) -> Estimate | None:
        """Spearman's over the arms, seed by seed; None with fewer than four arms or two seeds.

        Runs of one seed share data and start, so runs are not counted as independent: seeds are.
        """
        found = []
        for seed in self.seeds:
            pairs = [
                (self.values(arm, x)[seed], self.values(arm, y)[seed])
                for arm in arms
                if seed in self.values(arm, x) and seed in self.values(arm, y)
            ]
            if len(pairs) > 3:
                found.append(float(extra("scipy.stats").spearmanr(*zip(*pairs, strict=True))[0]))
        return estimate(found) if len(found) > 1 else None

    def curve(self, arm: str, name: str) -> list[tuple[float, Estimate]]:
        """A curve's mean and interval at every x that all of the arm's runs have."""
        runs = [dict(map(tuple, o["curves"].get(name, []))) for o in self.outcomes(arm).values()]
        common = sorted(set.intersection(*(set(run) for run in runs))) if runs else []
        return [(x, estimate([run[x] for run in runs])) for x in common]

    def to_json(self) -> dict[str, Any]:
        """Means, intervals and tests of the table's metrics, as plain values."""
        arms = {arm: self._arm_json(arm) for arm in self.arms}
        tests = [
            {"metric": d.metric, "arm": d.arm, "reference": d.reference, "p_holm": d.p,
             "p": d.alone, "mean": d.estimate.mean, "low": d.estimate.low, "high": d.estimate.high}
            for metric in self.study.metrics
            for d in (self.differences(metric.name).values() if self.study.reference else ())
        ]  # fmt: skip
        return {"interval": LEVEL, "arms": arms, "tests": tests}

    def _arm_json(self, arm: str) -> dict[str, Any]:
        found = ((m.name, self.estimate(arm, m.name)) for m in self.study.metrics)
        return {name: vars(value) for name, value in found if value is not None}


def holm(values: Sequence[float]) -> list[float]:
    """p-values corrected for their number (Holm 1979): never smaller, in the same order."""
    order = sorted(range(len(values)), key=values.__getitem__)
    corrected, largest = [0.0] * len(values), 0.0
    for place, index in enumerate(order):
        largest = max(largest, min(1.0, values[index] * (len(values) - place)))
        corrected[index] = largest
    return corrected


def _paired_p(pairs: Sequence[tuple[float, float]]) -> float:
    gaps = [a - b for a, b in pairs]
    if len(set(gaps)) == 1:  # no variance to test against: equal, or apart by the same each time
        return 1.0 if gaps[0] == 0 else 0.0
    first, second = zip(*pairs, strict=True)
    return float(extra("scipy.stats").ttest_rel(first, second).pvalue)
