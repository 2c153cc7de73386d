"""Does a learned rotation train faster and end better on images? STRING exp. 2, LieRE table 1."""

from __future__ import annotations

from pathlib import Path

from benchmarks.studies.harness import pictures, vision, words
from benchmarks.studies.harness.study import Arm, Context, Outcome, Study
from benchmarks.studies.harness.summary import Summary

_ENCODINGS = (
    "none", "absolute", "axial", "visionllama", "mixed", "mixed:init=uniform", "liere:2", "liere:4",
    "liere:8", "liere:head", "cayley", "circulant:4", "circulant:8", "circulant:16", "dense-string",
    "comrope-ap", "comrope-ld",
)  # fmt: skip
_SAME_START = "mixed:init=uniform"
_ROTARY = [name for name in _ENCODINGS if name not in ("none", "absolute")]


def run(context: Context) -> Outcome:
    """Trains a ViT with one encoding, tests it at the size trained on and at larger ones."""
    settings = vision.settings_of(context, context.settings["encoding"])
    return vision.outcome(vision.train(context, settings), vision.TARGET)


def verdict(summary: Summary) -> str:
    """What the encodings change on the size trained on, on larger ones, and in speed."""
    accuracy, _, largest, epochs = vision.METRICS
    liere = [a for a in summary.arms if a.startswith("liere")]
    start = ""
    if liere and _SAME_START in summary.arms:
        start = (
            f"{words.name(_SAME_START)} starts from liere:2's angles, and larger blocks from "
            f"larger ones. {words.against(summary, accuracy, _SAME_START, liere)}"
        )
    return "\n".join(
        (
            f"{words.brief(summary, accuracy)} {words.brief(summary, epochs)}",
            words.spread(summary, accuracy, [a for a in _ROTARY if a in summary.arms]),
            words.against(summary, accuracy),
            words.against(summary, largest),
            words.against(summary, epochs),
            start,
        )
    )


def draw(summary: Summary, folder: Path) -> list[Path]:
    """Dots by arm; curves."""
    return [
        pictures.dots(summary, vision.METRICS, folder / "images.png"),
        pictures.curves(
            summary, "accuracy", folder / "images-curves.png",
            xlabel="epochs", ylabel="validation accuracy, %", scale=100,
            arms=[a for a in summary.arms if a in _CURVES],
        ),
    ]  # fmt: skip


_CURVES = ("none", "absolute", "axial", "mixed", "mixed:init=uniform", "liere:8", "cayley",
           "circulant:16")  # fmt: skip

STUDY = Study(
    name="images",
    question="Does a learned rotation train faster and end better than fixed or no positions?",
    source="STRING, experiment 2; LieRE, table 1",
    version=1,
    arms=[Arm(name, {"encoding": name}) for name in _ENCODINGS],
    settings=vision.DIGITS,
    quick=vision.QUICK,
    quick_arms=("absolute", "mixed"),
    run=run,
    metrics=vision.METRICS,
    reference="mixed",
    verdict=verdict,
    draw=draw,
    presets=vision.PRESETS,
    joined=True,
    papers=(
        "LieRE, table 1 (ViT-B from scratch; CIFAR-100, ImageNet-1k): absolute 63.9, 66.1; "
        "VisionLLaMA 65.5, 65.4; RoPE-Mixed 68.8, 68.8; LieRE-8 70.3, 69.6; LieRE-64 70.0, 69.3; "
        "3.9 times fewer epochs to absolute's accuracy. STRING on ImageNet, at second hand: 81.22 "
        "against 80.04 for a baseline that is not named. "
        "An independent replication (ViT-B, ImageNet): absolute 80.57, axial 81.35, mixed 81.51, "
        "STRING 80.96."
    ),
)
