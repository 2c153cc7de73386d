"""A study's table, on the terminal and in Markdown."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.markers import relative
from benchmarks.studies.harness.study import Metric, Study
from benchmarks.studies.harness.summary import Estimate, Summary
from benchmarks.studies.harness.words import interval
from lierope.train.extras import extra

_GAP = 2  # characters between columns on a terminal


def number(value: Estimate | None, metric: Metric, runs: int = 0) -> str:
    """Mean ± half the interval, in the metric's units, and in how many of the runs if not all."""
    if value is None or math.isnan(value.mean):
        return "–"
    text = interval(value, metric.scale, metric.digits, sign=False)
    return f"{text} ({value.count} of {runs})" if value.count < runs else text


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
        line = [
            f"`{arm}`",
            *(number(summary.estimate(arm, m.name), m, len(outcomes)) for m in metrics),
        ]
        line += [_p(tested[arm].p) if arm in tested else ""] if tested else []
        line += [f"{outcomes[0]['position_parameters']:,}" if outcomes else "–"]
        if timed:
            line += [_milliseconds(summary, arm)]
        if failed := summary.failures(arm):
            line[0] += f" ({len(failed)} of {len(failed) + len(outcomes)} diverged)"
        lines.append(line)
    return lines


def _p(value: float) -> str:
    return "< 0.001" if value < 1e-3 else f"{value:.2g}"


def _milliseconds(summary: Summary, arm: str) -> str:
    """The mean; with the processor's name where most runs of the study had another."""
    seconds = [outcome["seconds_per_step"] for outcome in summary.outcomes(arm).values()]
    if not seconds:
        return "–"
    of_all = [(row["arm"], str(row["machine"].get("processor"))) for row in summary.rows]
    usual = Counter(processor for _, processor in of_all).most_common(1)[0][0]
    own = {processor for name, processor in of_all if name == arm}
    other = f" on {', '.join(sorted(own))}" if own != {usual} else ""
    return f"{1e3 * sum(seconds) / len(seconds):.3g}{other}"


def terminal(summary: Summary) -> tuple[Any, int]:
    """A rich table, and how many characters wide it must be for nothing to be cut."""
    heading, *lines = rows(summary)
    table = extra("rich.table").Table(
        title=_title(summary), box=None, pad_edge=False, padding=(0, _GAP, 0, 0)
    )
    # A mean over its interval: tables of ten columns then fit about 100 characters.
    cells = [[cell.replace("`", "").replace(" ± ", "\n± ") for cell in line] for line in lines]
    needed = 0
    for index, name in enumerate(heading):
        words = [*name.split(), *(part for line in cells for part in line[index].split("\n"))]
        width = max(map(len, words))
        needed += width + _GAP
        table.add_column(name.replace("<br>", " "), justify="right" if index else "left",
                         width=width)  # fmt: skip
    for line in cells:
        table.add_row(*line)
    return table, needed


def markdown(summary: Summary, head: dict[str, Any], pictures: list[Path], folder: Path) -> str:
    """The study's part of a page in `folder`: table, command, verdict, pictures."""
    heading, *lines = rows(summary)
    rule = ["---", *("---:" for _ in heading[1:])]
    table = "\n".join("| " + " | ".join(line) + " |" for line in (heading, rule, *lines))
    seconds = sum(row["seconds"] for row in summary.rows)
    counted = Counter(_machine(row["machine"]) for row in summary.rows).most_common()
    machines = [f"{count} runs {m}" if len(counted) > 1 else m for m, count in counted]
    study = summary.study
    lead = (
        f"{study.question} ({study.source}.) {_title(summary)}; `{head['command']}`, "
        f"{seconds / 60:.0f} minutes of runs, {'; '.join(machines)}."
    )
    shown = "\n\n".join(f"![{study.name}]({relative(p, folder)})" for p in pictures)
    papers = f"**In the papers:** {study.papers}"
    return f"{lead}\n\n{table}\n\n**Found:** {head['verdict']}\n\n{papers}\n\n{shown}\n"


def short(head: dict[str, Any], pictures: list[Path], folder: Path) -> str:
    """The study's part of a page that shows one picture of it."""
    picture = f"![{head['question']}]({relative(pictures[0], folder)})"
    return f"**{head['question']}** `{head['command']}`\n\n{picture}\n\n{head['answer']}\n"


def _machine(machine: dict[str, Any]) -> str:
    where = machine["processor"] if machine["device"] == "cpu" else machine["device"]
    jobs = f"{machine['jobs']} at a time, " if machine["jobs"] > 1 else ""
    return f"{jobs}on {where} ({machine['cores']} cores, torch {machine['torch']})"


def _title(summary: Summary) -> str:
    seeds = len(summary.seeds)
    return f"Mean ± 95 % interval of {seeds} seeds" if seeds > 1 else "One seed"


def listing(found: dict[str, Study], heads: dict[str, dict[str, Any]]) -> Any:
    """What there is, what it costs and what it found."""
    table = extra("rich.table").Table(
        title="lierope study NAME", caption="cost: arms × seeds, minutes of all runs", box=None,
        pad_edge=False, padding=(0, 2, 1, 0),
    )  # fmt: skip
    for name, justify in (("study", "left"), ("cost", "right"), ("asks, and found", "left")):
        table.add_column(name, justify=justify, no_wrap=name != "asks, and found")
    text = extra("rich.text").Text
    for name, study in found.items():
        head = heads.get(name)
        took = f"{head['minutes']:.0f} min" if head else "not run"
        answer = (head.get("answer") or head["verdict"]) if head else ""
        said = text(study.question, style="bold")
        table.add_row(name, f"{len(study.arms)} × {study.seeds}\n{took}",
                      text("\n").join([said, text(answer)]) if answer else said)  # fmt: skip
    return table
