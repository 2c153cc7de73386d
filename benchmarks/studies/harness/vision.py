"""Trains one run of a timm ViT on images by the library's own training engine."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from benchmarks.studies.harness.loop import clock, steps_to
from benchmarks.studies.harness.study import Context, Metric, Outcome
from lierope.train import config
from lierope.train.engine import Row, Run

# The settings of `lierope train` that a study of images may have; see lierope.train.config.
DIGITS: dict[str, Any] = {
    "data": "digits",
    "root": None,
    "model": None,
    "image_size": None,
    "eval_sizes": [12, 16],
    "epochs": 30,
    "amp": "off",
    "workers": 0,
    "encoding": "mixed",
}
QUICK: dict[str, Any] = {"epochs": 1, "eval_sizes": [16]}
PRESETS: dict[str, dict[str, Any]] = {
    "cifar10": {"data": "cifar10", "epochs": 200, "eval_sizes": [48, 64]},
    "cifar100": {"data": "cifar100", "epochs": 200, "eval_sizes": [48, 64]},
    "imagenet": {
        "data": "imagefolder", "model": "vit_base_patch16_224", "epochs": 200,
        "eval_sizes": [256, 320, 384, 448], "amp": "bf16", "workers": 8,
    },
}  # fmt: skip


TARGET = 0.9  # validation accuracy that counts as learned
METRICS = (
    Metric("accuracy", "test, %"),
    Metric("larger", "larger images, %"),
    Metric("largest", "largest images, %"),
    Metric("epochs", "epochs to 90 %", scale=1, digits=1, higher_is_better=False),
)


@dataclass(frozen=True)
class Trained:
    """A finished run of the engine and what it reported (see `Run.train`)."""

    run: Run
    result: dict[str, Any]
    seconds_per_step: float


def settings_of(context: Context, encoding: str, **changes: Any) -> config.Settings:
    """The engine's settings for a run: the data set's preset, then the study's, then `changes`.

    A study's setting that is None leaves the preset's value; `model_options` go over the preset's.
    The encoding "liere:head" has blocks as large as a head: 16 for digits, 64 in timm's models.
    """
    known = config.Settings.__dataclass_fields__
    given = {k: v for k, v in context.settings.items() if k in known and v is not None} | changes
    model, size = given.pop("model", None), given.pop("image_size", None)
    values = config.preset(given["data"], model, size)
    options = values["model_options"] | given.pop("model_options", {})
    head = options["embed_dim"] // options["num_heads"] if "embed_dim" in options else 64
    encoding = encoding.replace(":head", f":{head}")
    values |= given | {"model_options": options, "encoding": encoding, "seed": context.seed}
    values["warmup_epochs"] = min(values.get("warmup_epochs", 0), values["epochs"] / 4)
    return config.Settings.from_json(values)


def train(
    context: Context,
    settings: config.Settings,
    *,
    part: str = "",
    prepare: Callable[[nn.Module], None] | None = None,
    penalty: Callable[[nn.Module], Tensor] | None = None,
    start: Callable[[Run], None] | None = None,
    on_epoch: Callable[[Run, Row], None] | None = None,
) -> Trained:
    """Trains, goes on where an interrupted run stopped, and tests.

    Args:
        context: of the run.
        settings: of the engine.
        part: tells trainings of one run apart.
        prepare: changes the freshly made model before its optimiser is made.
        penalty: added to the loss of each step.
        start: called with the run before it trains.
        on_epoch: called after each epoch.
    """
    run = Run(
        settings, context.folder / part, context.world, context.settings.get("workers", 0),
        prepare=prepare, penalty=penalty,
    )  # fmt: skip

    if start is not None:
        start(run)
    steps: list[float] = []

    def timed(_epoch: int, step: int) -> None:
        now = clock(context.device)
        if step > 1:
            steps.append(now - last[0])
        last[0] = now

    last = [0.0]

    def told(row: Row) -> None:
        context.tell(row["epoch"] / settings.epochs)
        if on_epoch is not None:
            on_epoch(run, row)

    result = run.train(resume=True, on_step=timed, on_epoch=told)
    return Trained(run, result, statistics.median(steps) if steps else 0.0)


def outcome(trained: Trained, target: float | None = None, **metrics: float) -> Outcome:
    """Test accuracies, epochs to a target, and the curves by epoch.

    `accuracy` is of the size trained on, `larger` and `largest` of the first and the last size that
    was not, `accuracy@SIZE` of each; `epochs` is left out where the target is never reached.

    Args:
        trained: the run.
        target: a validation accuracy, for the metric `epochs`.
        metrics: more of them.
    """
    result, history = trained.result, trained.result["history"]
    accuracy = [(row["epoch"], row["validation_accuracy"]) for row in history]
    tested = list(result["test_accuracy"].values())
    found = {"accuracy": tested[0]}
    if len(tested) > 1:
        found |= {"larger": tested[1], "largest": tested[-1]}
    found |= {f"accuracy@{size}": value for size, value in result["test_accuracy"].items()}
    if target is not None and (reached := steps_to(accuracy, target)) is not None:
        found["epochs"] = reached
    return Outcome(
        metrics=found | metrics,
        curves={
            "accuracy": accuracy,
            "loss": [(row["epoch"], row["train_loss"]) for row in history],
        },
        parameters=result["total_parameters"],
        position_parameters=result["position_parameters"],
        seconds_per_step=trained.seconds_per_step,
    )
