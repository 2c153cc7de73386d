"""Imports the optional libraries of the command line late, and says how to get a missing one."""

from __future__ import annotations

import importlib
from types import ModuleType

from lierope.train.errors import InputError, one_line


def extra(name: str) -> ModuleType:
    """Imports a module of the `train` extra by its dotted name.

    Raises:
        InputError: it is not installed; the message says how to get it.
    """
    package = name.split(".", maxsplit=1)[0]
    try:
        if package in ("timm", "torchvision"):
            # A torchvision built for another torch cannot be imported without this.
            importlib.import_module("lierope.timm")
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = (error.name or package).split(".")[0]
        raise InputError(
            f'lierope needs {missing} for this: pip install "lierope[train]"'
        ) from None
    except ImportError as error:
        raise InputError(one_line(error)) from None
