"""Builds the libraries against LibTorch's stable ABI; pyproject.toml holds everything else.

LIEROPE_BUILD names one: cpu (the default), cuda (needs nvcc, but neither a GPU nor a CUDA torch) or
emulated (CUDA's kernels on the CPU, for tests).
"""

import hashlib
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / "tools" / "wheels"))
from lierope_backend import find_torch, is_new_enough  # noqa: E402
from lierope_wheel import COMMANDS, CUDA_LIBRARY, VARIANT  # noqa: E402

CSRC, CUDA = ROOT / "csrc", ROOT / "cuda"
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
SANITIZE_SETS = os.environ.get("LIEROPE_SANITIZE_SETS", " ".join(INSTRUCTION_SETS)).split()
COVERAGE = bool(os.environ.get("LIEROPE_COVERAGE"))
ARCHITECTURES = os.environ.get("LIEROPE_CUDA_ARCHITECTURES", "80 90 100").split()
NVCC_FLAGS = shlex.split(
    "-std=c++20 -O3 --expt-relaxed-constexpr -Werror all-warnings -Xptxas -v "
    "-Xcompiler -fPIC,-fvisibility=hidden,-Wall,-Wextra,-Wno-unknown-pragmas"
)
# What each library is made from; python/lierope/_library.py tells a stale one by it.
SOURCES = {
    "cpu": ["csrc"],
    "cuda": ["csrc", "cuda"],
    "emulated": ["csrc", "cuda", "tests/emulation"],
}
NAMES = {
    "cpu": "lierope.liblierope_cpu",
    "cuda": "lierope.liblierope_cuda",
    "emulated": "liblierope_emulated",
}
WHICH = os.environ.get("LIEROPE_BUILD", "cpu")
if WHICH not in NAMES:
    raise SystemExit(f"lierope: LIEROPE_BUILD must be cpu, cuda or emulated, got {WHICH}")

Job = tuple[Path, Path, list[str]]  # source, object, command


def source_hash(which: str) -> str:
    """Digest of the sources of a library."""
    digest = hashlib.sha256()
    for folder in SOURCES[which]:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in {".h", ".cpp", ".cuh", ".cu"}:
                name = path.relative_to(ROOT).as_posix()
                digest.update(name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def torch_flags() -> tuple[list[str], Path]:
    """Flags for LibTorch's stable ABI, version 2.11, and the folder of its libraries."""
    found = find_torch()
    if found is None:
        raise SystemExit("lierope: no torch to build against: run pip install 'torch>=2.11'")
    folder, version = found
    if not is_new_enough(version):
        raise SystemExit(f"lierope: torch must be 2.11 or newer, got {version}")
    includes = [folder / "include", folder / "include/torch/csrc/api/include"]
    target = ["-DTORCH_TARGET_VERSION=0x020b000000000000", "-DTORCH_STABLE_ONLY"]
    return [flag for path in includes for flag in ("-isystem", str(path))] + target, folder / "lib"


def find_nvcc() -> str:
    """CUDA's compiler: of CUDA_HOME, of CUDA_PATH, on PATH, or in its usual folder."""
    folders = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH")]
    candidates = [f"{folder}/bin/nvcc" for folder in folders if folder]
    candidates += [shutil.which("nvcc") or "", "/usr/local/cuda/bin/nvcc"]
    for path in candidates:
        if path and os.access(path, os.X_OK):
            return path
    raise SystemExit("lierope: no nvcc: put it on PATH, or name the toolkit's folder in CUDA_HOME")


def toolkit() -> tuple[str, Path]:
    """CUDA's compiler and the toolkit's folder, which is asked of it: it may be a script."""
    nvcc, source = find_nvcc(), next(iter(sorted(CUDA.glob("*.cu"))))
    dry = [nvcc, "--dryrun", "-c", str(source), "-o", os.devnull]
    told = subprocess.run(dry, capture_output=True, text=True, check=False)
    top = re.search(r"^#\$ TOP=(.*)$", told.stderr, re.MULTILINE)
    if top is None:
        raise SystemExit(f"lierope: {nvcc} does not say where its toolkit is: {told.stderr[-300:]}")
    return nvcc, Path(top[1])


def gencode() -> list[str]:
    """Machine code for each architecture, and PTX of the last for those to come."""
    flags = [f"-gencode=arch=compute_{a},code=sm_{a}" for a in ARCHITECTURES]
    return [*flags, f"-gencode=arch=compute_{ARCHITECTURES[-1]},code=compute_{ARCHITECTURES[-1]}"]


def cpu_sources() -> list[tuple[Path, str, list[str]]]:
    """(source, name, compiler and flags) of the CPU library."""
    torch_include, _ = torch_flags()
    result = []
    for source in sorted(CSRC.rglob("*.cpp")):
        name = source.relative_to(CSRC).with_suffix("").as_posix().replace("/", "_")
        if source.parent == CSRC / "cpu":  # kernels know nothing of torch
            for isa, flags in INSTRUCTION_SETS.items():
                compiler = [*CXX, *FLAGS, *flags, f"-DLIEROPE_ISA={isa}"]
                result.append((source, f"{name}.{isa}", compiler))
        else:
            result.append((source, name, [*CXX, *FLAGS, *torch_include]))
    return result


def cuda_sources() -> list[tuple[Path, str, list[str]]]:
    """The same of the CUDA library or of its emulation: operators, table and kernels."""
    torch_include, _ = torch_flags()
    host = [*CXX, *FLAGS, *torch_include, "-DLIEROPE_CUDA"]
    if WHICH == "emulated":
        # g++ does not see that what is guarded by a thread's index is written.
        host += ["-O2", "-march=x86-64-v3", "-Wno-maybe-uninitialized", "-Wno-uninitialized"]
        host += ["-DLIEROPE_EMULATED", "-DLIEROPE_ISA=emulated"]
        device = [*host, "-x", "c++"]
    else:
        nvcc, top = toolkit()
        host = [*host, "-DUSE_CUDA", "-isystem", str(top / "include")]
        device = [nvcc, *NVCC_FLAGS, *gencode()]
    operators = [*sorted((CSRC / "ops").glob("*.cpp")), CSRC / "build_info.cpp", CSRC / "pages.cpp"]
    schemas = [CSRC / "library.cpp"] if WHICH == "emulated" else []
    result = [(source, source.stem, host) for source in [*operators, *schemas, CUDA / "table.cpp"]]
    # The longest first, so that none is left alone at the end.
    kernels = sorted(CUDA.glob("*.cu"), key=lambda p: -p.with_suffix(".cuh").stat().st_size)
    return [(source, f"kernels_{source.stem}", device) for source in kernels] + result


def instrumentation(source: Path) -> list[str]:
    """Flags of sanitizers and of gcov."""
    if COVERAGE:
        return ["--coverage", "-O1"]
    if not SANITIZE:
        return []
    # Unrolled kernels with a branch for each check of a fuzzer's build would compile for an hour.
    kernel = source.parent == CSRC / "cpu" and "fuzzer" in SANITIZE
    # -O1: instrumented code at -O3 takes minutes a file; clang unrolls less there than is asked.
    flags = ["-fno-omit-frame-pointer", "-g1", "-O1", "-Wno-pass-failed"]
    return [f"-fsanitize={'address' if kernel else SANITIZE}", *flags]


def compilations(objects: Path) -> list[Job]:
    """Every command of the library that LIEROPE_BUILD names."""
    result = []
    for source, name, compiler in cpu_sources() if WHICH == "cpu" else cuda_sources():
        # Kernels that are not to be instrumented are those of the usual build.
        plain = source.parent == CSRC / "cpu" and name.rpartition(".")[2] not in SANITIZE_SETS
        output = (ROOT / "build" / "objects" if plain else objects) / f"{name}.o"
        command = [*compiler, *([] if plain else instrumentation(source))]
        if source.name == "build_info.cpp":
            command.append(f'-DLIEROPE_SOURCE_HASH="{source_hash(WHICH)}"')
        command += ["-MMD", "-MF", str(output.with_suffix(".d"))]
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


def run(command: list[str], log: Path | None = None) -> None:
    """Run the compiler; its own messages, kept in `log` when that is given, say what is wrong."""
    try:
        done = subprocess.run(command, check=False, stderr=subprocess.PIPE if log else None)
    except FileNotFoundError as error:
        raise SystemExit(
            f"lierope: no compiler {command[0]!r}: install g++ 11 or newer, or name one in CXX"
        ) from error
    if log:
        log.write_bytes(done.stderr)
    if done.returncode != 0:
        sys.stderr.write(done.stderr.decode() if log else "")
        raise SystemExit(f"lierope: this command failed: {shlex.join(command)}")


def compile_one(output: Path, command: list[str]) -> None:
    """Compile one object unless it is fresh; nvcc's report of registers goes into a log."""
    if is_fresh(output, command):
        return
    run(command, output.with_suffix(".log") if "-Xptxas" in command else None)
    output.with_suffix(".cmd").write_text(shlex.join(command))


def link(jobs: list[Job], target: Path) -> None:
    """Link all objects into a shared library."""
    sanitize = [f"-fsanitize={SANITIZE}"] if SANITIZE else ["--coverage"] if COVERAGE else []
    _, libraries = torch_flags()
    words = [*CXX, "-shared", *sanitize, *[str(o) for _, o, _ in jobs], "-o", f"{target}.new"]
    words += [f"-L{libraries}", "-ltorch_cpu"]
    if WHICH == "cuda":
        # Empty libraries stand for torch's CUDA ones, which need not be here; by --no-as-needed
        # the real ones are loaded with ours. The runtime is linked in.
        stubs, (_, top) = ROOT / "build" / "stubs", toolkit()
        stubs.mkdir(parents=True, exist_ok=True)
        for name in ("libtorch_cuda.so", "libc10_cuda.so"):
            empty = ["-shared", "-x", "c", os.devnull, f"-Wl,-soname,{name}"]
            run([*CXX, *empty, "-o", str(stubs / name)])
        words += [f"-L{stubs}", "-Wl,--no-as-needed", "-ltorch_cuda", "-lc10_cuda"]
        words += ["-Wl,--as-needed", f"-L{top}/lib64", f"-L{top}/targets/x86_64-linux/lib"]
        words += ["-lcudart_static", "-ldl", "-lrt", "-lpthread", "-Wl,--exclude-libs,ALL"]
    elif not SANITIZE:  # clang keeps the sanitizers' own functions in the executable
        words.append("-Wl,--no-undefined")
    run(words)
    os.replace(f"{target}.new", target)  # a running process keeps the old one


def check_cuda_library(package: Path) -> None:
    """A package takes the CUDA library along where one was built; it must be of these sources."""
    library = package / CUDA_LIBRARY
    if VARIANT == "cpu" or not library.exists():
        return
    if source_hash("cuda").encode() not in library.read_bytes():
        raise SystemExit(
            f"lierope: {library} is older than its sources: run make cuda, or remove it"
        )


class BuildLibrary(build_ext):
    """Compiles a shared library that holds no Python, by default lierope/liblierope_cpu.so."""

    def finalize_options(self) -> None:
        """Remember whether a package is made: setuptools forgets it while it builds."""
        super().finalize_options()
        self.packaged = not self.inplace

    def get_ext_filename(self, fullname: str) -> str:
        """Path of the library inside the package."""
        return os.path.join(*fullname.split(".")) + ".so"

    def build_extension(self, ext: Extension) -> None:
        """Compile what is not fresh, in parallel, and link."""
        suffix = SANITIZE.replace(",", "_") + ("coverage" if COVERAGE else "")
        suffix += "" if WHICH == "cpu" else f"_{WHICH}"
        objects = ROOT / "build" / ("objects" + suffix)
        objects.mkdir(parents=True, exist_ok=True)
        jobs = compilations(objects)
        if WHICH == "cpu":
            found = [{"directory": str(ROOT), "file": str(s), "arguments": c} for s, _, c in jobs]
            (ROOT / "compile_commands.json").write_text(json.dumps(found, indent=1))
            if self.packaged and not SANITIZE and not COVERAGE:
                check_cuda_library(ROOT / "python" / "lierope")
        workers = int(os.environ.get("MAX_JOBS", os.cpu_count() or 1))
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(lambda job: compile_one(job[1], job[2]), jobs))
        target = Path(self.get_ext_fullpath(ext.name))
        target.parent.mkdir(parents=True, exist_ok=True)
        link(jobs, target)


setup(
    ext_modules=[Extension(NAMES[WHICH], sources=[])],
    cmdclass={"build_ext": BuildLibrary, **COMMANDS},
)
