"""What a command says while it trains: bars in a terminal, lines elsewhere, followers nothing."""

from __future__ import annotations

import io
from typing import Any

import pytest

pytest.importorskip("lierope.timm", exc_type=ImportError)

from rich.console import Console

from lierope.train.progress import Bars, Lines, Silent, progress

ROW = {"epoch": 1.0, "train_loss": 1.5, "validation_accuracy": 0.25, "seconds": 2.0}
RESULT: dict[str, Any] = {"test_accuracy": {"12": 0.5}, "best_epoch": 1}
DONE = "one: tested: 50.0 % at 12 (weights of epoch 1)"


def follow(watch: Any) -> None:
    """A command of two runs, of which the first is trained for one of two epochs, then tested."""
    with watch:
        watch.step("one", 0, 3)
        watch.epoch("one", ROW)
        watch.done("one", RESULT)


def test_a_terminal_shows_a_bar_for_each_run_and_one_for_all() -> None:
    written = io.StringIO()
    console = Console(file=written, force_terminal=True, width=120)
    bars = Bars(console, ["one", "two"], epochs=2, steps=4)
    done = []
    with bars:
        for call in (
            lambda: bars.step("one", 0, 3), lambda: bars.epoch("one", ROW),
            lambda: bars.step("two", 1, 1), lambda: bars.done("one", RESULT),
        ):  # fmt: skip
            call()
            done.append([task.completed for task in bars._bars.tasks])
    # all runs, one, two; in steps, of which a run has 8
    assert done == [[3, 3, 0], [4, 4, 0], [9, 4, 5], [13, 8, 5]]
    assert [task.total for task in bars._bars.tasks] == [16, 8, 8]
    assert [task.visible for task in bars._bars.tasks] == [True, False, True]
    assert "epoch 1/2  loss 1.500  held out 25.0 %" in bars._bars.tasks[1].fields["note"]
    assert DONE in written.getvalue()


def test_elsewhere_it_is_a_line_an_epoch(capsys: pytest.CaptureFixture[str]) -> None:
    follow(progress(["one", "two"], 2, 4))
    told = capsys.readouterr().out.splitlines()
    assert told == ["one: epoch 1/2  loss 1.500  held out 25.0 %  2 s", DONE]
    assert isinstance(progress(["one"], 2, 4), Lines)


def test_a_process_that_follows_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    watch = progress(["one"], 2, 4, speaks=False)
    assert type(watch) is Silent
    follow(watch)
    assert capsys.readouterr().out == ""


def test_the_terminal_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert isinstance(progress(["one"], 2, 4), Bars)
