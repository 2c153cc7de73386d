"""Setuptools' commands for wheels: what goes in, and the oldest Linux that the result runs on.

LIEROPE_WHEEL=cpu leaves the CUDA library out and marks the version with +cpu; LIEROPE_WHEEL=cuda
wants it in; without either a wheel takes it along where `make cuda` has built it.
"""

import os
import platform
import re
import shutil
import subprocess
from pathlib import Path

import setuptools
from setuptools.command.build_py import build_py
from setuptools.command.egg_info import egg_info

try:
    from setuptools.command.bdist_wheel import bdist_wheel
except ImportError as error:
    raise SystemExit(
        f"lierope: setuptools must be 77 or newer, got {setuptools.__version__}: "
        "run pip install -U setuptools"
    ) from error

VARIANT = os.environ.get("LIEROPE_WHEEL", "")
if VARIANT not in {"", "cpu", "cuda"}:
    raise SystemExit(f"lierope: LIEROPE_WHEEL must be cpu, cuda or not set, got {VARIANT}")
CUDA_LIBRARY = "liblierope_cuda.so"
# Libraries that every Linux of a manylinux tag has (PEP 600), and torch's, which come with torch.
GIVEN = re.compile(
    r"(lib(c|m|dl|rt|pthread|stdc\+\+|gcc_s)|ld-linux-x86-64|ld-linux-aarch64)\.so\.\d+"
    r"|lib(torch|c10)(_cpu|_cuda)?\.so"
)
# The newest GLIBCXX, CXXABI and GCC symbols of the tags manylinux_2_XX (auditwheel's policies).
FAMILIES = ("GLIBCXX", "CXXABI", "GCC")
NEWEST = {
    17: ((3, 4, 19), (1, 3, 7), (4, 8, 0)),
    24: ((3, 4, 22), (1, 3, 10), (4, 8, 0)),
    27: ((3, 4, 24), (1, 3, 11), (7, 0, 0)),
    31: ((3, 4, 28), (1, 3, 12), (7, 0, 0)),
    34: ((3, 4, 29), (1, 3, 13), (7, 0, 0)),
    35: ((3, 4, 30), (1, 3, 13), (12, 0, 0)),
    39: ((3, 4, 33), (1, 3, 15), (14, 0, 0)),
}


def oldest_libc(library: Path) -> int:
    """Minor version of the GNU libc 2.x that the manylinux tag of a library names.

    Raises:
        SystemExit: It needs a library that is not on every Linux, or one by its folder, or symbols
            that no tag allows.
    """
    command = ["readelf", "--wide", "--dynamic", "--version-info", str(library)]
    try:
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except FileNotFoundError as error:
        raise SystemExit("lierope: no readelf to tag the wheel with: install binutils") from error
    foreign = [n for n in re.findall(r"\(NEEDED\).*\[(.+)\]", told) if not GIVEN.fullmatch(n)]
    foreign += ["a folder of its own to look in"] if re.search(r"\((RPATH|RUNPATH)\)", told) else []
    if foreign:
        names = ", ".join(foreign)
        raise SystemExit(f"lierope: {library.name} must need libc and torch alone, got {names}")
    needed: dict[str, tuple[int, ...]] = dict.fromkeys(("GLIBC", *FAMILIES), (0,))
    for family, text in re.findall(r"Name: (GLIBC|GLIBCXX|CXXABI|GCC)_([\d.]+)\s", told):
        needed[family] = max(needed[family], tuple(int(x) for x in text.split(".")))
    for libc, newest in NEWEST.items():
        if all(needed[family] <= most for family, most in zip(FAMILIES, newest, strict=True)):
            return max(libc, needed["GLIBC"][1])
    raise SystemExit(
        f"lierope: {library.name} needs symbols that no manylinux tag allows: {needed}"
    )


class LibraryData(build_py):
    """Takes compiled libraries along as data, but for the CUDA one in a wheel without it."""

    def find_data_files(self, package: str, src_dir: str) -> list[str]:
        """Leave out what the variant leaves out."""
        found: list[str] = super().find_data_files(package, src_dir)
        return [f for f in found if VARIANT != "cpu" or Path(f).name != CUDA_LIBRARY]


class Version(egg_info):
    """Marks the version of a wheel without CUDA, so that no index takes it for the other."""

    def finalize_options(self) -> None:
        """Set the local version, whatever an sdist's setup.cfg says."""
        if VARIANT == "cpu":
            self.tag_build = "+cpu"
        super().finalize_options()


class Wheel(bdist_wheel):
    """One wheel for every Python and for every torch from 2.11 on: the libraries hold neither."""

    def run(self) -> None:
        """Start from an empty folder: setuptools would pack what an earlier build left there."""
        if not self.distribution.have_run.get("build"):
            build = self.get_finalized_command("build")
            shutil.rmtree(build.build_lib, ignore_errors=True)
        super().run()

    def get_tag(self) -> tuple[str, str, str]:
        """Tag py3-none-manylinux_2_XX, by what the packed libraries need."""
        plain: str = super().get_tag()[2]
        libraries = sorted(Path(self.bdist_dir).rglob("*.so"))
        gnu = platform.libc_ver()[0] == "glibc" and plain.startswith("linux_")
        if self.plat_name_supplied or not gnu or not libraries:  # an editable one packs none
            return "py3", "none", plain
        if VARIANT == "cuda" and not any(path.name == CUDA_LIBRARY for path in libraries):
            raise SystemExit("lierope: LIEROPE_WHEEL=cuda needs the CUDA library: run make cuda")
        libc = max(oldest_libc(path) for path in libraries)
        return "py3", "none", f"manylinux_2_{libc}_{plain.removeprefix('linux_')}"


COMMANDS = {"build_py": LibraryData, "egg_info": Version, "bdist_wheel": Wheel}
