"""Rotations kept from one evaluation to the next, while generators and positions stay the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad


class RotationCache:
    """The rotations of one grid, or nothing; one object for an encoding.

    On a CPU the generators and positions that came are compared with those kept by value, which
    costs microseconds. On other devices looking would stall them: there the same memory, unchanged
    by PyTorch's version counter, counts as the same (writing through `.data` escapes that counter;
    `train()` and `eval()` empty the cache).

    Threads may share it: an entry is replaced whole.
    """

    def __init__(self) -> None:
        self._entry: tuple[Tag, Tag, Tensor] | None = None

    def get(
        self, generators: Tensor, positions: Tensor, make: Callable[[Tensor, Tensor], Tensor]
    ) -> Tensor:
        """make(generators, positions), from memory where both are what they were."""
        entry = self._entry
        if entry is not None and entry[0].fits(generators) and entry[1].fits(positions):
            return entry[2]
        with torch.inference_mode(False), torch.no_grad():
            tags = Tag(generators, generators.is_cpu), Tag(positions, positions.is_cpu)
            rotations = make(generators, positions)
        self._entry = (*tags, rotations)
        return rotations

    def clear(self) -> None:
        """Forget, and free the memory."""
        self._entry = None

    def __deepcopy__(self, memo: dict[int, Any]) -> RotationCache:
        return RotationCache()

    def __getstate__(self) -> dict[str, Any]:
        return {"_entry": None}


class Tag:
    """Recognises a tensor: by value, or by memory and version."""

    def __init__(self, tensor: Tensor, by_value: bool) -> None:
        self.by_value = by_value
        # Held, so that no other tensor can come to lie at the same address.
        self.kept = tensor.detach().clone() if by_value else tensor.detach()
        self.version = tensor._version

    def fits(self, tensor: Tensor) -> bool:
        """Whether this is the tensor it was made of, unchanged."""
        kept = self.kept
        if (tensor.shape, tensor.dtype, tensor.device) != (kept.shape, kept.dtype, kept.device):
            return False
        if self.by_value:
            return torch.equal(tensor, kept)
        same_memory = tensor.data_ptr() == kept.data_ptr() and tensor.stride() == kept.stride()
        return same_memory and tensor._version == self.version


def may_keep(generators: Tensor, positions: Tensor) -> bool:
    """Whether both are plain tensors of which no derivative is wanted and no graph is made."""
    if (
        torch.compiler.is_compiling()
        or torch._C._get_tracing_state()
        or forward_ad._current_level >= 0
    ):
        return False
    if torch.is_grad_enabled() and (generators.requires_grad or positions.requires_grad):
        return False
    if torch._C._are_functorch_transforms_active() or torch._C._len_torch_dispatch_stack():
        return False
    if torch.is_inference(generators) or torch.is_inference(positions):
        return False  # they have no version
    if generators.is_cuda and torch.cuda.is_current_stream_capturing():
        return False
    return all(type(t) in (Tensor, torch.nn.Parameter) for t in (generators, positions))
