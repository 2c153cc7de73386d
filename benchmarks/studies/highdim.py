"""Positions of three to six coordinates: do rotations keep learning as dimensions are added?

STRING, next check 2, on synthetic molecules: atoms with places, and with one to three charges as
further coordinates. Each atom's target is what its neighbours carry, averaged by nearness in all
coordinates, y_i = sum_j w_ij s_j with w_ij ~ exp(-|p_i - p_j|^2 / 2 sigma^2): what attention with
exactly relative scores can compute by sums of cosines (Bochner's theorem).
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.studies.harness import pictures, words
from benchmarks.studies.harness.loop import Recipe, fit, measured
from benchmarks.studies.harness.study import Arm, Context, Metric, Outcome, Study, number_of
from benchmarks.studies.harness.summary import Summary
from benchmarks.studies.harness.token_model import TokenTransformer, position_parameters
from lierope.encodings.registry import parse
from lierope.train import streams
from lierope.train.plots import figure_of, save

_DIMENSIONS = (3, 4, 5, 6)
_ENCODINGS = ("features", "mixed", "liere:8", "cayley", "circulant")
_REACH = 0.25  # sigma is this times the root of the number of coordinates
_PATCHES = 4.0  # a unit of length, for encodings that count patches
_SHIFT = 2.0
_ROSE = 1.1  # last over least error in training that counts as unstable


def molecules(count: int, atoms: int, ndim: int, random: torch.Generator) -> tuple[Tensor, ...]:
    """Positions (B, N, C) in [-1, 1], what atoms carry (B, N), and the targets (B, N).

    The spread of distances grows as the root of C; so does sigma, which keeps neighbours as many.
    """
    positions = 2 * torch.rand(count, atoms, ndim, generator=random) - 1
    carried = torch.randn(count, atoms, generator=random)
    sigma = _REACH * ndim**0.5
    near = torch.cdist(positions, positions).square().div(-2 * sigma**2).softmax(-1)
    return positions, carried, (near @ carried[..., None])[..., 0]


class MoleculeModel(nn.Module):
    """What atoms carry, coordinates by rotation or as features, a number for each atom."""

    def __init__(self, encoding: str, ndim: int, width: int, depth: int, heads: int) -> None:
        super().__init__()
        rotation = "none" if encoding == "features" else encoding
        self.carried = nn.Linear(1, width)
        self.features: nn.Module | None = None
        if encoding == "features":
            self.features = nn.Sequential(
                nn.Linear(ndim, width), nn.GELU(), nn.Linear(width, width)
            )
        counts_patches = parse(rotation)[0].default_positions == "index"
        self.unit = _PATCHES if counts_patches else 0.5
        self.body = TokenTransformer(
            rotation, ndim, 1, dim=width, depth=depth, heads=heads, pool="none"
        )

    def forward(self, positions: Tensor, carried: Tensor) -> Tensor:
        """Numbers (B, N)."""
        x = self.carried(carried[..., None])
        if self.features is not None:
            x = x + self.features(positions)
        out: Tensor = self.body(x, self.unit * positions)
        return out[..., 0]


def run(context: Context) -> Outcome:
    """Trains on molecules, tests the variance left over, there and shifted."""
    settings, device = context.settings, context.device
    number_of(settings, "dimensions", 1)
    number_of(settings, "atoms", 2)
    torch.manual_seed(streams.number(context.seed, "highdim", "weights"))
    model = MoleculeModel(
        settings["encoding"], settings["dimensions"],
        settings["width"], settings["depth"], settings["heads"],
    ).to(device)  # fmt: skip

    def drawn(count: int, random: torch.Generator) -> tuple[Tensor, ...]:
        found = molecules(count, settings["atoms"], settings["dimensions"], random)
        return tuple(x.to(device) for x in found)

    def loss(step: int) -> Tensor:
        random = streams.stream(context.seed, "highdim", step)
        positions, carried, wanted = drawn(settings["batch_size"], random)
        return functional.mse_loss(model(positions, carried), wanted) / wanted.var()

    def left_over(part: str, shift: float = 0.0) -> float:
        positions, carried, wanted = drawn(settings["tested"], streams.stream("highdim", part))
        error = functional.mse_loss(model(positions + shift, carried), wanted)
        return float(error / wanted.var())

    trained = fit(
        model, loss, lambda: {"error": left_over("validation")}, Recipe.of(settings), context
    )
    values = [value for _, value in trained.curves["error"]]
    return Outcome(
        metrics=measured(
            model, lambda: {"error": left_over("test"), "shifted": left_over("test", _SHIFT)}
        )
        | {"rise": values[-1] / min(values)},
        curves=trained.curves,
        parameters=sum(p.numel() for p in model.parameters()),
        position_parameters=position_parameters(model),
        seconds_per_step=trained.seconds_per_step,
    )


_METRICS = (
    Metric("error", "variance left over, %", higher_is_better=False, most=math.inf),
    Metric("shifted", "left over after a shift, %", higher_is_better=False, most=math.inf),
    Metric("rise", "last over least error", scale=1, digits=2, higher_is_better=False),
)


def _name(encoding: str, ndim: int) -> str:
    return f"{encoding}, {ndim}-D"


def verdict(summary: Summary) -> str:
    """What more coordinates do to each encoding, and the encodings against each other."""
    error, shifted, _ = _METRICS
    few, many = _DIMENSIONS[0], _DIMENSIONS[-1]
    grown = [(_name(e, many), _name(e, few)) for e in _ENCODINGS]
    reference = _name("mixed", many)
    last = [a for e in _ENCODINGS if (a := _name(e, many)) in summary.arms and a != reference]
    parts = []
    for encoding in _ENCODINGS:
        found = [n for n in _DIMENSIONS if _name(encoding, n) in summary.arms]
        if found:
            values = (f"{100 * summary.mean(_name(encoding, n), 'error'):.1f}" for n in found)
            parts.append(f"{encoding} {', '.join(values)}")
    rose = [a for a in summary.arms if summary.mean(a, "rise") > _ROSE]
    against = ""
    if last and reference in summary.arms:
        against = " ".join(words.against(summary, m, reference, last) for m in (error, shifted))
    return (
        f"Variance left over in %, by coordinates ({', '.join(map(str, _DIMENSIONS))}): "
        f"{'; '.join(parts)}.\n"
        f"{words.pairs(summary, error, f'{many} coordinates against {few}', grown)} {against} "
        f"Training unstable, with an error that ends more than a tenth above its least: "
        f"{words.listed(rose)}. {words.own_start(summary)}"
    )


def draw(summary: Summary, folder: Path) -> list[Path]:
    """Error by coordinates, a dot a run; dots with intervals."""
    figure = figure_of(7.2, 4.0)
    axes = figure.add_subplot()
    for index, encoding in enumerate(_ENCODINGS):
        arms = {n: a for n in _DIMENSIONS if (a := _name(encoding, n)) in summary.arms}
        if not arms:
            continue
        colour = pictures.style(summary, arms[min(arms)], _encoding)["color"]
        aside = 0.06 * (index - (len(_ENCODINGS) - 1) / 2)
        x = [n + aside for n in arms]
        axes.plot(x, [100 * summary.mean(a, "error") for a in arms.values()], label=encoding,
                  color=colour, marker="_", markersize=9, linewidth=1.2)  # fmt: skip
        for n, arm in arms.items():
            seeds = [100 * v for v in summary.values(arm, "error").values()]
            axes.plot([n + aside] * len(seeds), seeds, ".", color=colour, alpha=0.6, markersize=5)
    axes.set_yscale("log")
    axes.set_xticks(_DIMENSIONS)
    pictures.finish(figure, axes, "coordinates of a position",
                    "variance left over, % (a dot a seed)", {})  # fmt: skip
    save(figure, folder / "highdim.png")
    dots = pictures.dots(summary, _METRICS[:2], folder / "highdim-dots.png", group=_encoding)
    return [folder / "highdim.png", dots]


def _encoding(arm: str) -> str:
    return arm.partition(", ")[0]


STUDY = Study(
    name="highdim",
    question="Do learned rotations keep working as positions get four, five and six coordinates?",
    source="STRING, next check 2",
    version=1,
    arms=[
        Arm(_name(encoding, n), {"encoding": encoding, "dimensions": n})
        for encoding in _ENCODINGS
        for n in _DIMENSIONS
    ],
    settings={
        "encoding": "mixed",
        "dimensions": 4,
        "atoms": 24,
        "width": 96,
        "depth": 2,
        "heads": 4,
        "steps": 600,
        "batch_size": 64,
        "tested": 512,
        "lr": 2e-3,
        "warmup": 60,
        "evaluate_every": 60,
    },
    quick={"steps": 8, "evaluate_every": 8, "tested": 64, "depth": 1, "width": 48},
    quick_arms=("mixed, 3-D", "mixed, 6-D"),
    run=run,
    metrics=_METRICS,
    verdict=verdict,
    draw=draw,
    papers="STRING asks for four to six coordinates as its next check, and gives no figures.",
)
