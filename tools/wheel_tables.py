"""Writes what tools/try_wheel.py found: benchmarks/results/wheels.json and docs/install.md."""

import json
import re
from pathlib import Path
from typing import Any

from benchmarks.markers import write_between
from benchmarks.speed.record import write_text

ROOT = Path(__file__).resolve().parents[1]
RECORD = ROOT / "benchmarks" / "results" / "wheels.json"
PAGE = ROOT / "docs" / "install.md"
STAGES = ("without timm", "with timm")


def publish(record: dict[str, Any]) -> None:
    """Write the record and the tables of the page."""
    write_text(RECORD, json.dumps(record, indent=1) + "\n")
    write_between(PAGE, "wheels", table(record))


def variant(name: str) -> str:
    """Which of the two wheels a file is."""
    return "+cpu" if re.search(r"-[\d.]+\+cpu-", name) else "plain"


def table(record: dict[str, Any]) -> str:
    """Sizes, what was tried, and what importing costs."""
    lines = [
        f"`{name}`: {size / 2**20:.1f} MiB.  " for name, size in sorted(record["sizes"].items())
    ]
    lines += [
        "",
        "| Python | torch | without timm | with timm | import torch | then lierope, s | MiB |",
        "|---|---|---|---|---:|---:|---:|",
    ]
    lines += [row(cell) for cell in record["cells"] if "no_build" not in cell]
    missing = [
        f"{cell['asked'].removeprefix('torch==')} for Python {cell['python']}"
        for cell in record["cells"]
        if "no_build" in cell
    ]
    if missing:
        lines += ["", f"No build of torch was to be had: {', '.join(missing)}."]
    if record["refused"]:
        lines += ["", f"Beside an older torch the import ends with `{record['refused']}`."]
    return "\n".join(lines) + "\n"


def row(cell: dict[str, Any]) -> str:
    """One Python with one torch; costs of the wheel that costs most."""
    wheels = cell["wheels"]
    passed = [
        ", ".join(f"{variant(name)} {_outcome(tried[stage])}" for name, tried in wheels.items())
        for stage in STAGES
    ]
    costs = [tried["imports"] for tried in wheels.values()]
    torch = min(cost["torch"]["seconds"] for cost in costs)
    own = [cost["lierope"] for cost in costs]
    seconds, memory = (max(cost[key] for cost in own) for key in ("seconds", "resident_mib"))
    words = [cell["python"], cell["torch"], *passed]
    return f"| {' | '.join(words)} | {torch:.2f} | {seconds:.2f} | {memory:.0f} |"


def _outcome(found: dict[str, Any]) -> str:
    return "passed" if found["largest_error"] < 1e-9 and not found["compilers"] else "failed"
