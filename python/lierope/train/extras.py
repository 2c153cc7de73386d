"""Imports the optional libraries of the command line late, and says how to get a missing one."""

from __future__ import annotations

import importlib
from types import ModuleType

from lierope.train.errors import InputError, one_line


def extra(name: str) -> ModuleType:
    """Imports a module of the `train` extra by its dotted name."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        package = (error.name or name).split(".")[0]
        if package == "lierope":
            raise
        raise InputError(
            f'lierope needs {package} for this: pip install "lierope[train]"'
        ) from None


def timm() -> ModuleType:
    """timm, importable also beside a CPU-only torch (see lierope.timm)."""
    try:
        importlib.import_module("lierope.timm")
    except ImportError as error:
        raise InputError(one_line(error)) from None
    return extra("timm")
