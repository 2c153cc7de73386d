"""Registers, spills and memory of every CUDA kernel, from the logs that `make cuda` leaves.

`python -m tools.cuda_resources` writes benchmarks/results/cuda_resources.json and the table of
docs/cuda.md; with --check it writes nothing and fails where a kernel spills.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LOGS = ROOT / "build" / "objects_cuda"
RECORD = ROOT / "benchmarks" / "results" / "cuda_resources.json"
TEXT, MARKER = ROOT / "docs" / "cuda.md", "cuda_resources"

_ENTRY = re.compile(r"Compiling entry function '(?P<symbol>\w+)' for 'sm_(?P<architecture>\d+)'")
_FRAME = re.compile(
    r"(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, "
    r"(?P<loads>\d+) bytes spill loads"
)
_USED = re.compile(r"Used (?P<registers>\d+) registers")
_SHARED = re.compile(r"(?P<shared>\d+) bytes smem")


class ResourceError(Exception):
    """Logs that are missing or are not ptxas's."""


@dataclass(frozen=True)
class Kernel:
    """What one kernel takes on one architecture.

    Attributes:
        source: The .cu file without its ending.
        name: The kernel with its template arguments.
        architecture: 80 for sm_80.
        registers: Of a thread.
        spills: Bytes of spilled registers written and read, of a thread.
        stack: Bytes of local memory of a thread, spills among them; a sine of a large angle needs
            some.
        shared: Bytes of static shared memory of a block; the dynamic one is chosen by the launcher.
    """

    source: str
    name: str
    architecture: int
    registers: int
    spills: int
    stack: int
    shared: int


def parse_log(source: str, text: str) -> list[Kernel]:
    """Kernels of one ptxas log.

    Raises:
        ResourceError: A kernel without its numbers.
    """
    entries = list(_ENTRY.finditer(text))
    ends = [entry.start() for entry in entries[1:]] + [len(text)]
    names = demangled([entry["symbol"] for entry in entries])
    kernels = []
    for entry, end, name in zip(entries, ends, names, strict=True):
        body = text[entry.end() : end]
        frame, used, shared = _FRAME.search(body), _USED.search(body), _SHARED.search(body)
        if frame is None or used is None:
            raise ResourceError(f"{source}: must have numbers for every kernel, got none of {name}")
        kernels.append(
            Kernel(
                source,
                name,
                int(entry["architecture"]),
                int(used["registers"]),
                int(frame["stores"]) + int(frame["loads"]),
                int(frame["stack"]),
                int(shared["shared"]) if shared else 0,
            )
        )
    return kernels


def demangled(symbols: Sequence[str]) -> list[str]:
    """Kernels' names with template arguments, without namespaces and parameters."""
    if not symbols:
        return []
    done = subprocess.run(
        ("c++filt",), input="\n".join(symbols), capture_output=True, text=True, check=True
    )
    return [short_name(line) for line in done.stdout.splitlines()]


def short_name(signature: str) -> str:
    """`void lierope::cuda::f<lierope::cuda::Half, true>(P)` as `f<Half, true>`."""
    text = signature.removeprefix("void ").replace("(anonymous namespace)::", "")
    text = re.sub(r"\((?:int|bool|unsigned int)\)", "", text)  # of template arguments
    return re.sub(r"\b\w+::", "", text.partition("(")[0])


def read_logs(folder: Path) -> list[Kernel]:
    """Kernels of the whole library.

    Raises:
        ResourceError: A .cu file has no log, or none with kernels.
    """
    kernels = []
    for source in sorted(path.stem for path in (ROOT / "cuda").glob("*.cu")):
        log = folder / f"kernels_{source}.log"
        found = parse_log(source, log.read_text(encoding="utf-8")) if log.exists() else []
        if not found:
            raise ResourceError(f"{log} must hold ptxas's report: run make cuda")
        kernels += found
    return sorted(kernels, key=lambda k: (k.source, k.name, k.architecture))


def spilling(kernels: Iterable[Kernel]) -> list[str]:
    """One line for every kernel that spills."""
    return [
        f"{k.source}: {k.name} spills {k.spills} bytes on sm_{k.architecture}"
        for k in kernels
        if k.spills
    ]


def make_record(kernels: Sequence[Kernel], compiler: str) -> dict[str, Any]:
    """The same for JSON, a kernel a line of `kernels`."""
    return {
        "compiler": compiler,
        "unit": "registers and bytes of a thread; shared: static bytes of a block",
        "kernels": [asdict(kernel) for kernel in kernels],
    }


def read_record(path: Path = RECORD) -> list[Kernel]:
    """Kernels of a written record."""
    return [Kernel(**k) for k in json.loads(path.read_text(encoding="utf-8"))["kernels"]]


def table(kernels: Sequence[Kernel]) -> str:
    """Markdown: a row for every kernel over its template arguments, the most of each number."""
    architectures = sorted({kernel.architecture for kernel in kernels})
    heads = [f"registers sm_{a}" for a in architectures]
    lines = [["kernel", "forms", *heads, "spills", "stack", "static shared"]]
    lines.append(["---", *("---:" for _ in lines[0][1:])])

    def family(kernel: Kernel) -> tuple[str, str]:
        return kernel.source, kernel.name.partition("<")[0]

    for (source, name), group in groupby(sorted(kernels, key=family), key=family):
        members = list(group)
        each = [[k.registers for k in members if k.architecture == a] for a in architectures]
        forms = len({kernel.name for kernel in members})
        most = [max(getattr(k, f) for k in members) for f in ("spills", "stack", "shared")]
        cells = [_range(registers) for registers in each]
        lines.append([f"`{name}` ({source})", str(forms), *cells, *map(str, most)])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _range(numbers: Sequence[int]) -> str:
    if not numbers:
        return ""
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low}–{high}"


def _compiler() -> str:
    """The release of nvcc that a log's command names."""
    command = (LOGS / "kernels_rotate_pairs.cmd").read_text(encoding="utf-8").split()[0]
    done = subprocess.run((command, "--version"), capture_output=True, text=True, check=True)
    found = re.search(r"release [\d.]+, V([\d.]+)", done.stdout)
    return f"nvcc {found[1]}" if found else "nvcc"


def main(argv: Sequence[str] | None = None) -> int:
    """0 done, 1 a kernel spills, 2 no logs."""
    parser = argparse.ArgumentParser(prog="python -m tools.cuda_resources", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing")
    args = parser.parse_args(argv)
    try:
        kernels = read_logs(LOGS)
    except ResourceError as error:
        print(f"cuda_resources: {error}", file=sys.stderr)
        return 2
    if not args.check:
        from benchmarks.markers import write_between  # noqa: PLC0415  # loads the library
        from benchmarks.speed.record import write_text  # noqa: PLC0415

        compiler = _compiler()
        record = json.dumps(make_record(kernels, compiler))
        write_text(RECORD, record.replace('{"source"', '\n{"source"') + "\n")
        write_between(TEXT, MARKER, f"{compiler}.\n\n{table(kernels)}")
    bad = spilling(kernels)
    print("\n".join(bad) or f"{len(kernels)} kernels, none spills")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
