"""Loads the compiled library, once, and says what it is."""

import ctypes
import hashlib
import os
from pathlib import Path
from typing import NamedTuple

import torch

PACKAGE = Path(__file__).resolve().parent
LIBRARY = PACKAGE / "liblierope_cpu.so"
COMMAND = "make build (or: pip install --no-build-isolation --no-deps -e .)"


class BuildInfo(NamedTuple):
    """What the loaded library was built from and what it runs with.

    Attributes:
        version: Version of lierope.
        instruction_set: Kernels chosen at load: "avx512", "avx2" or "baseline". The environment
            variable LIEROPE_ISA forces a lower one.
        compiler: Compiler of the library.
        source_hash: Digest of the C++ sources.
        library: Path of the library.
        torch: Version of torch it is loaded into.
    """

    version: str
    instruction_set: str
    compiler: str
    source_hash: str
    library: str
    torch: str


def _source_hash() -> str | None:
    """Digest of csrc/ as setup.py computes it; None where there is none (an installed wheel)."""
    csrc = PACKAGE.parents[1] / "csrc"
    if not (csrc / "library.cpp").exists():
        return None
    digest = hashlib.sha256()
    for path in sorted(csrc.rglob("*")):
        if path.suffix in {".h", ".cpp"}:
            digest.update(path.relative_to(csrc).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def _load() -> tuple[str, str, str]:
    """Load the library into torch; returns source hash, instruction set and compiler."""
    if tuple(int(x) for x in torch.__version__.split(".")[:2]) < (2, 11):
        raise ImportError(f"lierope: torch must be 2.11 or newer, got {torch.__version__}")
    if not LIBRARY.exists():
        raise ImportError(f"lierope: the compiled library is missing: run {COMMAND}")
    library = ctypes.CDLL(str(LIBRARY))
    for name in ("lierope_source_hash", "lierope_instruction_set", "lierope_compiler"):
        getattr(library, name).restype = ctypes.c_char_p
    built_from = library.lierope_source_hash().decode()
    sources = _source_hash()
    allowed = os.environ.get("LIEROPE_ALLOW_STALE") == "1"  # while several people edit csrc/
    if sources is not None and sources != built_from and not allowed:
        raise ImportError(f"lierope: the compiled library is older than csrc/: run {COMMAND}")
    error = ctypes.create_string_buffer(512)
    chosen = library.lierope_instruction_set(error, len(error))
    if chosen is None:
        raise ImportError(f"lierope: {error.value.decode()}")
    torch.ops.load_library(str(LIBRARY))
    return built_from, chosen.decode(), library.lierope_compiler().decode()


_SOURCE_HASH, _INSTRUCTION_SET, _COMPILER = _load()


def circulant_block_sizes() -> frozenset[int]:
    """Block sizes whose real FFT the library's kernels hold."""
    library = ctypes.CDLL(str(LIBRARY))
    return frozenset(b for b in range(1, 4097) if library.lierope_circulant_block_supported(b))


def build_info() -> BuildInfo:
    """Say which library is loaded, what it was built from and which kernels this processor runs."""
    from lierope import __version__  # noqa: PLC0415 (the package imports this module first)

    return BuildInfo(
        __version__, _INSTRUCTION_SET, _COMPILER, _SOURCE_HASH, str(LIBRARY), torch.__version__
    )
