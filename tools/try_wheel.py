"""Installs wheels into clean environments, Python by Python and torch by torch, and tries them.

    python -m tools.try_wheel [WHEEL ...] [--python PATH ...] [--torch VERSION ...] [--publish]

An environment has Python and torch, later timm, and nothing else; no compiler is on its PATH. It is
made by uv, which links packages from one cache instead of copying gigabytes, and removed at once.
--publish writes benchmarks/results/wheels.json and the tables of docs/install.md.
"""

import argparse
import datetime
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tools.wheel_tables import publish

ROOT = Path(__file__).resolve().parents[1]
SMOKE, IMPORT = ROOT / "tools" / "wheel_smoke.py", ROOT / "tools" / "import_cost.py"
TIMM = "timm==1.0.31"
IMPORTS = 3  # fresh processes whose median is the time of an import


class NoBuildError(Exception):
    """What is asked for does not exist for this Python."""


class Environment:
    """A virtual environment with one torch."""

    def __init__(self, folder: Path, interpreter: str, uv: Sequence[str]) -> None:
        self.folder, self.uv = folder, uv
        self.python = folder / "bin" / "python"
        _run([*uv, "venv", "-q", "--python", interpreter, str(folder)])

    def install(self, *words: str) -> None:
        """Install packages from uv's cache."""
        _run([*self.uv, "pip", "install", "-q", "--python", str(self.python), *words])

    def execute(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run the environment's Python where there is no compiler and nothing is inherited."""
        inherited = {"HOME": str(self.folder), "PATH": "/nowhere", "OMP_NUM_THREADS": "1"}
        command = [str(self.python), "-I", *words]
        return subprocess.run(
            command, env=inherited, cwd=self.folder, capture_output=True, text=True, check=False
        )

    def result(self, *words: str) -> dict[str, Any]:
        """The JSON that a script prints.

        Raises:
            SystemExit: It failed; its last lines say at what.
        """
        done = self.execute(*words)
        if done.returncode != 0:
            raise SystemExit(f"try_wheel: failed in {self.folder.name}:\n{done.stderr[-2000:]}")
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found

    def imports(self) -> dict[str, dict[str, float]]:
        """What `import torch` and then `import lierope` cost; medians, with the files cached."""
        runs = [self.result(str(IMPORT), "torch", "lierope") for _ in range(IMPORTS + 1)][1:]
        return {
            name: {key: statistics.median(run[name][key] for run in runs) for key in first}
            for name, first in runs[0].items()
        }

    def install_timm(self, torch: str) -> bool:
        """Install timm and torchvision; returns whether there was a torchvision of this torch."""
        try:
            self.install(f"torch=={torch}", "torchvision", TIMM)
        except NoBuildError:  # lierope.timm serves any torchvision
            self.install("--no-deps", "torchvision", TIMM)
            self.install("numpy", "pillow", "pyyaml", "huggingface_hub", "safetensors")
            return False
        return True


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "No solution found" in done.stderr:
        raise NoBuildError(done.stderr)
    if done.returncode != 0:
        raise SystemExit(f"try_wheel: {' '.join(command[1:])}: {done.stderr.strip()[-800:]}")


def try_cell(environment: Environment, torch: str, wheels: Sequence[Path]) -> dict[str, Any]:
    """Everything that is tried with one Python and one torch."""
    environment.install(torch)
    cell: dict[str, Any] = {"asked": torch, "wheels": {wheel.name: {} for wheel in wheels}}
    for with_timm in (False, True):
        if with_timm:
            cell["own_torchvision"] = environment.install_timm(cell["torch"])
        for wheel in wheels:
            environment.install("--reinstall-package", "lierope", str(wheel))
            found = environment.result(str(SMOKE))
            assert cell.setdefault("torch", found["torch"]) == found["torch"], "another torch came"
            tried = cell["wheels"][wheel.name]
            tried["with timm" if with_timm else "without timm"] = found
            if not with_timm:
                tried["imports"] = environment.imports()
    return cell


def try_old_torch(environment: Environment, torch: str, wheel: Path) -> str:
    """What the import says beside a torch that is too old."""
    environment.install(torch)
    environment.install("--no-deps", str(wheel))
    done = environment.execute("-c", "import lierope")
    last = done.stderr.strip().splitlines()[-1]
    if done.returncode == 0 or "lierope: torch must be 2.11 or newer" not in last:
        raise SystemExit(f"try_wheel: {torch} was not refused: {done.stderr[-800:]}")
    return last


def interpreters() -> list[str]:
    """Pythons from 3.10 on, of PATH and of pyenv."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found: list[str] = []
    for minor in range(10, 16):
        own = sorted(str(path) for path in pyenv.glob(f"3.{minor}.*/bin/python"))
        found += [path for path in (*own, shutil.which(f"python3.{minor}")) if path][:1]
    return found


def cells(options: argparse.Namespace, work: Path) -> Iterator[dict[str, Any]]:
    """Try every torch with every Python; the cache is emptied between versions of torch."""
    uv = options.uv
    for torch in options.torch:
        cache = work / "cache"
        command = [uv, "--no-config", "--cache-dir", str(cache)]
        for interpreter in options.python:
            folder = work / f"{Path(interpreter).parents[1].name}-{torch}"
            requirement = "torch" if torch == "newest" else f"torch=={torch}"
            try:
                environment = Environment(folder, interpreter, command)
                cell = try_cell(environment, requirement, options.wheels)
            except NoBuildError as error:
                cell = {"asked": requirement, "no_build": str(error)}
            cell["python"] = _version(interpreter)
            shutil.rmtree(folder, ignore_errors=True)
            what = "no build" if "no_build" in cell else f"{cell['torch']}: passed"
            print(f"Python {cell['python']}, {requirement}: {what}", flush=True)
            yield cell
        shutil.rmtree(cache, ignore_errors=True)


def _version(interpreter: str) -> str:
    code = "import platform; print(platform.python_version())"
    return subprocess.check_output([interpreter, "-c", code], text=True).strip()


def options_of(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("wheels", nargs="*", type=Path, help="default: dist/*.whl")
    parser.add_argument("--python", nargs="+", default=interpreters(), help="interpreters")
    parser.add_argument("--torch", nargs="+", default=["2.11.0", "2.13.0", "newest"])
    parser.add_argument(
        "--old-torch", default="2.10.0", help="one that must be refused; '' for none"
    )
    parser.add_argument("--publish", action="store_true", help="write the record and the tables")
    options = parser.parse_args(arguments)
    options.wheels = [w.resolve() for w in options.wheels or sorted((ROOT / "dist").glob("*.whl"))]
    beside = Path(sys.executable).parent / "uv"
    options.uv = str(beside) if beside.exists() else shutil.which("uv")
    if not options.wheels:
        parser.error("no wheel: name one, or run make wheel")
    if options.uv is None:
        parser.error("no uv: run pip install uv")
    return options


def main(arguments: Sequence[str]) -> None:
    """Try everything, and publish it where that is wanted."""
    options = options_of(arguments)
    sizes = {wheel.name: wheel.stat().st_size for wheel in options.wheels}
    with tempfile.TemporaryDirectory(prefix="try-wheel-") as name:
        work = Path(name)
        tried = list(cells(options, work))
        refused = None
        if options.old_torch:
            command = [options.uv, "--no-config", "--cache-dir", str(work / "cache")]
            environment = Environment(work / "old", options.python[-1], command)
            refused = try_old_torch(environment, f"torch=={options.old_torch}", options.wheels[0])
            print(refused)
    now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    record = {"date": now, "sizes": sizes, "refused": refused, "cells": tried}
    if options.publish:
        publish(record)


if __name__ == "__main__":
    main(sys.argv[1:])
