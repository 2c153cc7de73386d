"""Publishes a run of `lierope train` as the README's first table: python -m benchmarks.demo RUN."""

import json
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.markers import relative, write_between
from benchmarks.speed.record import ROOT, RecordError

RESULTS = ROOT / "benchmarks" / "results" / "digits"


def percent(value: dict[str, float], several: bool) -> str:
    """Mean, and sd over seeds where there are several."""
    text = f"{100 * value['mean']:.1f}"
    return f"{text} ± {100 * value['sd']:.1f}" if several else text


def table(record: dict[str, Any]) -> str:
    """A Markdown table of the summary, a row an encoding."""
    rows = record["summary"]
    sizes = list(rows[0]["test_accuracy"])
    several = len(rows[0]["seeds"]) > 1
    shown = [f"{s}×{s}" if s == sizes[0] else f"{s}×{s}, unseen" for s in sizes]
    lines = [["encoding", *shown, "position parameters", "seconds an epoch"]]
    lines.append(["---", *("---:" for _ in lines[0][1:])])
    for row in rows:
        accuracy = [percent(row["test_accuracy"][s], several) for s in sizes]
        seconds = f"{row['seconds_per_epoch']['mean']:.2f}"
        lines.append([f"`{row['encoding']}`", *accuracy, str(row["position_parameters"]), seconds])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def main(argv: Sequence[str]) -> int:
    """Copy results.json and summary.png into benchmarks/results/digits, write the table."""
    if len(argv) != 1 or not (Path(argv[0]) / "results.json").is_file():
        print("benchmarks.demo: RUN must be a folder with a results.json", file=sys.stderr)
        return 2
    run = Path(argv[0])
    RESULTS.mkdir(parents=True, exist_ok=True)
    for name in ("results.json", "summary.png"):
        shutil.copyfile(run / name, RESULTS / name)
    record = json.loads((RESULTS / "results.json").read_text())
    rows, machine = record["summary"], record["machine"]
    seeds = len(rows[0]["seeds"])
    lead = (
        f"Test accuracy in %, mean ± sd of {seeds} seeds; `{shlex.join(record['command'])}` on "
        f"{machine['processor']}, {machine['jobs']} processes of {machine['threads']} thread:\n"
    )
    picture = relative(RESULTS / "summary.png", ROOT)
    body = f"{lead}\n{table(record)}\n![accuracy by canvas size]({picture})\n"
    try:
        write_between(ROOT / "README.md", "demo", body)
    except RecordError as error:
        print(f"benchmarks.demo: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
