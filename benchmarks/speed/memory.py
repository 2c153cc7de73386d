"""Peak of extra memory of one pass: what torch allocates, and what the process really held."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.speed.forms import Pass


@dataclass(frozen=True)
class Memory:
    """Bytes above what was held before the pass; None where it cannot be told.

    Attributes:
        allocated: Peak of what torch's allocator handed out: exact and the same in every run, but
            blind to a kernel's own working memory.
        resident: Peak of the process's physical memory: sees everything, but also pages that the
            C library keeps for later.
    """

    allocated: int | None
    resident: int | None


def peak_memory(run: Pass, device: torch.device) -> Memory:
    """Peaks of two passes of their own; the pass has run before."""
    gc.collect()
    if device.type == "cuda":
        return Memory(_allocated_on_cuda(run, device), None)
    resident = _resident(run)
    return Memory(_allocated(run), resident)


def _allocated_on_cuda(run: Pass, device: torch.device) -> int:
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    run()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


def _allocated(run: Pass) -> int:
    cpu = [ProfilerActivity.CPU]
    with _quiet(), profile(activities=cpu, profile_memory=True, acc_events=True) as record:
        run()
    profiler: Any = record.profiler
    changes = [e for e in profiler.kineto_results.events() if e.name() == "[memory]"]
    held = peak = 0
    for event in sorted(changes, key=lambda e: e.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the lines that the profiler's library writes to the standard error itself."""
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _resident(run: Pass) -> int | None:
    """Linux: set the high-water mark back to what is held now, run, read it."""
    if sys.platform != "linux":
        return None
    try:
        # Give back what earlier passes freed: else this one would find it and seem to need nothing.
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except (AttributeError, OSError):
        return None
    before = _status("VmRSS")
    run()
    return max(0, _status("VmHWM") - before)


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"memory: /proc/self/status must have {field}, got none")
