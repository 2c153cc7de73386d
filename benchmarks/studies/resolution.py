"""Test on larger images with positions extended, fixed or centred. LieRE, next check 3.

A model is trained once; then a larger grid gets coordinates in three ways, in the units that the
model was trained in:

- extended: the same distance from patch to patch, from the same corner (the modes "index" and
  "proportional" of `lierope.grid_positions`)
- fixed: the same range of coordinates, patches closer together (the mode "unit")
- centred: the same distance, about the middle of the training grid (the mode "centered")

A relative encoding cannot tell extended from centred. On the default canvases objects keep their
size in pixels and the margin grows, which suits extended positions; where images are resized, as in
the presets, objects grow with the image, which suits fixed ones.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.studies.harness import pictures, vision, words
from benchmarks.studies.harness.study import Arm, Context, Metric, Outcome, Study
from benchmarks.studies.harness.summary import Summary
from lierope.positions import grid_positions
from lierope.swap.grid import GridPositions

WAYS = ("extended", "fixed", "centred")


class OtherPositions(GridPositions):
    """The coordinates of a grid that is larger than the one trained on, in one of the ways."""

    def __init__(self, trained: GridPositions, train_shape: Iterable[int], way: str) -> None:
        super().__init__(trained.mode, tuple(train_shape))
        self.way = way

    def _build(self, shape: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
        assert self.train_shape is not None
        trained = grid_positions(
            self.train_shape, self.mode, train_shape=self.train_shape, dtype=torch.float64
        )
        low, high = trained.amin(0), trained.amax(0)
        axes = [
            _axis(size, before, float(low[c]), float(high[c]), self.way)
            for c, (size, before) in enumerate(zip(shape, self.train_shape, strict=True))
        ]
        grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).flatten(0, -2)
        return grid.to(device, dtype)


def _axis(size: int, before: int, low: float, high: float, way: str) -> Tensor:
    index = torch.arange(size, dtype=torch.float64)
    step = (high - low) / max(before - 1, 1)
    if way == "fixed":
        return low + index * (high - low) / max(size - 1, 1)
    return low + step * (index - ((size - before) / 2 if way == "centred" else 0))


def run(context: Context) -> Outcome:
    """Trains as `images`, tests every size in every way."""
    trained = vision.train(context, vision.settings_of(context, context.settings["encoding"]))
    run = trained.run
    dropped: Any = run.model.patch_drop  # swap's announcement of positions stands in its place
    embedding: Any = run.model.patch_embed
    metrics = {}
    if context.settings["encoding"] not in ("none", "absolute"):
        own: GridPositions = dropped.positions
        for way in WAYS:
            dropped.positions = OtherPositions(own, embedding.grid_size, way)
            for size in run.settings.eval_sizes:
                metrics[f"{way}@{size}"] = run.evaluate(run.source.test_batches(size))[1]
    else:  # none and absolute: timm resizes the table, if there is one
        tested = trained.result["test_accuracy"]
        metrics = {f"fixed@{size}": tested[str(size)] for size in run.settings.eval_sizes}
    return vision.outcome(trained, **metrics)


def verdict(summary: Summary) -> str:
    """The best way of each arm at the largest size, and the arms against each other."""
    last = STUDY.settings["eval_sizes"][-1]
    best = []
    for arm in summary.arms:
        known = [w for w in WAYS if summary.values(arm, f"{w}@{last}")]
        if len(known) > 1:
            found = {w: 100 * summary.mean(arm, f"{w}@{last}") for w in known}
            best.append(f"{arm} {', '.join(f'{w} {v:.1f}' for w, v in found.items())}")
    text = f"On {last} px: {'; '.join(best)}. " if best else ""
    known_metrics = [m for m in STUDY.metrics if m.name.startswith("extended@")]
    return text + " ".join(words.against(summary, metric) for metric in known_metrics)


def draw(summary: Summary, folder: Path) -> list[Path]:
    """Accuracy against size, a panel a way."""
    sizes = STUDY.settings["eval_sizes"]
    made = []
    for way in WAYS:
        by_size = {size: f"{way}@{size}" for size in sizes}
        arms = [a for a in summary.arms if summary.values(a, by_size[sizes[0]])]
        if arms:
            made.append(
                pictures.against(
                    summary,
                    by_size,
                    folder / f"resolution-{way}.png",
                    arms=arms,
                    xlabel=f"pixels a side (trained on 10), {way} positions",
                    ylabel="test accuracy, %",
                )
            )
    return made


_ENCODINGS = ("none", "absolute", "axial", "mixed", "mixed:init=uniform", "liere:2", "liere:8",
              "liere:head", "cayley", "circulant")  # fmt: skip
_SIZES = [12, 14, 16, 20, 24]

STUDY = Study(
    name="resolution",
    question="Which encodings hold on larger images, and with which positions?",
    source="LieRE, next check 3 and figure 7",
    version=1,
    arms=[Arm(name, {"encoding": name}) for name in _ENCODINGS],
    settings={**vision.DIGITS, "eval_sizes": _SIZES},
    quick={"epochs": 1, "eval_sizes": [12, 16]},
    quick_arms=("absolute", "mixed"),
    run=run,
    metrics=[
        Metric("accuracy", "10 px, %"),
        *(Metric(f"{way}@{size}", f"{size} px {way}, %") for size in (16, 24) for way in WAYS),
    ],
    reference="mixed",
    verdict=verdict,
    draw=draw,
    presets={
        name: values | {"eval_sizes": [32, 48, 64, 96] if "cifar" in name else
                        [160, 224, 256, 320, 384, 512]}
        for name, values in vision.PRESETS.items()
    },
    joined=True,
    papers=(
        "LieRE, figure 7 (ImageNet, tested at 196 to 448 px): LieRE-64 equals RoPE-Mixed up to 320 "
        "px and is better above. An independent replication of STRING (192, 224, 256, 320, 384, "
        "512 px): 79.90, 80.96, 81.60, 81.85, 81.58, 79.97; RoPE-Mixed 80.50, 81.51, 82.22, 82.62, "
        "82.12, 80.63."
    ),
)  # fmt: skip
