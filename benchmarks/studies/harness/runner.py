"""Computes the runs that a record lacks: some processes at a time, or shared out by torchrun."""

from __future__ import annotations

import multiprocessing
import shutil
import signal
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.studies.harness.progress import Progress
from benchmarks.studies.harness.record import Record
from benchmarks.studies.harness.registry import load
from benchmarks.studies.harness.study import Context, Outcome, Study, Tell, Unit
from lierope.train.atomic import make_folder
from lierope.train.distributed import World
from lierope.train.errors import DivergenceError, InputError
from lierope.train.launch import cores, end_by_exception
from lierope.train.report import processor


@dataclass(frozen=True)
class Machine:
    """How runs are computed, as opposed to what."""

    world: World
    jobs: int
    threads: int
    scratch: Path

    def described(self) -> dict[str, Any]:
        """For the record."""
        on_cuda = self.world.device.type == "cuda"
        return {
            "processor": processor(),
            "device": torch.cuda.get_device_name(self.world.device) if on_cuda else "cpu",
            "cores": cores(),
            "jobs": self.jobs,
            "threads": self.threads,
            "torch": str(torch.__version__),
        }


@dataclass(frozen=True)
class Done:
    """A run's outcome, or why it failed, and how long it took."""

    result: Outcome | str
    seconds: float


def run_missing(
    study: Study, units: Sequence[Unit], record: Record, machine: Machine, progress: Progress
) -> None:
    """Computes every unit that the record lacks, and adds each as soon as it is done."""
    missing = [unit for unit in units if record.row(unit) is None]
    world = machine.world
    if world.size > 1 and not study.joined:
        missing = missing[world.rank :: world.size]
    progress.start(len(units), len(missing))
    if machine.jobs > 1 and len(missing) > 1:
        _run_apart(missing, record, machine, progress)
        return
    torch.set_num_threads(machine.threads)
    alone = World(device=world.device)
    for unit in missing:
        progress.begin(unit)
        done = compute(
            study,
            unit,
            world if study.joined else alone,
            machine.scratch,
            lambda fraction, unit=unit: progress.tell(unit, fraction),
        )
        progress.done(unit, done.result, done.seconds)
        if world.leads or not study.joined:
            record.add(unit, done.result, done.seconds, machine.described())


def compute(study: Study, unit: Unit, world: World, scratch: Path, tell: Tell) -> Done:
    """One run. A loss that is no number is an outcome too, not an error."""
    start = time.perf_counter()
    folder = make_folder(scratch / unit.key)
    result: Outcome | str
    try:
        result = study.run(Context(unit, world, folder, tell))
    except DivergenceError as error:
        result = str(error)
    if world.leads:
        shutil.rmtree(folder, ignore_errors=True)
    return Done(result, time.perf_counter() - start)


_messages: Any = None


def _start_worker(messages: Any, threads: int) -> None:
    global _messages  # noqa: PLW0603 - set once a process, before its first run
    _messages = messages
    # Ctrl-C reaches every process of a terminal: the parent speaks and ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(threads)


def _compute_in_worker(unit: Unit, scratch: Path) -> Done:
    _messages.put((unit.key, 0.0))

    def tell(fraction: float) -> None:
        parent = multiprocessing.parent_process()
        if parent is not None and not parent.is_alive():
            raise SystemExit(1)
        _messages.put((unit.key, fraction))

    return compute(load(unit.study), unit, World(), scratch, tell)


def _run_apart(units: Sequence[Unit], record: Record, machine: Machine, progress: Progress) -> None:
    context = multiprocessing.get_context("spawn")  # fork would copy locks of torch's threads
    messages = context.Queue()
    described = machine.described()
    with (
        end_by_exception(),
        ProcessPoolExecutor(
            machine.jobs, context, _start_worker, (messages, machine.threads)
        ) as pool,
    ):
        waiting: dict[Future[Done], Unit] = {
            pool.submit(_compute_in_worker, unit, machine.scratch): unit for unit in units
        }
        by_key = {unit.key: unit for unit in units}
        try:
            while waiting:
                finished, _ = wait(waiting, timeout=0.5, return_when=FIRST_COMPLETED)
                while not messages.empty():
                    key, fraction = messages.get()
                    progress.tell(by_key[key], fraction)
                for future in finished:
                    unit, done = waiting.pop(future), future.result()
                    record.add(unit, done.result, done.seconds, described)
                    progress.done(unit, done.result, done.seconds)
        except BrokenProcessPool:
            raise InputError(
                "a training process was ended from outside (out of memory?); "
                "start again with a smaller --jobs: finished runs are kept"
            ) from None
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for child in multiprocessing.active_children():
                child.terminate()
            raise
