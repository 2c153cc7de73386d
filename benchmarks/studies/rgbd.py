"""Images with depth: the depth as a third coordinate, as a channel, as normals, or not at all.

STRING, section 4.4. A patch's third coordinate is the mean depth of its pixels. The task tells back
from up, which look alike in the image; and the test moves the camera, dims the light and adds
objects, as the paper's robots met other tables, lights and distractors.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

import lierope
from benchmarks.studies.harness import pictures, words
from benchmarks.studies.harness.loop import Recipe, fit, measured
from benchmarks.studies.harness.study import Arm, Context, Metric, Outcome, Study, number_of
from benchmarks.studies.harness.summary import Summary
from benchmarks.studies.harness.token_model import TokenTransformer, position_parameters
from benchmarks.studies.tasks import table_scenes
from benchmarks.studies.tasks.table_scenes import SIDE, Scenes
from lierope.encodings.registry import parse
from lierope.train import streams

_PATCH = 4
_GRID = SIDE // _PATCH
_NEAREST, _SPREAD = 40.0, 10.0  # of depths, about: channels are standardised by them
_CHANNELS = {"none": 3, "channel": 4, "centred channel": 4, "normals": 6, "coordinate": 3}
_TESTS: dict[str, dict[str, Any]] = {
    "accuracy": {},
    "camera": {"camera": 10.0},
    "light": {"light": 0.5},
    "distractors": {"distractors": 4},
}
_TESTED = 256  # scenes at a time


class SceneModel(nn.Module):
    """Patch embedding and transformer, depth by the arm's way.

    Args:
        encoding: of the attention.
        depth_by: a key of `_CHANNELS`: "channel" beside the colours, "centred channel" with each
            image's mean taken off, "normals" as three channels, or "coordinate".
        width, depth, heads: of the transformer.
    """

    def __init__(self, encoding: str, depth_by: str, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.depth_by = depth_by
        self.lifts = depth_by == "coordinate"
        self.embedding = nn.Conv2d(_CHANNELS[depth_by], width, _PATCH, _PATCH)
        self.body = TokenTransformer(
            encoding, 3 if self.lifts else 2, len(table_scenes.WAYS),
            dim=width, depth=depth, heads=heads,
        )  # fmt: skip
        counts_patches = parse(encoding)[0].default_positions == "index"
        self.unit = 1.0 if counts_patches else 1 / (_GRID - 1)
        cells = lierope.grid_positions((_GRID, _GRID), "index")
        self.register_buffer("cells", cells, persistent=False)

    def forward(self, images: Tensor, depths: Tensor, normals: Tensor) -> Tensor:
        """Logits (B, 6)."""
        scaled = (depths - _NEAREST) / _SPREAD
        if self.depth_by == "channel":
            images = torch.cat((images, scaled), 1)
        elif self.depth_by == "centred channel":
            images = torch.cat((images, scaled - scaled.mean((1, 2, 3), keepdim=True)), 1)
        elif self.depth_by == "normals":
            images = torch.cat((images, normals), 1)
        x = self.embedding(images - 0.4 if images.shape[1] == 3 else images)
        positions = self.cells
        assert isinstance(positions, Tensor)
        if self.lifts:
            lifted = functional.avg_pool2d(depths - _NEAREST, _PATCH).flatten(1)[..., None]
            cells = positions.expand(len(images), -1, -1)
            positions = torch.cat((cells, lifted / _PATCH), -1)
        logits: Tensor = self.body(x.flatten(2).mT, self.unit * positions)
        return logits


def run(context: Context) -> Outcome:
    """Trains on scenes with one distractor, tests as trained and out of distribution."""
    settings, device = context.settings, context.device
    torch.manual_seed(streams.number(context.seed, "rgbd", "weights"))
    model = SceneModel(
        settings["encoding"], settings["depth_by"],
        settings["width"], settings["depth"], settings["heads"],
    ).to(device)  # fmt: skip

    def logits(scenes: Scenes) -> Tensor:
        out: Tensor = model(*(x.to(device) for x in (scenes.images, scenes.depths, scenes.normals)))
        return out

    def loss(step: int) -> Tensor:
        random = streams.stream(context.seed, "rgbd", step)
        scenes = table_scenes.draw(settings["batch_size"], random)
        return functional.cross_entropy(logits(scenes), scenes.labels.to(device))

    def accuracy(part: str, other: dict[str, Any]) -> float:
        batches = settings["tested"] // _TESTED
        right = 0
        for number in range(batches):
            scenes = table_scenes.draw(_TESTED, streams.stream("rgbd", part, number), **other)
            right += int((logits(scenes).argmax(1).cpu() == scenes.labels).sum())
        return float(right / (batches * _TESTED))

    number_of(settings, "tested", _TESTED)
    trained = fit(
        model, loss, lambda: {"accuracy": accuracy("validation", {})}, Recipe.of(settings), context
    )
    return Outcome(
        metrics=measured(model, lambda: {n: accuracy("test", o) for n, o in _TESTS.items()}),
        curves=trained.curves,
        parameters=sum(p.numel() for p in model.parameters()),
        position_parameters=position_parameters(model),
        seconds_per_step=trained.seconds_per_step,
    )


_METRICS = (
    Metric("accuracy", "test, %"),
    Metric("camera", "camera 10 px farther, %"),
    Metric("light", "half the light, %"),
    Metric("distractors", "4 distractors, %"),
)
_REFERENCE, _CENTRED = "depth channel", "centred channel"


def verdict(summary: Summary) -> str:
    """Against a depth channel, in distribution and out of it."""
    _, camera, *_ = _METRICS
    rotations = [a for a in summary.arms if a.startswith("3-D")]
    text = words.brief(summary, camera)
    if rotations and _CENTRED in summary.arms:
        text += (
            f" A channel from which each image's mean is taken, {words.name(_CENTRED)}, is what a "
            f"third coordinate has to beat. {words.brief(summary, camera, _CENTRED, rotations)}"
        )
    against = (words.against(summary, metric) for metric in _METRICS)
    return f"{text}\n{' '.join(against)} {words.own_start(summary)}"


def draw(summary: Summary, folder: Path) -> list[Path]:
    """Dots; curves."""
    line = {"best without\ndepth, on average": table_scenes.CEILING_WITHOUT_DEPTH}
    return [
        pictures.dots(summary, _METRICS, folder / "rgbd.png", lines=line),
        pictures.curves(
            summary, "accuracy", folder / "rgbd-curves.png", scale=100, lines=line,
            xlabel="steps", ylabel="validation accuracy, %",
        ),
    ]  # fmt: skip


def _arm(name: str, encoding: str, depth_by: str) -> Arm:
    return Arm(name, {"encoding": encoding, "depth_by": depth_by})


STUDY = Study(
    name="rgbd",
    question="Is depth worth more as a third coordinate than as a channel?",
    source="STRING, section 4.4",
    version=1,
    arms=[
        _arm("no depth", "mixed", "none"),
        _arm("depth channel", "mixed", "channel"),
        _arm("centred channel", "mixed", "centred channel"),
        _arm("normals", "mixed", "normals"),
        *(_arm(f"3-D {n}", n, "coordinate") for n in ("mixed", "cayley", "circulant", "liere:8")),
    ],
    settings={
        "encoding": "mixed",
        "depth_by": "none",
        "width": 96,
        "depth": 3,
        "heads": 4,
        "steps": 600,
        "batch_size": 32,
        "tested": 1024,
        "lr": 1e-3,
        "warmup": 60,
        "evaluate_every": 100,
    },
    quick={"steps": 6, "evaluate_every": 6, "tested": 256, "depth": 1, "width": 48},
    quick_arms=("depth channel", "3-D mixed"),
    run=run,
    metrics=_METRICS,
    reference=_REFERENCE,
    verdict=verdict,
    draw=draw,
    papers=(
        "KUKA robots, success in %: 2-D 65.3, 2-D with normals 42.2, 3-D STRING with normals 53.1, "
        "3-D STRING 73.8. Out of distribution, 2-D against 3-D: distractors 57 and 74, lighting 10 "
        "and 25, table height 10 and 50 (about)."
    ),
)
