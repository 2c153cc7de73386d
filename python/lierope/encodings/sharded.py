"""Drawing initial values where parameters are spread over processes (DTensor)."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def on_whole_parameters(reset: Callable[[Any], None]) -> Callable[[Any], None]:
    """Let a `reset_parameters` that knows plain tensors fill sharded ones: rank 0's draw counts.

    An encoding draws its heads and axes together (an orthonormal frame, a random pattern), which
    no rank can do from its own part.
    """

    @functools.wraps(reset)
    def wrapped(module: nn.Module) -> None:
        tensor: Any = sys.modules.get("torch.distributed.tensor")
        own = module._parameters.items()
        split = {n: p for n, p in own if tensor is not None and isinstance(p, tensor.DTensor)}
        if not split or next(iter(split.values())).is_meta:
            reset(module)
            return
        _reset_split(module, reset, split)

    return wrapped


@torch.no_grad()
def _reset_split(module: nn.Module, reset: Callable[[Any], None], split: dict[str, Any]) -> None:
    from torch.distributed.tensor import distribute_tensor  # noqa: PLC0415

    for name, shards in split.items():
        whole = torch.empty(shards.shape, dtype=shards.dtype, device=shards.to_local().device)
        module._parameters[name] = nn.Parameter(whole)
    try:
        reset(module)
        drawn = {name: module.get_parameter(name).detach() for name in split}
    finally:
        module._parameters.update(split)
    for name, shards in split.items():
        shards.copy_(distribute_tensor(drawn[name], shards.device_mesh, shards.placements))
    mesh = next(iter(split.values())).device_mesh
    for buffer in module._buffers.values():
        if buffer is not None:
            _take_first(buffer, mesh)


def _take_first(buffer: Tensor, mesh: Any) -> None:
    """Rank 0's values in every rank's buffer."""
    from torch.distributed.tensor import Replicate, distribute_tensor  # noqa: PLC0415

    buffer.copy_(distribute_tensor(buffer, mesh, [Replicate()] * mesh.ndim).to_local())
