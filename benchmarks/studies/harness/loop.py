"""Trains a model on generated or in-memory batches for a number of steps."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR

import lierope
from benchmarks.studies.harness.study import Context, Settings
from lierope.train.errors import DivergenceError


@dataclass(frozen=True)
class Recipe:
    """AdamW with a linear warm-up and a cosine to 1 % of the rate.

    `evaluate_every` counts steps; the last step is always evaluated.
    """

    steps: int
    lr: float = 1e-3
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.98)
    warmup: int = 200
    clip: float = 1.0
    evaluate_every: int = 100

    @classmethod
    def of(cls, settings: Settings) -> Recipe:
        """The fields that a study's settings name."""
        known = cls.__dataclass_fields__
        return cls(**{name: value for name, value in settings.items() if name in known})


@dataclass(frozen=True)
class Fit:
    """What training left behind besides the model."""

    curves: dict[str, list[tuple[float, float]]]  # of each evaluated metric, over steps
    seconds_per_step: float  # median, without evaluations, by `clock`


def fit(
    model: nn.Module,
    loss: Callable[[int], Tensor],
    evaluate: Callable[[], Mapping[str, float]],
    recipe: Recipe,
    context: Context,
) -> Fit:
    """Trains the model in place.

    Args:
        model: whose parameters to train; encodings are not decayed.
        loss: the loss of the batch of step 1, 2, …; the batch must depend on the run's seed and the
            step alone.
        evaluate: metrics of the model as it stands; called in evaluation mode, without gradients.
        recipe: steps, rates.
        context: of the run; told of progress.

    Raises:
        DivergenceError: the loss became NaN or infinite.
    """
    optimizer = AdamW(
        lierope.param_groups(model, lr=recipe.lr, weight_decay=recipe.weight_decay),
        betas=recipe.betas,
    )
    warmup = max(1, min(recipe.warmup, recipe.steps // 4))
    schedule = SequentialLR(
        optimizer,
        [
            LinearLR(optimizer, 1 / warmup, total_iters=warmup),
            CosineAnnealingLR(optimizer, max(1, recipe.steps - warmup), eta_min=recipe.lr / 100),
        ],
        [warmup],
    )
    curves: dict[str, list[tuple[float, float]]] = {}
    seconds = []
    model.train()
    for step in range(1, recipe.steps + 1):
        start = clock(context.device)
        value = loss(step)
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        optimizer.step()
        schedule.step()
        seconds.append(clock(context.device) - start)
        if step % recipe.evaluate_every == 0 or step == recipe.steps:
            _check_finite(value, step)
            for name, found in measured(model, evaluate).items():
                curves.setdefault(name, []).append((step, found))
            context.tell(step / recipe.steps)
    return Fit(curves, statistics.median(seconds))


@torch.no_grad()
def measured(model: nn.Module, evaluate: Callable[[], Mapping[str, float]]) -> dict[str, float]:
    """`evaluate()` in evaluation mode."""
    model.eval()
    found = dict(evaluate())
    model.train()
    return found


def clock(device: torch.device) -> float:
    """Seconds: of the processor where one thread computes, else of the wall.

    Studies run several processes on machines with other work, which would stretch the wall's.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    alone = device.type == "cpu" and torch.get_num_threads() == 1
    return time.process_time() if alone else time.perf_counter()


def steps_to(curve: list[tuple[float, float]], target: float) -> float | None:
    """The first evaluated step at which a curve reaches the target; None if it never does."""
    return next((step for step, value in curve if value >= target), None)


def _check_finite(loss: Tensor, step: int) -> None:
    value = float(loss.detach())
    if not math.isfinite(value):
        raise DivergenceError(f"the loss became {value} by step {step}")
