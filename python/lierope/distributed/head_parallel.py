"""Tensor parallelism over heads: each process has some heads of an attention and their turns."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import (
    DTensor,
    Partial,
    Placement,
    Replicate,
    Shard,
    distribute_tensor,
)
from torch.distributed.tensor.parallel import ParallelStyle
from torch.distributed.tensor.placement_types import _StridedShard

from lierope.encodings import Encoding
from lierope.swap.attention import SwappedAttention

_HEADS_AXIS = {
    "skew": 0,
    "skew_u": 0,
    "skew_v": 0,
    "log_scales": 0,
    "generators": 1,
    "frequencies": 1,
    "coefficients": 1,
    "multipliers": 1,
}
_BY_ROWS = ("q_proj", "k_proj", "v_proj", "gate", "q_bias", "v_bias")


class HeadParallel(ParallelStyle):
    """Splits an attention of a swapped timm model over its heads, for torch's `parallelize_module`.

    For example::

        plan = {"blocks.*.attn": lierope.distributed.HeadParallel(),
                "blocks.*.mlp.fc1": ColwiseParallel(), "blocks.*.mlp.fc2": RowwiseParallel()}
        parallelize_module(model, mesh["tp"], plan)

    Rank r of n computes heads r H/n to (r + 1) H/n - 1: W_q, W_k and W_v by rows (a fused qkv keeps
    its name and order), W_o by columns; generators, frequencies and bases by head. Tokens come in
    and go out whole on every rank, for one sum over the ranks in each direction. Parameters become
    DTensors of their full shapes. A state dict holds the whole qkv on every rank, because its rows
    lie apart, and so it loads into a model that is not split, or split otherwise; but
    `torch.distributed.checkpoint` refuses the optimiser's moments of a fused qkv. `num_heads` of
    the attention and of its encoding are then the rank's own.

    Every rank must get the same input and, for dropout, the same random state; the weights of rank
    0 are taken.

    Raises:
        TypeError: The module is no such attention.
        ValueError: Heads that the ranks do not divide, or a norm over the features of all heads.
    """

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        attention = _checked(module, device_mesh)
        placements = _placements(attention)
        for name, placement in placements.items():
            holder, leaf = _holder(attention, name)
            old = holder._parameters[leaf]
            # An encoding that layers share has been split with the first of them.
            if old is not None and not isinstance(old, DTensor):
                split = _split(old.detach(), device_mesh, placement)
                holder._parameters[leaf] = nn.Parameter(split, old.requires_grad)
        if attention.k_bias is not None:
            rank = device_mesh.get_local_rank()
            attention.k_bias = attention.k_bias.chunk(device_mesh.size())[rank].clone()
        _count_own_heads(attention, device_mesh.size())
        untyped: Any = attention
        untyped.register_state_dict_post_hook(_whole_qkv)
        untyped.register_load_state_dict_pre_hook(_own_rows)
        exchange = _Exchange(device_mesh, list(placements))
        attention.register_forward_pre_hook(exchange.enter)
        attention.register_forward_hook(exchange.leave, always_call=True)
        return attention


class _Exchange:
    """Lets an attention compute on its rank's tensors, and sums what the ranks computed."""

    def __init__(self, mesh: DeviceMesh, names: list[str]) -> None:
        self.mesh = mesh
        self.names = names
        self.whole: dict[str, nn.Parameter] = {}

    def enter(self, attention: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Forward pre-hook: parameters become local tensors, the input's gradient a sum."""
        for name in self.names:
            holder, leaf = _holder(attention, name)
            parameter = holder._parameters[leaf]
            if isinstance(parameter, DTensor):
                self.whole[name] = parameter
                holder._parameters[leaf] = self._local(name, parameter)
        return (self._summed_gradient(args[0]), *args[1:])

    def leave(self, attention: nn.Module, args: tuple[Any, ...], out: Any) -> Any:
        """Forward hook, run after an error too: parameters are whole again, outputs summed."""
        for name, parameter in self.whole.items():
            holder, leaf = _holder(attention, name)
            holder._parameters[leaf] = parameter
        self.whole = {}
        if not isinstance(out, Tensor):
            return out  # forward raised
        partial = DTensor.from_local(out, self.mesh, [Partial()], run_check=False)
        return partial.redistribute(placements=[Replicate()]).to_local()

    def _local(self, name: str, parameter: DTensor) -> Tensor:
        local = parameter.to_local()
        if parameter.placements[0].is_replicate():
            local = self._summed_gradient(local)
            if name == "proj.bias":  # outputs are summed: one rank adds it
                local = local if self.mesh.get_local_rank() == 0 else local * 0
        return local

    def _summed_gradient(self, x: Tensor) -> Tensor:
        """X itself, whose gradient is the sum of the ranks'."""
        whole = DTensor.from_local(x, self.mesh, [Replicate()], run_check=False)
        local: Tensor = whole.to_local(grad_placements=[Partial()])
        return local


def _checked(module: nn.Module, mesh: DeviceMesh) -> SwappedAttention:
    from lierope.swap.timm_attention import TimmAttention  # noqa: PLC0415

    if not isinstance(module, TimmAttention):
        raise TypeError(
            "HeadParallel: module must be an attention of a swapped timm model, "
            f"got {type(module).__name__}"
        )
    for name in ("num_heads", "num_kv_heads"):
        heads = getattr(module, name)
        if heads % mesh.size():
            raise ValueError(
                f"HeadParallel: the ranks must divide {name}, got {mesh.size()} and {heads}"
            )
    if not isinstance(module.norm, nn.Identity):
        raise ValueError(
            "HeadParallel: attention must have no norm over the features of all heads, "
            f"got {type(module.norm).__name__}"
        )
    return module


def _placements(attention: SwappedAttention) -> dict[str, Placement]:
    """How each parameter of an attention is split, by name."""
    placements: dict[str, Placement] = {}
    encodings = {id(p): m for m in attention.modules() if isinstance(m, Encoding)
                 for p in m.parameters(recurse=False)}  # fmt: skip
    for name, parameter in attention.named_parameters():
        part, _, leaf = name.partition(".")
        if id(parameter) in encodings:
            placements[name] = _of_encoding(encodings[id(parameter)], name)
        elif part == "qkv":
            # Three maps on one another: each rank takes its rows of each.
            placements[name] = _StridedShard(0, split_factor=3)
        elif part in _BY_ROWS:
            placements[name] = Shard(0)
        elif part == "proj" and leaf == "weight":
            placements[name] = Shard(1)
        else:  # norms of single heads, and what is added after the sum
            placements[name] = Replicate()
    return placements


def _of_encoding(encoding: Encoding, name: str) -> Placement:
    leaf = name.rpartition(".")[2]
    parameter, heads = encoding.get_parameter(leaf), encoding.parameter_heads
    if heads == 1 or isinstance(parameter, DTensor):
        return Replicate()  # of an encoding split before, the placement stays as it is
    axis = _HEADS_AXIS.get(leaf)
    if axis is None or parameter.ndim <= axis or parameter.shape[axis] != heads:
        raise ValueError(
            f"HeadParallel: {name} must be known to have {heads} heads, one of "
            f"{', '.join(_HEADS_AXIS)}, got shape {tuple(parameter.shape)}"
        )
    return Shard(axis)


def _split(whole: Tensor, mesh: DeviceMesh, placement: Placement) -> DTensor:
    if not isinstance(placement, _StridedShard):
        return distribute_tensor(whole, mesh, [placement])
    agreed = distribute_tensor(whole, mesh, [Replicate()]).to_local()
    rank, n = mesh.get_local_rank(), mesh.size()
    local = torch.cat([part.chunk(n)[rank] for part in agreed.chunk(int(placement.split_factor))])
    return DTensor.from_local(
        local, mesh, [placement], run_check=False, shape=whole.shape, stride=whole.stride()
    )


def _whole_qkv(
    attention: nn.Module, state_dict: dict[str, Any], prefix: str, _: dict[str, Any]
) -> None:
    """State dict hook: no checkpoint knows how to store rows that lie apart."""
    for key in (f"{prefix}qkv.weight", f"{prefix}qkv.bias"):
        rows = state_dict.get(key)
        if isinstance(rows, DTensor) and isinstance(rows.placements[0], _StridedShard):
            with torch.no_grad():
                state_dict[key] = rows.redistribute(placements=[Replicate()])


def _own_rows(attention: nn.Module, state_dict: dict[str, Any], prefix: str, *_: object) -> None:
    """Hook before loading: the other way."""
    for name in ("qkv.weight", "qkv.bias"):
        given = state_dict.get(prefix + name)
        if given is not None:
            holder, leaf = _holder(attention, name)
            own: Any = holder._parameters[leaf]
            whole = given.full_tensor() if isinstance(given, DTensor) else given
            state_dict[prefix + name] = _split(whole, own.device_mesh, own.placements[0])


def _count_own_heads(attention: SwappedAttention, ranks: int) -> None:
    encoding: Encoding = attention.encoding
    if encoding.num_heads == attention.num_heads:  # else done with another layer's attention
        encoding.num_heads //= ranks
        encoding.num_kv_heads //= ranks
        if encoding.parameter_heads > 1:
            encoding.parameter_heads //= ranks
    attention.num_heads //= ranks
    attention.num_kv_heads //= ranks


def _holder(attention: nn.Module, name: str) -> tuple[nn.Module, str]:
    path, _, leaf = name.rpartition(".")
    return attention.get_submodule(path), leaf
