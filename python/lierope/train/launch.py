"""Runs every encoding x seed of a command: one after the other, or a few processes at a time."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import queue
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Protocol

import torch

from lierope.train.config import Settings
from lierope.train.distributed import World
from lierope.train.engine import Run
from lierope.train.errors import Ended, InputError, check

Result = dict[str, Any]
_SMALL = ("digits", "arrows")  # models so small that a second thread does not help


@dataclass(frozen=True)
class Session:
    """How a command runs, as opposed to what it computes."""

    output: Path
    device: torch.device
    resume: bool = False
    overwrite: bool = False
    jobs: int = 1
    threads: int = 1
    workers: int = 0


class Watcher(Protocol):
    """Who is told how the runs get on."""

    def step(self, name: str, epoch: int, step: int) -> None:
        """A step of a run is done."""

    def epoch(self, name: str, row: dict[str, float]) -> None:
        """An epoch of a run is done and saved."""

    def done(self, name: str, result: Result) -> None:
        """A run is done and tested."""


def cores() -> int:
    """Processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def choose_jobs(data: str, runs: int, jobs: int | None, threads: int | None) -> tuple[int, int]:
    """How many runs at once and how many threads each, where the user left it open.

    A run of digits or arrows gains nothing from a second thread, so cores are shared out by runs;
    a run on pictures gets all cores to itself.
    """
    if jobs is None:
        jobs = max(1, min(runs, cores() // (threads or 1))) if data in _SMALL else 1
    if threads is None:
        threads = 1 if data in _SMALL else max(1, cores() // jobs)
    return min(jobs, runs), threads


def check_output(runs: list[Settings], session: Session) -> None:
    """Raises InputError if files of an earlier command would be lost."""
    for name in () if session.resume or session.overwrite else [run.name for run in runs]:
        check(
            not (session.output / name / "last.safetensors").exists(),
            f"output: {session.output} already holds the run {name}; add --resume to go on with "
            f"it, --overwrite to start it again, or choose another --output",
        )


def run_all(runs: list[Settings], session: Session, world: World, watcher: Watcher) -> list[Result]:
    """Trains every run and returns their results in order."""
    if session.jobs == 1:
        torch.set_num_threads(session.threads)
        with end_by_exception():
            return [_run_here(settings, session, world, watcher) for settings in runs]
    return _run_apart(runs, session, watcher)


def _run_here(settings: Settings, session: Session, world: World, watcher: Watcher) -> Result:
    folder = session.output / settings.name
    if session.overwrite and world.leads:
        _clear(folder)
    world.wait()
    run = Run(settings, folder, world, session.workers)
    result = run.train(
        session.resume,
        on_step=lambda epoch, step: watcher.step(settings.name, epoch, step),
        on_epoch=lambda row: watcher.epoch(settings.name, row),
    )
    watcher.done(settings.name, result)
    return result


def _clear(folder: Path) -> None:
    for name in ("last.safetensors", "best.safetensors", "metrics.csv", "result.json"):
        try:
            (folder / name).unlink(missing_ok=True)
        except (IsADirectoryError, PermissionError, NotADirectoryError) as error:
            raise InputError(f"output: cannot remove {folder / name}: {error.strerror}") from None


# Several processes. Messages go by a queue; a step is told only sometimes, as it costs 50 us.

_messages: Any = None


class _Sender:
    """A watcher that passes everything on to the parent process."""

    def step(self, name: str, epoch: int, step: int) -> None:
        if step % 10 == 0:
            _messages.put(("step", name, epoch, step))

    def epoch(self, name: str, row: dict[str, float]) -> None:
        parent = multiprocessing.parent_process()
        if parent is not None and not parent.is_alive():
            raise SystemExit(1)
        _messages.put(("epoch", name, row))

    def done(self, name: str, result: Result) -> None:
        _messages.put(("done", name, result))


def _start_worker(messages: Any) -> None:
    global _messages  # noqa: PLW0603 - set once per process, before its first run
    _messages = messages
    # Ctrl-C reaches every process of a terminal: the parent speaks and ends the others. A worker
    # that ended first would look to it like one that was killed.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _run_in_worker(settings: Settings, session: Session) -> Result:
    torch.set_num_threads(session.threads)
    return _run_here(settings, session, World(device=session.device), _Sender())


def _run_apart(runs: list[Settings], session: Session, watcher: Watcher) -> list[Result]:
    # "spawn": a fork would copy locks that torch's threads may hold.
    context = multiprocessing.get_context("spawn")
    messages = context.Queue()
    pool = ProcessPoolExecutor(session.jobs, context, _start_worker, (messages,))
    try:
        with end_by_exception():
            futures = [pool.submit(_run_in_worker, settings, session) for settings in runs]
            for kind, *values in _received(messages, futures):
                getattr(watcher, kind)(*values)
            return [future.result() for future in futures]
    except BrokenProcessPool:
        raise InputError(
            "a training process was ended from outside (out of memory?); "
            "add --resume to go on, with a smaller --jobs"
        ) from None
    except BaseException:
        for child in multiprocessing.active_children():
            child.terminate()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextlib.contextmanager
def end_by_exception() -> Iterator[None]:
    """Turns SIGTERM into Ended while it lasts, so that no child or half-written file is left."""

    def end(_number: int, _frame: object) -> NoReturn:
        raise Ended

    if threading.current_thread() is not threading.main_thread():  # signals are the main thread's
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _received(messages: Any, futures: list[Future[Result]]) -> Iterator[tuple[Any, ...]]:
    """Messages until all runs are done; raises as soon as one fails."""
    while True:
        finished = [future for future in futures if future.done()]
        for future in finished:
            future.result()
        try:
            yield messages.get(timeout=0.2)
        except queue.Empty:
            if len(finished) == len(futures):
                return
