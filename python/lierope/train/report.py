"""The end of a command: the table, results.json and the two pictures."""

from __future__ import annotations

import platform
import statistics
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from lierope.train import checkpoints, plots
from lierope.train.atomic import write_json
from lierope.train.config import Settings
from lierope.train.extras import extra
from lierope.train.launch import Session, cores

Result = dict[str, Any]
Summary = dict[str, Any]


def summarise(results: list[Result]) -> list[Summary]:
    """One entry per encoding, in order: mean and sample standard deviation over its seeds."""
    groups: dict[str, list[Result]] = {}
    for result in results:
        groups.setdefault(result["settings"]["encoding"], []).append(result)
    return [_summary(encoding, group) for encoding, group in groups.items()]


def _summary(encoding: str, group: list[Result]) -> Summary:
    sizes = list(group[0]["test_accuracy"])
    return {
        "encoding": encoding,
        "seeds": [result["settings"]["seed"] for result in group],
        "test_accuracy": {s: _spread([r["test_accuracy"][s] for r in group]) for s in sizes},
        "position_parameters": group[0]["position_parameters"],
        "total_parameters": group[0]["total_parameters"],
        "seconds_per_epoch": _spread([result["seconds_per_epoch"] for result in group]),
    }


def _spread(values: list[float]) -> dict[str, float]:
    sd = statistics.stdev(values) if len(values) > 1 else 0.0
    return {"mean": statistics.fmean(values), "sd": sd}


def table(summaries: list[Summary], settings: Settings) -> Any:
    """A rich table of test accuracies, parameters and time, one row per encoding."""
    rich = extra("rich.table")
    seeds = len(summaries[0]["seeds"])
    over = f"mean ± sd of {seeds} seeds" if seeds > 1 else "1 seed"
    epochs = f"{settings.epochs} epoch{'s' if settings.epochs > 1 else ''}"
    shown = rich.Table(title=f"{settings.data}, {settings.model}, {epochs}, {over}")
    shown.add_column("encoding", no_wrap=True)
    trained, *larger = summaries[0]["test_accuracy"]
    shown.add_column(f"test %\nat {trained} px\n(trained)", justify="right")
    for size in larger:
        shown.add_column(f"test %\nat {size} px\n(unseen)", justify="right")
    for heading in ("position\nparams", "all\nparams", "seconds\n/ epoch"):
        shown.add_column(heading, justify="right")
    for row in summaries:
        accuracies = (_percent(value, seeds) for value in row["test_accuracy"].values())
        shown.add_row(
            row["encoding"],
            *accuracies,
            f"{row['position_parameters']:,}",
            f"{row['total_parameters']:,}",
            f"{row['seconds_per_epoch']['mean']:.3g}",
        )
    return shown


def _percent(value: dict[str, float], seeds: int) -> str:
    text = f"{100 * value['mean']:.1f}"
    return f"{text}±{100 * value['sd']:.1f}" if seeds > 1 else text


def write(results: list[Result], session: Session, command: list[str]) -> list[Path]:
    """Writes results.json, summary.png and curves.png; returns their paths."""
    settings = Settings.from_json(results[0]["settings"])
    summaries = summarise(results)
    paths = [session.output / name for name in ("results.json", "summary.png", "curves.png")]
    write_json(
        paths[0],
        {
            "command": command,
            "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "versions": checkpoints.versions(),
            "machine": machine(session),
            "summary": summaries,
            "results": results,
        },
    )
    plots.summary(summaries, settings, paths[1])
    plots.curves(results, settings, paths[2])
    return paths


def machine(session: Session) -> dict[str, Any]:
    """The hardware a time was measured on."""
    on_cuda = session.device.type == "cuda"
    return {
        "processor": processor(),
        "cores": cores(),
        "threads": session.threads,
        "jobs": session.jobs,
        "device": torch.cuda.get_device_name(session.device) if on_cuda else "cpu",
        "torch_instruction_set": torch.backends.cpu.get_cpu_capability(),
    }


def processor() -> str:
    """The processor's name, as Linux gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
