"""What does STRING's basis do? STRING, open question 1.

RoPE in a learned basis P computes the same functions as RoPE: P can be moved into W_q and W_k. So
what P can change is the path of training. Arms: no P; P learned by Cayley's map or an exponential;
P frozen at a random rotation; the same random rotation multiplied into W_q and W_k at the start and
then forgotten, which starts from the frozen arm's function, but whose optimiser sees other
coordinates; P learned for half of the epochs and folded into the weights then.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

import lierope
from benchmarks.studies.harness import pictures, vision, words
from benchmarks.studies.harness.study import Arm, Context, Metric, Outcome, Study
from benchmarks.studies.harness.summary import Summary
from lierope.encodings import Encoding
from lierope.train import streams
from lierope.train.engine import Row, Run
from lierope.train.model import encodings

_SLICE = (-1.0, -0.5, -0.25, 0.0, 0.25, 0.5, 1.0)


def _randomise(model: nn.Module, seed: int) -> None:
    """Skew parameters of every layer N(0, 1): P far from the identity."""
    for layer, module in enumerate(encodings(model).values()):
        random = streams.stream(seed, "basis", layer)
        skew: Any = module.skew
        with torch.no_grad():
            skew.copy_(torch.randn(skew.shape, generator=random))


def _prepare(model: nn.Module, start: str, seed: int) -> None:
    if start in ("random", "frozen", "folded"):
        _randomise(model, seed)
    if start == "frozen":
        for module in encodings(model).values():
            skew: Any = module.skew
            skew.requires_grad_(False)
    if start == "folded":
        lierope.fold(model)


def _freeze_at_half(run: Run, row: Row) -> None:
    """Folding in mid-training: P stays where it is, which is the function and path of a fold."""
    if row["epoch"] == run.settings.epochs // 2:
        for module in encodings(run.model).values():
            skew: Any = module.skew
            skew.requires_grad_(False)
            skew.grad = None


def run(context: Context) -> Outcome:
    """Trains one start, then measures the loss along the basis' direction."""
    settings = context.settings
    start = settings["start"]
    trained = vision.train(
        context,
        vision.settings_of(context, settings["encoding"]),
        prepare=lambda model: _prepare(model, start, context.seed),
        on_epoch=_freeze_at_half if start == "half" else None,
    )
    model = trained.run.model
    outcome = vision.outcome(trained, vision.TARGET, **_distance(model))
    history = trained.result["history"]
    early = [row["train_loss"] for row in history[:10]]
    return Outcome(
        metrics={**outcome.metrics, "early": sum(early) / len(early)},
        curves={**outcome.curves, "slice": _slice(trained.run)},
        parameters=outcome.parameters,
        position_parameters=outcome.position_parameters,
        seconds_per_step=outcome.seconds_per_step,
    )


def _distance(model: nn.Module) -> dict[str, float]:
    """The mean of |P - I|_F / sqrt(2 D) over heads, 1 for a P without relation to I."""
    found = []
    for module in encodings(model).values():
        basis = module.basis()
        if basis is not None:
            gap = basis.detach() - torch.eye(basis.shape[-1])
            found += ((gap.square().sum((-2, -1)) / (2 * basis.shape[-1])).sqrt()).tolist()
    return {"distance": sum(found) / len(found)} if found else {}


@torch.no_grad()
def _slice(run: Run) -> list[tuple[float, float]]:
    """Validation loss at skew + t v, v a fixed random direction of length |1| each entry's."""
    learned = [m for m in encodings(run.model).values() if hasattr(m, "skew")]
    if not learned:
        return []
    before = [_skew(m).clone() for m in learned]
    random = streams.stream("basis", "slice")
    directions = [torch.randn(skew.shape, generator=random) for skew in before]
    points = []
    for t in _SLICE:
        for module, skew, direction in zip(learned, before, directions, strict=True):
            _skew(module).copy_(skew + t * direction)
        points.append((t, run.evaluate(run.source.validation_batches())[0]))
    for module, skew in zip(learned, before, strict=True):
        _skew(module).copy_(skew)
    return points


def _skew(module: Encoding) -> torch.Tensor:
    skew: Any = module.skew
    assert isinstance(skew, torch.Tensor)
    return skew


_METRICS = (
    Metric("accuracy", "test, %"),
    Metric("largest", "16 px, %"),
    Metric("epochs", "epochs to 90 %", scale=1, digits=1, higher_is_better=False),
    Metric("early", "training loss,<br>epochs 1–10", scale=1, digits=3, higher_is_better=False),
    Metric("distance", "P from I", scale=1, digits=2),
)


def verdict(summary: Summary) -> str:
    """Every start against no basis at all."""
    accuracy, largest, epochs, early, _ = _METRICS
    pair = [("cayley, frozen random", "random, folded at start")]
    return "\n".join(
        (
            f"{words.brief(summary, accuracy)} {words.brief(summary, epochs)}",
            *(words.against(summary, m) for m in (accuracy, largest, epochs, early)),
            words.pairs(summary, early, "one start, P beside the weights or in them", pair),
            _note_on_slices(summary),
        )
    )


def _note_on_slices(summary: Summary) -> str:
    if not any(summary.curve(arm, "slice") for arm in summary.arms):
        return ""
    return (
        "The slices of the loss are in S, of which Cayley's P turns the less the larger S is: "
        "they do not say which arm's minimum is flat."
    )


def draw(summary: Summary, folder: Path) -> list[Path]:
    """Training loss by epoch, dots, and loss slices."""
    made = [
        pictures.curves(
            summary, "loss", folder / "basis.png", xlabel="epochs", ylabel="training loss",
            logarithmic=True,
        ),
        pictures.dots(summary, _METRICS[:4], folder / "basis-dots.png"),
    ]  # fmt: skip
    sliced = [a for a in summary.arms if summary.curve(a, "slice")]
    if sliced:
        made.append(
            pictures.curves(
                summary,
                "slice",
                folder / "basis-slice.png",
                arms=sliced,
                xlabel="step along a random direction of the skew parameters",
                ylabel="validation loss",
            )
        )
    return made


STUDY = Study(
    name="basis",
    question="Does a learned basis change what training finds, though not what it can find?",
    source="STRING, open question 1",
    version=1,
    arms=[
        Arm("mixed", {"encoding": "mixed"}),
        Arm("cayley", {"encoding": "cayley"}),
        Arm("dense-string", {"encoding": "dense-string"}),
        Arm("cayley, random start", {"encoding": "cayley", "start": "random"}),
        Arm("cayley, frozen random", {"encoding": "cayley", "start": "frozen"}),
        Arm("random, folded at start", {"encoding": "cayley", "start": "folded"}),
        Arm("cayley, fixed at half", {"encoding": "cayley", "start": "half"}),
    ],
    settings={**vision.DIGITS, "eval_sizes": [16], "start": "own"},
    quick={"epochs": 2},
    quick_arms=("mixed", "random, folded at start"),
    run=run,
    metrics=_METRICS,
    reference="mixed",
    seeds=5,
    verdict=verdict,
    draw=draw,
    presets=vision.PRESETS,
    papers=(
        "STRING, at second hand: 81.22 on ImageNet against 80.04 for a baseline that is not named. "
        "A replication finds 80.96 with P "
        "shared by heads against 81.51 without (mixed); for DiT-B/2's FID 9.49 without P, 9.31 "
        "with one shared by heads, 8.97 with one a head."
    ),
)
