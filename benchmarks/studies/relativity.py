"""Does commuting matter? LieRE with a penalty on its commutators, from none to large, and STRING.

Generators that commute make scores depend on differences of positions alone. The penalty is the sum
over heads and blocks of |A_c A_d - A_d A_c|_F^2 / (|A_c|_F |A_d|_F), which shrinking all generators
does not cheat by more than it shrinks them.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.studies.harness import pictures, vision, words
from benchmarks.studies.harness.study import Arm, Context, Metric, Outcome, Study
from benchmarks.studies.harness.summary import Summary
from benchmarks.studies.tasks import shifted_digits
from lierope.diagnostics import relativity_violation
from lierope.encodings import LieRE
from lierope.encodings.base import Encoding
from lierope.train import streams
from lierope.train.model import encodings
from lierope.train.plots import clean, figure_of, save


def commutator_penalty(model: nn.Module) -> Tensor:
    """The sum over all LieRE layers, heads and blocks."""
    total = torch.zeros(())
    for module in encodings(model).values():
        if isinstance(module, LieRE):
            A = _matrices(module)
            for c in range(len(A)):
                for d in range(c):
                    bracket = A[c] @ A[d] - A[d] @ A[c]
                    norms = A[c].square().sum((-2, -1)) * A[d].square().sum((-2, -1))
                    size = bracket.square().sum((-2, -1)) / (norms + 1e-12).sqrt()
                    total = total + size.sum()
    return total


def _matrices(module: LieRE) -> Tensor:
    """Generators as skew matrices (C, H', G, b, b)."""
    b = module.block_size
    upper = torch.triu_indices(b, b, 1)
    A = module.generators.new_zeros(*module.generators.shape[:-1], b, b)
    A[..., upper[0], upper[1]] = module.generators
    return A - A.mT


def violation(model: nn.Module) -> float:
    """The mean change of scores when both positions move alike, over layers and pairs of cells."""
    random = streams.stream("relativity", "pairs")
    found = []
    for module in encodings(model).values():
        scale = 1.0 if module.default_positions == "proportional" else 5.0
        a, b = (scale * torch.rand(64, module.ndim, generator=random) for _ in range(2))
        with torch.no_grad():
            found.append(_violation(module, a, b))
    return sum(found) / len(found) if found else 0.0


def _violation(module: Encoding, a: Tensor, b: Tensor) -> float:
    return float(relativity_violation(module, a, b).double().mean())


def run(context: Context) -> Outcome:
    """Trains at offsets of 0 and 1 pixels with the penalty, tests there and at 3 and 4."""
    settings = context.settings
    chosen = vision.settings_of(context, settings["encoding"], image_size=shifted_digits.CANVAS)
    strength = settings["strength"]
    trained = vision.train(
        context,
        chosen,
        penalty=(lambda model: strength * commutator_penalty(model)) if strength else None,
        start=shifted_digits.begin,
    )
    run = trained.run
    return vision.outcome(
        trained,
        unseen=shifted_digits.unseen_accuracy(run),
        violation=violation(run.model),
        commutators=float(commutator_penalty(run.model).detach()),
    )


_METRICS = (
    Metric("accuracy", "seen offsets, %"),
    Metric("unseen", "unseen offsets, %"),
    Metric("violation", "violation", scale=1, digits=3, higher_is_better=None),
    Metric("commutators", "commutators", scale=1, digits=0, higher_is_better=None),
)


def verdict(summary: Summary) -> str:
    """What the penalty does to the violation and to both accuracies."""
    seen, unseen, violated, _ = _METRICS
    return (
        f"{words.brief(summary, unseen)} {_rank(summary)}\n{words.spread(summary, violated)} "
        f"{words.against(summary, violated)} {words.against(summary, seen)} "
        f"{words.against(summary, unseen)}"
    )


def _rank(summary: Summary) -> str:
    arms = [a for a in summary.arms if a.startswith("liere:8")]
    found = summary.rank_correlation("violation", "unseen", arms)
    if found is None:
        return ""
    shown = found.high < 0 or found.low > 0
    return (
        f"Over the {len(arms)} strengths of the penalty, violation and accuracy at unseen offsets "
        f"have, within a seed, rank correlation {words.interval(found, 1, 2)}"
        f"{'' if shown else ', whose interval holds 0'}."
    )


def draw(summary: Summary, folder: Path) -> list[Path]:
    """Accuracy against the measured violation, a dot a run; dots by arm."""
    figure = figure_of(7.2, 4.0)
    axes = figure.add_subplot()
    for arm in summary.arms:
        x, y = (summary.values(arm, name) for name in ("violation", "unseen"))
        axes.plot(
            [x[s] for s in x], [100 * y[s] for s in x], "o" if arm.startswith("liere:8") else "s",
            label=arm, markersize=5, color=pictures.style(summary, arm)["color"],
        )  # fmt: skip
    pictures.finish(figure, axes, "measured violation of the relative law (0: exactly relative)",
                    "accuracy at unseen offsets, %", {"chance": 10.0})  # fmt: skip
    clean(axes)
    save(figure, folder / "relativity.png")
    return [
        folder / "relativity.png",
        pictures.dots(summary, _METRICS, folder / "relativity-dots.png"),
    ]


_STRENGTHS = (0.0, 1e-4, 1e-3, 1e-2, 1e-1)

STUDY = Study(
    name="relativity",
    question="Does LieRE gain or lose where its generators commute?",
    source="reviewers of both papers",
    version=1,
    arms=[
        *(Arm(f"liere:8, {s:g}", {"encoding": "liere:8", "strength": s}) for s in _STRENGTHS),
        Arm("liere:2", {"encoding": "liere:2"}),
        Arm("mixed", {"encoding": "mixed"}),
        Arm("cayley", {"encoding": "cayley"}),
        Arm("comrope-ld", {"encoding": "comrope-ld"}),
    ],
    settings={**vision.DIGITS, "eval_sizes": [], "epochs": 20, "strength": 0.0},
    quick={"epochs": 1},
    quick_arms=("liere:8, 0", "liere:8, 0.1"),
    run=run,
    metrics=_METRICS,
    reference="liere:8, 0",
    verdict=verdict,
    draw=draw,
    papers="Neither paper measures it.",
)
