"""Publishes what tools/coverage.sh measured: a JSON and the table in docs/testing.md."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.markers import write_between
from benchmarks.speed.record import RESULTS, ROOT

from lierope.train.atomic import write_json

PAGE = ROOT / "docs" / "testing.md"
Counts = dict[str, list[int]]  # lines run and lines there are, by file


def python_counts(report: Path) -> Counts:
    """Of coverage.py's JSON."""
    files = json.loads(report.read_text())["files"]
    return {
        _inside(name): [entry["summary"]["covered_lines"], entry["summary"]["num_statements"]]
        for name, entry in files.items()
    }


def cpp_counts(report: Path) -> Counts:
    """Of gcovr's JSON summary."""
    files = json.loads(report.read_text())["files"]
    return {f["filename"]: [f["line_covered"], f["line_total"]] for f in files}


def by_folder(counts: Counts) -> Counts:
    """The sums of each folder."""
    folders: Counts = {}
    for name, (run, lines) in counts.items():
        entry = folders.setdefault(str(Path(name).parent), [0, 0])
        entry[0] += run
        entry[1] += lines
    return dict(sorted(folders.items()))


def table(counts: Counts) -> str:
    """Markdown: a row a folder and one for all."""
    whole = [sum(column) for column in zip(*counts.values(), strict=True)]
    rows = [*by_folder(counts).items(), ("**all**", whole)]
    lines = ["| folder | lines | run by tests |", "| --- | ---: | ---: |"]
    lines += [f"| {_code(name)} | {n:,} | {share(run, n)} |" for name, (run, n) in rows]
    return "\n".join(lines) + "\n"


def share(run: int, lines: int) -> str:
    """Percent of lines."""
    return f"{100 * run / lines:.1f} %" if lines else "–"


def least_covered(counts: Counts, below: float = 0.9) -> Iterable[tuple[str, str]]:
    """Files under a share of lines, the worst first."""
    found = [(run / lines, name, run, lines) for name, (run, lines) in counts.items() if lines]
    return [(name, share(run, n)) for part, name, run, n in sorted(found) if part < below]


def main(argv: Sequence[str]) -> int:
    """Write the JSON and the table; print files of which less than nine tenths ran."""
    counts = {"python": python_counts(Path(argv[0])), "c++": cpp_counts(Path(argv[1]))}
    write_json(RESULTS / "coverage.json", {"command": "make coverage", "lines": counts})
    body = "".join(f"{name}:\n\n{table(files)}\n" for name, files in counts.items())
    write_between(PAGE, "coverage", body)
    print(body)
    for files in counts.values():
        for name, part in least_covered(files):
            print(f"{part:>8}  {name}")
    return 0


def _code(name: str) -> str:
    return name if name.startswith("*") else f"`{name}`"


def _inside(name: str) -> str:
    path = Path(name)
    return str(path.relative_to(ROOT)) if path.is_absolute() else name


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
