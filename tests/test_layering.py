"""The house keeps its laws: includes and imports point one way, files are small."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "python" / "lierope"
CSRC = sorted(p for p in (ROOT / "csrc").rglob("*") if p.suffix in {".h", ".cpp"})
CUDA = sorted(
    p for d in ("cuda", "tests/emulation") for p in (ROOT / d).rglob("*") if p.suffix != ".o"
)
PYTHON = sorted(
    p for d in ("python", "tests", "benchmarks", "tools") for p in (ROOT / d).rglob("*.py")
)
BY_NAME = lambda p: p.relative_to(ROOT).as_posix()  # noqa: E731

# A room of csrc/ and the rooms it may include from; "" is csrc/ itself.
MAY_INCLUDE = {
    "math": {"math"},
    "params": {"params"},
    "cpu": {"cpu", "math", "params", ""},
    "ops": {"ops", "params", ""},
    "": {"params", "math", ""},
}
# A room of the package and the rooms it may import from.
MAY_IMPORT = {
    "_library": {""},
    "ops": {"ops", "_library"},
    "reference": {"reference"},
    "choice": {"choice"},
    "full_precision": {"full_precision"},
    "positions": {"positions", "choice", "full_precision"},
    "encodings": {"encodings", "ops", "positions", "choice", "full_precision"},
    "diagnostics": {"diagnostics", "encodings", "ops", "positions", "choice", "full_precision"},
    "conversion": {"conversion", "encodings"},
    "export": {"export", "encodings", "ops"},
    "param_groups": {"param_groups", "encodings", "timm"},
    "regularizers": {"regularizers", "encodings"},
    "compact": {"compact", "encodings", "swap"},
    "import_timm": {"import_timm"},
    "timm": {"import_timm", "swap"},
    "swap": {"swap", "encodings", "ops", "positions", "import_timm", "choice", "full_precision"},
    "distributed": {"distributed", "swap", "encodings", "ops"},
}


def _room(path: Path) -> str:
    parts = path.relative_to(ROOT / "csrc").parts
    return parts[0] if len(parts) > 1 else ""


@pytest.mark.parametrize("path", CSRC, ids=BY_NAME)
def test_includes_point_down(path: Path) -> None:
    text = path.read_text()
    for name in re.findall(r'#include "([^"]+)"', text):
        target = (path.parent / name).resolve()
        assert target.exists(), f"{name} is not there"
        assert _room(target) in MAY_INCLUDE[_room(path)], f"{name} points up"
    if _room(path) in {"math", "params", "cpu"}:
        assert "<torch" not in text, "kernels know nothing of torch"


@pytest.mark.parametrize("path", CUDA, ids=BY_NAME)
def test_cuda_kernels_know_nothing_of_torch(path: Path) -> None:
    text = path.read_text()
    assert "<torch" not in text
    allowed = {"cuda", "tests/emulation", "csrc/math", "csrc/params"}
    if path.name == "table.cpp":
        allowed.add("csrc")
    for name in re.findall(r'#include "([^"]+)"', text):
        target = (path.parent / name).resolve()
        assert target.exists(), f"{name} is not there"
        assert target.parent.relative_to(ROOT).as_posix() in allowed, f"{name} points up"


def _imports(path: Path) -> set[str]:
    """Rooms of lierope that a module imports."""
    rooms: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
            if node.module == "lierope":
                names = [f"lierope.{a.name}" for a in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "lierope":
                rooms.add(parts[1] if len(parts) > 1 and parts[1] != "__version__" else "")
    return rooms


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=BY_NAME)
def test_imports_point_down(path: Path) -> None:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    if parts[0] in MAY_IMPORT:
        assert _imports(path) <= MAY_IMPORT[parts[0]]
    if parts[0] != "reference":
        assert "reference" not in _imports(path) or parts[0] in {"train"}


@pytest.mark.parametrize("path", [*CSRC, *CUDA, *PYTHON], ids=BY_NAME)
def test_files_are_small_and_say_their_job(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert len(lines) <= (450 if path.parent.name == "tests" else 320)
    assert lines, "an empty file has no job"
    assert re.match(r'^(//|"""|r""")', lines[0]), f"first line: {lines[0]!r}"
    assert not re.search(r"(utils|helpers|common|_v\d|optimized)", path.stem)


def test_every_schema_has_a_kernel_and_a_fake() -> None:
    import torch  # noqa: PLC0415

    import lierope  # noqa: F401, PLC0415

    names = re.findall(r'"(\w+)\(Tensor', (ROOT / "csrc" / "library.cpp").read_text())
    assert names
    for name in names:
        assert torch._C._dispatch_has_kernel_for_dispatch_key(f"lierope::{name}", "CPU")
        assert torch._C._dispatch_has_kernel_for_dispatch_key(f"lierope::{name}", "Meta") or (
            torch._library.simple_registry.singleton.find(f"lierope::{name}").fake_impl.kernel
        )


def test_kernel_table_lists_every_operator() -> None:
    schemas = set(re.findall(r'"(\w+)\(Tensor', (ROOT / "csrc" / "library.cpp").read_text()))
    table = set(re.findall(r"Kernel<\w+> (\w+);", (ROOT / "csrc" / "kernels.h").read_text()))
    assert table == schemas
    launchers = re.findall(r"\.(\w+) = \{cuda::(\w+)", (ROOT / "cuda" / "table.cpp").read_text())
    assert {name for name, _ in launchers} == schemas
    assert all(name == launcher for name, launcher in launchers)
