"""What the machine can do, measured on the spot: copies by size, multiply-adds a second."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmarks.speed.cases import BenchCase
from benchmarks.speed.timing import pass_seconds
from benchmarks.speed.work import Work, work_of

_SOURCE = Path(__file__).with_name("fma_peak.c")
_SECONDS = 0.1
_RUNS = 7
_MATMUL = {"cpu": 2048, "cuda": 8192}


@dataclass
class Roofline:
    """Peaks of one number of threads on one device.

    Attributes:
        threads: Number of threads.
        flops: Floating-point operations a second (a multiply-add is two), float32.
        flops_from: How they were measured.
        copies: Bytes a second, read and written together, by the total size of a copy.
    """

    device: torch.device
    threads: int
    flops: float = 0.0
    flops_from: str = ""
    copies: dict[int, float] = field(default_factory=dict)

    def limit(self, case: BenchCase) -> float | None:
        """Seconds for the least work of a case: arithmetic or traffic, whichever takes longer."""
        work = work_of(case)
        return None if work is None else self.seconds(work)

    def seconds(self, work: Work) -> float:
        """Seconds for work at the peaks; traffic at the speed of a copy of that many bytes."""
        return max(work.flops / self.flops, work.bytes / self.bandwidth(work.bytes))

    def bandwidth(self, size: float) -> float:
        """Bytes a second of copies of about this many bytes, rounded down to a power of two."""
        rounded = 1 << min(29, max(16, int(size).bit_length() - 1))
        if rounded not in self.copies:
            self.copies[rounded] = _copy_bandwidth(rounded, self.device)
        return self.copies[rounded]

    def record(self) -> dict[str, Any]:
        """The same for JSON."""
        return {
            "threads": self.threads,
            "flops": self.flops,
            "flops_from": self.flops_from,
            "copy_bytes_per_second": {str(size): speed for size, speed in self.copies.items()},
        }


def measure_roofline(threads: int, device: torch.device) -> Roofline:
    """Measure the multiply-add peak now and the copies when a size is first asked for."""
    torch.set_num_threads(threads)
    roofline = Roofline(device, threads)
    kernel = _fma_kernel() if device.type == "cpu" else None
    if kernel is not None:
        roofline.flops = _fma_peak(kernel, threads)
        roofline.flops_from = "multiply-adds on registers, compiled here"
    else:
        n = _MATMUL[device.type]
        roofline.flops = _matmul_peak(device)
        roofline.flops_from = f"torch.mm of {n} x {n} float32"
    roofline.bandwidth(1 << 28)
    return roofline


def _fma_kernel() -> Any:
    """fma_peak.c compiled for this processor, or None without a C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        library = str(Path(folder) / "fma_peak.so")
        native = "-mcpu=native" if os.uname().machine == "aarch64" else "-march=native"
        flags = ["-O3", native, "-mprefer-vector-width=512", "-ffp-contract=fast"]
        flags = [flag for flag in flags if "prefer" not in flag or native == "-march=native"]
        command = [compiler, *flags, "-shared", "-fPIC", str(_SOURCE), "-o", library]
        if subprocess.run(command, check=False, capture_output=True).returncode != 0:
            return None
        kernel = ctypes.CDLL(library).fma_flops
    kernel.restype = ctypes.c_double
    kernel.argtypes = (ctypes.c_int64, ctypes.POINTER(ctypes.c_float))
    return kernel


def _fma_peak(kernel: Any, threads: int) -> float:
    """Best of several runs on all threads at once; ctypes lets go of the interpreter's lock."""
    sinks = [(ctypes.c_float * 16)() for _ in range(threads)]
    start = time.perf_counter()
    kernel(1_000_000, sinks[0])
    # Long runs: a thread that wakes late leaves its share to the others, and then one peak is seen.
    rounds = max(1, int(1_000_000 * _SECONDS / (time.perf_counter() - start)))
    best = 0.0
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(_RUNS):
            start = time.perf_counter()
            done = sum(pool.map(kernel, [rounds] * threads, sinks))
            best = max(best, done / (time.perf_counter() - start))
    return best


def _matmul_peak(device: torch.device) -> float:
    n = _MATMUL[device.type]
    a, b = (torch.randn(n, n, device=device) for _ in range(2))
    return float(2 * n**3 / _best(lambda: torch.mm(a, b), device))


def _copy_bandwidth(size: int, device: torch.device) -> float:
    source = torch.ones(size // 8, device=device)  # half is read, half written, 4 bytes each
    target = torch.zeros_like(source)
    return size / _best(lambda: target.copy_(source), device)


def _best(run: Callable[[], object], device: torch.device) -> float:
    """Seconds of the fastest run within a tenth of a second; peaks are what was reached once."""
    run()
    best, end = float("inf"), time.perf_counter() + _SECONDS
    while time.perf_counter() < end or best == float("inf"):
        best = min(best, pass_seconds(run, device))
    return best
