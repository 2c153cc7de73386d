"""Says how a study gets on: one bar on a terminal, one line a run in a log."""

from __future__ import annotations

from typing import Any

from benchmarks.studies.harness.study import Outcome, Unit
from lierope.train.extras import extra


class Progress:
    """Runs done and under way; silent where another process of torchrun speaks."""

    def __init__(self, title: str, speaks: bool) -> None:
        self._speaks = speaks
        self._console = extra("rich.console").Console()
        self._done = self._missing = 0
        self._fractions: dict[str, float] = {}
        self._bar: Any = None
        self._title = title

    def __enter__(self) -> Progress:
        if self._speaks and self._console.is_terminal:
            self._bar = extra("rich.progress").Progress(console=self._console)
            self._bar.start()
            self._task = self._bar.add_task(self._title, total=None)
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def start(self, all_runs: int, missing: int) -> None:
        """How many runs there are, and how many are to be computed."""
        self._missing = missing
        if missing < all_runs:
            self._say(f"{self._title}: {all_runs - missing} of {all_runs} runs are done already")
        if self._bar is not None:
            self._bar.update(self._task, total=missing)

    def begin(self, unit: Unit) -> None:
        """A run starts."""
        self.tell(unit, 0.0)

    def tell(self, unit: Unit, fraction: float) -> None:
        """A run has come that far."""
        self._fractions[unit.key] = fraction
        if self._bar is not None:
            self._bar.update(self._task, completed=sum(self._fractions.values()))

    def done(self, unit: Unit, result: Outcome | str, seconds: float) -> None:
        """A run is done or failed."""
        self.tell(unit, 1.0)
        if isinstance(result, str):
            found = f"failed: {result}"
        else:
            shown = list(result.metrics.items())[:4]
            found = ", ".join(f"{name} {value:.4g}" for name, value in shown)
        self._done += 1
        self._say(f"[{self._done}/{self._missing}] {unit.name}: {found} ({seconds:.0f} s)")

    def _say(self, text: str) -> None:
        if self._speaks:
            self._console.print(text, highlight=False, markup=False, soft_wrap=True)
