"""Training swapped models: checkpointing, patch dropout, jitter, compile, weight decay."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module

import pytest
import torch
from torch import Tensor, nn

from lierope.swap import encodings_of, swap
from lierope.timm import timm
from tiny_models import BLOCKS, EVA, PLAIN, dinov3, eva, images, naver, vit

Make = Callable[..., nn.Module]
Step = Callable[[nn.Module], Tensor]


def gradients(model: nn.Module, loss: Tensor) -> list[Tensor]:
    model.zero_grad(set_to_none=False)
    loss.backward()
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


def same(found: Sequence[Tensor], expected: Sequence[Tensor], tolerance: float = 1e-5) -> None:
    assert len(found) == len(expected) > 0
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def two_sizes(model: nn.Module) -> Tensor:
    """Two forward passes of different grids in flight before one backward pass."""
    torch.manual_seed(3)
    small, large = model(images(2, 32, 64)), model(images(2, 64, 32))
    model.eval()
    with torch.no_grad():
        model(images(1, 32, 32))  # and a third in between that no gradient needs
    model.train()
    return small.square().sum() + large.square().sum()


def two_drops(model: nn.Module) -> Tensor:
    """Two forward passes of one size that keep different patches."""
    torch.manual_seed(3)
    return model(images(2, 32)).square().sum() + model(images(2, 32)).pow(4).sum()


CHECKPOINTED = {
    "plain": vit,
    "distilled": PLAIN["distilled"],
    "parallel blocks": PLAIN["parallel blocks"],
    "eva": eva,
    "rope": naver,
}


@pytest.mark.parametrize("step", [two_sizes, two_drops])
@pytest.mark.parametrize("kind", CHECKPOINTED.values(), ids=CHECKPOINTED.keys())
@pytest.mark.parametrize("encoding", ["mixed", "cayley"])
def test_checkpointing_changes_no_gradient(kind: Make, step: Step, encoding: str) -> None:
    model = swap(kind(dynamic_img_size=True, patch_drop_rate=0.5), encoding).train()
    plain = gradients(model, step(model))
    model.set_grad_checkpointing(True)
    same(gradients(model, step(model)), plain)


@pytest.mark.parametrize("step", [two_sizes, two_drops])
@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
def test_reentrant_checkpointing_changes_no_gradient(step: Step) -> None:
    """With plain models alone: timm hands keywords to the blocks of Eva."""
    model = swap(vit(dynamic_img_size=True, patch_drop_rate=0.5), "mixed").train()
    plain = gradients(model, step(model))
    model.set_grad_checkpointing(True)
    timm.layers.set_reentrant_ckpt(True)
    try:
        same(gradients(model, step(model)), plain)
    finally:
        timm.layers.set_reentrant_ckpt(False)


def test_checkpointing_of_several_blocks_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = swap(vit(depth=4, dynamic_img_size=True, patch_drop_rate=0.5), "mixed").train()
    plain = gradients(model, two_drops(model))
    pairs = partial(BLOCKS.checkpoint_seq, every=2)
    monkeypatch.setattr(BLOCKS, "checkpoint_seq", pairs)
    model.set_grad_checkpointing(True)
    same(gradients(model, two_drops(model)), plain)


def test_a_recomputation_with_a_foreign_input_is_an_error() -> None:
    model = swap(vit(), "mixed").train()
    model.set_grad_checkpointing(True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t.clone(), lambda t: t.clone()):
        loss = model(images()).sum()
    with pytest.raises(RuntimeError, match=r"^swap: Block is recomputed .* positions are unknown"):
        loss.backward()


def test_replicas_in_threads_are_refused() -> None:
    model = swap(vit(), "mixed")
    replica = model.blocks[0]._replicate_for_data_parallel()
    with pytest.raises(RuntimeError, match=r"^swap: torch.nn.DataParallel cannot run this model"):
        replica(torch.zeros(1, 17, 48))


def test_a_block_called_on_its_own_is_an_error() -> None:
    model = swap(vit(), "mixed")
    with pytest.raises(RuntimeError, match="swap: attention has no positions yet"):
        model.blocks[0](torch.zeros(1, 17, 48))


@pytest.mark.parametrize("encoding", ["mixed", "liere:4", "cayley"])
@pytest.mark.parametrize(
    "kind", [vit, PLAIN["registers"], PLAIN["distilled"], eva, dinov3], ids=list("vrde3")
)
def test_dropped_patches_are_patches_that_nobody_attends_to(kind: Make, encoding: str) -> None:
    """The kept tokens come out as if the others were masked: so positions went with patches."""
    model = swap(kind(patch_drop_rate=0.5), encoding).train()
    whole = swap(kind(), encoding).train()
    whole.load_state_dict(model.state_dict())
    drop = timm.layers.patch_dropout.patch_dropout_forward
    P, x = model.num_prefix_tokens, images()
    torch.manual_seed(7)
    _, kept = drop(torch.zeros(2, P + 16, 1), 0.5, P, False, True)
    torch.manual_seed(7)
    dropped = model.forward_features(x)
    assert kept is not None
    seen = torch.zeros(2, 1, 1, P + 16, dtype=torch.bool)
    seen[..., :P] = True
    seen[:, 0, 0].scatter_(1, kept + P, True)
    masked = whole.forward_features(x, attn_mask=seen.expand(-1, -1, P + 16, -1))
    rows = torch.cat([torch.arange(P).expand(2, -1), kept + P], 1)
    same([dropped], [masked.gather(1, rows.unsqueeze(-1).expand(-1, -1, 48))])
    model.eval()
    whole.eval()
    same([model(x)], [whole(x)])


def test_patch_dropout_draws_what_timm_draws() -> None:
    model = vit(patch_drop_rate=0.5).train()
    swapped = swap(copy.deepcopy(model), "none", keep_absolute=True)
    outputs = []
    for each in (model, swapped):
        torch.manual_seed(5)
        outputs.append(each(images()))
    assert torch.equal(*outputs)


@pytest.mark.parametrize("kind", [vit, eva], ids=["vit", "eva"])
def test_jitter_is_drawn_once_a_training_pass_and_never_else(kind: Make) -> None:
    kind_without_prefix = {"class_token": False, "global_pool": "avg"}
    for encoding, words, moves in (
        ("mixed", {"shift": 2.0}, False),  # scores know differences of positions only
        ("liere:4", {"shift": 2.0}, True),
        ("mixed", {"jitter": 1.5}, True),
        ("mixed", {"rescale": 1.5}, True),
    ):
        model = swap(kind(**kind_without_prefix), encoding, jitter=words)
        still = model(images())
        assert torch.equal(model(images()), still)
        moved = (model.train()(images()) - still).detach().abs().max()
        assert (float(moved) > 1e-4) is moves, (encoding, words)
        plain = gradients(model, _seeded(model))
        model.set_grad_checkpointing(True)
        same(gradients(model, _seeded(model)), plain)


def _seeded(model: nn.Module) -> Tensor:
    torch.manual_seed(11)
    return model(images()).square().sum() + model(images()).square().sum()


COMPILED: dict[str, tuple[Make, str, bool]] = {
    "block rotations, dynamic size": (partial(vit, dynamic_img_size=True), "liere:4", False),
    "basis, registers": (PLAIN["registers"], "cayley", True),
    "norm behind the projection": (PLAIN["qk norm"], "circulant:16", False),
    "patch dropout": (partial(vit, patch_drop_rate=0.5), "mixed", True),
    "distilled": (PLAIN["distilled"], "mixed", False),
    "eva, patch dropout": (partial(eva, patch_drop_rate=0.5), "mixed", True),
    "grouped queries": (EVA["grouped queries"], "cayley", False),
}


@pytest.mark.parametrize(
    ("kind", "encoding", "checkpointed"), COMPILED.values(), ids=COMPILED.keys()
)
def test_compile_without_a_break(kind: Make, encoding: str, checkpointed: bool) -> None:
    torch._dynamo.reset()
    model = swap(kind(), encoding).train()
    model.set_grad_checkpointing(checkpointed)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.manual_seed(2)
    expected = gradients(model, model(images()).square().sum())
    torch.manual_seed(2)
    same(gradients(model, compiled(images()).square().sum()), expected, 1e-4)


def test_compile_at_several_sizes() -> None:
    torch._dynamo.reset()
    model = swap(vit(dynamic_img_size=True), "mixed")
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        for height, width in ((32, 32), (48, 64), (64, 48)):
            x = images(2, height, width)
            same([compiled(x)], [model(x)])


def test_compile_of_each_block() -> None:
    torch._dynamo.reset()
    model = swap(vit(), "mixed").train()
    expected = gradients(model, model(images()).square().sum())
    model.set_grad_checkpointing(True)
    for block in model.blocks:
        block.compile(backend="aot_eager", fullgraph=True)
    same(gradients(model, model(images()).square().sum()), expected, 1e-4)


@pytest.mark.parametrize("kind", [vit, eva, naver], ids=["vit", "eva", "rope"])
@pytest.mark.parametrize("encoding", ["mixed", "liere:4", "cayley", "circulant"])
def test_timms_optimizers_never_decay_an_encoding(kind: Make, encoding: str) -> None:
    model = swap(kind(), encoding)
    learned = {id(p) for e in encodings_of(model).values() for p in e.parameters()}
    assert {
        f"{n}.{k}" for n, e in encodings_of(model).items() for k, _ in e.named_parameters()
    } <= (model.no_weight_decay())
    create = import_module("timm.optim").create_optimizer_v2
    for words in ({}, {"layer_decay": 0.8}):
        optimizer = create(model, opt="adamw", lr=1e-3, weight_decay=0.05, **words)
        decay = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
        assert all(decay[key] == 0 for key in learned)
        assert any(value > 0 for value in decay.values())


def test_training_lowers_the_loss() -> None:
    model = swap(vit(), "cayley").train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    x, y = images(8), torch.arange(8) % 5
    losses = []
    for _ in range(8):
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]


def test_positions_kept_from_inference_serve_training() -> None:
    model = swap(vit(), "mixed")
    with torch.inference_mode():
        model(images())
    model.train()(images()).sum().backward()
