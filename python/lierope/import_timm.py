"""Import timm, also where torchvision was built for another torch (CUDA build on a CPU).

A torchvision from the package registry is built for the CUDA torch. On a CPU torch its library
cannot be loaded, and ``import torchvision`` then stops at "operator torchvision::nms does not
exist", because it registers shape rules for operators that nobody declared. Declaring the two
schemas is enough: transforms, models, data sets and timm work; ``nms`` itself stays unavailable.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import torch

__all__ = ["timm"]

_EXTRA = "pip install 'lierope[train]'"
_SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def _torchvision_folder() -> Path:
    spec = importlib.util.find_spec("torchvision")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(f"lierope.timm: timm needs torchvision, which is missing; {_EXTRA}")
    return Path(next(iter(spec.submodule_search_locations)))


def _has_own_operators(folder: Path) -> bool:
    """Whether torchvision's library loads here; loading it twice is harmless."""
    for library in (*folder.glob("_C*.so"), *folder.glob("_C*.pyd"), *folder.glob("_C*.dylib")):
        try:
            torch.ops.load_library(str(library))
        except OSError:
            continue
        return True
    return False


def _declare_missing_operators() -> Any:
    if _has_own_operators(_torchvision_folder()):
        return None
    fragment: Any = torch.library.Library
    library = fragment("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        # Somebody else may have mended this process already: a second definition would raise.
        if not hasattr(torch.ops.torchvision, name):
            library.define(name + _SIGNATURE)
    return library


# The declarations live as long as this object does.
_declared = _declare_missing_operators()

try:
    import timm
except ImportError as error:
    raise ImportError(f"lierope.timm: timm cannot be imported ({error}); {_EXTRA}") from error
