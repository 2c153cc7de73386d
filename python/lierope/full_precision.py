"""Float32 or better: modules whose parameters stay in it, computations that autocast passes by."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp import is_autocast_available

FULL_PRECISION = (torch.float32, torch.float64)


class FullPrecision(nn.Module):
    """Ignores .half() and .bfloat16(); .float(), .double() and moves between devices work.

    An angle is a position times a frequency and then wraps around: in bfloat16 (8 bits) an angle
    of 100 radians is off by up to 0.25, so frequencies and generators are never kept in half types.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        def full(tensor: Tensor) -> Tensor:
            applied = fn(tensor)
            narrowed = applied.is_floating_point() and applied.dtype not in FULL_PRECISION
            if narrowed and tensor.dtype in FULL_PRECISION:
                return tensor.to(applied.device)
            return applied

        return super()._apply(full, recurse)  # type: ignore[no-untyped-call]


def parameter_dtype(owner: str, dtype: torch.dtype | None) -> torch.dtype:
    """The type to make parameters in: dtype, or torch's default where that is full precision.

    Raises:
        TypeError: dtype is neither float32 nor float64.
    """
    if dtype is None:
        default = torch.get_default_dtype()
        return default if default in FULL_PRECISION else torch.float32
    if dtype not in FULL_PRECISION:
        raise TypeError(f"{owner}: dtype must be torch.float32 or torch.float64, got {dtype}")
    return dtype


def without_autocast(x: Tensor) -> AbstractContextManager[object]:
    """A context in which products on x's device keep their types, not autocast's 8 bits."""
    device = x.device.type  # some, such as meta, have no autocast
    return torch.autocast(device, enabled=False) if is_autocast_available(device) else nullcontext()
