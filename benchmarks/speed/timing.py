"""Seconds of one pass: of the clock on a CPU, of the device alone on a GPU."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from weakref import WeakKeyDictionary

import torch

HOW = {
    "cpu": "wall clock",
    "cuda": "CUDA events around each pass, L2 flushed before it, its launches queued beforehand",
}
_CYCLES_A_SECOND = 2e9  # about the clock of a GPU: what torch.cuda._sleep counts
_FIRST, _MOST = 2e-4, 2e-3  # seconds of head start for the launches


@dataclass
class _Stopwatch:
    """Times passes on one GPU.

    Attributes:
        flush: Twice the size of L2: writing it leaves nothing of a pass's data there.
        launching: Seconds the host needs to queue a pass, where known: the device waits for so
            long before the pass, so that a short one is not timed by the speed of Python. A pass
            that waits for the device itself has no use of it, hence the limit.
    """

    device: torch.device
    flush: torch.Tensor
    launching: WeakKeyDictionary[Any, float] = field(default_factory=WeakKeyDictionary)

    def seconds(self, run: Callable[[], object]) -> float:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        wait = min(_MOST, 1.2 * self.launching.get(run, _FIRST))
        with torch.cuda.device(self.device):
            self.flush.zero_()
            torch.cuda._sleep(int(wait * _CYCLES_A_SECOND))
            start.record()
            began = time.perf_counter()
            run()
            self.launching[run] = time.perf_counter() - began
            end.record()
            end.synchronize()
        return float(start.elapsed_time(end)) * 1e-3  # milliseconds


@cache
def _stopwatch(device: torch.device) -> _Stopwatch:
    size = 2 * torch.cuda.get_device_properties(device).L2_cache_size
    flush = torch.empty(max(size, 1 << 20), dtype=torch.uint8, device=device)
    return _Stopwatch(device, flush)


def pass_seconds(run: Callable[[], object], device: torch.device) -> float:
    """Time one pass."""
    if device.type == "cuda":
        return _stopwatch(device).seconds(run)
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
