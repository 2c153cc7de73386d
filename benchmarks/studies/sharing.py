"""May heads and layers share what they learn? LieRE, table 4."""

from __future__ import annotations

from pathlib import Path

from benchmarks.studies.harness import pictures, vision, words
from benchmarks.studies.harness.study import Arm, Context, Outcome, Study
from benchmarks.studies.harness.summary import Summary

_ENCODINGS = ("mixed", "liere:8", "liere:head", "cayley")
_SHARES = ("none", "heads", "layers", "all")


def run(context: Context) -> Outcome:
    """Trains as `images`, with one encoding for some or all heads and layers."""
    settings = vision.settings_of(context, context.settings["encoding"])
    return vision.outcome(vision.train(context, settings), vision.TARGET)


def verdict(summary: Summary) -> str:
    """Each way of sharing against none, for each encoding."""
    accuracy, _, largest, _ = vision.METRICS
    chosen = [(f"{e}, {share}", f"{e}, none") for e in _ENCODINGS for share in _SHARES[1:]]
    what = "sharing against the same encoding with nothing shared"
    found = [words.pairs(summary, metric, what, chosen) for metric in (accuracy, largest)]
    if not found[0]:
        return "Nothing to compare: the arms that share nothing are not there."
    return f"{found[0]}\n{found[1]}"


def _encoding(arm: str) -> str:
    return arm.partition(", ")[0]


def draw(summary: Summary, folder: Path) -> list[Path]:
    """Dots by arm."""
    return [pictures.dots(summary, vision.METRICS[:3], folder / "sharing.png", group=_encoding)]


STUDY = Study(
    name="sharing",
    question="Do heads and layers need rotations of their own?",
    source="LieRE, table 4",
    version=1,
    arms=[
        Arm(f"{encoding}, {share}", {"encoding": encoding, "share": share})
        for encoding in _ENCODINGS
        for share in _SHARES
    ],
    settings={**vision.DIGITS, "share": "none"},
    quick=vision.QUICK,
    quick_arms=("mixed, none", "mixed, all"),
    run=run,
    metrics=vision.METRICS,
    verdict=verdict,
    draw=draw,
    presets=vision.PRESETS,
    joined=True,
    papers=(
        "Table 4 on CIFAR-100, from nothing shared (first) to all shared (last): RoPE-Mixed 68.8, "
        "68.7, 69.5, 68.3; LieRE-8 70.3, 69.8, 69.7, 69.5; LieRE-64 70.0, 69.5, 69.7, 69.4."
    ),
)
