"""On a machine with a GPU: tests, checks and measures the CUDA kernels, and says what came of it.

`make gpu`, or `python tools/gpu.py`. Needs no network. Uses the libraries that are there when they
are of these sources, else builds them. Goes on past failures and lists them at the end; exit code 1
then. Writes gpu.json, a log a stage and speed-cuda.json into $OUT (default benchmarks/results).
With --rehearse it runs the same stages on the emulation of CUDA, with small sizes and without the
tools that only a GPU's machine has: to find faults of this script where there is no GPU.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "python" / "lierope"
EMULATED = ROOT / "build" / "emulated" / "liblierope_emulated.so"
ENVIRONMENT = """
import json, torch
found = {"torch": torch.__version__, "cuda": torch.version.cuda}
if torch.cuda.is_available():
    p = torch.cuda.get_device_properties(0)
    found |= {"gpu": p.name, "capability": [p.major, p.minor], "memory": p.total_memory}
    found |= {"multiprocessors": p.multi_processor_count}
import lierope
found |= {"lierope": lierope.build_info()._asdict()}
print(json.dumps(found))
"""
# Kernels of torch are not ours to check.
SANITIZER = ["--error-exitcode", "9", "--target-processes", "application-only"]
SANITIZER += ["--kernel-regex", "kns=lierope"]
PROFILER = ["--kernel-name-base", "mangled", "--kernel-name", "regex:lierope", "--csv"]
PROFILER += ["--section", "SpeedOfLight", "--section", "LaunchStats", "--section", "Occupancy"]
SMALL = ["tests/test_forward.py", "tests/test_sizes.py", "tests/test_layouts.py"]


@dataclass(frozen=True)
class Stage:
    """A command with a limit.

    Attributes:
        name: In the summary, the JSON and the name of its log.
        command: Program and words.
        seconds: After which it is stopped.
        tool: A program that stands before the command; None when it needs none.
        environment: Variables besides those of all stages.
    """

    name: str
    command: tuple[str, ...]
    seconds: float
    tool: tuple[str, ...] | None = None
    environment: dict[str, str] = field(default_factory=dict)


@dataclass
class Outcome:
    """What came of a stage: passed, failed, stopped, skipped; rehearsed without its tool."""

    name: str
    status: str
    seconds: float
    note: str
    log: str


def environment(rehearse: bool) -> dict[str, str]:
    """Variables of every stage: the tree's package first, few threads for each test worker."""
    paths = [str(ROOT / "python"), str(ROOT), os.environ.get("PYTHONPATH", "")]
    variables = {"PYTHONPATH": os.pathsep.join(p for p in paths if p)}
    if rehearse:
        variables["LIEROPE_LIBRARY"] = str(EMULATED)
    return {**os.environ, **variables}


def find_tool(name: str) -> str | None:
    """A program on PATH or in a CUDA toolkit's usual folders."""
    homes = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda"]
    folders = [f"{home}/bin" for home in homes if home]
    return shutil.which(name) or shutil.which(name, path=os.pathsep.join(folders))


def build_stages(rehearse: bool, variables: dict[str, str]) -> list[Stage]:
    """What must be built: libraries that are missing or of other sources."""
    words = (sys.executable, "setup.py", "-q", "build_ext")
    if rehearse:
        folder = ("--build-lib", str(EMULATED.parent))
        return [
            Stage("build-emulated", (*words, *folder), 600, None, {"LIEROPE_BUILD": "emulated"})
        ]
    loaded = _python("import lierope; print(lierope.build_info().cuda)", variables)
    if loaded.returncode == 0 and loaded.stdout.strip() != "None":
        return []
    inplace = (*words, "--inplace")
    return [
        Stage("build-cpu", inplace, 300, None, {"LIEROPE_BUILD": "cpu"}),
        Stage("build-cuda", inplace, 400, None, {"LIEROPE_BUILD": "cuda"}),
    ]


def stages(rehearse: bool, out: Path) -> list[Stage]:
    """Tests, compute-sanitizer's four tools, times, profiles."""
    pytest = (sys.executable, "-m", "pytest", "-p", "no:cacheprovider")
    pytest += ("--continue-on-collection-errors",)  # a library that tests need may be missing
    on_cuda = () if rehearse else ("-k", "cuda")
    one_by_one = (*pytest, "-p", "no:xdist", *SMALL, *_few(rehearse))
    workers = ("-n", str(min(8, os.cpu_count() or 1)), "--dist", "worksteal")
    if find_spec("xdist") is None:
        workers = ()
    tests = (*pytest, *(SMALL if rehearse else ()), *workers, *on_cuda)
    result = [Stage("tests", tests, 300)]
    if not rehearse:  # what only CUDA has, alone on the device: graphs, streams, no waiting
        result.append(Stage("tests-cuda-only", (*pytest, "tests/test_cuda.py"), 120))
    for tool in ("memcheck", "racecheck", "synccheck", "initcheck"):
        words = ("compute-sanitizer", "--tool", tool, *SANITIZER)
        # torch's cache would hide the ends of tensors.
        uncached = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
        result.append(Stage(tool, one_by_one, 60, words, uncached))
    kernels = (sys.executable, "tools/gpu_kernels.py", *(("--small",) if rehearse else ()))
    profile = str(out / "gpu-profile.csv")
    result.append(Stage("profile", kernels, 90, ("ncu", *PROFILER, "--log-file", profile)))
    speed = (sys.executable, "-m", "benchmarks.speed", "--output", str(out / "speed-cuda.json"))
    if rehearse:
        few = ("--quick", "--no-plots", "--threads", "1", "--only", "rotate_pairs")
        return [*result, Stage("speed", (*speed, *few), 300)]
    return [*result, Stage("speed", (*speed, "--device", "cuda"), 300)]


def _few(rehearse: bool) -> tuple[str, ...]:
    """Small cases in one type: a sanitizer slows kernels a hundredfold."""
    chosen = "float32 and not large" if rehearse else "cuda and float32 and not large"
    return ("-k", chosen)


def _python(code: str, variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=False
    )


def run(stage: Stage, rehearse: bool, left: float, variables: dict[str, str], out: Path) -> Outcome:
    """Run one stage into its log."""
    log = out / f"gpu-{stage.name}.log"
    command, note = list(stage.command), ""
    if stage.tool is not None:
        tool = find_tool(stage.tool[0])
        if tool is not None and not rehearse:
            command = [tool, *stage.tool[1:], *command]
        elif rehearse:
            note = f"without {stage.tool[0]}; "
        else:
            return Outcome(stage.name, "skipped", 0, f"no {stage.tool[0]} here", "")
    limit, start = min(stage.seconds, left), time.perf_counter()
    if limit < 5:
        return Outcome(stage.name, "skipped", 0, "no time left", "")
    try:
        with log.open("w") as stream:
            code = subprocess.run(
                command,
                cwd=ROOT,
                env={**variables, **stage.environment},
                stdout=stream,
                stderr=subprocess.STDOUT,
                timeout=limit,
                check=False,
            ).returncode
        status = "passed" if code == 0 else "failed"
    except subprocess.TimeoutExpired:
        status = "stopped"
    seconds = time.perf_counter() - start
    return Outcome(stage.name, status, round(seconds, 1), note + last_line(log), log.name)


def last_line(log: Path) -> str:
    """The line of a log that says most: pytest's or a sanitizer's summary, else the last one."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    telling = re.compile(r"ERROR SUMMARY|\b\d+ (passed|failed)\b|ERR_NVGPUCTRPERM|^written: ")
    chosen = [line for line in lines if telling.search(line)] or lines
    return chosen[-1][:120] if chosen else ""


def summary(outcomes: Sequence[Outcome], found: dict[str, Any], seconds: float) -> str:
    """A table of all stages and the list of those that did not pass."""
    gpu = found.get("gpu", "the emulation of CUDA, no GPU")
    lines = [f"\n{gpu}, torch {found.get('torch', '?')}, {seconds:.0f} s"]
    lines += [f"  {o.name:16} {o.status:8} {o.seconds:6.1f} s  {o.note}" for o in outcomes]
    bad = [o for o in outcomes if o.status != "passed"]
    lines.append(
        "not passed: " + ", ".join(f"{o.name} ({o.status}, see {o.log or 'no log'})" for o in bad)
        if bad
        else "all passed"
    )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stages; 0 when all passed, 1 when some did not, 2 when there is no GPU."""
    parser = argparse.ArgumentParser(prog="python tools/gpu.py", description=__doc__)
    parser.add_argument("--rehearse", action="store_true", help="on the emulation, without a GPU")
    parser.add_argument("--only", nargs="+", metavar="STAGE", help="these stages alone")
    parser.add_argument("--minutes", type=float, default=10, help="for all (default: 10)")
    args = parser.parse_args(argv)
    out = Path(os.environ.get("OUT") or ROOT / "benchmarks" / "results").resolve()
    out.mkdir(parents=True, exist_ok=True)
    variables, start = environment(args.rehearse), time.perf_counter()
    if not args.rehearse:
        here = _python("import torch; assert torch.cuda.is_available()", variables)
        if here.returncode != 0:
            print("gpu: torch must see a GPU; --rehearse runs on the emulation", file=sys.stderr)
            return 2
    outcomes = []
    planned = [*build_stages(args.rehearse, variables), *stages(args.rehearse, out)]
    for stage in planned:
        if args.only and stage.name not in args.only:
            continue
        print(f"== {stage.name}", flush=True)
        left = 60 * args.minutes - (time.perf_counter() - start)
        outcome = run(stage, args.rehearse, left, variables, out)
        print(f"   {outcome.status} in {outcome.seconds} s: {outcome.note}", flush=True)
        outcomes.append(outcome)
    told = _python(ENVIRONMENT, variables)
    found = json.loads(told.stdout) if told.returncode == 0 else {"error": told.stderr[-500:]}
    seconds = time.perf_counter() - start
    record = {"rehearsed": args.rehearse, "environment": found, "seconds": round(seconds, 1)}
    record["stages"] = [asdict(o) for o in outcomes]
    (out / "gpu.json").write_text(json.dumps(record, indent=1) + "\n")
    print(summary(outcomes, found, seconds))
    return 0 if all(o.status == "passed" for o in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
