"""Does a matcher make training vary more, and by encoding? STRING, open question 3.

A small detector on scenes of at most three objects. With a matcher, as in DETR: five queries answer
(class, place), and scipy's assignment pairs them with objects each step. Without: each cell says
whether an object is centred on it. The same score for both: the share of objects found, less what
was found that is not there. What is asked is its spread over seeds.
"""

from __future__ import annotations

import statistics
from pathlib import Path

import torch
from scipy import stats
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn
from torch.nn import functional

import lierope
from benchmarks.studies.harness import pictures, words
from benchmarks.studies.harness.loop import Recipe, fit, measured
from benchmarks.studies.harness.study import Arm, Context, Metric, Outcome, Study
from benchmarks.studies.harness.summary import LEVEL, Summary, holm
from benchmarks.studies.harness.token_model import TokenTransformer, position_parameters
from benchmarks.studies.tasks import shapes
from lierope.encodings.registry import parse
from lierope.train import streams
from lierope.train.plots import clean, figure_of, save

_QUERIES, _WIDTH, _TESTED = 5, 64, 512
_NEAR_ALL = 0.97  # mean F1 from which there is little room above
_PLACE_WEIGHT = 5.0  # of the places' distance beside the classes, as in DETR


class Detector(nn.Module):
    """Queries and cells through one transformer; queries stand outside the grid."""

    def __init__(self, encoding: str, grid: int, matched: bool) -> None:
        super().__init__()
        self.matched, self.grid = matched, grid
        self.embedding = nn.Linear(2 * shapes.KINDS, _WIDTH)
        self.queries = nn.Parameter(0.5 * torch.randn(_QUERIES, _WIDTH))
        outputs = shapes.KINDS + 1 + (2 if matched else 0)
        self.body = TokenTransformer(encoding, 2, outputs, dim=_WIDTH, depth=2, pool="none")
        mode = parse(encoding)[0].default_positions
        cells = lierope.grid_positions((grid, grid), mode)
        away = torch.zeros(_QUERIES, 2) - cells.max() / max(grid - 1, 1)
        positions = torch.cat((away, cells)) if matched else cells
        self.register_buffer("positions", positions, persistent=False)
        if matched:  # answers need the cells' own places: rotations alone turn no values
            self.places = nn.Linear(2, _WIDTH)
            self.register_buffer("cells", cells / cells.max(), persistent=False)

    def forward(self, patches: Tensor) -> Tensor:
        """(B, queries, KINDS + 3) with a matcher, (B, cells, KINDS + 1) without."""
        x = self.embedding(patches)
        if self.matched:
            cells = self.cells
            assert isinstance(cells, Tensor)
            x = x + self.places(cells)
            x = torch.cat((self.queries.expand(len(x), -1, -1), x), 1)
        positions = self.positions
        assert isinstance(positions, Tensor)
        out: Tensor = self.body(x, positions)
        return out[:, :_QUERIES] if self.matched else out


def matched_loss(out: Tensor, centres: Tensor, kinds: Tensor) -> Tensor:
    """DETR's: assigns queries to objects at least cost, then classes and places of those.

    Hungarian matching as in arXiv 2005.12872, section 3.1, with an L1 distance of centres.
    """
    classes, places = out[..., : shapes.KINDS + 1], out[..., shapes.KINDS + 1 :].sigmoid()
    with torch.no_grad():
        chance = classes.softmax(-1)
        likely = chance.gather(2, kinds[:, None, :].expand(-1, _QUERIES, -1))
        cost = _PLACE_WEIGHT * torch.cdist(places, centres, p=1) - likely
    wanted = torch.full(classes.shape[:2], shapes.NOTHING, device=out.device)
    rows, queries, objects = [], [], []
    for b, (each, kind) in enumerate(zip(cost.cpu(), kinds.cpu(), strict=True)):
        there = torch.nonzero(kind != shapes.NOTHING)[:, 0]
        found, at = linear_sum_assignment(each[:, there].numpy())
        rows += [b] * len(found)
        queries += found.tolist()
        objects += there[at].tolist()
    wanted[rows, queries] = kinds[rows, objects]
    weight = torch.ones(shapes.KINDS + 1, device=out.device)
    weight[shapes.NOTHING] = 0.2
    distance = (places[rows, queries] - centres[rows, objects]).abs().sum(-1).mean()
    named = functional.cross_entropy(classes.flatten(0, 1), wanted.flatten(), weight)
    return named + _PLACE_WEIGHT * distance


def cell_loss(out: Tensor, centres: Tensor, kinds: Tensor, grid: int) -> Tensor:
    """Without a matcher: the class of the object centred on each cell."""
    weight = torch.ones(shapes.KINDS + 1, device=out.device)
    weight[shapes.NOTHING] = 0.2
    return functional.cross_entropy(
        out.flatten(0, 1), on_cells(centres, kinds, grid).flatten(), weight
    )


def on_cells(centres: Tensor, kinds: Tensor, grid: int) -> Tensor:
    """Classes (B, grid * grid)."""
    index = (centres * grid).round().long()
    cell = index[..., 0] * grid + index[..., 1]
    wanted = torch.full((len(kinds), grid * grid), shapes.NOTHING, device=kinds.device)
    for slot in range(shapes.MOST):
        there = kinds[:, slot] != shapes.NOTHING
        wanted[there, cell[there, slot]] = kinds[there, slot]
    return wanted


def f1(out: Tensor, centres: Tensor, kinds: Tensor, grid: int, matched: bool) -> float:
    """2 TP / (2 TP + FP + FN): an object is found by its class on its own cell."""
    wanted = on_cells(centres, kinds, grid)
    if matched:
        named = out[..., : shapes.KINDS + 1].argmax(-1)
        places = (out[..., shapes.KINDS + 1 :].sigmoid() * grid).round().long().clamp(0, grid - 1)
        got = torch.full_like(wanted, shapes.NOTHING)
        cell = places[..., 0] * grid + places[..., 1]
        for query in range(_QUERIES):
            there = named[:, query] != shapes.NOTHING
            got[there, cell[there, query]] = named[there, query]
    else:
        got = out.argmax(-1)
    objects, answers = wanted != shapes.NOTHING, got != shapes.NOTHING
    right = (objects & (got == wanted)).sum()
    return float(2 * right / (objects.sum() + answers.sum()).clamp(min=1))


def run(context: Context) -> Outcome:
    """Trains a detector with or without a matcher."""
    settings, device = context.settings, context.device
    grid, matched = settings["grid"], settings["matched"]
    torch.manual_seed(streams.number(context.seed, "matching", "weights"))
    model = Detector(settings["encoding"], grid, matched).to(device)
    if not settings["learned"]:
        for name, parameter in model.named_parameters():
            if ".encoding." in name:
                parameter.requires_grad_(False)

    def loss(step: int) -> Tensor:
        random = streams.stream(context.seed, "matching", step)
        drawn = shapes.draw(settings["batch_size"], grid, random)
        patches, centres, kinds = (x.to(device) for x in drawn)
        out = model(patches)
        if matched:
            return matched_loss(out, centres, kinds)
        return cell_loss(out, centres, kinds, grid)

    def score(part: str) -> float:
        drawn = shapes.draw(_TESTED, grid, streams.stream("matching", part))
        patches, centres, kinds = (x.to(device) for x in drawn)
        return f1(model(patches), centres, kinds, grid, matched)

    trained = fit(model, loss, lambda: {"f1": score("validation")}, Recipe.of(settings), context)
    return Outcome(
        metrics=measured(model, lambda: {"f1": score("test")}),
        curves=trained.curves,
        parameters=sum(p.numel() for p in model.parameters()),
        position_parameters=position_parameters(model),
        seconds_per_step=trained.seconds_per_step,
    )


_F1 = Metric("f1", "test F1, %")


def deviation(values: list[float]) -> tuple[float, float, float]:
    """Sample deviation with its 95 % interval for normal values (chi-square)."""
    n, found = len(values), statistics.stdev(values)
    low, high = (float(stats.chi2.ppf(p, n - 1)) for p in (0.975, 0.025))
    return found, found * ((n - 1) / low) ** 0.5, found * ((n - 1) / high) ** 0.5


def _spreads(summary: Summary) -> dict[str, tuple[float, float, float]]:
    values = {a: list(summary.values(a, "f1").values()) for a in summary.arms}
    return {a: deviation(v) for a, v in values.items() if len(v) > 2}


def verdict(summary: Summary) -> str:
    """Spreads with and without the matcher, and whether they are told apart (Levene's test)."""
    spreads = _spreads(summary)
    if not spreads:
        return "Too few seeds for a spread."
    values = {a: list(summary.values(a, "f1").values()) for a in spreads}
    shown = [
        f"{words.name(a)} {100 * s:.2f} ({100 * low:.2f} to {100 * high:.2f})"
        for a, (s, low, high) in spreads.items()
    ]
    alone = {
        e: _levene([values[f"{e}, matcher"], values[f"{e}, cells"]])
        for e in dict.fromkeys(a.partition(", ")[0] for a in spreads)
        if {f"{e}, matcher", f"{e}, cells"} <= set(spreads)
    }
    tests = dict(zip(alone, holm(list(alone.values())), strict=True))
    larger = [
        e for e, p in tests.items()
        if p < 1 - LEVEL and spreads[f"{e}, matcher"][0] > spreads[f"{e}, cells"][0]
    ]  # fmt: skip
    answer = f"With the matcher F1 varies more for {len(larger)} of {len(tests)} encodings"
    matched = [a for a in spreads if a.endswith("matcher")]
    if len(matched) > 1:
        among = _levene([values[a] for a in matched])
        apart = "are told apart" if among < 1 - LEVEL else "are not told apart"
        answer += f"; under it encodings {apart} by their spread (p {among:.2g})"
    near = [a for a in spreads if a.endswith("cells") and summary.mean(a, "f1") > _NEAR_ALL]
    note = (
        f" {words.listed(near)} find nearly everything, which leaves their scores little room to "
        "vary: part of the gap may be that."
        if near
        else ""
    )
    return (
        f"{answer}.\nDeviation of F1 over {len(summary.seeds)} seeds, points: {'; '.join(shown)}. "
        f"Matcher against cells (Brown and Forsythe's test of spreads, p by Holm): "
        f"{', '.join(f'{e} {p:.2g}' for e, p in tests.items())}.{note} {words.spread(summary, _F1)}"
    )


def _levene(samples: list[list[float]]) -> float:
    return float(stats.levene(*samples, center="median").pvalue)


def draw(summary: Summary, folder: Path) -> list[Path]:
    """Spreads by arm; dots."""
    spreads = _spreads(summary)
    dots = pictures.dots(summary, [_F1], folder / "matching-dots.png")
    if not spreads:
        return [dots]
    figure = figure_of(7.0, 0.36 * len(spreads) + 1.1)
    axes = figure.add_subplot()
    for row, (arm, (found, low, high)) in enumerate(spreads.items()):
        axes.errorbar(
            100 * found, row, xerr=[[100 * (found - low)], [100 * (high - found)]], fmt="o",
            capsize=3, color=pictures.style(summary, arm)["color"],
        )  # fmt: skip
    axes.set_yticks(range(len(spreads)), list(spreads))
    axes.invert_yaxis()
    axes.set_xlabel("standard deviation of the test F1 over seeds, points (95 % interval)")
    axes.set_xlim(left=0)
    clean(axes)
    save(figure, folder / "matching.png")
    return [folder / "matching.png", dots]


STUDY = Study(
    name="matching",
    question="Does a Hungarian matcher make results vary more over seeds, and by encoding?",
    source="STRING, open question 3",
    version=1,
    arms=[
        Arm(f"{name}, {loss}", {"encoding": encoding, "learned": learned, "matched": matched})
        for loss, matched in (("matcher", True), ("cells", False))
        for name, encoding, learned in (
            ("mixed fixed", "mixed", False),
            ("mixed", "mixed", True),
            ("cayley", "cayley", True),
            ("circulant", "circulant", True),
        )
    ],
    settings={
        "encoding": "mixed",
        "learned": True,
        "matched": True,
        "grid": 6,
        "steps": 500,
        "batch_size": 64,
        "lr": 2e-3,
        "warmup": 50,
        "evaluate_every": 100,
    },
    quick={"steps": 10, "evaluate_every": 10, "batch_size": 16},
    quick_arms=("mixed, matcher", "mixed, cells"),
    run=run,
    metrics=[_F1],
    seeds=8,
    verdict=verdict,
    draw=draw,
    papers="STRING notes the variance of its detection results over seeds, and gives none.",
)
