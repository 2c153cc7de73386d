"""Times the forms of a case in turn, in one process: medians, quartiles, ratios of each round."""

from __future__ import annotations

import gc
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from benchmarks.speed.cases import BenchCase
from benchmarks.speed.forms import Builder, Maker, Pass, SkipError
from benchmarks.speed.memory import peak_memory
from benchmarks.speed.timing import pass_seconds

_MOST_ROUNDS = 25
_FEWEST_ROUNDS, _FEWEST_LONG_ROUNDS, _LONG = 5, 3, 1.0  # of more than a second
_WARMED = 1.0  # seconds: longer passes are their own warm-up
_MOST_REPEATS = 25
Say = Callable[[str], None]


@dataclass
class Timing:
    """One form of one case.

    Attributes:
        median: Seconds of a pass, over the rounds.
        low, high: Quartiles of the same.
        ratio: Median over the rounds of this form's time over the base's in the same round, so that
            a change of the machine's speed meets both.
        ratio_low, ratio_high: Quartiles of the same.
        rounds: How many.
        allocated, resident: Peaks of extra memory in bytes (memory.py), where measured.
        difference: Largest one of its outputs from the base's, where they are to be equal.
    """

    median: float
    low: float
    high: float
    ratio: float
    ratio_low: float
    ratio_high: float
    rounds: int
    allocated: int | None = None
    resident: int | None = None
    difference: float | None = None


@dataclass
class Result:
    """A case, the number of threads, the timing of each form, and why others are missing."""

    case: BenchCase
    threads: int
    forms: dict[str, Timing] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    limit: float | None = None

    def record(self) -> dict[str, Any]:
        """The same for JSON."""
        return {
            "name": self.case.name,
            "threads": self.threads,
            "case": asdict(self.case),
            "limit": self.limit,
            "forms": {name: asdict(timing) for name, timing in self.forms.items()},
            "skipped": self.skipped,
        }


def measure(
    case: BenchCase, threads: int, device: torch.device, builder: Builder, say: Say
) -> Result:
    """Prepare every form that can run, compare their outputs, time them, measure their memory."""
    torch.set_num_threads(threads)
    if device.type == "cuda":
        gc.collect()  # the last case's tensors
        torch.cuda.empty_cache()
    if "torch._dynamo" in sys.modules:
        torch._dynamo.reset()
    result = Result(case, threads)
    passes, differences = _prepare(case, builder(case, device), result.skipped, device, say)
    say(f"{case.name}: timing")
    if case.base in passes:
        times = timed_rounds(passes, case.seconds, device)
        result.forms = summarize(times, case.base)
    for name, timing in result.forms.items():
        timing.difference = differences.get(name)
        # Memory does not depend on the number of threads, and looking takes time.
        if case.memory and threads == max(case.threads):
            say(f"{case.name}: memory of {name}")
            memory = peak_memory(passes[name], device)
            timing.allocated, timing.resident = memory.allocated, memory.resident
    return result


def _prepare(
    case: BenchCase,
    makers: Mapping[str, Maker],
    skipped: dict[str, str],
    device: torch.device,
    say: Say,
) -> tuple[dict[str, Pass], dict[str, float]]:
    passes: dict[str, Pass] = {}
    differences: dict[str, float] = {}
    truth = None
    for name in (case.base, *case.peers):
        say(f"{case.name}: preparing {name}")
        try:
            run = makers[name]()
            outputs = run()
        except (SkipError, RuntimeError) as reason:
            # One form that fails must not take the other measurements with it; the report says so.
            skipped[name] = str(reason).partition("\n")[0]
            continue
        passes[name] = run
        if name == case.base:
            truth = outputs
        elif truth is not None and outputs is not None:
            differences[name] = max(
                (float((a - b).abs().max()) for a, b in zip(outputs, truth, strict=True)),
                default=0.0,
            )
    return passes, differences


def timed_rounds(
    passes: Mapping[str, Pass], seconds: float, device: torch.device
) -> dict[str, list[float]]:
    """Seconds of a pass of each form, round by round.

    A round times every form. Passes up to a second have an untimed one before them: a form may
    leave gigabytes of small pages, which the next one to ask for memory clears away (a tenth of a
    second after torch.matrix_exp of [2352, 64, 64]). Short ones are repeated beside long ones, up
    to a twentieth of the round, and count with their median. The order turns from round to round.
    A pass of each form plans the rounds; a long one is that form's first.
    """
    once = {name: pass_seconds(run, device) for name, run in passes.items()}
    whole = sum(once.values())
    repeats = {n: max(1, min(_MOST_REPEATS, int(whole / 20 / t))) for n, t in once.items()}
    spent = sum(once[name] * repeats[name] for name in passes)
    fewest = _FEWEST_LONG_ROUNDS if spent > _LONG else _FEWEST_ROUNDS
    rounds = max(fewest, min(_MOST_ROUNDS, int(seconds / spent)))
    times = {name: [t] if t >= _WARMED else [] for name, t in once.items()}
    names = list(passes)
    collecting = gc.isenabled()
    gc.disable()
    try:
        for number in range(rounds):
            turn = number % len(names)
            for name in names[turn:] + names[:turn]:
                if len(times[name]) > number:
                    continue
                if once[name] < _WARMED:
                    passes[name]()
                samples = [pass_seconds(passes[name], device) for _ in range(repeats[name])]
                times[name].append(statistics.median(samples))
    finally:
        if collecting:
            gc.enable()
    return times


def summarize(times: Mapping[str, Sequence[float]], base: str) -> dict[str, Timing]:
    """Medians and quartiles of times, and of ratios to the base's of the same round."""
    forms = {}
    for name, own in times.items():
        ratios = [t / t0 for t, t0 in zip(own, times[base], strict=True)]
        low, median, high = quartiles(own)
        ratio_low, ratio, ratio_high = quartiles(ratios)
        forms[name] = Timing(median, low, high, ratio, ratio_low, ratio_high, len(own))
    return forms


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Lower quartile, median, upper quartile."""
    if len(values) < 2:
        return values[0], values[0], values[0]
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, median, high
