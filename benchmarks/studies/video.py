"""Clips: positions in time and space. LieRE's 3-D experiment (UCF101), on moving digits.

Tubelets of 2 frames by 2 x 2 pixels, at positions (t, y, x). The class is the digit and the way it
moves; `shuffled` is the accuracy with the frames of the test in another order, which cannot keep
the way: a model whose accuracy does not fall does not use time. A tubelet shows two frames, so a
model without positions sees some of the way too.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

import lierope
from benchmarks.studies.harness import pictures, words
from benchmarks.studies.harness.loop import Recipe, fit, measured
from benchmarks.studies.harness.study import Arm, Context, Metric, Outcome, Study
from benchmarks.studies.harness.summary import Summary
from benchmarks.studies.harness.token_model import TokenTransformer, position_parameters
from benchmarks.studies.tasks import moving_digits
from lierope.train import streams

_TUBE = 2
_GRID = (moving_digits.FRAMES // _TUBE, *(2 * [moving_digits.CANVAS // _TUBE]))
_PLACEMENTS = 4


class ClipModel(nn.Module):
    """Tubelet embedding, learned table where the arm has it, transformer over (t, y, x)."""

    def __init__(self, encoding: str, classes: int, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.embedding = nn.Linear(_TUBE**3, width)
        tokens = _GRID[0] * _GRID[1] * _GRID[2]
        self.table: nn.Parameter | None = None
        if encoding == "absolute":
            self.table = nn.Parameter(0.5 * torch.randn(tokens, width))
        self.body = TokenTransformer(
            encoding, 3, classes, dim=width, depth=depth, heads=heads, pool="max"
        )
        mode = self.body.encoding.default_positions  # of the start that was asked for, too
        self.register_buffer("positions", lierope.grid_positions(_GRID, mode), persistent=False)

    def forward(self, clips: Tensor) -> Tensor:
        """Logits of clips (B, frames, rows, columns)."""
        B = len(clips)
        tubes = clips
        for axis in (1, 2, 3):
            tubes = tubes.unfold(axis, _TUBE, _TUBE)
        x = self.embedding(tubes.reshape(B, -1, _TUBE**3))
        if self.table is not None:
            x = x + self.table
        positions = self.positions
        assert isinstance(positions, Tensor)
        logits: Tensor = self.body(x, positions)
        return logits


Batch = tuple[Tensor, Tensor]


def _generated(context: Context) -> tuple[int, Callable[[int], Batch], dict[str, Batch]]:
    train = moving_digits.split("train")

    def batch(step: int) -> Batch:
        random = streams.stream(context.seed, "video", step)
        at = torch.randint(len(train[1]), (context.settings["batch_size"],), generator=random)
        return moving_digits.draw(train[0][at], train[1][at], random)

    fixed = {}
    for part in ("validation", "test"):
        digits, numbers = (x.repeat_interleave(_PLACEMENTS, 0) for x in moving_digits.split(part))
        fixed[part] = moving_digits.draw(digits, numbers, streams.stream("video", part))
    return moving_digits.CLASSES, batch, fixed


def _on_disk(context: Context) -> tuple[int, Callable[[int], Batch], dict[str, Batch]]:
    names, files = moving_digits.load_clips(context.settings["root"])
    order = torch.randperm(len(files["train"]), generator=streams.stream("video", "split")).tolist()
    held = max(1, len(order) // 10)

    def stacked(chosen: list[tuple[Path, int]]) -> Batch:
        clips = torch.stack([moving_digits.read_clip(path) for path, _ in chosen])
        return clips, torch.tensor([label for _, label in chosen])

    train = stacked([files["train"][i] for i in order[held:]])
    fixed = {
        "validation": stacked([files["train"][i] for i in order[:held]]),
        "test": stacked(files["val"]),
    }

    def batch(step: int) -> Batch:
        random = streams.stream(context.seed, "video", step)
        at = torch.randint(len(train[1]), (context.settings["batch_size"],), generator=random)
        return train[0][at], train[1][at]

    return len(names), batch, fixed


def run(context: Context) -> Outcome:
    """Trains on clips, tests in order and out of it."""
    settings, device = context.settings, context.device
    classes, batch, fixed = _on_disk(context) if settings["root"] else _generated(context)
    torch.manual_seed(streams.number(context.seed, "video", "weights"))
    model = ClipModel(
        settings["encoding"], classes, settings["width"], settings["depth"], settings["heads"]
    ).to(device)

    def loss(step: int) -> Tensor:
        clips, labels = batch(step)
        return functional.cross_entropy(model(clips.to(device)), labels.to(device))

    def accuracy(clips: Tensor, labels: Tensor) -> float:
        pieces = zip(clips.split(256), labels.split(256), strict=True)
        right = sum(int((model(x.to(device)).argmax(1).cpu() == y).sum()) for x, y in pieces)
        return right / len(labels)

    trained = fit(
        model, loss, lambda: {"accuracy": accuracy(*fixed["validation"])},
        Recipe.of(settings), context,
    )  # fmt: skip
    clips, labels = fixed["test"]
    metrics = measured(
        model,
        lambda: {
            "accuracy": accuracy(clips, labels),
            "shuffled": accuracy(moving_digits.shuffled_frames(clips), labels),
        },
    )
    table = model.table.numel() if model.table is not None else 0
    return Outcome(
        metrics=metrics,
        curves=trained.curves,
        parameters=sum(p.numel() for p in model.parameters()),
        position_parameters=position_parameters(model) + table,
        seconds_per_step=trained.seconds_per_step,
    )


_METRICS = (
    Metric("accuracy", "test, %"),
    Metric("shuffled", "frames shuffled, %", higher_is_better=None),
)


def verdict(summary: Summary) -> str:
    """Arms against mixed, and what shuffling takes."""
    accuracy, _ = _METRICS
    held, lost, unclear = words.kept(summary, "accuracy", "shuffled", 2)
    return (
        f"{words.brief(summary, accuracy)}\n"
        f"{words.spread(summary, accuracy)} {words.against(summary, accuracy)} Frames in another "
        f"order take accuracy from {len(lost)} of {len(held + lost + unclear)} arms."
    )


def draw(summary: Summary, folder: Path) -> list[Path]:
    """Dots; curves."""
    return [
        pictures.dots(summary, _METRICS, folder / "video.png"),
        pictures.curves(
            summary, "accuracy", folder / "video-curves.png", scale=100,
            xlabel="steps", ylabel="validation accuracy, %",
        ),
    ]  # fmt: skip


_ENCODINGS = ("none", "absolute", "visionllama", "mixed", "mixed:init=uniform", "liere:8",
              "liere:24", "cayley", "circulant")  # fmt: skip

STUDY = Study(
    name="video",
    question="Do learned rotations over time and space help on clips?",
    source="LieRE, table 1 (UCF101)",
    version=2,
    arms=[Arm(name, {"encoding": name}) for name in _ENCODINGS],
    settings={
        "encoding": "mixed",
        "width": 96,
        "depth": 2,
        "heads": 4,
        "steps": 500,
        "batch_size": 32,
        "lr": 2e-3,
        "warmup": 60,
        "evaluate_every": 50,
        "root": "",
    },
    quick={"steps": 6, "evaluate_every": 6, "depth": 1, "width": 48},
    quick_arms=("absolute", "mixed"),
    run=run,
    metrics=_METRICS,
    reference="mixed",
    verdict=verdict,
    draw=draw,
    presets={"clips": {"width": 384, "depth": 12, "heads": 6, "steps": 50_000}},
    papers=(
        "Table 1 on UCF101: absolute 40.9, VisionLLaMA 45.0, RoPE-Mixed 46.3, LieRE-8 47.0, "
        "LieRE-64 44.7."
    ),
)
