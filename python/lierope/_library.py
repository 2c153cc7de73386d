"""Loads the compiled library, once, and says what it is."""

import ctypes
import hashlib
import os
from pathlib import Path
from typing import NamedTuple, NoReturn

import torch

PACKAGE = Path(__file__).resolve().parent
CPU_LIBRARY = PACKAGE / "liblierope_cpu.so"
CUDA_LIBRARY = PACKAGE / "liblierope_cuda.so"
# The tests name another one, in which CUDA's kernels run on the CPU.
LIBRARY = Path(os.environ.get("LIEROPE_LIBRARY") or CPU_LIBRARY)
COMMANDS = {
    "cpu": "make build (or: pip install --no-build-isolation --no-deps -e .)",
    "cuda": "make cuda",
    "emulated": "make test-emulated",
}
SOURCES = {
    "cpu": ("csrc",),
    "cuda": ("csrc", "cuda"),
    "emulated": ("csrc", "cuda", "tests/emulation"),
}


class BuildInfo(NamedTuple):
    """What the loaded library was built from and what it runs with.

    Attributes:
        version: Version of lierope.
        instruction_set: Kernels chosen at load: "avx512", "avx2" or "baseline". The environment
            variable LIEROPE_ISA forces a lower one. "emulated" where LIEROPE_LIBRARY names the
            library of the tests in which CUDA's kernels run on the CPU.
        compiler: Compiler of the library.
        source_hash: Digest of the C++ sources.
        library: Path of the library.
        torch: Version of torch it is loaded into.
        cuda: Path of the library of CUDA kernels; None where torch has no CUDA or `make cuda` was
            not run.

    Example:
        >>> isinstance(lierope.build_info(), lierope.BuildInfo)
        True
    """

    version: str
    instruction_set: str
    compiler: str
    source_hash: str
    library: str
    torch: str
    cuda: str | None


def _source_hash(library: str) -> str | None:
    """Digest of a library's sources as setup.py computes it; None where there are none."""
    root = PACKAGE.parents[1]
    if not (root / "csrc" / "library.cpp").exists():  # an installed wheel
        return None
    digest = hashlib.sha256()
    for folder in SOURCES[library]:
        for path in sorted((root / folder).rglob("*")):
            if path.suffix in {".h", ".cpp", ".cuh", ".cu"}:
                name = path.relative_to(root).as_posix()
                digest.update(name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def _check_sources(library: ctypes.CDLL, which: str) -> str:
    """Raise ImportError when the library was made from other sources; returns their digest."""
    library.lierope_source_hash.restype = ctypes.c_char_p
    built_from: str = library.lierope_source_hash().decode()
    allowed = os.environ.get("LIEROPE_ALLOW_STALE") == "1"  # while several people edit csrc/
    if _source_hash(which) not in {None, built_from} and not allowed:
        what = {"cpu": "compiled", "cuda": "CUDA", "emulated": "emulated"}[which]
        folders = " and ".join(f"{folder}/" for folder in SOURCES[which])
        raise ImportError(
            f"lierope: the {what} library is older than {folders}: run {COMMANDS[which]}"
        )
    return built_from


def _load() -> tuple[str, str, str]:
    """Load the library into torch; returns source hash, instruction set and compiler."""
    if tuple(int(x) for x in torch.__version__.split(".")[:2]) < (2, 11):
        raise ImportError(f"lierope: torch must be 2.11 or newer, got {torch.__version__}")
    if not LIBRARY.exists():
        where = "" if LIBRARY == CPU_LIBRARY else f" {LIBRARY} of LIEROPE_LIBRARY"
        raise ImportError(f"lierope: the compiled library{where} is missing: run {COMMANDS['cpu']}")
    library = ctypes.CDLL(str(LIBRARY))
    for name in ("lierope_instruction_set", "lierope_compiler"):
        getattr(library, name).restype = ctypes.c_char_p
    error = ctypes.create_string_buffer(512)
    chosen = library.lierope_instruction_set(error, len(error))
    if chosen is None:
        raise ImportError(f"lierope: {error.value.decode()}")
    built_from = _check_sources(library, "emulated" if chosen == b"emulated" else "cpu")
    torch.ops.load_library(str(LIBRARY))
    return built_from, chosen.decode(), library.lierope_compiler().decode()


def _explain_missing_cuda() -> torch.library.Library:
    """Let every operator say, when it meets CUDA tensors, what is missing."""
    registrations = torch.library.Library("lierope", "IMPL")
    installed = _source_hash("cuda") is None
    remedy = "this wheel holds none (docs/install.md)" if installed else f"run {COMMANDS['cuda']}"

    def explain(*_: object, **__: object) -> NoReturn:
        raise RuntimeError(f"lierope: no CUDA kernels: {remedy}")

    for name in torch._C._dispatch_get_all_op_names():
        if name.startswith("lierope::"):
            registrations.impl(name, explain, "CUDA")
    return registrations


def _load_cuda() -> Path | None:
    """Load the CUDA kernels where torch has CUDA; returns their library."""
    if torch.version.cuda is None:
        return None
    if not CUDA_LIBRARY.exists():
        _KEPT.append(_explain_missing_cuda())
        return None
    _check_sources(ctypes.CDLL(str(CUDA_LIBRARY)), "cuda")
    torch.ops.load_library(str(CUDA_LIBRARY))
    return CUDA_LIBRARY


_KEPT: list[torch.library.Library] = []  # registrations live as long as these
_SOURCE_HASH, _INSTRUCTION_SET, _COMPILER = _load()
_CUDA_LIBRARY = _load_cuda()


def circulant_block_sizes() -> frozenset[int]:
    """Block sizes whose real FFT the library's kernels hold."""
    library = ctypes.CDLL(str(LIBRARY))
    return frozenset(b for b in range(1, 4097) if library.lierope_circulant_block_supported(b))


def build_info() -> BuildInfo:
    """Say which library is loaded, what it was built from and which kernels this processor runs.

    Example:
        >>> lierope.build_info().instruction_set in ("avx512", "avx2", "baseline", "emulated")
        True
    """
    from lierope import __version__  # noqa: PLC0415 (the package imports this module first)

    return BuildInfo(
        __version__,
        _INSTRUCTION_SET,
        _COMPILER,
        _SOURCE_HASH,
        str(LIBRARY),
        torch.__version__,
        str(_CUDA_LIBRARY) if _CUDA_LIBRARY else None,
    )
