"""Where do frequencies start, and does learning them matter? STRING, next check 3.

Frequencies are measured in radians a patch, whatever positions an encoding counts in, so that the
pictures compare. A frozen arm's frequencies are not learned; everything else is.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.studies.harness import pictures, vision, words
from benchmarks.studies.harness.study import Arm, Context, Metric, Outcome, Study
from benchmarks.studies.harness.summary import Summary
from lierope.diagnostics import generator_matrices
from lierope.train.engine import Row, Run
from lierope.train.model import encodings
from lierope.train.plots import clean, figure_of, save

_EARLY = (1, 2, 3, 4, 5, 6, 9, 12)  # epochs whose validation accuracies make the mean `early`
_KEPT = 64  # of the model's angular frequencies, evenly through their order


def spectrum(model: nn.Module) -> Tensor:
    """The sorted angular frequencies |w| of all layers, heads and axes, radians a patch."""
    found = []
    embedding: Any = model.patch_embed
    across = 1 / max(embedding.grid_size[0] - 1, 1)  # from patch to patch where the grid is [0, 1]
    for module in encodings(model).values():
        scale = 1.0 if module.default_positions == "index" else across
        generators = generator_matrices(module).double()  # (C, H', ..., n, n), skew
        values = torch.linalg.eigvals(generators).imag.abs()
        found.append((scale * values.sort(-1).values[..., ::2]).flatten())
    return torch.cat(found).sort().values if found else torch.zeros(1)


def _start(model: nn.Module, factor: float, learned: bool) -> None:
    """Scales what the encodings start from; freezes it unless it is learned."""
    for module in encodings(model).values():
        for name, parameter in module.named_parameters():
            if name in ("frequencies", "generators", "coefficients"):
                with torch.no_grad():
                    parameter.mul_(factor)
                parameter.requires_grad_(learned)


def run(context: Context) -> Outcome:
    """Trains, recording the spectrum each epoch."""
    settings = context.settings
    chosen = vision.settings_of(context, settings["encoding"])
    moved: list[tuple[float, float]] = []
    first: list[Tensor] = []
    by_epoch: dict[str, list[float]] = {}

    def record(run: Run, row: Row) -> None:
        values = spectrum(run.model)
        moved.append((row["epoch"], float((values - first[0]).abs().mean())))
        at = torch.linspace(0, len(values) - 1, min(_KEPT, len(values))).long()
        by_epoch[str(int(row["epoch"]))] = [round(v, 4) for v in values[at].tolist()]

    trained = vision.train(
        context,
        chosen,
        prepare=lambda model: _start(model, settings["factor"], settings["learned"]),
        start=lambda run: first.append(spectrum(run.model)),
        on_epoch=record,
    )
    history = trained.result["history"]
    early = [r["validation_accuracy"] for r in history if r["epoch"] in _EARLY]
    outcome = vision.outcome(
        trained,
        vision.TARGET,
        early=sum(early) / len(early),
        moved=moved[-1][1] if moved else 0.0,
        mean_frequency=float(spectrum(trained.run.model).mean()),
    )
    return Outcome(
        metrics=outcome.metrics,
        curves={**outcome.curves, "moved": moved},
        parameters=outcome.parameters,
        position_parameters=outcome.position_parameters,
        seconds_per_step=outcome.seconds_per_step,
        details={"spectrum by epoch": by_epoch},
    )


_METRICS = (
    Metric("early", "early epochs, %"),
    Metric("accuracy", "test, %"),
    Metric("largest", "16 px, %"),
    Metric("epochs", "epochs to 90 %", scale=1, digits=1, higher_is_better=False),
    Metric("moved", "mean move, rad", scale=1, digits=3),
)


_LARGER = (("mixed, uniform", "mixed"), ("cayley, uniform", "cayley"))
_SMALLER = (
    ("mixed, small", "mixed"),
    ("circulant, small", "circulant"),
    ("liere:8, small", "liere:8, uniform"),
)
_FROZEN = (
    ("mixed, frozen", "mixed"),
    ("mixed, uniform, frozen", "mixed, uniform"),
    ("liere:8, uniform, frozen", "liere:8, uniform"),
)


def verdict(summary: Summary) -> str:
    """The two questions by the pairs of arms that differ in nothing else; then what moved."""
    early, accuracy, largest, *_ = _METRICS
    answers, rest = [], []
    for what, chosen in (
        ("a uniform start against the default", _LARGER),
        ("a tenth of the start against the whole", _SMALLER),
        ("frozen against learned", _FROZEN),
    ):
        answers.append(words.pairs(summary, early, what, chosen))
        rest += [words.pairs(summary, metric, what, chosen) for metric in (accuracy, largest)]
    return "\n".join((" ".join(answers), *rest, _correlation(summary)))


def _correlation(summary: Summary) -> str:
    learned = [a for a in summary.arms if "frozen" not in a]
    found = summary.rank_correlation("moved", "accuracy", learned)
    if found is None:
        return ""
    return (
        f"Over the {len(learned)} arms with learned frequencies, how far they moved and the test "
        f"accuracy have, within a seed, rank correlation {words.interval(found, 1, 2)}; arms that "
        "start small have farther to go, so it does not say that moving helps or hurts."
    )


def draw(summary: Summary, folder: Path) -> list[Path]:
    """Spectra by epoch, a panel an arm (first seed); dots."""
    return [
        _spectra(summary, folder / "frequencies.png"),
        pictures.dots(summary, _METRICS[:4], folder / "frequencies-dots.png"),
    ]


def _spectra(summary: Summary, path: Path) -> Path:
    columns = min(4, len(summary.arms))
    rows = -(-len(summary.arms) // columns)
    figure = figure_of(2.6 * columns + 0.6, 2.1 * rows + 0.5)
    panels = figure.subplots(rows, columns, sharex=True, squeeze=False).flatten()
    for panel, arm in zip(panels, summary.arms, strict=False):
        outcomes = summary.outcomes(arm)
        if outcomes:
            by_epoch: Mapping[str, list[float]] = next(iter(outcomes.values()))["details"][
                "spectrum by epoch"
            ]
            lines = list(zip(*by_epoch.values(), strict=True))
            for values in lines[:: max(1, len(lines) // 16)]:
                panel.plot([int(e) for e in by_epoch], values, linewidth=0.8,
                           color=pictures.style(summary, arm)["color"], alpha=0.7)  # fmt: skip
        panel.set_title(arm, fontsize=8)
        panel.set_ylim(bottom=0)
        clean(panel)
    for panel in panels[max(0, len(summary.arms) - columns) : len(summary.arms)]:
        panel.tick_params(labelbottom=True)  # the lowest of its column, whose own row is not last
    for panel in panels[len(summary.arms) :]:
        panel.set_visible(False)
    figure.supxlabel("epoch (first seed; frequencies evenly through their order)", fontsize=9)
    figure.supylabel("frequency, radians a patch", fontsize=9)
    save(figure, path)
    return path


def _arm(encoding: str, label: str, factor: float = 1.0, learned: bool = True) -> Arm:
    return Arm(label, {"encoding": encoding, "factor": factor, "learned": learned})


STUDY = Study(
    name="frequencies",
    question="Do the starting frequencies matter, and does learning them?",
    source="STRING, next check 3",
    version=2,
    arms=[
        _arm("mixed", "mixed"),
        _arm("mixed", "mixed, frozen", learned=False),
        _arm("mixed:theta=100", "mixed, theta 100"),
        _arm("mixed:init=uniform", "mixed, uniform"),
        _arm("mixed:init=uniform", "mixed, uniform, frozen", learned=False),
        _arm("mixed", "mixed, small", factor=0.1),
        _arm("cayley", "cayley"),
        _arm("cayley:init=uniform", "cayley, uniform"),
        _arm("circulant", "circulant"),
        _arm("circulant", "circulant, small", factor=0.1),
        _arm("liere:2", "liere:2, uniform"),
        _arm("liere:8", "liere:8, uniform"),
        _arm("liere:8", "liere:8, uniform, frozen", learned=False),
        _arm("liere:8", "liere:8, small", factor=0.1),
    ],
    settings={**vision.DIGITS, "eval_sizes": [16], "factor": 1.0, "learned": True},
    quick={"epochs": 1},
    quick_arms=("mixed", "liere:8, uniform"),
    run=run,
    metrics=_METRICS,
    reference="mixed",
    verdict=verdict,
    draw=draw,
    presets=vision.PRESETS,
    joined=True,
    papers=("STRING leaves the evolution of frequencies open, and gives no figures."),
)
