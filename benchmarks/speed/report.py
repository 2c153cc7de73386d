"""The report of a run: in the terminal, as pictures, and in texts between markers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.markers import relative, write_between
from benchmarks.speed.compare import Change
from benchmarks.speed.measure import Result
from benchmarks.speed.plots import plot_family
from benchmarks.speed.summary import summary
from benchmarks.speed.tables import family_table, goals_table

TABLES, SUMMARY = "speed", "summary"  # names of the markers


def by_family(results: Sequence[Result]) -> dict[str, list[Result]]:
    """Results by family, each ordered by case, then by number of threads."""
    order = {result.case.name: number for number, result in reversed(list(enumerate(results)))}
    ordered = sorted(results, key=lambda r: (order[r.case.name], r.threads))
    families = groupby(ordered, key=lambda r: r.case.family)
    return {family: list(members) for family, members in families}


def show(console: Console, results: Sequence[Result], record: Mapping[str, Any]) -> None:
    """Every table, what was left out and why, and the goals."""
    console.print(_headline(record), highlight=False)
    for family, members in by_family(results).items():
        console.print(family_table(family, members).rich())
    reasons = {(form, why) for r in results for form, why in r.skipped.items()}
    for form, why in sorted(reasons):
        console.print(f"left out: {form} ({why})", highlight=False)
    goals = goals_table(results)
    if goals is not None:
        console.print(goals.rich())


def show_changes(console: Console, changes: Sequence[Change]) -> None:
    """One line a case: its time over its earlier self; "!" marks a loss."""
    for change in changes:
        mark = "!" if change.lost else " "
        beside = f" beside {change.beside}" if change.beside else ""
        console.print(
            f"{mark} {change.name}, {change.threads} thread(s), {change.form}: "
            f"{change.slower:.3f} of the earlier time{beside}",
            highlight=False,
        )
    lost = sum(change.lost for change in changes)
    console.print(f"{len(changes)} compared, {lost} slower by more than 5 %", highlight=False)


def write_plots(results: Sequence[Result], output: Path) -> dict[str, Path]:
    """A picture a family beside the JSON: <name>-<family>.png."""
    paths = {}
    for family, members in by_family(results).items():
        if any(result.forms for result in members):
            paths[family] = output.with_name(f"{output.stem}-{family}.png")
            plot_family(family, members, paths[family])
    return paths


def write_tables(
    text: Path, results: Sequence[Result], plots: Mapping[str, Path], record: Mapping[str, Any]
) -> None:
    """Write every table and picture between the markers of a text."""
    parts = [f"{_headline(record)}\nIn brackets: how many times our time.\n"]
    for family, members in by_family(results).items():
        parts.append(family_table(family, members).markdown())
        if family in plots:
            link = relative(plots[family], text.parent)
            parts.append(f"![{family}: time of every form]({link})\n")
    goals = goals_table(results)
    if goals is not None:
        parts.append(goals.markdown())
    write_between(text, TABLES, "\n".join(parts))


def write_summary(text: Path, record: Mapping[str, Any]) -> None:
    """Write the short tables between the markers of a text."""
    body = "\n".join(table.markdown() for table in summary(record))
    write_between(text, SUMMARY, f"{_headline(record)}\n{body}")


def _headline(record: Mapping[str, Any]) -> str:
    versions, build = record["versions"], record["build"]
    peaks = "; ".join(_peaks(roofline) for roofline in record["rooflines"])
    return (
        f"{record['machine']}, {build['instruction_set']} kernels, torch {versions['torch']}, "
        f"commit {record['commit']}, {record['date'][:10]}. Medians of rounds in which all forms "
        f"take turns{_timing(record)}. Peaks: {peaks}.\n"
    )


def _timing(record: Mapping[str, Any]) -> str:
    """How a GPU's passes were timed; nothing is said of a wall clock."""
    return f", {record['timing']}" if record.get("device") == "cuda" else ""


def _peaks(roofline: Mapping[str, Any]) -> str:
    copies = roofline["copy_bytes_per_second"]
    copy = copies[max(copies, key=int)]
    return (
        f"{roofline['threads']} thread(s) {roofline['flops'] / 1e9:.0f} GFLOP/s "
        f"({roofline['flops_from']}), copies {copy / 1e9:.1f} GB/s"
    )
