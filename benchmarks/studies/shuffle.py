"""How much does a trained model lean on where patches are? LieRE, table 5."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.studies.harness import pictures, vision, words
from benchmarks.studies.harness.study import Arm, Context, Metric, Outcome, Study
from benchmarks.studies.harness.summary import Summary
from lierope.train import streams
from lierope.train.data import Batch


def shuffled(images: Tensor, side: int, random: torch.Generator) -> Tensor:
    """Images (B, C, H, W) whose patches of `side` pixels lie in a random order, each image's own.

    H and W must be multiples of `side`.
    """
    B, C, H, W = images.shape
    rows, columns = H // side, W // side
    patches = images.view(B, C, rows, side, columns, side).permute(0, 2, 4, 1, 3, 5)
    patches = patches.reshape(B, rows * columns, C, side, side)
    order = torch.rand(B, rows * columns, generator=random).argsort(1).to(images.device)
    patches = patches.gather(1, order[:, :, None, None, None].expand_as(patches))
    whole = patches.view(B, rows, columns, C, side, side).permute(0, 3, 1, 4, 2, 5)
    return whole.reshape(B, C, H, W)


def run(context: Context) -> Outcome:
    """Trains as `images`, then tests with patches in their places and out of them."""
    trained = vision.train(context, vision.settings_of(context, context.settings["encoding"]))
    run = trained.run
    side = int(run.model.patch_embed.patch_size[0])  # type: ignore[union-attr,index]

    def batches() -> Iterator[Batch]:
        random = streams.stream("shuffle", "test")
        for images, labels in run.source.test_batches(run.settings.image_size):
            yield shuffled(images, side, random), labels

    _, without = run.evaluate(batches())
    accuracy = next(iter(trained.result["test_accuracy"].values()))
    return vision.outcome(
        trained, shuffled=without, drop=(accuracy - without) / accuracy if accuracy else 0.0
    )


_DROP = Metric("drop", "share lost, %", higher_is_better=None)


def verdict(summary: Summary) -> str:
    """Whose accuracy falls most."""
    rotary = [a for a in summary.arms if a not in ("none", "absolute")]
    return (
        f"{words.brief(summary, _DROP)}\n"
        f"{words.spread(summary, _DROP, rotary)} {words.against(summary, _DROP)} "
        "How much an arm loses says that it uses positions, not how well."
    )


def draw(summary: Summary, folder: Path) -> list[Path]:
    """Dots by arm."""
    return [pictures.dots(summary, STUDY.metrics, folder / "shuffle.png")]


_ENCODINGS = ("none", "absolute", "visionllama", "mixed", "liere:8", "liere:head", "cayley",
              "circulant")  # fmt: skip

STUDY = Study(
    name="shuffle",
    question="How much accuracy does a trained model lose when its patches change places?",
    source="LieRE, table 5",
    version=1,
    arms=[Arm(name, {"encoding": name}) for name in _ENCODINGS],
    settings={**vision.DIGITS, "eval_sizes": []},
    quick={"epochs": 1},
    quick_arms=("absolute", "mixed"),
    run=run,
    metrics=[
        _DROP,
        Metric("accuracy", "in place, %"),
        Metric("shuffled", "shuffled, %", higher_is_better=None),
    ],
    reference="mixed",
    verdict=verdict,
    draw=draw,
    presets={name: values | {"eval_sizes": []} for name, values in vision.PRESETS.items()},
    joined=True,
    papers=(
        "Table 5, drop in % on CIFAR-100: absolute 69.3, VisionLLaMA 54.8, RoPE-Mixed 75.1, "
        "LieRE-8 82.5, LieRE-64 84.6; on UCF101: absolute 0.0, VisionLLaMA 17.7, RoPE-Mixed 39.1, "
        "LieRE-8 40.9, LieRE-64 37.4."
    ),
)
