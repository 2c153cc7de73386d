"""What a study is: arms, settings, one function that trains a run, and what is said of the runs."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch

from lierope.train.distributed import World
from lierope.train.errors import InputError, check, check_name

if TYPE_CHECKING:
    from benchmarks.studies.harness.summary import Summary

Settings = dict[str, Any]  # plain JSON values


@dataclass(frozen=True)
class Arm:
    """One of the things compared; `options` go over the study's settings."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Unit:
    """One run. Runs with equal study, version, arm, seed and settings are the same run."""

    study: str
    version: int
    arm: str
    seed: int
    settings: Settings

    @property
    def name(self) -> str:
        """What people are shown."""
        return f"{self.arm}, seed {self.seed}"

    @property
    def key(self) -> str:
        """A name for files, unlike that of every other run."""
        text = json.dumps([self.study, self.version, self.arm, self.seed, self.settings])
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


class Tell(Protocol):
    """Is told how far a run has come, a fraction in [0, 1]."""

    def __call__(self, fraction: float) -> None:
        """Takes the fraction."""


@dataclass(frozen=True)
class Context:
    """What a run is given besides its settings, none of which changes its outcome.

    `folder` is the run's own, for what it needs to go on after an interruption; it is removed when
    the run is done.
    """

    unit: Unit
    world: World
    folder: Path
    tell: Tell

    @property
    def seed(self) -> int:
        """The run's seed."""
        return self.unit.seed

    @property
    def settings(self) -> Settings:
        """The run's settings."""
        return self.unit.settings

    @property
    def device(self) -> torch.device:
        """Where to compute."""
        return self.world.device


@dataclass(frozen=True)
class Outcome:
    """What a run found.

    `metrics` are single numbers by name, `curves` lists of (x, y) by name. A metric that does not
    apply to an arm is left out of its runs.
    """

    metrics: Mapping[str, float]
    curves: Mapping[str, Sequence[tuple[float, float]]] = field(default_factory=dict)
    parameters: int = 0
    position_parameters: int = 0
    seconds_per_step: float = 0.0
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Metric:
    """How a metric is shown: its value times `scale`, with `digits` after the point.

    `higher_is_better` is None where neither is, as for the share that a disturbance takes. No
    metric is below 0; `most` is the largest value that one can have, 1 of a share (`scale` 100)
    unless it says otherwise.
    """

    name: str
    heading: str
    scale: float = 100.0
    digits: int = 1
    higher_is_better: bool | None = True
    most: float | None = None

    @property
    def largest(self) -> float:
        """The largest value that there can be."""
        if self.most is not None:
            return self.most
        return 1.0 if self.scale == 100 else math.inf


@dataclass(frozen=True)
class Study:
    """One question, answered by training every arm with every seed.

    Attributes:
        name: as the command line knows it.
        question: one line, ends with a question mark.
        source: paper and table, figure or section.
        version: raised when a change makes older runs incomparable.
        arms: in the order of tables.
        settings: defaults of every setting; a run reads no other.
        quick: what `--quick` changes: at most two minutes on two cores.
        run: trains and tests one run.
        metrics: those in the table, the main one first.
        verdict: says what was found and what was not, from the measured numbers; its first line is
            the answer in a sentence or two, which lists show alone.
        draw: writes pictures into a folder, returns their paths, the most telling first.
        papers: the papers' own figures, Markdown.
        reference: the arm that others are tested against, paired by seed.
        seeds: how many in the default form.
        quick_arms: the arms of `--quick`; all when empty.
        presets: settings by name for larger data or machines.
        joined: processes of torchrun train each run together, rather than share the runs out.
    """

    name: str
    question: str
    source: str
    version: int
    arms: Sequence[Arm]
    settings: Settings
    quick: Settings
    run: Callable[[Context], Outcome]
    metrics: Sequence[Metric]
    verdict: Callable[[Summary], str]
    draw: Callable[[Summary, Path], list[Path]]
    papers: str
    reference: str | None = None
    seeds: int = 3
    quick_arms: Sequence[str] = ()
    presets: Mapping[str, Settings] = field(default_factory=dict)
    joined: bool = False

    def arm(self, name: str) -> Arm:
        """The arm of that name; raises InputError for one there is not."""
        by_name = {arm.name: arm for arm in self.arms}
        return by_name[check_name("arms", name, by_name)]

    def changed(self, settings: Settings, changes: Settings) -> Settings:
        """Settings with changes; raises InputError for one unknown or of another type."""
        for name, value in changes.items():
            check_name("set", name, self.settings)
            old = self.settings[name]
            number = isinstance(old, float) and type(value) is int
            check(
                old is None or value is None or number or type(value) is type(old),
                f"set: {name} must be {type(old).__name__}, as {json.dumps(old)} is, "
                f"got {json.dumps(value)}",
            )
        return settings | changes

    def units(self, settings: Settings, arms: Sequence[str], seeds: Sequence[int]) -> list[Unit]:
        """Every seed of every arm, seed by seed, so that an early stop leaves whole seeds."""
        chosen = [self.arm(name) for name in arms]
        return [
            Unit(self.name, self.version, arm.name, seed, settings | dict(arm.options))
            for seed in seeds
            for arm in chosen
        ]


def check_study(study: Study) -> None:
    """Raises ValueError where a study's parts do not fit each other."""
    names = [arm.name for arm in study.arms]
    unknown = [
        name
        for changes in (study.quick, *study.presets.values(), *(a.options for a in study.arms))
        for name in changes
        if name not in study.settings
    ]
    problems = [
        (len(set(names)) < len(names), "two arms of one name"),
        (bool(unknown), f"unknown settings {unknown}"),
        (study.reference is not None and study.reference not in names, "unknown reference"),
        (not set(study.quick_arms) <= set(names), "unknown quick arms"),
        (not study.question.endswith("?"), "a question without a question mark"),
        (not study.metrics, "no metrics"),
    ]
    for wrong, text in problems:
        if wrong:
            raise ValueError(f"study {study.name}: {text}")


def number_of(settings: Settings, name: str, least: float) -> Any:
    """A setting that must be at least `least`; raises InputError."""
    value = settings[name]
    if not value >= least:
        raise InputError(f"set: {name} must be at least {least:g}, got {value:g}")
    return value
