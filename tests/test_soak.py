"""The soak run: it takes steps of changing shapes, and its judgement sees leaks and slow-downs."""

from __future__ import annotations

import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("lierope.timm")

from benchmarks.soak import Sample, judge, soak


def _samples(growth: float = 0.0, slowing: float = 0.0) -> list[Sample]:
    return [Sample(i, 9 * i, 400 + growth * i, 90 + slowing * i) for i in range(120)]


def test_a_flat_run_passes() -> None:
    assert judge(_samples())["passed"]


def test_a_leak_is_seen() -> None:
    # A quarter of a MiB a minute: 4 KiB a step at a hundred steps a second.
    assert not judge(_samples(growth=0.25))["passed"]


def test_a_slow_down_is_seen() -> None:
    assert not judge(_samples(slowing=0.2))["passed"]


def test_it_takes_steps_and_looks_at_the_process() -> None:
    samples = soak(minutes=0, every=0.01, seed=0)
    assert len(samples) == 8
    assert samples[-1].steps >= 7
    assert all(s.resident > 50 and s.reference > 0 for s in samples)
