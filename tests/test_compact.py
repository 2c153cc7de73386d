"""compact: generators that fell apart get smaller blocks and outputs stay; refusals by text."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn

import lierope
from lierope import compact
from lierope.encodings import LieRE
from lierope.swap import encodings_of, swap
from test_fold import MODELS
from tiny_models import EVA, PLAIN, images, vit

Make = Callable[..., nn.Module]


@torch.no_grad()
def fall_apart(encoding: LieRE, sizes: Sequence[int], seed: int = 0) -> None:
    """Leaves only entries between features of the same random set; sets have these sizes."""
    b = encoding.block_size
    generator = torch.Generator().manual_seed(seed)
    row, column = torch.triu_indices(b, b, 1)
    owner = torch.repeat_interleave(
        torch.arange(len(sizes)), torch.tensor(sizes, dtype=torch.int64)
    )
    owner = nn.functional.pad(owner, (0, b - len(owner)), value=-1)
    _, heads, blocks, _ = encoding.generators.shape
    for head in range(heads):
        for block in range(blocks):
            own = owner[torch.randperm(b, generator=generator)]
            apart = (own[row] != own[column]) | (own[row] < 0)
            encoding.generators[:, head, block, apart] = 0


def sizes_of(model: nn.Module) -> list[tuple[int, int]]:
    return [(e.block_size, e.rotary_dim) for e in encodings_of(model).values()]


@pytest.mark.parametrize("kind", MODELS.values(), ids=MODELS.keys())
def test_outputs_stay(kind: Make) -> None:
    model, x = swap(kind(), "liere", block_size=8), images()
    for number, encoding in enumerate(encodings_of(model).values()):
        fall_apart(encoding, (3, 2, 2), number)
    before, keys = model(x), set(model.state_dict())
    assert compact(model) is model
    assert {size for size, _ in sizes_of(model)} == {4}  # 16 = 4 bins of 3, pairs beside them
    torch.testing.assert_close(model(x), before, rtol=1e-5, atol=1e-5)
    assert set(model.state_dict()) == keys


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ((4, 4), (4, 16)),
        ((4,), (4, 8)),
        ((2, 2, 2, 2), (2, 16)),
        ((), (2, 2)),
        ((2,), (2, 4)),
        ((5, 2), (5, 15)),
        ((7,), (7, 14)),
    ],
)
def test_blocks_are_as_small_as_the_sets(sizes: Sequence[int], expected: tuple[int, int]) -> None:
    model, x = swap(vit(), "liere", block_size=8), images()
    for encoding in encodings_of(model).values():
        fall_apart(encoding, sizes)
    before = model(x)
    compact(model)
    assert set(sizes_of(model)) == {expected}
    torch.testing.assert_close(model(x), before, rtol=1e-5, atol=1e-5)


def test_sizes_with_slow_kernels_only_where_they_halve_the_block() -> None:
    model = swap(vit(), "liere", block_size=16)
    for encoding in encodings_of(model).values():
        fall_apart(encoding, (9,))
    with pytest.raises(
        ValueError, match=r"^compact: .* got none that have \(blocks.0.attn turns 9 "
    ):
        compact(model)
    model, x = swap(vit(embed_dim=36), "liere", block_size=6), images()  # 12 features a head
    for encoding in encodings_of(model).values():
        fall_apart(encoding, (3, 3))
    before = model(x)
    compact(model)
    assert set(sizes_of(model)) == {(3, 12)}
    torch.testing.assert_close(model(x), before, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_a_set_may_hang_together_by_different_axes_and_by_a_chain() -> None:
    model = swap(vit(), "liere", block_size=8)
    row, column = torch.triu_indices(8, 8, 1)
    for encoding in encodings_of(model).values():
        encoding.generators.zero_()
        for axis, i, j in ((0, 0, 5), (1, 2, 5), (0, 2, 7)):
            encoding.generators[axis, :, :, (row == i) & (column == j)] = 1.0
    x = images()
    before = model(x)
    compact(model)
    assert set(sizes_of(model)) == {(4, 8)}
    torch.testing.assert_close(model(x), before, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("share", ["none", "heads", "layers", "all"])
@pytest.mark.parametrize("kind", [vit, EVA["grouped queries"]], ids=["fused", "grouped"])
def test_shared_encodings_stay_shared(kind: Make, share: str) -> None:
    model, x = swap(kind(), "liere", block_size=16, share=share), images()
    distinct = {id(e): e for e in encodings_of(model).values()}
    for number, encoding in enumerate(distinct.values()):
        fall_apart(encoding, (4, 4, 3, 3), number)
    before = model(x)
    compact(model)
    assert len({id(e) for e in encodings_of(model).values()}) == len(distinct)
    assert {size for size, _ in sizes_of(model)} == {4}
    torch.testing.assert_close(model(x), before, rtol=1e-5, atol=1e-5)


def test_only_what_fell_apart_changes_and_the_rest_of_the_encoding_stays() -> None:
    model, x = swap(vit(), "liere", block_size=8, init="rope", rotary_dim=8).double(), images()
    first, second = encodings_of(model).values()
    for encoding in (first, second):
        nn.init.normal_(encoding.generators)
    fall_apart(first, (2, 2, 2, 2))
    second_weight = model.blocks[1].attn.qkv.weight.clone()
    first.requires_grad_(False)
    before, state = model(x.double()), torch.get_rng_state()
    compact(model)
    assert torch.equal(torch.get_rng_state(), state)
    assert sizes_of(model) == [(2, 8), (8, 8)]
    made = model.blocks[0].attn.encoding
    assert made.default_positions == first.default_positions == "index"
    assert made.generators.dtype == torch.float64
    assert not made.generators.requires_grad
    assert not made.training
    assert torch.equal(model.blocks[1].attn.qkv.weight, second_weight)
    torch.testing.assert_close(model(x.double()), before, rtol=1e-12, atol=1e-12)


def test_small_entries_go_within_the_tolerance() -> None:
    model, x = swap(vit(), "liere", block_size=8), images()
    for encoding in encodings_of(model).values():
        fall_apart(encoding, (4, 4))
        encoding.generators.data += 1e-6 * (encoding.generators == 0)
    before = model(x)
    with pytest.raises(ValueError, match="turns 8 of 8"):
        compact(model)
    compact(model, tolerance=1e-5)
    assert set(sizes_of(model)) == {(4, 16)}
    torch.testing.assert_close(model(x), before, rtol=1e-4, atol=1e-4)


def test_sparse_training_then_compact_then_more_training() -> None:
    model, x = swap(vit(), "liere", block_size=8, init="small").train(), images()
    lasso = lierope.GroupLasso(model, 1.0)
    for step in range(200):
        model.zero_grad()
        model(x).square().mean().backward()
        with torch.no_grad():
            for encoding in encodings_of(model).values():
                encoding.generators -= 0.005 * encoding.generators.grad
        lasso.step(0.005)
        if step % 10 == 0 and lasso.sparsity() > 0.9:
            break
    assert lasso.sparsity() > 0.5
    before = model.eval()(x)
    compact(model)
    assert all(size < 8 for size, _ in sizes_of(model))
    torch.testing.assert_close(model(x), before, rtol=1e-5, atol=1e-5)
    model.train()(x).sum().backward()
    assert all(e.generators.grad is not None for e in encodings_of(model).values())


def refused(model: nn.Module, text: str, **words: float) -> None:
    state = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=text) as caught:
        compact(model, **words)
    assert "\n" not in str(caught.value)
    after: dict[str, Tensor] = model.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in after.items())


def test_refusals() -> None:
    refused(vit(), r"^compact: model must have been swapped, got no swapped attention$")
    refused(swap(vit(), "cayley"), r"^compact: encodings must be LieRE, got CayleySTRING$")
    whole = swap(vit(), "liere:4")
    refused(
        whole, r"got none that have \(blocks.0.attn turns 4 of 4; blocks.1.attn turns 4 of 4 fea"
    )
    refused(whole, "^compact: tolerance must be a number of at least 0, got -1$", tolerance=-1)
    broken = swap(vit(), "liere:4")
    broken.blocks[0].attn.encoding.generators.data.fill_(torch.nan)
    with pytest.raises(ValueError, match=r"blocks.0.attn turns 4 of 4"):
        compact(broken)
    tight = swap(vit(), "liere:8")  # sets of 5, 5, 3 and 3 need four blocks of 5: more than 16
    for encoding in encodings_of(tight).values():
        fall_apart(encoding, (5, 3))
    refused(tight, r"got none that have \(blocks.0.attn turns 5 of 8; blocks.1.attn turns 5 of 8")
    norm = swap(PLAIN["qk norm"](), "liere:8")
    adapted = swap(vit(), "liere:8")
    for model in (norm, adapted):
        for encoding in encodings_of(model).values():
            fall_apart(encoding, (2, 2))
    refused(norm, r"^compact: blocks.0.attn has a norm between projection and rotation")
    adapted.blocks[1].attn.qkv = nn.Sequential(adapted.blocks[1].attn.qkv)
    before = adapted(images())
    refused(adapted, r"^compact: blocks.1.attn must project by torch.nn.Linear, got Sequential$")
    assert torch.equal(adapted(images()), before)


def test_a_copy_is_not_touched() -> None:
    model = swap(vit(), "liere", block_size=8)
    for encoding in encodings_of(model).values():
        fall_apart(encoding, (4, 4))
    twin = copy.deepcopy(model)
    compact(twin)
    assert set(sizes_of(model)) == {(8, 16)}
    torch.testing.assert_close(model(images()), twin(images()), rtol=1e-5, atol=1e-5)
