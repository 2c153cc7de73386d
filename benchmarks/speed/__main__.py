"""The command: choose cases, measure them, write JSON, pictures and tables."""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from rich.console import Console

from benchmarks.markers import around_markers
from benchmarks.speed.cases import BenchCase, all_cases, chosen_cases
from benchmarks.speed.cases_cuda import cuda_cases
from benchmarks.speed.circulant import circulant
from benchmarks.speed.compare import compare
from benchmarks.speed.forms import Builder
from benchmarks.speed.measure import Result, measure
from benchmarks.speed.peers import OPERATORS
from benchmarks.speed.record import (
    ROOT,
    RecordError,
    default_path,
    make_record,
    read_record,
    write_record,
)
from benchmarks.speed.report import (
    SUMMARY,
    TABLES,
    show,
    show_changes,
    write_plots,
    write_summary,
    write_tables,
)
from benchmarks.speed.roofline import Roofline, measure_roofline
from benchmarks.speed.rotations import lie_rotations, rotate_blocks
from benchmarks.speed.training import vit_step

BUILDERS: dict[str, Builder] = {
    **OPERATORS,
    "circulant": circulant,
    "lie_rotations": lie_rotations,
    "rotate_blocks": rotate_blocks,
    "vit_step": vit_step,
}
USAGE_ERROR, LOST = 2, 1


def main(argv: Sequence[str] | None = None) -> int:
    """Run and return the exit code: 0 done, 1 slower than the reference, 2 bad input."""
    args = _parser().parse_args(argv)
    console = Console()
    if not console.is_terminal:
        console = Console(width=160)
    try:
        return _run(args, console, sys.argv[1:] if argv is None else argv)
    except RecordError as error:
        print(f"benchmarks.speed: {error}", file=sys.stderr)
        return USAGE_ERROR


def _run(args: argparse.Namespace, console: Console, argv: Sequence[str]) -> int:
    every = cuda_cases() if args.device == "cuda" else all_cases()
    cases = chosen_cases(args.only, args.quick, args.threads, every)
    if not cases:
        raise RecordError(f"only: must match a case (see --list), got {' '.join(args.only)}")
    if args.list:
        for case in cases:
            print(f"{case.name}: {list(case.shape)}, {', '.join((case.base, *case.peers))}")
        return 0
    if args.device == "cuda" and not torch.cuda.is_available():
        raise RecordError("device: must be one that torch has here, got cuda")
    device = torch.device(args.device)
    # A part of the cases, or small sizes, must not replace the numbers of a whole run.
    partly = bool(args.only) or args.quick
    output = args.output or default_path(device).with_suffix(".part.json" if partly else ".json")
    text = ROOT / "docs" / ("cuda.md" if args.device == "cuda" else "speed.md")
    texts = not (partly or args.output) and _has_places(text)
    tables = args.readme or (text if texts else None)
    # What can't be read or written later is better known before a quarter of an hour of measuring.
    reference = read_record(args.reference) if args.reference else None
    if tables is not None:
        around_markers(tables, TABLES)
    command = shlex.join(("python", "-m", "benchmarks.speed", *argv))
    unfinished = output.with_suffix(".unfinished.json")  # what there is, should the run be cut off

    def keep(results: list[Result], rooflines: list[Roofline]) -> None:
        write_record(unfinished, make_record(results, rooflines, device, command))

    results, rooflines = _measure_all(cases, device, keep)
    record = make_record(results, rooflines, device, command)
    write_record(output, record)
    unfinished.unlink(missing_ok=True)
    plots = {} if args.no_plots else write_plots(results, output)
    show(console, results, record)
    console.print(f"written: {output}", highlight=False, soft_wrap=True)
    if tables is not None:
        write_tables(tables, results, plots, record)
    if texts and args.device == "cpu":
        write_summary(ROOT / "README.md", record)
    if reference is None:
        return 0
    changes = compare(results, reference)
    show_changes(console, changes)
    return LOST if any(change.lost for change in changes) else 0


def _measure_all(
    cases: Sequence[BenchCase],
    device: torch.device,
    keep: Callable[[list[Result], list[Roofline]], None],
) -> tuple[list[Result], list[Roofline]]:
    threads, results, start = torch.get_num_threads(), [], time.perf_counter()
    rooflines: dict[int, Roofline] = {}
    try:
        for number, case in enumerate(cases, 1):

            def say(text: str, number: int = number) -> None:
                _say(f"[{number}/{len(cases)}, {time.perf_counter() - start:.0f} s] {text}")

            for count in case.threads:
                if count not in rooflines:
                    say(f"peaks of {count} thread(s)")
                    rooflines[count] = measure_roofline(count, device)
                result = measure(case, count, device, BUILDERS[case.work], say)
                result.limit = rooflines[count].limit(case)
                results.append(result)
            keep(results, list(rooflines.values()))
    finally:
        torch.set_num_threads(threads)
        _say("")
    return results, list(rooflines.values())


def _has_places(text: Path) -> bool:
    """Whether the project's texts have a place for the tables."""
    try:
        around_markers(text, TABLES)
        around_markers(ROOT / "README.md", SUMMARY)
    except RecordError as error:
        print(f"benchmarks.speed: no tables will be written: {error}", file=sys.stderr)
        return False
    return True


def _say(text: str) -> None:
    """One line that replaces the last; a live display would take turns with what is timed."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[2K{text}")
        sys.stderr.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.speed",
        description="Time the operators and training steps beside other ways to compute the same.",
    )
    parser.add_argument("--list", action="store_true", help="name the cases and stop")
    parser.add_argument(
        "--quick", action="store_true", help="small sizes, no compiled peers: a minute at most"
    )
    parser.add_argument(
        "--only",
        nargs="+",
        default=[],
        metavar="PATTERN",
        help="cases whose names hold this text or match this pattern",
    )
    parser.add_argument("--threads", nargs="+", type=_positive, metavar="N", help="default: 1 2")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="default: benchmarks/results/speed-<machine>[-<instruction set>].json",
    )
    parser.add_argument(
        "--reference",
        type=Path,
        metavar="FILE",
        help="an earlier JSON: flag losses above 5 %%, exit code 1",
    )
    parser.add_argument(
        "--readme",
        type=Path,
        metavar="FILE",
        help="write tables between its markers (default after a whole run: docs/speed.md, cuda.md)",
    )
    parser.add_argument("--no-plots", action="store_true", help="write no pictures")
    return parser


def _positive(text: str) -> int:
    number = int(text) if text.isdigit() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be a positive number, got {text}")
    return number


if __name__ == "__main__":
    sys.exit(main())
