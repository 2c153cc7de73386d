"""Clouds of points: 3-D positions against 2-D and a height, and against coordinates as features.

STRING, experiment 3. A token is a centre with the offsets of its neighbours, which stay the same
when the cloud moves; where centres are enters by the arm's way alone. Rotary encodings need such
content: attention over equal values returns that value whatever its weights.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.studies.harness import pictures, words
from benchmarks.studies.harness.loop import Recipe, fit, measured
from benchmarks.studies.harness.study import Arm, Context, Metric, Outcome, Study, number_of
from benchmarks.studies.harness.summary import Summary
from benchmarks.studies.harness.token_model import TokenTransformer, position_parameters
from benchmarks.studies.tasks import clouds
from lierope.train import streams

# A cloud has radius 1. Encodings that count patches see it 8 of them wide, those meant for the unit
# cube as one of side 1.
_UNITS = {"index": 4.0}
_UNIT_CUBE = 0.5
_WAYS = ("rotation", "height", "features")
_LIERE_AT_ROPE = "liere:8, init=rope"  # LieRE's blocks, but RoPE's generators, at the start


class CloudModel(nn.Module):
    """Offsets through a small PointNet, coordinates by the arm's way, the transformer.

    Args:
        encoding: of the attention.
        way: "rotation" by all three coordinates; "height": rotation by (x, y), z as a feature;
            "features": all three coordinates as features.
        classes: how many.
        width, depth, heads: of the transformer.
    """

    def __init__(
        self, encoding: str, way: str, classes: int, width: int, depth: int, heads: int
    ) -> None:
        super().__init__()
        self.way = way
        self.points = nn.Sequential(nn.Linear(3, width), nn.GELU(), nn.Linear(width, width))
        features = {"rotation": 0, "height": 1, "features": 3}[way]
        self.features: nn.Module | None = None
        if features:
            self.features = nn.Sequential(
                nn.Linear(features, width), nn.GELU(), nn.Linear(width, width)
            )
        ndim = 2 if way == "height" else 3
        self.body = TokenTransformer(encoding, ndim, classes, dim=width, depth=depth, heads=heads)
        self.unit = _UNITS.get(self.body.encoding.default_positions, _UNIT_CUBE)

    def forward(self, centres: Tensor, offsets: Tensor) -> Tensor:
        """Logits of centres (B, N, 3) with offsets (B, N, neighbours, 3)."""
        x = self.points(4 * offsets).amax(2)
        if self.features is not None:
            x = x + self.features(centres[..., 2:] if self.way == "height" else centres)
        positions = centres[..., :2] if self.way == "height" else centres
        logits: Tensor = self.body(x, self.unit * positions)
        return logits


Clouds = tuple[Tensor, Tensor, Tensor]  # centres, offsets, labels


def _generated(context: Context) -> tuple[int, dict[str, Clouds]]:
    settings = context.settings
    counts = {"train": settings["clouds"], "validation": 20, "test": 50}
    found = {}
    for part, each in counts.items():
        labels = torch.arange(len(clouds.CLASSES)).repeat_interleave(each)
        drawn = clouds.draw(labels, settings["points"], streams.stream("pointcloud", part))
        cut = clouds.patches(drawn, settings["centres"], settings["neighbours"])
        found[part] = (*cut, labels)
    return len(clouds.CLASSES), found


def _on_disk(context: Context) -> tuple[int, dict[str, Clouds]]:
    settings = context.settings
    names, files = clouds.files(settings["root"])
    order = torch.randperm(len(files["train"]), generator=streams.stream("pointcloud", "split"))
    held = max(1, len(order) // 10)
    chosen = {
        "train": [files["train"][i] for i in order[held:].tolist()],
        "validation": [files["train"][i] for i in order[:held].tolist()],
        "test": files["test"],
    }
    found = {}
    for part, rows in chosen.items():
        drawn = torch.stack([
            clouds.read(path, settings["points"], streams.number("pointcloud", path.name) % 2**32)
            for path, _ in rows
        ])  # fmt: skip
        cut = [clouds.patches(some, settings["centres"], settings["neighbours"])
               for some in drawn.split(256)]  # fmt: skip
        centres, offsets = (torch.cat(pieces) for pieces in zip(*cut, strict=True))
        found[part] = (centres, offsets, torch.tensor([label for _, label in rows]))
    return len(names), found


def run(context: Context) -> Outcome:
    """Trains on shifted clouds, tests them where they were, far away, and higher."""
    settings, device = context.settings, context.device
    number_of(settings, "neighbours", 1)
    for name in ("centres", "neighbours"):
        number_of(settings, "points", settings[name])
    classes, parts = _on_disk(context) if settings["root"] else _generated(context)
    torch.manual_seed(streams.number(context.seed, "pointcloud", "weights"))
    model = CloudModel(
        settings["encoding"], settings["way"], classes,
        settings["width"], settings["depth"], settings["heads"],
    ).to(device)  # fmt: skip

    def batch(step: int) -> Clouds:
        random = streams.stream(context.seed, "pointcloud", step)
        centres, offsets, labels = parts["train"]
        at = torch.randint(len(labels), (settings["batch_size"],), generator=random)
        centres, offsets = clouds.turned(centres[at], offsets[at], settings["jitter"], random)
        return clouds.moved(centres, settings["shift"], random), offsets, labels[at]

    def loss(step: int) -> Tensor:
        centres, offsets, labels = (x.to(device) for x in batch(step))
        return functional.cross_entropy(model(centres, offsets), labels)

    def accuracy(part: str, place: Callable[[Tensor, torch.Generator], Tensor]) -> float:
        random = streams.stream("pointcloud", part, "places")
        centres, offsets, labels = parts[part]
        centres, offsets = clouds.turned(centres, offsets, settings["jitter"], random)
        pieces = (x.split(256) for x in (place(centres, random), offsets, labels))
        right = sum(
            int((model(c.to(device), o.to(device)).argmax(1).cpu() == y).sum())
            for c, o, y in zip(*pieces, strict=True)
        )
        return right / len(labels)

    def near(centres: Tensor, random: torch.Generator) -> Tensor:
        return clouds.moved(centres, settings["shift"], random)

    trained = fit(
        model, loss, lambda: {"accuracy": accuracy("validation", near)},
        Recipe.of(settings), context,
    )  # fmt: skip
    away = settings["away"]
    places: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
        "accuracy": near,
        "far": lambda centres, random: clouds.moved(centres, away, random),
        "higher": lambda centres, _: centres + centres.new_tensor([0, 0, away]),
    }
    return Outcome(
        metrics=measured(model, lambda: {n: accuracy("test", p) for n, p in places.items()}),
        curves=trained.curves,
        parameters=sum(p.numel() for p in model.parameters()),
        position_parameters=position_parameters(model),
        seconds_per_step=trained.seconds_per_step,
    )


_METRICS = (
    Metric("accuracy", "test, %"),
    Metric("far", "shifted by up to 3 radii, %"),
    Metric("higher", "3 radii higher, %"),
)


def verdict(summary: Summary) -> str:
    """Who holds far away, and arms against mixed where they were trained."""
    accuracy, far, _ = _METRICS
    text = words.disturbed(summary, "accuracy", "far", 2)
    return (
        f"Moved far from where they were trained, {text}. {words.brief(summary, accuracy)} "
        f"{_start(summary)}\n"
        f"{words.against(summary, accuracy)} {words.against(summary, far)} Keeping is a change "
        "whose interval lies within 2 points of 0, losing one whose interval lies below 0."
    )


def _start(summary: Summary) -> str:
    """What LieRE owes to its start; where that was not asked, that it was not."""
    pair = [(_LIERE_AT_ROPE, "liere:8")]
    told = [words.pairs(summary, m, "RoPE's start of LieRE against its own", pair)
            for m in _METRICS[:2]]  # fmt: skip
    return " ".join(told) if all(told) else words.own_start(summary)


def draw(summary: Summary, folder: Path) -> list[Path]:
    """Dots; curves."""
    return [
        pictures.dots(summary, _METRICS, folder / "pointcloud.png"),
        pictures.curves(
            summary, "accuracy", folder / "pointcloud-curves.png", scale=100,
            xlabel="steps", ylabel="validation accuracy, %",
        ),
    ]  # fmt: skip


def _arm(name: str, encoding: str, way: str = "rotation") -> Arm:
    return Arm(name, {"encoding": encoding, "way": way})


STUDY = Study(
    name="pointcloud",
    question="What do 3-D rotations give over 2-D and a height, or coordinates as features?",
    source="STRING, experiment 3 and section 4.4",
    version=1,
    arms=[
        _arm("none", "none"),
        _arm("features", "none", "features"),
        _arm("2-D + height", "mixed", "height"),
        *(_arm(n, n) for n in ("axial", "mixed", "liere:8")),
        _arm(_LIERE_AT_ROPE, "liere:block_size=8,init=rope"),
        *(_arm(n, n) for n in ("cayley", "circulant")),
    ],
    settings={
        "encoding": "mixed",
        "way": "rotation",
        "clouds": 20,
        "points": 128,
        "centres": 32,
        "neighbours": 8,
        "jitter": 0.15,
        "shift": 1.0,
        "away": 3.0,
        "width": 96,
        "depth": 3,
        "heads": 4,
        "steps": 500,
        "batch_size": 32,
        "lr": 1e-3,
        "warmup": 60,
        "evaluate_every": 100,
        "root": "",
    },
    quick={"clouds": 4, "steps": 8, "evaluate_every": 8, "depth": 1, "width": 48},
    quick_arms=("features", "mixed"),
    run=run,
    metrics=_METRICS,
    reference="mixed",
    verdict=verdict,
    draw=draw,
    presets={
        "modelnet40": {
            "points": 1024, "jitter": 0.01, "centres": 128, "neighbours": 32,
            "width": 384, "depth": 12,
            "heads": 6, "steps": 60_000, "batch_size": 64, "warmup": 2_000,
            "evaluate_every": 2_000,
        },
    },
    papers=(
        "STRING, at second hand: WebLI-3D 70.48 against 68.77 for the baseline; 3-D detection IOU "
        "58.95 against 49.77. Its robots with another table height: about 50 % in 3-D, 10 % in 2-D."
    ),
)  # fmt: skip
