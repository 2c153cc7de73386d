"""Builds the CPU library against LibTorch's stable ABI; pyproject.toml holds everything else."""

import hashlib
import json
import os
import platform
import shlex
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import setuptools
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

try:
    from setuptools.command.bdist_wheel import bdist_wheel
except ImportError as error:
    raise SystemExit(
        f"lierope: setuptools must be 77 or newer, got {setuptools.__version__}: "
        "run pip install -U setuptools"
    ) from error

ROOT = Path(__file__).resolve().parent
CSRC = ROOT / "csrc"
CXX = shlex.split(os.environ.get("CXX", "g++"))
FLAGS = shlex.split(
    "-std=c++20 -O3 -g0 -fPIC -fvisibility=hidden -ffp-contract=fast -fno-math-errno "
    "-fno-trapping-math -Wall -Wextra -Wshadow -Werror -Wno-psabi"
)
# The kernels (csrc/cpu) are compiled once for each; csrc/kernels.cpp chooses at load time.
X86_SETS = {
    "baseline": ["-march=x86-64"],
    "avx2": ["-march=x86-64-v3"],
    "avx512": ["-march=x86-64-v4", "-mprefer-vector-width=512"],
}
INSTRUCTION_SETS = X86_SETS if platform.machine() == "x86_64" else {"baseline": []}
SANITIZE = os.environ.get("LIEROPE_SANITIZE", "")  # for example "address,undefined"


def source_hash() -> str:
    """Digest of csrc/, by which python/lierope/_library.py tells a stale library."""
    digest = hashlib.sha256()
    for path in sorted(CSRC.rglob("*")):
        if path.suffix in {".h", ".cpp"}:
            digest.update(path.relative_to(CSRC).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def torch_flags() -> tuple[list[str], Path]:
    """Flags for LibTorch's stable ABI, version 2.11, and the folder of its libraries."""
    import torch  # noqa: PLC0415 (only a build needs it)

    if tuple(int(x) for x in torch.__version__.split(".")[:2]) < (2, 11):
        raise SystemExit(f"lierope: torch must be 2.11 or newer, got {torch.__version__}")
    folder = Path(torch.__file__).parent
    includes = [folder / "include", folder / "include/torch/csrc/api/include"]
    target = ["-DTORCH_TARGET_VERSION=0x020b000000000000", "-DTORCH_STABLE_ONLY"]
    return [flag for path in includes for flag in ("-isystem", str(path))] + target, folder / "lib"


def compilations(objects: Path) -> list[tuple[Path, Path, list[str]]]:
    """Every (source, object, command line)."""
    torch_include, _ = torch_flags()
    # -O1: instrumented code at -O3 takes minutes a file.
    instrument = [f"-fsanitize={SANITIZE}", "-fno-omit-frame-pointer", "-g1", "-O1"]
    sanitize = instrument if SANITIZE else []
    result = []
    for source in sorted(CSRC.rglob("*.cpp")):
        name = source.relative_to(CSRC).with_suffix("").as_posix().replace("/", "_")
        if source.parent == CSRC / "cpu":  # kernels know nothing of torch
            variants = {f"{name}.{isa}": [*flags, f"-DLIEROPE_ISA={isa}"]
                        for isa, flags in INSTRUCTION_SETS.items()}  # fmt: skip
        else:
            variants = {name: torch_include}
        if source.name == "build_info.cpp":
            variants = {name: [f'-DLIEROPE_SOURCE_HASH="{source_hash()}"']}
        for stem, extra in variants.items():
            output = objects / f"{stem}.o"
            depends = ["-MMD", "-MF", str(output.with_suffix(".d"))]
            command = [*CXX, *FLAGS, *sanitize, *extra, *depends]
            result.append((source, output, [*command, "-c", str(source), "-o", str(output)]))
    return result


def is_fresh(output: Path, command: list[str]) -> bool:
    """Whether the object is newer than all it was made from, and was made by this command."""
    record, depends = output.with_suffix(".cmd"), output.with_suffix(".d")
    if not (output.exists() and record.exists() and depends.exists()):
        return False
    names = shlex.split(depends.read_text().replace("\\\n", " ").split(":", 1)[1])
    made = output.stat().st_mtime
    paths = [Path(name) for name in names]
    return record.read_text() == shlex.join(command) and all(
        path.exists() and path.stat().st_mtime <= made for path in paths
    )


def run(command: list[str]) -> None:
    """Run the compiler; its own messages say what is wrong."""
    try:
        failed = subprocess.run(command, check=False).returncode != 0
    except FileNotFoundError as error:
        raise SystemExit(
            f"lierope: no compiler {command[0]!r}: install g++ 11 or newer, or name one in CXX"
        ) from error
    if failed:
        raise SystemExit(f"lierope: this command failed: {shlex.join(command)}")


def compile_one(output: Path, command: list[str]) -> None:
    """Compile one object unless it is fresh."""
    if is_fresh(output, command):
        return
    run(command)
    output.with_suffix(".cmd").write_text(shlex.join(command))


class BuildLibrary(build_ext):
    """Compiles csrc/ into lierope/liblierope_cpu.so, a shared library that holds no Python."""

    def get_ext_filename(self, fullname: str) -> str:
        """Path of the library inside the package."""
        return os.path.join(*fullname.split(".")) + ".so"

    def build_extension(self, ext: Extension) -> None:
        """Compile what is not fresh, in parallel, and link."""
        objects = ROOT / "build" / ("objects" + SANITIZE.replace(",", "_"))
        objects.mkdir(parents=True, exist_ok=True)
        jobs = compilations(objects)
        commands = [{"directory": str(ROOT), "file": str(s), "arguments": c} for s, _, c in jobs]
        (ROOT / "compile_commands.json").write_text(json.dumps(commands, indent=1))
        workers = int(os.environ.get("MAX_JOBS", os.cpu_count() or 1))
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(lambda job: compile_one(job[1], job[2]), jobs))
        target = Path(self.get_ext_fullpath(ext.name))
        target.parent.mkdir(parents=True, exist_ok=True)
        sanitize = [f"-fsanitize={SANITIZE}"] if SANITIZE else []
        _, libraries = torch_flags()
        link = [*CXX, "-shared", *sanitize, *[str(o) for _, o, _ in jobs], "-o", f"{target}.new"]
        run([*link, f"-L{libraries}", "-ltorch_cpu", "-Wl,--no-undefined"])
        os.replace(f"{target}.new", target)  # a running process keeps the old one


class Wheel(bdist_wheel):
    """One wheel serves every Python: the library holds none."""

    def get_tag(self) -> tuple[str, str, str]:
        """Tag py3-none-<platform>."""
        return "py3", "none", super().get_tag()[2]


setup(
    ext_modules=[Extension("lierope.liblierope_cpu", sources=[])],
    cmdclass={"build_ext": BuildLibrary, "bdist_wheel": Wheel},
)
