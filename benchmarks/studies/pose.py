"""Cameras with poses: what a common rigid motion of the world does to models that know them.

The SE(3) question that LieRE leaves open. Camera 0 asks which other camera sees its own object; the
answer is that camera's colour. What each sees is told in its own frame, so poses are needed. The
test then moves the world's axes, which changes every pose and nothing else.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.studies.harness import pictures, words
from benchmarks.studies.harness.loop import Recipe, fit, measured
from benchmarks.studies.harness.study import Arm, Context, Metric, Outcome, Study, number_of
from benchmarks.studies.harness.summary import Summary
from benchmarks.studies.harness.token_model import TokenTransformer, position_parameters
from benchmarks.studies.tasks import views
from benchmarks.studies.tasks.views import Views
from lierope import pose_positions
from lierope.train import streams
from lierope.train.errors import check

_FEATURES = {"none": 0, "rotation": 9, "pose": 12}
_UNIT = 2.0  # patches a unit of length, for encodings that count patches


class ViewModel(nn.Module):
    """What a camera sees and its colour, poses by the arm's way, the transformer.

    Args:
        encoding: "se3" turns by poses, others by the cameras' centres.
        features: what of the pose is embedded beside: a key of `_FEATURES`.
        width, depth, heads: of the transformer.
    """

    def __init__(self, encoding: str, features: str, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.by_pose, self.features = encoding.partition(":")[0] == "se3", features
        self.colours = nn.Embedding(views.COLOURS + 1, width)
        inputs = 3 + _FEATURES[features]
        self.seen = nn.Sequential(nn.Linear(inputs, width), nn.GELU(), nn.Linear(width, width))
        self.body = TokenTransformer(
            encoding, 12 if self.by_pose else 3, views.COLOURS,
            dim=width, depth=depth, heads=heads, pool="none",
        )  # fmt: skip

    def forward(self, scenes: Views) -> Tensor:
        """Logits (B, COLOURS), read at camera 0."""
        inputs = [scenes.seen]
        if self.features != "none":
            inputs.append(scenes.rotations.flatten(-2))
        if self.features == "pose":
            inputs.append(scenes.translations)
        x = self.seen(torch.cat(inputs, -1)) + self.colours(scenes.colours)
        if self.by_pose:
            positions = pose_positions(scenes.rotations, scenes.translations)
        else:
            centres = -(scenes.rotations.mT @ scenes.translations[..., None])[..., 0]
            positions = _UNIT * centres
        logits: Tensor = self.body(x, positions)
        return logits[:, 0]


def run(context: Context) -> Outcome:
    """Trains in one world, or in many; tests there, shifted, and moved as a whole."""
    settings, device = context.settings, context.device
    number_of(settings, "cameras", 3)
    check(settings["cameras"] <= 13, f"set: cameras must be at most 13, got {settings['cameras']}")
    torch.manual_seed(streams.number(context.seed, "pose", "weights"))
    model = ViewModel(
        settings["encoding"], settings["features"],
        settings["width"], settings["depth"], settings["heads"],
    ).to(device)  # fmt: skip

    def scenes(count: int, motion: str, random: torch.Generator) -> Views:
        drawn = views.draw(count, settings["cameras"], random)
        shift = settings["shift"] * (2 * torch.rand(count, 3, generator=random) - 1)
        turn = torch.eye(3).expand(count, 3, 3)
        if motion == "moved":
            turn = views.any_rotations(count, random)
        if motion != "accuracy":
            drawn = views.moved(drawn, turn, shift)
        fields = (getattr(drawn, name).to(device) for name in Views.__dataclass_fields__)
        return Views(*fields)

    def loss(step: int) -> Tensor:
        random = streams.stream(context.seed, "pose", step)
        motion = "moved" if settings["augmented"] else "accuracy"
        batch = scenes(settings["batch_size"], motion, random)
        return functional.cross_entropy(model(batch), batch.labels)

    def accuracy(part: str, motion: str) -> float:
        test = scenes(settings["tested"], motion, streams.stream("pose", part, motion))
        return float((model(test).argmax(1) == test.labels).double().mean())

    trained = fit(
        model, loss, lambda: {"accuracy": accuracy("validation", "accuracy")},
        Recipe.of(settings), context,
    )  # fmt: skip
    return Outcome(
        metrics=measured(model, lambda: {m.name: accuracy("test", m.name) for m in _METRICS}),
        curves=trained.curves,
        parameters=sum(p.numel() for p in model.parameters()),
        position_parameters=position_parameters(model),
        seconds_per_step=trained.seconds_per_step,
    )


_METRICS = (
    Metric("accuracy", "test, %"),
    Metric("shifted", "world shifted, %"),
    Metric("moved", "world turned and shifted, %"),
)


def verdict(summary: Summary) -> str:
    """Who holds when the world is moved; arms against SE(3), as trained and moved."""
    accuracy, shifted, moved = _METRICS
    text = words.disturbed(summary, "accuracy", "moved", 2)
    return (
        f"When the world is turned and shifted, {text}. {words.brief(summary, moved)} "
        f"{words.brief(summary, accuracy)}\n"
        f"{words.against(summary, accuracy)} {words.against(summary, shifted)} "
        f"{words.against(summary, moved)} Keeping is a change whose interval lies within 2 points "
        "of 0, losing one whose interval lies below 0."
    )


def draw(summary: Summary, folder: Path) -> list[Path]:
    """Dots; curves."""
    return [
        pictures.dots(summary, _METRICS, folder / "pose.png"),
        pictures.curves(
            summary, "accuracy", folder / "pose-curves.png", scale=100,
            xlabel="steps", ylabel="validation accuracy, %",
        ),
    ]  # fmt: skip


def _arm(name: str, encoding: str, features: str, augmented: bool = False) -> Arm:
    return Arm(name, {"encoding": encoding, "features": features, "augmented": augmented})


STUDY = Study(
    name="pose",
    question="Do scores that depend on relative poses alone help where cameras have poses?",
    source="LieRE, section 7 (SE(3) is left open); GTA, arXiv 2310.10375",
    version=1,
    arms=[
        _arm("no poses", "none", "none"),
        _arm("features", "none", "pose"),
        _arm("augmented features", "none", "pose", True),
        _arm("mixed", "mixed", "rotation"),
        _arm("cayley", "cayley", "rotation"),
        _arm("circulant", "circulant", "rotation"),
        _arm("se3", "se3", "none"),
    ],
    settings={
        "encoding": "se3",
        "features": "none",
        "augmented": False,
        "cameras": 6,
        "shift": 3.0,
        "width": 96,
        "depth": 3,
        "heads": 4,
        "steps": 1200,
        "batch_size": 64,
        "tested": 2048,
        "lr": 1e-3,
        "warmup": 100,
        "evaluate_every": 200,
    },
    quick={"steps": 10, "evaluate_every": 10, "tested": 128, "depth": 1, "width": 48},
    quick_arms=("features", "se3"),
    run=run,
    metrics=_METRICS,
    reference="se3",
    verdict=verdict,
    draw=draw,
    papers="LieRE and STRING give no figures for poses.",
)
