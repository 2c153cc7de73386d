"""What wheels and sdists hold, how they are tagged, and what stands beside them."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path
from types import ModuleType

import pytest
from setuptools import Distribution

import lierope
from lierope import _library

ROOT = Path(__file__).resolve().parents[1]
OBJECTS = ROOT / "build" / "objects"
MODULES = {
    path.relative_to(ROOT / "python").as_posix()
    for path in (ROOT / "python" / "lierope").rglob("*.py")
}
compiler = pytest.mark.skipif(not shutil.which("g++"), reason="needs a compiler")


def _setup(work: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run setup.py beside others that run: all it makes, but for objects, is in `work`."""
    command = [sys.executable, "setup.py", "-q", "egg_info", "--egg-base", str(work), *words]
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("LIEROPE_")}
    return subprocess.run(
        command,
        cwd=ROOT,
        env={**inherited, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def _wheel(work: Path, variant: str) -> Path:
    if not list(OBJECTS.glob("*.o")):
        pytest.skip("nothing was built here: a wheel would compile for minutes")
    work.mkdir()
    base = ["build", "--build-base", str(work / "build")]
    words = ["bdist_wheel", "--bdist-dir", str(work / "bdist"), "--dist-dir", str(work / "dist")]
    done = _setup(work, *base, *words, LIEROPE_WHEEL=variant)
    if "is older than its sources" in done.stderr:
        pytest.skip("the CUDA library here is old, and is refused")
    assert done.returncode == 0, done.stderr
    (wheel,) = (work / "dist").iterdir()
    return wheel


def _read(wheel: Path) -> tuple[set[str], Message, Message]:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        folder = next(name.split("/")[0] for name in names if ".dist-info/" in name)
        texts = [archive.read(f"{folder}/{name}").decode() for name in ("METADATA", "WHEEL")]
    metadata, tags = (Parser().parsestr(text) for text in texts)
    return {name for name in names if not name.startswith(folder)}, metadata, tags


@pytest.mark.parametrize("variant", ["", "cpu"])
def test_a_wheel(variant: str, tmp_path: Path) -> None:
    wheel = _wheel(tmp_path / "work", variant)
    names, metadata, tags = _read(wheel)
    cuda = _library.CUDA_LIBRARY.exists() and variant != "cpu"
    libraries = {"lierope/liblierope_cpu.so", *["lierope/liblierope_cuda.so"] * cuda}
    assert names == {*MODULES, *libraries, "lierope/py.typed"}
    assert metadata["Version"] == lierope.__version__ + ("+cpu" if variant else "")
    assert metadata["License-Expression"] == "Apache-2.0"
    required = [r for r in metadata.get_all("Requires-Dist", []) if "extra ==" not in r]
    assert required == ["torch>=2.11"]
    pattern = rf"lierope-{re.escape(metadata['Version'])}-(py3-none-manylinux_2_\d+_\w+)\.whl"
    match = re.fullmatch(pattern, wheel.name)
    assert match, wheel.name
    assert tags.get_all("Tag") == [match[1]]
    assert tags["Root-Is-Purelib"] == "false"
    pytest.importorskip("auditwheel")
    show = [sys.executable, "-m", "auditwheel", "show", str(wheel)]
    told = subprocess.run(show, capture_output=True, text=True, check=True).stdout
    assert match[1].removeprefix("py3-none-") in told


def test_an_sdist(tmp_path: Path) -> None:
    done = _setup(tmp_path, "sdist", "--dist-dir", str(tmp_path))
    assert done.returncode == 0, done.stderr
    with tarfile.open(tmp_path / f"lierope-{lierope.__version__}.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    top = tmp_path / f"lierope-{lierope.__version__}"
    found = {path.relative_to(top).as_posix() for path in top.rglob("*") if path.is_file()}
    for folder in ("csrc", "cuda", "tests/emulation", "tests/cpp", "tools/wheels"):
        paths = [p for p in (ROOT / folder).rglob("*") if p.suffix not in {"", ".pyc"}]
        assert {path.relative_to(ROOT).as_posix() for path in paths} <= found, folder
    assert {f"python/{name}" for name in MODULES} <= found
    assert {"setup.py", "pyproject.toml", "LICENSE", "README.md", "Makefile"} <= found
    assert not [name for name in found if name.endswith((".so", ".o", ".pyc"))]


def _module(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "tools" / "wheels"))
    monkeypatch.delenv("LIEROPE_WHEEL", raising=False)
    return __import__(name)


@compiler
@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["-lz"], r"lib\w+\.so must need libc and torch alone, got libz\.so\.1"),
        (
            ["-Wl,-rpath,/opt"],
            r"must need libc and torch alone, got a folder of its own to look in",
        ),
    ],
    ids=["library", "rpath"],
)
def test_a_library_that_runs_here_alone(
    words: list[str], text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = tmp_path / "libown.so"
    command = ["g++", "-shared", "-x", "c", os.devnull, "-Wl,--no-as-needed", "-o", str(library)]
    if subprocess.run([*command, *words], check=False).returncode != 0:
        pytest.skip("no such library here")
    with pytest.raises(SystemExit, match=text):
        _module("lierope_wheel", monkeypatch).oldest_libc(library)


def test_a_cuda_wheel_without_its_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = _module("lierope_wheel", monkeypatch)
    monkeypatch.setattr(module, "VARIANT", "cuda")
    command = module.Wheel(Distribution({"ext_modules": [object()]}))
    command.bdist_dir, command.plat_name_supplied = str(tmp_path), False
    command.plat_name, command.root_is_pure = "linux_x86_64", False
    command.py_limited_api, command.build_number = False, None
    shutil.copy(_library.CPU_LIBRARY, tmp_path)
    with pytest.raises(
        SystemExit, match="LIEROPE_WHEEL=cuda needs the CUDA library: run make cuda"
    ):
        command.get_tag()


def test_a_variant_that_is_none(tmp_path: Path) -> None:
    done = _setup(tmp_path, LIEROPE_WHEEL="gpu")
    assert done.returncode != 0
    assert "lierope: LIEROPE_WHEEL must be cpu, cuda or not set, got gpu" in done.stderr


def test_a_build_asks_for_torch_only_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = _module("lierope_backend", monkeypatch)
    for hook in (backend.get_requires_for_build_wheel, backend.get_requires_for_build_editable):
        assert hook() == []
        for found in (None, (ROOT, "2.10.1")):
            with monkeypatch.context() as patch:
                patch.setattr(backend, "find_torch", lambda found=found: found)
                assert hook() == ["torch>=2.11"]


def test_a_build_beside_an_old_torch(tmp_path: Path) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").touch()
    (tmp_path / "torch" / "version.py").write_text("__version__ = '2.10.1+cpu'\n")
    done = _setup(tmp_path, "build_ext", PYTHONPATH=str(tmp_path))
    assert done.returncode != 0
    assert done.stderr == "lierope: torch must be 2.11 or newer, got 2.10.1+cpu\n"


def _python(code: str, folder: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def test_an_import_beside_an_old_torch() -> None:
    code = "import torch; torch.__version__ = '2.10.1+cu128'; import lierope"
    last = _python(code, ROOT / "python").splitlines()[-1]
    assert last == "ImportError: lierope: torch must be 2.11 or newer, got 2.10.1+cu128"


def test_a_wheel_without_cuda_says_so(tmp_path: Path) -> None:
    ignored = shutil.ignore_patterns("__pycache__", "*_cuda.so")
    shutil.copytree(ROOT / "python" / "lierope", tmp_path / "lierope", ignore=ignored)
    code = (
        "import torch, lierope\n"
        "kept = lierope._library._explain_missing_cuda()\n"
        "cuda = torch._C.DispatchKeySet(torch._C.DispatchKey.CUDA)\n"
        "torch.ops.lierope.expm_skew.default.redispatch(cuda, torch.zeros(2, 2))\n"
    )
    last = _python(code, tmp_path).splitlines()[-1]
    assert last == (
        "RuntimeError: lierope: no CUDA kernels: this wheel holds none (docs/install.md)"
    )
