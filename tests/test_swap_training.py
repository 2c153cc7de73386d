"""Training swapped models: checkpointing, patch dropout, jitter, compile, weight decay."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence

import pytest
import torch
from tiny_models import EVA, PLAIN, dinov3, eva, images, naver, vit
from torch import Tensor, nn

from lierope.swap import encodings_of, swap

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


@pytest.fixture(params=[False, True], ids=["non-reentrant", "reentrant"])
def reentrant(request: pytest.FixtureRequest) -> Iterator[bool]:
    from timm.models import set_reentrant_ckpt

    set_reentrant_ckpt(request.param)
    yield request.param
    set_reentrant_ckpt(False)


def two_sizes(model: nn.Module) -> Tensor:
    """Two forward passes of different grids in flight before one backward pass."""
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


@pytest.mark.parametrize("step", [two_sizes, two_drops])
@pytest.mark.parametrize(
    "kind", [vit, PLAIN["distilled"], PLAIN["parallel blocks"], eva, naver], ids=list("vdper")
)
@pytest.mark.parametrize("encoding", ["mixed", "cayley"])
def test_checkpointing_changes_no_gradient(
    kind: Make, step: Step, encoding: str, reentrant: bool
) -> None:
    model = swap(kind(dynamic_img_size=True, patch_drop_rate=0.5), encoding).train()
    plain = gradients(model, step(model))
    model.set_grad_checkpointing(True)
    same(gradients(model, step(model)), plain)


def test_checkpointing_of_several_blocks_at_once() -> None:
    from torch.utils.checkpoint import checkpoint

    model = swap(vit(depth=4, dynamic_img_size=True), "mixed").train()
    plain = gradients(model, two_sizes(model))
    blocks = list(model.blocks)

    class Pair(nn.Module):
        def __init__(self, first: int) -> None:
            super().__init__()
            self.first = first

        def forward(self, x: Tensor) -> Tensor:
            run = nn.Sequential(*blocks[self.first : self.first + 2])
            out: Tensor = checkpoint(run, x, use_reentrant=False)
            return out

    model.blocks = nn.Sequential(Pair(0), Pair(2))
    names = {id(p) for p in model.parameters()}
    for block in blocks:
        block.zero_grad()
    two_sizes(model).backward()
    found = [p.grad for b in blocks for p in b.parameters() if id(p) not in names]
    expected = plain[4 : 4 + len(found)]
    same([g for g in found if g is not None], expected)


def test_a_recomputation_with_a_foreign_input_is_an_error() -> None:
    model = swap(vit(), "mixed").train()
    model.set_grad_checkpointing(True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t.clone(), lambda t: t.clone()):
        loss = model(images()).sum()
    with pytest.raises(RuntimeError, match="swap: Block is recomputed .* positions are unknown"):
        loss.backward()


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
    from timm.layers.patch_dropout import patch_dropout_forward

    model = swap(kind(patch_drop_rate=0.5), encoding).train()
    whole = swap(kind(), encoding).train()
    whole.load_state_dict(model.state_dict())
    P, x = model.num_prefix_tokens, images()
    torch.manual_seed(7)
    _, kept = patch_dropout_forward(torch.zeros(2, P + 16, 1), 0.5, P, False, True)
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


COMPILED: dict[str, tuple[Make, str, dict[str, object]]] = {
    "plain": (vit, "mixed", {}),
    "block": (vit, "liere:4", {"dynamic_img_size": True}),
    "basis": (PLAIN["registers"], "cayley", {}),
    "norm behind the projection": (PLAIN["qk norm"], "cayley", {}),
    "patch dropout": (vit, "mixed", {"patch_drop_rate": 0.5}),
    "distilled": (PLAIN["distilled"], "circulant:16", {}),
    "eva": (eva, "cayley", {}),
    "eva, patch dropout": (eva, "mixed", {"patch_drop_rate": 0.5}),
    "grouped queries": (EVA["grouped queries"], "cayley", {}),
}


@pytest.mark.parametrize(("kind", "encoding", "words"), COMPILED.values(), ids=COMPILED.keys())
@pytest.mark.parametrize("checkpointed", [False, True], ids=["", "checkpointed"])
def test_compile_without_a_break(
    kind: Make, encoding: str, words: dict[str, object], checkpointed: bool
) -> None:
    torch._dynamo.reset()
    model = swap(kind(**words), encoding).train()
    model.set_grad_checkpointing(checkpointed)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.manual_seed(2)
    expected = gradients(model, model(images()).square().sum())
    torch.manual_seed(2)
    same(gradients(model, compiled(images()).square().sum()), expected, 1e-4)


def test_compile_at_several_sizes() -> None:
    torch._dynamo.reset()
    model = swap(vit(dynamic_img_size=True), "mixed")
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager", dynamic=True)
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
    from timm.optim import create_optimizer_v2

    model = swap(kind(), encoding)
    learned = {id(p) for e in encodings_of(model).values() for p in e.parameters()}
    assert {f"{n}.{k}" for n, e in encodings_of(model).items() for k, _ in e.named_parameters()} <= (
        model.no_weight_decay()
    )
    for words in ({}, {"layer_decay": 0.8}):
        optimizer = create_optimizer_v2(model, opt="adamw", lr=1e-3, weight_decay=0.05, **words)
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
