"""The library says what it is; a missing, stale or unfit one is an error that names the command."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import lierope

PACKAGE = Path(lierope.__file__).parent
COMMAND = "make build (or: pip install --no-build-isolation --no-deps -e .)"


def _import(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Import lierope from a folder in a fresh interpreter."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("LIEROPE_")}
    return subprocess.run(
        [sys.executable, "-c", "import lierope; print(lierope.build_info().instruction_set)"],
        cwd=folder,
        env={**inherited, "PYTHONPATH": str(folder), "LIEROPE_ALLOW_STALE": "0", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def _copy(tmp_path: Path) -> Path:
    folder = tmp_path / "python"
    shutil.copytree(PACKAGE, folder / "lierope", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def test_build_info() -> None:
    info = lierope.build_info()
    assert info.version == lierope.__version__
    assert info.instruction_set in {"avx512", "avx2", "baseline"}
    assert Path(info.library).exists()
    assert len(info.source_hash) == 16


def test_missing_library(tmp_path: Path) -> None:
    folder = _copy(tmp_path)
    (folder / "lierope" / "liblierope_cpu.so").unlink()
    result = _import(folder)
    assert result.returncode == 1
    assert f"ImportError: lierope: the compiled library is missing: run {COMMAND}" in result.stderr


def test_stale_library(tmp_path: Path) -> None:
    folder = _copy(tmp_path)
    (tmp_path / "csrc").mkdir()
    (tmp_path / "csrc" / "library.cpp").write_text("// changed\n")
    result = _import(folder)
    assert result.returncode == 1
    assert (
        f"ImportError: lierope: the compiled library is older than csrc/: run {COMMAND}"
        in result.stderr
    )


def test_installed_without_sources(tmp_path: Path) -> None:
    result = _import(_copy(tmp_path))
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == lierope.build_info().instruction_set or os.environ.get(
        "LIEROPE_ISA"
    )


@pytest.mark.parametrize("isa", ["baseline", "avx2", "avx512"])
def test_forced_instruction_set(tmp_path: Path, isa: str) -> None:
    result = _import(_copy(tmp_path), LIEROPE_ISA=isa)
    if result.returncode == 0:
        assert result.stdout.strip() == isa
    else:
        assert f"LIEROPE_ISA: this processor must support {isa}, but it does not" in result.stderr
        assert isa != "baseline"


def test_unknown_instruction_set(tmp_path: Path) -> None:
    result = _import(_copy(tmp_path), LIEROPE_ISA="sse9")
    assert result.returncode == 1
    assert (
        "ImportError: lierope: LIEROPE_ISA must be avx512, avx2 or baseline, got sse9"
        in result.stderr
    )


def test_runtime_needs_torch_alone() -> None:
    code = (
        "import sys, lierope\n"
        "extras = {'timm', 'torchvision', 'sklearn', 'matplotlib', 'rich', 'safetensors'}\n"
        "print(sorted(extras & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


def test_every_instruction_set_passes_the_operator_tests() -> None:
    """The kernels are one source: each lower set must pass the same cases."""
    here = lierope.build_info().instruction_set
    if os.environ.get("LIEROPE_ISA"):
        pytest.skip("already running with a forced instruction set")
    order = ["baseline", "avx2", "avx512"]
    for isa in order[: order.index(here)]:
        words = ["-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist"]
        files = ["test_forward.py", "test_accuracy.py", "test_layouts.py"]
        tests = [str(Path(__file__).parent / f) for f in files]
        result = subprocess.run(
            [sys.executable, *words, *tests],
            env={**os.environ, "LIEROPE_ISA": isa, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, f"{isa}:\n{result.stdout[-3000:]}"
