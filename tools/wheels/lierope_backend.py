"""Setuptools' build backend, which asks for a torch of its own only where there is none.

A build needs torch's headers, and one library to link with. pip builds in an environment of its own
and would fetch a second torch of some gigabytes into it, though the user has one beside it; this
backend finds that one. Which torch it is makes no difference to what is built: the library keeps to
the stable ABI of torch 2.11.
"""

import re
import sys
import sysconfig
from importlib.machinery import PathFinder
from pathlib import Path

from setuptools import build_meta
from setuptools.build_meta import (  # noqa: F401 (hooks that stay as they are)
    build_editable,
    build_sdist,
    build_wheel,
    get_requires_for_build_sdist,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)

OLDEST = (2, 11)


def find_torch() -> tuple[Path, str] | None:
    """Folder and version of the first torch of the build's or the interpreter's own packages."""
    own = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    found = PathFinder.find_spec("torch", [*sys.path, *own])
    if found is None or found.origin is None:
        return None
    folder = Path(found.origin).parent
    version = re.search(r"__version__ = '([^']+)'", (folder / "version.py").read_text())
    return (folder, version[1]) if version else None


def is_new_enough(version: str) -> bool:
    """Whether this version of torch has the stable ABI that lierope is built against."""
    return tuple(int(x) for x in version.split(".")[:2]) >= OLDEST


def _torch() -> list[str]:
    found = find_torch()
    return [] if found and is_new_enough(found[1]) else ["torch>=2.11"]


def get_requires_for_build_wheel(config_settings: dict[str, str] | None = None) -> list[str]:
    """What pip must fetch to build a wheel."""
    return [*build_meta.get_requires_for_build_wheel(config_settings), *_torch()]


def get_requires_for_build_editable(config_settings: dict[str, str] | None = None) -> list[str]:
    """What pip must fetch for an editable install."""
    return [*build_meta.get_requires_for_build_editable(config_settings), *_torch()]
