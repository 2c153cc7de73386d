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
        "| Python | torch | without timm | with timm | `import torch` | then `import lierope` |",
        "|---|---|---|---|---:|---:|",
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
    words = [cell["python"], cell["torch"], *passed, _cost(costs, "torch"), _cost(costs, "lierope")]
    return f"| {' | '.join(words)} |"


def _cost(costs: list[dict[str, Any]], name: str) -> str:
    """Seconds and memory of an import, the larger of the wheels'."""
    seconds, memory = (max(c[name][key] for c in costs) for key in ("seconds", "resident_mib"))
    return f"{seconds:.2f} s, {memory:.0f} MiB"


def _outcome(found: dict[str, Any]) -> str:
    return "passed" if found["largest_error"] < 1e-9 and not found["compilers"] else "failed"
