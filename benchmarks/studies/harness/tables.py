"""A study's table, on the terminal and in Markdown."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from benchmarks.markers import relative
from benchmarks.studies.harness.study import Metric, Study
from benchmarks.studies.harness.summary import Estimate, Summary
from lierope.train.extras import extra


def number(value: Estimate | None, metric: Metric) -> str:
    """Mean ± half the interval, in the metric's units."""
    if value is None or math.isnan(value.mean):
        return "–"
    text = f"{metric.scale * value.mean:.{metric.digits}f}"
    half = metric.scale * value.half
    return text if math.isnan(half) else f"{text} ± {half:.{metric.digits}f}"


def rows(summary: Summary) -> list[list[str]]:
    """Heading and one row an arm: metrics, parameters, milliseconds a step."""
    study = summary.study
    metrics = [m for m in study.metrics if any(summary.values(a, m.name) for a in summary.arms)]
    timed = any(o["seconds_per_step"] for a in summary.arms for o in summary.outcomes(a).values())
    tested = summary.differences(study.metrics[0].name) if study.reference else {}
    heading = ["arm", *(m.heading for m in metrics)]
    heading += [f"p against {study.reference}"] if tested else []
    heading += ["position parameters", *(["ms a step"] if timed else [])]
    lines = [heading]
    for arm in summary.arms:
        outcomes = list(summary.outcomes(arm).values())
        line = [f"`{arm}`", *(number(summary.estimate(arm, m.name), m) for m in metrics)]
        line += [_p(tested[arm].p) if arm in tested else ""] if tested else []
        line += [f"{outcomes[0]['position_parameters']:,}" if outcomes else "–"]
        if timed:
            line += [_milliseconds(outcomes)]
        if failed := summary.failures(arm):
            line[0] += f" ({len(failed)} of {len(failed) + len(outcomes)} diverged)"
        lines.append(line)
    return lines


def _p(value: float) -> str:
    return "< 0.001" if value < 1e-3 else f"{value:.2g}"


def _milliseconds(outcomes: list[dict[str, Any]]) -> str:
    if not outcomes:
        return "–"
    return f"{1e3 * sum(o['seconds_per_step'] for o in outcomes) / len(outcomes):.3g}"


def terminal(summary: Summary) -> Any:
    """A rich table."""
    heading, *lines = rows(summary)
    table = extra("rich.table").Table(title=_title(summary))
    for index, name in enumerate(heading):
        table.add_column(name, justify="right" if index else "left", no_wrap=not index)
    for line in lines:
        table.add_row(*(cell.replace("`", "") for cell in line))
    return table


def markdown(summary: Summary, head: dict[str, Any], pictures: list[Path], folder: Path) -> str:
    """The study's part of a page in `folder`: table, command, verdict, pictures."""
    heading, *lines = rows(summary)
    rule = ["---", *("---:" for _ in heading[1:])]
    table = "\n".join("| " + " | ".join(line) + " |" for line in (heading, rule, *lines))
    seconds = sum(row["seconds"] for row in summary.rows)
    machines = sorted({row["machine"]["processor"] for row in summary.rows})
    study = summary.study
    lead = (
        f"{study.question} ({study.source}.) {_title(summary)}; `{head['command']}`, "
        f"{seconds / 60:.0f} minutes of runs on {', '.join(machines)}."
    )
    shown = "\n\n".join(f"![{study.name}]({relative(p, folder)})" for p in pictures)
    papers = f"**In the papers:** {study.papers}"
    return f"{lead}\n\n{table}\n\n**Found:** {head['verdict']}\n\n{papers}\n\n{shown}\n"


def short(head: dict[str, Any], pictures: list[Path], folder: Path) -> str:
    """The study's part of a page that shows one picture of it."""
    picture = f"![{head['question']}]({relative(pictures[0], folder)})"
    return f"**{head['question']}** `{head['command']}`\n\n{picture}\n\n{head['verdict']}\n"


def _title(summary: Summary) -> str:
    seeds = len(summary.seeds)
    return f"Mean ± 95 % interval of {seeds} seeds" if seeds > 1 else "One seed"


def listing(found: dict[str, Study], heads: dict[str, dict[str, Any]]) -> Any:
    """What there is, what it costs and what it found."""
    table = extra("rich.table").Table(title="lierope study NAME", show_lines=True)
    for name in ("study", "asks", "runs", "took", "found"):
        table.add_column(name, justify="right" if name in ("runs", "took") else "left")
    for name, study in found.items():
        head = heads.get(name)
        took = f"{head['minutes']:.0f} min" if head else "not run"
        runs = f"{len(study.arms)} × {study.seeds}"
        table.add_row(name, study.question, runs, took, head["verdict"] if head else "")
    return table
