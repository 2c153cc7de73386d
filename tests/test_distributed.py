"""Two processes train as one does: DDP, FSDP2, heads in parallel, distributed checkpoints."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.multiprocessing import spawn

from distributed_cases import CASES_OF_TWO, run_two, swapped
from lierope.distributed import HeadParallel, fully_shard_encodings
from lierope.distributed.sharding_rules import RULES
from lierope.encodings import create
from lierope.swap import swap
from tiny_models import PLAIN, vit


def test_two_processes_equal_one(tmp_path: Path) -> None:
    """One test, because the two processes take longer to start than to run."""
    context = spawn(run_two, (str(tmp_path),), nprocs=2, join=False)
    assert context is not None
    expected = {name: case(0, 1, tmp_path) for name, case in CASES_OF_TWO.items()}
    while not context.join():
        pass
    failures = []
    for rank in range(2):
        found: dict[str, Any] = json.loads((tmp_path / f"{rank}.json").read_text())
        assert found.keys() == expected.keys()
        for name, numbers in found.items():
            if isinstance(numbers, str):
                failures.append(f"{name}, process {rank}:\n{numbers}")
            elif numbers != pytest.approx(expected[name], rel=1e-6, abs=1e-6):
                failures.append(f"{name}: {numbers}, one process {expected[name]}")
    assert not failures, "\n".join(failures)
    _one_process_loads(tmp_path)


def _one_process_loads(folder: Path) -> None:
    """What two processes saved, this one loads, and gets the weights the two had."""
    for kind in ("fsdp", "heads"):
        whole = torch.load(folder / f"{kind}.pt", weights_only=True)
        model = swapped("cayley")
        state = {"model": model.state_dict()}
        dcp.load(state, checkpoint_id=folder / kind)
        model.load_state_dict(state["model"])
        for name, value in model.state_dict().items():
            assert torch.equal(value, whole[name]), (kind, name)


def test_every_operator_has_a_rule() -> None:
    schemas = (schema.name for schema in torch._C._jit_get_all_schemas())
    assert set(RULES) == {name[9:] for name in schemas if name.startswith("lierope::")}


def test_heads_that_cannot_be_split() -> None:
    mesh: Any = SimpleNamespace(size=lambda: 2)
    model = swap(vit(), "mixed")
    with pytest.raises(
        ValueError, match=r"^HeadParallel: the ranks must divide num_heads, got 2 and 3$"
    ):
        HeadParallel()._apply(model.blocks[0].attn, mesh)
    with pytest.raises(
        TypeError,
        match=r"^HeadParallel: module must be an attention of a swapped timm model, got Mlp$",
    ):
        HeadParallel()._apply(model.blocks[0].mlp, mesh)
    model = swap(vit(embed_dim=32, num_heads=4), "mixed")
    model.blocks[0].attn.encoding.novel = torch.nn.Parameter(torch.zeros(4, 3))
    with pytest.raises(
        ValueError, match=r"^HeadParallel: encoding.novel must be known to have 4 heads, one of"
    ):
        HeadParallel()._apply(model.blocks[0].attn, mesh)
    model = swap(PLAIN["scale norm"](embed_dim=32, num_heads=4), "mixed")
    with pytest.raises(
        ValueError, match=r"^HeadParallel: attention must have no norm over .*, got LayerNorm$"
    ):
        HeadParallel()._apply(model.blocks[0].attn, mesh)


def test_encodings_that_cannot_be_sharded() -> None:
    with pytest.raises(
        ValueError, match=r"^fully_shard_encodings: model must have .*got VisionTransformer$"
    ):
        fully_shard_encodings(swap(vit(), "none"))
    with pytest.raises(ValueError, match=r"^fully_shard_encodings: mp_policy must be left out"):
        fully_shard_encodings(swap(vit(), "mixed"), mp_policy=None)


@pytest.mark.parametrize("name", ["mixed", "axial:learned=True", "liere:4", "cayley", "circulant"])
def test_narrowed_parameters_are_an_error(name: str) -> None:
    encoding = create(name, 8, 2)
    for key, parameter in encoding.named_parameters():
        encoding._parameters[key] = torch.nn.Parameter(parameter.detach().bfloat16())
    q = torch.zeros(1, 2, 3, 8)
    with pytest.raises(TypeError, match=r"float32 or float64, got torch.bfloat16; under FSDP see"):
        encoding.rotate(q, q, torch.zeros(3, 2))
