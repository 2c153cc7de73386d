"""Shows how the runs get on: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any, Protocol

from lierope.train.extras import extra

Row = dict[str, float]
_LINES = 6  # progress lines a run where there is no terminal


class Progress(Protocol):
    """A context manager that watches runs."""

    def __enter__(self) -> Progress: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def step(self, name: str, epoch: int, step: int) -> None:
        """A step of a run is done."""

    def epoch(self, name: str, row: Row) -> None:
        """An epoch of a run is done and saved."""

    def done(self, name: str, result: dict[str, Any]) -> None:
        """A run is done and tested."""


def progress(names: list[str], epochs: int, steps: int, speaks: bool = True) -> Progress:
    """The form that suits where the output goes; a process that does not lead keeps silent."""
    if not speaks:
        return Silent()
    console = extra("rich.console").Console()
    if console.is_terminal:
        return Bars(console, names, epochs, steps)
    return Lines(epochs)


def sentence(name: str, row: Row, epochs: int) -> str:
    """An epoch in words."""
    return (
        f"{name}: epoch {row['epoch']:.0f}/{epochs}  loss {row['train_loss']:.3f}  "
        f"held out {100 * row['validation_accuracy']:.1f} %  {row['seconds']:.2g} s"
    )


def outcome(name: str, result: dict[str, Any]) -> str:
    """A result in words."""
    tested = ", ".join(f"{100 * a:.1f} % at {s}" for s, a in result["test_accuracy"].items())
    return f"{name}: tested: {tested} (weights of epoch {result['best_epoch']:.0f})"


class Silent:
    """Watches and says nothing."""

    def __enter__(self) -> Silent:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        return None

    def step(self, name: str, epoch: int, step: int) -> None:
        """Nothing."""

    def epoch(self, name: str, row: Row) -> None:
        """Nothing."""

    def done(self, name: str, result: dict[str, Any]) -> None:
        """Nothing."""


class Lines(Silent):
    """A few lines a run, each whole, for logs and pipes."""

    def __init__(self, epochs: int) -> None:
        self._epochs = epochs
        self._every = max(1, round(epochs / _LINES))
        self._said: dict[str, float] = {}

    def epoch(self, name: str, row: Row) -> None:
        """Speaks every few epochs, at the last one, and at least once in half a minute."""
        late = time.monotonic() - self._said.get(name, 0.0) > 30
        if late or row["epoch"] % self._every == 0 or row["epoch"] == self._epochs:
            self._said[name] = time.monotonic()
            print(sentence(name, row, self._epochs), flush=True)

    def done(self, name: str, result: dict[str, Any]) -> None:
        """One line."""
        print(outcome(name, result), flush=True)


class Bars(Silent):
    """A bar for each run that has started and one for the whole command."""

    def __init__(self, console: Any, names: list[str], epochs: int, steps: int) -> None:
        columns = extra("rich.progress")
        self._epochs, self._steps = epochs, steps
        self._bars = columns.Progress(
            columns.TextColumn("{task.description}"),
            columns.BarColumn(bar_width=None),
            columns.TextColumn("{task.fields[note]}"),
            columns.TimeElapsedColumn(),
            columns.TimeRemainingColumn(),
            console=console,
        )
        total = epochs * steps
        self._all = self._bars.add_task("all runs", total=total * len(names), note="")
        self._tasks = {
            n: self._bars.add_task(n, total=total, note="", start=False, visible=False)
            for n in names
        }

    def __enter__(self) -> Bars:
        self._bars.start()
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._bars.stop()

    def step(self, name: str, epoch: int, step: int) -> None:
        """Moves the run's bar."""
        self._move(name, epoch * self._steps + step)

    def epoch(self, name: str, row: Row) -> None:
        """Moves the run's bar and writes its measurements beside it."""
        self._move(name, int(row["epoch"]) * self._steps)
        note = (
            f"epoch {row['epoch']:.0f}/{self._epochs}  loss {row['train_loss']:.3f}  "
            f"held out {100 * row['validation_accuracy']:.1f} %"
        )
        self._bars.update(self._tasks[name], note=note)

    def done(self, name: str, result: dict[str, Any]) -> None:
        """Takes the bar away and leaves a line."""
        self._move(name, self._epochs * self._steps)
        self._bars.update(self._tasks[name], visible=False)
        self._bars.console.print(outcome(name, result), highlight=False)

    def _move(self, name: str, completed: int) -> None:
        task = self._tasks[name]
        self._bars.start_task(task)
        self._bars.update(task, completed=completed, visible=True)
        done = sum(self._bars.tasks[t].completed for t in self._tasks.values())
        self._bars.update(self._all, completed=done)
