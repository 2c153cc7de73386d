"""Other projects' layouts: what their formulas compute, our encodings compute; and back."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cases import normal
from lierope import conversion
from lierope.encodings import AxialRoPE, LieRE, MixedRoPE
from lierope.encodings.base import multiply_heads
from lierope.swap import encodings_of, swap
from tiny_models import dinov3, images, naver_mixed, vit


def of_liere(raw: Tensor, positions: Tensor, x: Tensor) -> Tensor:
    """One layer of the published encoder, written from its description: x (H, N, D)."""
    upper = raw.triu(1) - 0.5
    base = upper - upper.mT
    generator = torch.einsum("nc,cgij->ngij", positions, base)
    rotations = torch.linalg.matrix_exp(generator).unflatten(1, (x.shape[0], -1)).transpose(0, 1)
    blocks = x[..., : rotations.shape[2] * raw.shape[-1]].unflatten(-1, rotations.shape[2:4])
    turned = (rotations @ blocks.unsqueeze(-1)).squeeze(-1).flatten(-2)
    return torch.cat((turned, x[..., turned.shape[-1] :]), -1)


@pytest.mark.parametrize("b", [2, 4, 8, 5])
def test_lieres_layout(b: int) -> None:
    blocks = 16 // b
    raw = 2 * math.pi * torch.rand(2, 3, 4 * blocks, b, b, dtype=torch.float64)
    layers = conversion.from_liere(raw, head_dim=16)
    x, p = normal(4, 5, 16), torch.rand(5, 2, dtype=torch.float64)
    for number, generators in enumerate(layers):
        words: Any = {"block_size": b, "rotary_dim": blocks * b, "dtype": torch.float64}
        encoding = LieRE(16, 4, **words)
        encoding.load_state_dict({"generators": generators})
        found, _ = encoding(x[None], x[None], p)
        torch.testing.assert_close(found[0], of_liere(raw[:, number], p, x))
    back = conversion.to_liere(layers)
    assert torch.equal(back, raw.triu(1))


def test_a_checkpoint_of_liere_into_a_model_and_back() -> None:
    raw = torch.rand(2, 2, 3 * 4, 4, 4)
    model = swap(vit(), "liere:4")
    own = list(encodings_of(model).values())
    conversion.load_liere(model, raw)
    assert torch.equal(conversion.to_liere([e.generators for e in own]), raw.triu(1))
    conversion.load_liere(model, raw, first_layer_everywhere=True)
    assert torch.equal(own[0].generators, own[1].generators)
    conversion.load_liere(model, raw[:, 1:])
    found = conversion.to_liere([e.generators for e in own])
    assert torch.equal(found, raw.triu(1)[:, [1, 1]])
    shared = swap(vit(), "liere:4", share="all")
    conversion.load_liere(shared, raw[:, :1, :4])
    (only,) = {e.generators for e in encodings_of(shared).values()}
    assert torch.equal(only, conversion.from_liere(raw[:, :1, :4], 16)[0])


def test_navers_layout() -> None:
    """Complex multiplication of neighbours by polar(1, x f_x + y f_y), x the column."""
    freqs = normal(2, 3, 4 * 8)
    rows, columns = 3, 5
    x, index = normal(4, rows * columns, 16), torch.arange(rows * columns, dtype=torch.float64)
    grid = torch.stack((index // columns, index % columns), -1)
    for number, learned in enumerate(conversion.from_naver(freqs, 4)):
        by_head = freqs[:, number].view(2, 4, 1, 8)
        angle = grid[:, 1:] * by_head[0] + grid[:, :1] * by_head[1]
        turned = torch.view_as_complex(x.unflatten(-1, (8, 2))) * torch.polar(
            torch.ones_like(angle), angle
        )
        encoding = MixedRoPE(16, 4, dtype=torch.float64)
        encoding.load_state_dict({"frequencies": learned})
        found, _ = encoding(x[None], x[None], grid)
        torch.testing.assert_close(found[0], torch.view_as_real(turned).flatten(-2))
    layers = conversion.from_naver(freqs, 4)
    assert torch.equal(conversion.to_naver(layers), freqs)
    assert torch.equal(conversion.to_naver(layers, by_head=True), freqs.view(2, 3, 4, 8))


@torch.no_grad()
def test_timms_mixed_frequencies_give_timms_outputs() -> None:
    theirs = naver_mixed()
    ours = swap(copy.deepcopy(theirs), "mixed", keep_absolute=theirs.pos_embed is not None)
    conversion.load_naver(ours, theirs.state_dict()["rope.freqs"])
    torch.testing.assert_close(ours(images()), theirs(images()), rtol=1e-5, atol=1e-5)
    kept = [e.frequencies for e in encodings_of(ours).values()]
    assert torch.equal(conversion.to_naver(kept, by_head=True), theirs.rope.freqs)


def test_dinov3s_periods_give_dinov3s_rotation() -> None:
    """rotate_half with cos and sin of tile([2π p_row / period, 2π p_column / period])."""
    periods = torch.tensor([1.0, 3.0, 10.0, 100.0], dtype=torch.bfloat16)
    positions = conversion.dinov3_positions(2, 3)
    assert positions[0].tolist() == pytest.approx([-0.5, -2 / 3])
    angles = 2 * math.pi * positions[:, :, None] / periods.float()
    angles = angles.flatten(1).tile(2)
    x = normal(2, 6, 16, dtype=torch.float32)
    half = torch.cat((-x[..., 8:], x[..., :8]), -1)
    expected = x * angles.cos() + half * angles.sin()
    encoding = AxialRoPE(16, 2, learned=True, share="heads")
    encoding.load_state_dict({"frequencies": conversion.from_dinov3(periods)})
    neighbours = conversion.pairs_from_halves(torch.eye(32), 2).view(2, 16, 2, 16)
    order = torch.stack([neighbours[h, :, h] for h in range(2)])
    found, _ = encoding(multiply_heads(x[None], order), x[None], positions)
    torch.testing.assert_close(multiply_heads(found, order.mT)[0], expected)
    assert torch.equal(conversion.to_dinov3(encoding.frequencies), periods.float())


def test_timms_dinov3_agrees_on_positions_and_periods() -> None:
    rope: Any = dinov3().rope
    frequencies = conversion.from_dinov3(rope._compute_periods())[:, 0]
    angles = conversion.dinov3_positions(4, 4)[:, :, None] * frequencies
    sine, _ = rope.get_embed(shape=[4, 4]).chunk(2, -1)
    torch.testing.assert_close(sine[:, : angles.flatten(1).shape[1]], angles.flatten(1).sin())


def test_order_of_features() -> None:
    rows = torch.arange(12)
    expected = [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11]
    assert conversion.pairs_from_halves(rows, 2).tolist() == expected
    weight = normal(12, 5)
    pairs = conversion.pairs_from_halves(weight, 2)
    assert torch.equal(pairs, weight[expected])
    assert torch.equal(conversion.halves_from_pairs(pairs, 2), weight)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: conversion.from_liere(torch.zeros(2, 3, 4, 5)),
         r"^from_liere: raw must have shape \(C, L, H\*G, b, b\), got \(2, 3, 4, 5\)$"),
        (lambda: conversion.from_liere(torch.zeros(2, 1, 7, 8, 8)),
         r"^from_liere: raw must hold 8 blocks of 8 for each head of 64, got 7$"),
        (lambda: conversion.to_liere([torch.zeros(2, 1, 1, 6), torch.zeros(2, 1, 1, 3)]),
         r"^to_liere: generators must have one shape in all layers, got \(2, 1, 1, 3\), \(2, 1"),
        (lambda: conversion.to_naver([]),
         r"^to_naver: frequencies must have one shape in all layers, got none$"),
        (lambda: conversion.from_naver(torch.zeros(3, 1, 8), 2),
         r"^from_naver: freqs must have shape \(2, L, 2 \* pairs\) or .*, got \(3, 1, 8\)$"),
        (lambda: conversion.from_dinov3(torch.zeros(2, 2)),
         r"^from_dinov3: periods must have shape \(D/4,\), got \(2, 2\)$"),
        (lambda: conversion.to_dinov3(normal(2, 1, 4)),
         r"^to_dinov3: frequencies must be the same for both axes and all heads$"),
        (lambda: conversion.pairs_from_halves(torch.zeros(9), 2),
         r"^pairs_from_halves: rows must be an even number for each of 2 heads, got 9$"),
        (lambda: conversion.load_liere(nn.Linear(1, 1), torch.zeros(1)),
         r"^load_liere: model must have LieRE encodings, got none$"),
        (lambda: conversion.load_naver(swap(vit(), "mixed"), torch.zeros(2, 3, 3 * 8)),
         r"^load_naver: layers must be 1 or the model's 2, got 3$"),
        (lambda: conversion.load_naver(swap(vit(), "mixed"), torch.zeros(2, 2, 3 * 4)),
         r"^load_naver: a layer must have shape \(2, 3, 8\), got \(2, 3, 4\)$"),
    ],
)  # fmt: skip
def test_errors(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
