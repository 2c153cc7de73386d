"""Trains one run: the loop over epochs, its measurements, and its checkpoints."""

from __future__ import annotations

import contextlib
import csv
import io
import math
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from lierope.large_angles import warn_of_large_angles
from lierope.train import checkpoints, extras, streams
from lierope.train import model as models
from lierope.train.atomic import make_folder, remove_parts, write_json, write_text
from lierope.train.config import Settings
from lierope.train.data import Batch, Source
from lierope.train.distributed import World
from lierope.train.errors import DivergenceError, InputError, check, suggestion
from lierope.train.sources import open_source

Row = dict[str, float]
_AMP = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Run:
    """One model, its data and its optimiser, from the first epoch or from a checkpoint.

    Args:
        settings: all that decides the outcome, but for `prepare` and `penalty`.
        folder: where checkpoints and measurements go.
        world: the processes that train the model together.
        workers: processes that read pictures.
        prepare: changes the new model before its optimiser is made.
        penalty: a term of the loss besides the classes' cross-entropy.
    """

    def __init__(
        self,
        settings: Settings,
        folder: Path,
        world: World,
        workers: int = 0,
        *,
        prepare: Callable[[nn.Module], None] | None = None,
        penalty: Callable[[nn.Module], torch.Tensor] | None = None,
    ) -> None:
        self.settings, self.folder, self.world = settings, folder, world
        self.source: Source = open_source(settings, world, workers)
        streams.seed_all(settings.seed, "weights")
        self.model = models.build(settings, self.source.in_chans, self.source.num_classes)
        if prepare is not None:
            prepare(self.model)
        self.model.to(world.device)
        self._penalty = penalty
        self.history: list[Row] = []
        self.optimizer = _optimizer(self.model, settings)
        self.schedule = _schedule(self.optimizer, settings, self.source.steps)
        self.scaler = torch.amp.GradScaler(world.device.type, enabled=settings.amp == "fp16")
        self.mix = _mix(settings, self.source.num_classes)

    def train(
        self,
        resume: bool = False,
        on_step: Callable[[int, int], None] = lambda epoch, step: None,
        on_epoch: Callable[[Row], None] = lambda row: None,
    ) -> dict[str, Any]:
        """Trains to the last epoch, tests the best weights, and returns the result.

        Args:
            resume: go on after the epoch of `last.safetensors`, if there is one.
            on_step: called with (epoch, steps done in it) after each step.
            on_epoch: called with the epoch's measurements after its checkpoint is written.
        """
        if resume:
            self._resume()
        if self.world.leads:
            make_folder(self.folder)
            remove_parts(self.folder)
        wrapped = self._wrapped()
        for epoch in range(len(self.history), self.settings.epochs):
            row = self._epoch(wrapped, epoch, on_step)
            self.history.append(row)
            self._save()
            if self.world.leads:
                warn_of_large_angles(self.model)
            on_epoch(row)
        result = self._test()
        if self.world.leads:
            write_json(self.folder / "result.json", result)
        self.world.wait()
        return result

    def _epoch(self, model: nn.Module, epoch: int, on_step: Callable[[int, int], None]) -> Row:
        # Dropout, drop path and the loaders' transforms draw from the global state.
        streams.seed_all(self.settings.seed, "epoch", epoch, self.world.rank)
        start = time.perf_counter()
        model.train()
        total = torch.zeros((), device=self.world.device)
        steps = self.source.steps
        for step, batch in enumerate(self.source.train_batches(epoch), 1):
            total += self._step(model, batch)
            self.schedule.step_update(epoch * steps + step)
            on_step(epoch, step)
        loss = float(self.world.sum(total)) / (steps * self.world.size)
        seconds = time.perf_counter() - start
        if not math.isfinite(loss):
            raise DivergenceError(
                f"{self.settings.name}: the loss became {loss} in epoch {epoch + 1}; "
                "try a lower --lr"
            )
        held_loss, held_accuracy = self.evaluate(self.source.validation_batches())
        return {
            "epoch": epoch + 1,
            "train_loss": loss,
            "validation_loss": held_loss,
            "validation_accuracy": held_accuracy,
            "lr": float(self.optimizer.param_groups[0]["lr"]),
            "seconds": seconds,
        }

    def _step(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        images, labels = (x.to(self.world.device, non_blocking=True) for x in batch)
        if self.mix is not None:
            images, labels = self.mix(images, labels)
        with self._autocast():
            logits = model(images)
            loss = functional.cross_entropy(
                logits, labels, label_smoothing=self.settings.label_smoothing
            )
        if self._penalty is not None:
            loss = loss + self._penalty(self.model)
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(self.scaler.scale(loss))
        if self.settings.clip_grad is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip_grad)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return loss.detach()

    @torch.no_grad()
    def evaluate(self, batches: Iterator[Batch]) -> tuple[float, float]:
        """Mean loss and accuracy over the batches of all processes."""
        self.model.eval()
        sums = torch.zeros(3, dtype=torch.float64, device=self.world.device)
        for batch in batches:
            images, labels = (x.to(self.world.device, non_blocking=True) for x in batch)
            with self._autocast():
                logits = self.model(images).float()
            sums[0] += functional.cross_entropy(logits, labels, reduction="sum")
            sums[1] += (logits.argmax(1) == labels).sum()
            sums[2] += len(labels)
        loss, right, count = self.world.sum(sums).tolist()
        return loss / count, right / count

    def _test(self) -> dict[str, Any]:
        best = _best(self.history)
        path = self.folder / "best.safetensors"
        checkpoints.load_weights(self.model, checkpoints.load(path), path)
        sizes = (self.settings.image_size, *self.settings.eval_sizes)
        tested = {size: self.evaluate(self.source.test_batches(size)) for size in sizes}
        counts = models.parameters(self.model)
        return {
            "name": self.settings.name,
            "settings": self.settings.to_json(),
            "best_epoch": best["epoch"],
            "validation_accuracy": best["validation_accuracy"],
            "test_accuracy": {str(size): accuracy for size, (_, accuracy) in tested.items()},
            "test_loss": {str(size): loss for size, (loss, _) in tested.items()},
            "position_parameters": counts.position,
            "total_parameters": counts.total,
            "seconds_per_epoch": statistics.median(row["seconds"] for row in self.history),
            "history": self.history,
        }

    def _save(self) -> None:
        if self.world.leads:
            state = checkpoints.Checkpoint(
                settings=self.settings,
                in_chans=self.source.in_chans,
                num_classes=self.source.num_classes,
                epoch=len(self.history),
                history=self.history,
                model=self.model.state_dict(),
                scaler=self.scaler.state_dict(),
            )
            if _best(self.history) is self.history[-1]:
                checkpoints.save(self.folder / "best.safetensors", state)
            state.optimizer = self.optimizer.state_dict()
            checkpoints.save(self.folder / "last.safetensors", state)
            write_text(self.folder / "metrics.csv", _csv(self.history))
        self.world.wait()

    def _resume(self) -> None:
        path = self.folder / "last.safetensors"
        if not path.exists():
            return
        last = checkpoints.load(path)
        differences = self.settings.differences(last.settings)
        check(not differences, f"resume: {path} is of another run: {'; '.join(differences)}")
        check(last.optimizer is not None, f"resume: {path} has no optimiser state")
        checkpoints.load_weights(self.model, last, path)
        self.history = last.history
        try:
            self.optimizer.load_state_dict(last.optimizer or {})
            self.scaler.load_state_dict(last.scaler)
        except (KeyError, ValueError, RuntimeError) as error:
            raise InputError(f"resume: {path} does not fit the optimiser ({error})") from None
        self.schedule.step_update(len(self.history) * self.source.steps)
        if self.world.leads:  # a process may have ended between this file and its checkpoint
            write_text(self.folder / "metrics.csv", _csv(self.history))

    def _wrapped(self) -> nn.Module:
        if self.world.size == 1:
            return self.model
        on_cuda = self.world.device.type == "cuda"
        return DistributedDataParallel(self.model, [self.world.device] if on_cuda else None)

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        if self.settings.amp == "off":
            return contextlib.nullcontext()
        return torch.autocast(self.world.device.type, _AMP[self.settings.amp])


def _best(history: list[Row]) -> Row:
    """The epoch of highest validation accuracy; of equals the latest, whose rate was lowest."""
    return max(history, key=lambda row: (row["validation_accuracy"], row["epoch"]))


def check_optimizer(name: str) -> None:
    """Raises InputError for an optimiser timm does not know."""
    known = extras.extra("timm.optim").list_optimizers()
    check(name in known, f"optimizer: must be one of timm's, got {name}{suggestion(name, known)}")


def _optimizer(model: nn.Module, settings: Settings) -> torch.optim.Optimizer:
    optim = extras.extra("timm.optim")
    groups = optim.param_groups_weight_decay(
        model, settings.weight_decay, no_weight_decay_list=models.undecayed(model)
    )
    check_optimizer(settings.optimizer)
    arguments: dict[str, Any] = {"lr": settings.lr, "weight_decay": settings.weight_decay}
    if optim.get_optimizer_info(settings.optimizer).has_betas:
        arguments["betas"] = settings.betas
    optimizer: torch.optim.Optimizer = optim.create_optimizer_v2(
        groups, settings.optimizer, **arguments
    )
    return optimizer


def _schedule(optimizer: torch.optim.Optimizer, settings: Settings, steps: int) -> Any:
    schedule, _ = extras.extra("timm.scheduler").create_scheduler_v2(
        optimizer,
        settings.schedule,
        num_epochs=settings.epochs,
        warmup_epochs=settings.warmup_epochs,
        warmup_lr=settings.lr * 1e-2,
        min_lr=settings.lr * 1e-2,
        step_on_epochs=False,
        updates_per_epoch=steps,
    )
    return schedule


def _mix(settings: Settings, num_classes: int) -> Any:
    if not settings.mixup and not settings.cutmix:
        return None
    check(
        settings.batch_size % 2 == 0, f"batch-size: must be even to mix, got {settings.batch_size}"
    )
    return extras.extra("timm.data").Mixup(
        settings.mixup, settings.cutmix, label_smoothing=0.0, num_classes=num_classes
    )


def _csv(history: list[Row]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(history[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    return text.getvalue()
