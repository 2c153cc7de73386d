"""What two processes do in test_distributed.py; each case returns numbers one process must match.

A case is called in every process with its rank and the number of processes, 1 for the reference.
"""

from __future__ import annotations

import contextlib
import json
import traceback
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    set_model_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    parallelize_module,
)
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

import lierope
from cases import KERNELS, OpCase, outputs
from lierope.distributed import HeadParallel, fully_shard_encodings
from lierope.swap import encodings_of, swap
from tiny_models import EVA, eva, images, vit

Make = Callable[..., nn.Module]
Case = Callable[[int, int, Path], list[float]]

_STEPS, _BATCH = 3, 4
_EVEN = {"embed_dim": 32, "num_heads": 4}
_LABELS = torch.tensor([0, 3, 1, 4])


def swapped(encoding: str, kind: Make = vit, **words: Any) -> nn.Module:
    torch.manual_seed(0)  # encodings draw too
    model = swap(kind(**_EVEN), encoding, **words).double().train()
    for module in encodings_of(model).values():
        skew = getattr(module, "skew", None)
        if skew is not None:
            nn.init.normal_(skew, std=0.3)
    return model


def mean(loss: Tensor, size: int) -> float:
    total = loss.detach().clone()
    if size > 1:
        dist.all_reduce(total)
    return float(total) / size


def train(model: nn.Module, rank: int, size: int, *, split: bool = True) -> list[float]:
    """Losses of a few steps; with `split`, each process takes its part of the batch."""
    optimizer = torch.optim.AdamW(lierope.param_groups(model, lr=1e-2, lr_scale=2.0), eps=1e-3)
    part = slice(rank * _BATCH // size, (rank + 1) * _BATCH // size) if split else slice(None)
    x, y = images(_BATCH).double()[part], _LABELS[part]
    losses = []
    for _ in range(_STEPS):
        loss = cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(mean(loss, size))
    return losses


def data_parallel(encoding: str, words: dict[str, Any], rank: int, size: int, _: Path) -> Any:
    model = swapped(encoding, **words)
    model.set_grad_checkpointing("share" in words)
    return train(model if size == 1 else DistributedDataParallel(model), rank, size)


def shard(model: nn.Module, size: int, *, apart: bool = False, **words: Any) -> nn.Module:
    mesh = init_device_mesh("cpu", (size,))
    if apart:
        fully_shard_encodings(model, mesh=mesh)
    for block in model.blocks:
        fully_shard(block, mesh=mesh, **words)
    return fully_shard(model, mesh=mesh, **words)


def from_meta(encoding: str, apart: bool, kind: Make, rank: int, size: int, _: Path) -> list[float]:
    """Built without memory, sharded, filled with the weights that rank 0 has, trained."""
    whole = swapped(encoding, kind)
    if size == 1:
        return train(whole, rank, size)
    with torch.device("meta"):
        model = shard(swapped(encoding, kind), size, apart=apart)
    model.to_empty(device="cpu")
    model.set_grad_checkpointing(apart)
    options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
    weights = whole.state_dict() if rank == 0 else {}
    set_model_state_dict(model, weights, options=options)
    return train(model, rank, size)


def materialised(encoding: str, rank: int, size: int, _: Path) -> list[float]:
    """What reset_parameters draws into shards is what it draws into one process's tensors."""
    torch.manual_seed(0)
    with torch.device("meta"):
        model = swap(vit(**_EVEN), encoding).double()
    if size > 1:
        shard(model, size)
    model.to_empty(device="cpu")
    torch.manual_seed(5 + rank)  # rank 0's draw counts
    for module in encodings_of(model).values():
        for buffer in module.buffers():
            buffer.zero_()
        module.reset_parameters()
    found = [t for m in encodings_of(model).values() for t in (*m.parameters(), *m.buffers())]
    whole = [t.full_tensor() if isinstance(t, DTensor) else t for t in found]
    weights = [torch.arange(1.0, t.numel() + 1).sin().double() for t in whole]
    return [
        mean((t.detach().flatten() * w).sum(), size) for t, w in zip(whole, weights, strict=True)
    ]


def initialised(rank: int, size: int, _: Path) -> list[float]:
    """What timm's init_weights fills, a model of shards with encodings, trains."""
    torch.manual_seed(0)
    with torch.device("meta"):
        model = swap(vit(**_EVEN), "cayley").double().train()
    if size > 1:
        shard(model, size)
    model.to_empty(device="cpu")
    for parameter in model.parameters():
        nn.init.constant_(parameter, torch.nan)
    model.init_weights()
    losses = train(model, rank, size)
    assert all(0.5 < loss < 5 for loss in losses), losses
    return [0.0]


def sparse(rank: int, size: int, _: Path) -> list[float]:
    """Proximal steps on sharded generators: zeros, their number and the sum of the norms."""
    model = swapped("liere:4", init="small")
    if size > 1:
        shard(model, size)
    lasso = lierope.GroupLasso(model, 1.0, stop=3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.003)
    losses = []
    for _ in range(5):
        loss = model(images(_BATCH).double()).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        lasso.step(0.003)
        made = lasso.sparsity(), lasso.value()
        numbers = [x.full_tensor() if isinstance(x, DTensor) else x for x in made]
        losses += [mean(loss, size), *(float(x) for x in numbers)]
    return losses


def half_weights(encoding: str, rank: int, size: int, _: Path) -> list[float]:
    """FSDP's mixed precision leaves encodings alone, as model.bfloat16() does."""
    torch.manual_seed(0)
    model = swap(vit(**_EVEN), encoding)
    x = images(_BATCH).bfloat16()
    part = slice(rank * _BATCH // size, (rank + 1) * _BATCH // size)
    if size == 1:
        model.bfloat16()
    else:
        shard(model, size, apart=True, mp_policy=MixedPrecisionPolicy(torch.bfloat16))
    loss = model(x[part]).float().square().mean()
    loss.backward()
    gradients = [p.grad for e in encodings_of(model).values() for p in e.parameters()]
    assert all(g is not None and g.dtype == torch.float32 for g in gradients)
    return [mean(loss, size)]


def half_frequencies(rank: int, size: int, _: Path) -> list[float]:
    """Frequencies gathered in bfloat16 are an error, for every encoding."""
    refused = 0
    for encoding in (*FAMILY, "comrope-ld:4") if size > 1 else ():
        model = swap(vit(**_EVEN), encoding)
        shard(model, size, mp_policy=MixedPrecisionPolicy(torch.bfloat16))
        try:
            model(images(1).bfloat16())
        except TypeError as error:
            refused += "parameters must be float32 or float64, got torch.bfloat16" in str(error)
    return [float(refused if size > 1 else len(FAMILY) + 1)]


def heads(encoding: str, kind: Make, words: dict[str, Any], rank: int, size: int, _: Path) -> Any:
    """Tensor parallel over heads (and the MLP's features); every process sees the whole batch."""
    model = swapped(encoding, kind, **words)
    model.set_grad_checkpointing("share" in words)
    if size > 1:
        split_heads(model, size)
    return train(model, rank, size, split=False)


def heads_within_shards(rank: int, size: int, _: Path) -> list[float]:
    """A mesh of two dimensions: FSDP2 along one (here of one process), heads along the other."""
    model = swapped("cayley")
    if size > 1:
        mesh = init_device_mesh("cpu", (1, size), mesh_dim_names=("data", "heads"))
        parallelize_module(model, mesh["heads"], {"blocks.*.attn": HeadParallel()})
        for block in model.blocks:
            fully_shard(block, mesh=mesh["data"])
        fully_shard(model, mesh=mesh["data"])
    return train(model, rank, size, split=False)


def split_heads(model: nn.Module, size: int) -> None:
    mesh = init_device_mesh("cpu", (size,))
    plan: dict[str, Any] = {"blocks.*.attn": HeadParallel()}
    if type(model.blocks[0].mlp).__name__ == "Mlp":  # a packed gated one splits otherwise
        plan |= {"blocks.*.mlp.fc1": ColwiseParallel(), "blocks.*.mlp.fc2": RowwiseParallel()}
    parallelize_module(model, mesh, plan)


def checkpoint(kind: str, rank: int, size: int, folder: Path) -> list[float]:
    """Saved by two processes, loaded by two others ways, and by one (see the test)."""
    model = swapped("cayley")
    expected = train(model, rank, size, split=False)
    if size == 1:
        return [*expected, *expected]
    split = shard if kind == "fsdp" else split_heads
    model = swapped("cayley")
    split(model, size)
    losses = train(model, rank, size, split=False)
    assert losses
    dcp.save({"model": get_model_state_dict(model)}, checkpoint_id=folder / kind)
    again = swap(vit(**_EVEN), "cayley").double().train()
    (split_heads if kind == "fsdp" else shard)(again, size)
    state = {"model": get_model_state_dict(again)}
    dcp.load(state, checkpoint_id=folder / kind)
    set_model_state_dict(again, state["model"])
    x, whole = (
        images(_BATCH).double(),
        get_model_state_dict(model, options=StateDictOptions(full_state_dict=True)),
    )
    torch.testing.assert_close(again.eval()(x), model.eval()(x))
    if rank == 0:
        torch.save(whole, folder / f"{kind}.pt")
    return [*losses, *losses]


def operators(rank: int, size: int, _: Path) -> list[float]:
    """Operators on tensors split by sample, by head, or not at all: outputs and gradients."""
    for case in KERNELS if size > 1 else ():
        plain = [x.requires_grad_() for x in case.inputs(torch.float64)]
        expected = _results(case, plain)
        for axis in (0, 1, None):
            spread = _spread(plain, axis, size)
            found = _results(case, spread)
            for y, e in zip(found, expected, strict=True):
                torch.testing.assert_close(y.full_tensor(), e, msg=lambda m, c=case: f"{c}: {m}")
            if "rotate" in case.name and axis == 0:
                assert found[0].placements == (Shard(0),), f"{case} gathers its samples"
    return [0.0]


def _results(case: OpCase, inputs: list[Tensor]) -> list[Any]:
    made = outputs(case.function(*inputs))
    gradients = torch.autograd.grad([y.sin().sum() for y in made], inputs)
    return [*made, *gradients]


def _spread(inputs: list[Tensor], axis: int | None, size: int) -> list[DTensor]:
    """Tensors of heads and tokens split along an axis; the operator must see to the others."""
    mesh = init_device_mesh("cpu", (size,))
    spread = []
    for x in inputs:
        fits = axis is not None and x.dim() == 4 and x.shape[axis] % size == 0
        placement = Shard(axis) if fits and axis is not None else Replicate()
        spread.append(distribute_tensor(x.detach(), mesh, [placement]).requires_grad_())
    return spread


FAMILY = ("mixed", "liere:4", "cayley", "circulant:4")
CASES_OF_TWO: dict[str, Case] = {
    **{f"ddp {e}": partial(data_parallel, e, {}) for e in FAMILY},
    "ddp shared": partial(data_parallel, "cayley", {"share": "layers"}),
    **{f"fsdp {e}": partial(from_meta, e, False, vit) for e in FAMILY},
    "fsdp apart": partial(from_meta, "cayley", True, vit),
    "fsdp apart, qk norm": partial(from_meta, "cayley", True, partial(vit, qk_norm=True)),
    **{f"reset {e}": partial(materialised, e) for e in (*FAMILY, "cayley:sparse=0.3")},
    "reset axial": partial(materialised, "axial:learned=True"),
    "reset comrope": partial(materialised, "comrope-ld:4"),
    "init_weights": initialised,
    **{f"half {e}": partial(half_weights, e) for e in FAMILY},
    "half frequencies": half_frequencies,
    **{f"heads {e}": partial(heads, e, vit, {}) for e in FAMILY},
    "heads comrope": partial(heads, "comrope-ld:4", vit, {}),
    "heads harope": partial(heads, "harope", vit, {}),
    "sparse": sparse,
    "heads within shards": heads_within_shards,
    "heads shared": partial(heads, "cayley", vit, {"share": "all"}),
    "heads layers": partial(heads, "liere:4", vit, {"share": "layers"}),
    "heads qk norm": partial(heads, "cayley", partial(vit, qk_norm=True), {}),
    "heads eva": partial(heads, "cayley", partial(eva, scale_mlp=False), {}),
    "heads separate bias": partial(heads, "mixed", EVA["separate bias"], {}),
    "heads grouped": partial(heads, "cayley", partial(EVA["grouped queries"], num_kv_heads=2), {}),
    "checkpoint fsdp": partial(checkpoint, "fsdp"),
    "checkpoint heads": partial(checkpoint, "heads"),
    "operators": operators,
}


def run_two(rank: int, folder: str) -> None:
    """Every case in one of two processes; rank 0 writes what came out."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meeting",
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=30),
    )
    found: dict[str, Any] = {}
    for name, case in CASES_OF_TWO.items():
        try:
            found[name] = case(rank, 2, Path(folder))
        except BaseException:  # a checkpoint's errors are no Exceptions; the test shows it
            found[name] = traceback.format_exc()
        (Path(folder) / f"{rank}.json").write_text(json.dumps(found))
    with contextlib.suppress(RuntimeError):
        dist.destroy_process_group()
