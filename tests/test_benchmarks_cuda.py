"""The speed benchmark on a GPU as far as any machine can tell: cases, forms, stopwatch."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch

pytest.importorskip("rich")
pytest.importorskip("matplotlib")

from benchmarks.speed import timing
from benchmarks.speed.__main__ import BUILDERS, main
from benchmarks.speed.cases import BenchCase, chosen_cases
from benchmarks.speed.cases_cuda import cuda_cases
from benchmarks.speed.measure import measure
from benchmarks.speed.work import work_of

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
QUICK = chosen_cases((), True, None, cuda_cases())


def test_cases_are_whole() -> None:
    cases = cuda_cases()
    assert len({case.name for case in cases}) == len(cases)
    for case in cases:
        assert case.work in BUILDERS
        assert len(case.threads) <= 1
        assert all(goal.form in (*case.peers, "limit") for goal in case.goals)
        work = work_of(case)
        assert work is None or work.bytes + work.flops > 0


@pytest.mark.parametrize("case", QUICK, ids=lambda case: str(case.name))
def test_every_form_runs(case: BenchCase) -> None:
    result = measure(case, 1, DEVICE, BUILDERS[case.work], lambda text: None)
    assert set(result.forms) == {case.base, *case.peers} - set(result.skipped)
    assert set(result.skipped) <= {"geotorch"}  # where it is not installed
    for timed in result.forms.values():
        assert timed.median > 0
        if case.dtype == "float32" and timed.difference is not None:
            assert timed.difference < 1e-2


class _Event:
    """Stands for a CUDA event: keeps the order of what is asked of it."""

    log: list[str]

    def __init__(self, **_: bool) -> None: ...

    def record(self) -> None:
        self.log.append("event")

    def synchronize(self) -> None:
        self.log.append("wait")

    def elapsed_time(self, other: _Event) -> float:
        return 2.5 if other is not self else 0.0


def test_the_stopwatch_flushes_and_queues_before_it_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[Any] = []
    monkeypatch.setattr(_Event, "log", log, raising=False)
    monkeypatch.setattr(torch.cuda, "Event", _Event)
    monkeypatch.setattr(torch.cuda, "_sleep", log.append)
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    watch = timing._Stopwatch(torch.device("cpu"), torch.ones(8, dtype=torch.uint8))

    def run() -> None:
        log.append(int(watch.flush.sum()))

    for _ in range(2):
        watch.flush.fill_(1)
        assert watch.seconds(run) == pytest.approx(2.5e-3)
    first, second = log[0], log[5]
    assert log == [first, "event", 0, "event", "wait", second, "event", 0, "event", "wait"]
    assert first == int(1.2 * timing._FIRST * timing._CYCLES_A_SECOND)
    assert 0 < second < first  # the pass is known to take no time to queue


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--device", "cuda", "--quick"]) == 2
    assert "device: must be one that torch has here, got cuda" in capsys.readouterr().err
