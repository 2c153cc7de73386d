"""The JSON of a run: what ran where, read back for comparison; written at once or not at all."""

from __future__ import annotations

import datetime
import json
import os
import platform
import re
import subprocess
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import lierope
from benchmarks.speed.measure import Result
from benchmarks.speed.roofline import Roofline
from benchmarks.speed.timing import HOW

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
FORMAT = 1


class RecordError(Exception):
    """A file that is not a record of this benchmark."""


def machine(device: torch.device) -> str:
    """Processor and cores, or the GPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        found = re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(encoding="utf-8"), re.M)
        name = found.group(1).strip() if found else name
    return f"{name}, {os.cpu_count()} cores"


def gpu(device: torch.device) -> dict[str, Any] | None:
    """What a GPU is, and the CUDA that torch was built with; None of a CPU."""
    if device.type != "cuda":
        return None
    properties = torch.cuda.get_device_properties(device)
    return {
        "capability": [properties.major, properties.minor],
        "multiprocessors": properties.multi_processor_count,
        "memory": properties.total_memory,
        "l2": properties.L2_cache_size,
        "cuda": torch.version.cuda,
    }


def default_path(device: torch.device) -> Path:
    """benchmarks/results/speed-<machine>-<instruction set of a CPU>.json.

    Processors of two generations may call themselves the same, and LIEROPE_ISA forces lower sets.
    """
    name = re.sub(r"\((r|tm)\)", "", machine(device).lower())
    if device.type == "cpu":
        name += f" {lierope.build_info().instruction_set}"
    return RESULTS / f"speed-{re.sub(r'[^a-z0-9]+', '-', name).strip('-')}.json"


def make_record(
    results: Sequence[Result],
    rooflines: Sequence[Roofline],
    device: torch.device,
    command: str,
) -> dict[str, Any]:
    """Everything that is needed to judge the numbers and to measure them again."""
    build = lierope.build_info()
    now = datetime.datetime.now(datetime.timezone.utc)
    return {
        "format": FORMAT,
        "date": now.isoformat(timespec="seconds"),
        "command": command,
        "commit": _commit(),
        "machine": machine(device),
        "device": device.type,
        "gpu": gpu(device),
        "timing": HOW[device.type],
        "system": f"{platform.system()} {platform.release()}, {platform.libc_ver()[0] or 'libc'}",
        "versions": _versions(),
        "build": {
            "instruction_set": "CUDA" if device.type == "cuda" else build.instruction_set,
            "compiler": build.compiler,
            "source_hash": build.source_hash,
        },
        "unit": "seconds and bytes; ratios are over the case's base form, round by round",
        "rooflines": [roofline.record() for roofline in rooflines],
        "results": [result.record() for result in results],
    }


def write_record(path: Path, record: Mapping[str, Any]) -> None:
    """Write JSON, whole or not at all."""
    write_text(path, json.dumps(record, indent=1, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a file through a neighbour, so that nobody ever reads half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    neighbour = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        neighbour.write_bytes(text.encode())
        neighbour.replace(path)
    finally:
        neighbour.unlink(missing_ok=True)


def read_record(path: Path) -> dict[str, Any]:
    """A record of an earlier run.

    Raises:
        RecordError: The file is missing, no JSON, or of another format.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise RecordError(
            f"reference: must be a JSON file of this benchmark, got {path}"
        ) from error
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise RecordError(f"reference: must be of format {FORMAT}, got {path}")
    return record


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    for name in ("lierope", "timm", "numpy", "geotorch"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _commit() -> str:
    """Short hash, with "+" for sources that were changed since."""

    def git(*words: str) -> str:
        try:
            done = subprocess.run(
                ("git", *words), cwd=ROOT, capture_output=True, text=True, check=False
            )
        except OSError:
            return ""
        return done.stdout.strip() if done.returncode == 0 else ""

    commit = git("rev-parse", "--short=12", "HEAD")
    changed = git(
        "status", "--porcelain", "--", "csrc", "cuda", "python", "setup.py", "benchmarks/speed"
    )
    return f"{commit}+" if commit and changed else commit or "unknown"
