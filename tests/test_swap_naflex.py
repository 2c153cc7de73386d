"""swap on timm's NaFlexVit: every patch at its own coordinate, whatever the order of patches."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lierope.swap import encodings_of, fold, swap
from lierope.swap.attention import SwappedAttention
from lierope.timm import timm
from tiny_models import images, make

Make = Callable[..., nn.Module]
Batch = dict[str, Tensor]
PATCH = 8
_NAFLEX = {"embed_dim": 48, "num_heads": 3, "pos_embed_grid_size": (4, 4), "patch_size": PATCH}
naflex = partial(make, "naflexvit_base_patch16_gap", img_size=None, **_NAFLEX)

MODELS: dict[str, Make] = {
    "plain": naflex,
    "registers and class token": partial(naflex, class_token=True, reg_tokens=2),
    "attention pooling": partial(naflex, global_pool="map", fc_norm=False),
    "factorized table": partial(naflex, pos_embed="factorized"),
    "qk norm": partial(naflex, qk_norm=True),
    "key mask": partial(naflex, use_key_only_attn_mask=True),
    "grouped queries": partial(
        naflex, attn_type="rope", num_heads=6, num_kv_heads=3, qkv_fused=False, embed_dim=96
    ),
    "gated": partial(naflex, attn_type="rope", attn_gated=True),
    "rope": partial(naflex, rope_type="axial", pos_embed="none"),
    "rope of a reference": partial(
        naflex, rope_type="axial", pos_embed="none", rope_ref_feat_shape=(7, 5)
    ),
    "rope mixed": partial(naflex, rope_type="mixed"),
    "rope of DINOv3": partial(naflex, rope_type="dinov3", pos_embed="none", rope_rotate_half=True),
    "mrope": partial(naflex, rope_type="mrope", pos_embed="none", rope_mrope_section=(2, 3, 3)),
}
everywhere = pytest.mark.parametrize("kind", MODELS.values(), ids=MODELS.keys())


def close(a: Tensor, b: Tensor, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def batch(*shapes: tuple[int, int]) -> Batch:
    """Row-major grids of several shapes, padded to one length as timm's collator does."""
    generator = torch.Generator().manual_seed(4)
    length = max(h * w for h, w in shapes) + 2
    patches = torch.zeros(len(shapes), length, PATCH * PATCH * 3)
    cells = torch.zeros(len(shapes), length, 2, dtype=torch.long)
    valid = torch.zeros(len(shapes), length, dtype=torch.bool)
    for i, (h, w) in enumerate(shapes):
        n = h * w
        patches[i, :n] = torch.randn(n, patches.shape[-1], generator=generator)
        cells[i, :n] = torch.cartesian_prod(torch.arange(h), torch.arange(w))
        valid[i, :n] = True
    return {"patches": patches, "patch_coord": cells, "patch_valid": valid}


def permuted(x: Batch, seed: int = 0) -> Batch:
    """The same patches in another order for each sample, padding among them."""
    generator = torch.Generator().manual_seed(seed)
    B, N = x["patch_valid"].shape
    order = torch.stack([torch.randperm(N, generator=generator) for _ in range(B)])
    rows = torch.arange(B).unsqueeze(1)
    return {key: value[rows, order] for key, value in x.items()}


@everywhere
def test_attention_is_timms_own_but_for_the_rotation(kind: Make) -> None:
    model, x = kind(), batch((3, 5), (4, 4))
    model.rope, model.rope_is_mixed = None, False  # timm then rotates nothing
    keep = model.embeds.pos_embed_type != "none"
    swapped = swap(copy.deepcopy(model), "none", keep_absolute=keep)
    assert sum(isinstance(m, SwappedAttention) for m in swapped.modules()) == 2
    close(swapped(x), model(x), 2e-6)
    close(swapped(images(2, 24, 40)), model(images(2, 24, 40)), 2e-6)


@pytest.mark.parametrize("encoding", ["mixed", "liere:4", "cayley"])
@pytest.mark.parametrize("positions", ["index", "proportional", "unit", "centered"])
def test_the_order_of_patches_does_not_matter(encoding: str, positions: str) -> None:
    model, x = swap(naflex(), encoding, positions=positions), batch((3, 5), (4, 4), (2, 6))
    close(model(permuted(x)), model(x))
    moved = {**x, "patch_coord": x["patch_coord"].flip(1)}
    assert not torch.allclose(model(moved), model(x), atol=1e-3)


def test_timm_itself_gets_permuted_patches_wrong() -> None:
    """The reason for all this; should timm mend it, the law above is theirs as well."""
    model, x = MODELS["rope"](), batch((3, 5), (4, 4))
    assert not torch.allclose(model(permuted(x)), model(x), atol=1e-3)


@pytest.mark.parametrize("positions", ["index", "proportional"])
@pytest.mark.parametrize("encoding", ["mixed", "liere:4"])
def test_patches_left_out_are_patches_that_nobody_attends_to(encoding: str, positions: str) -> None:
    """As in masked training: a few patches of a grid, the last rows and columns missing too."""
    model, x = swap(naflex(), encoding, positions=positions), batch((4, 4), (4, 4))
    kept = torch.tensor([[1, 4, 6, 9], [10, 0, 5, 2]])
    rows = torch.arange(2).unsqueeze(1)
    few = {key: value[rows, kept] for key, value in x.items()}
    seen = torch.zeros_like(x["patch_valid"]).scatter_(1, kept, True)
    close(model(few), model({**x, "patch_valid": seen}))


def test_padding_may_hold_any_coordinate() -> None:
    for positions in ("index", "unit", "centered"):
        model, x = swap(naflex(), "mixed", positions=positions), batch((3, 5), (4, 4))
        cells = x["patch_coord"].masked_fill(~x["patch_valid"].unsqueeze(-1), 999)
        close(model({**x, "patch_coord": cells}), model(x))


@pytest.mark.parametrize("positions", ["index", "proportional", "unit", "centered"])
def test_images_and_their_patches_give_the_same(positions: str) -> None:
    model, x = swap(naflex(), "liere:4", positions=positions), images(2, 24, 40)
    patches, (h, w) = timm.models.naflexvit.batch_patchify(x, (PATCH, PATCH))
    cells = torch.cartesian_prod(torch.arange(h), torch.arange(w)).expand(2, -1, -1)
    valid = torch.ones(2, h * w, dtype=torch.bool)
    close(model({"patches": patches, "patch_coord": cells, "patch_valid": valid}), model(x))


def test_positions_on_the_training_grid_are_those_of_grid_positions() -> None:
    """The same weights in a plain ViT of the same grid."""
    from tiny_models import vit  # noqa: PLC0415

    words = {"class_token": True, "reg_tokens": 0, "global_pool": "token"}
    flex = naflex(fc_norm=False, **words)
    plain = vit(init_values=0.1)
    state = {k.removeprefix("embeds."): v for k, v in flex.state_dict().items()}
    weight = state.pop("proj.weight").reshape(48, PATCH, PATCH, 3).permute(0, 3, 1, 2)
    state |= {"patch_embed.proj.weight": weight, "patch_embed.proj.bias": state.pop("proj.bias")}
    state["pos_embed"] = plain.state_dict()["pos_embed"]
    plain.load_state_dict(state, strict=True)
    for positions in ("index", "proportional", "unit", "centered"):
        a = swap(copy.deepcopy(flex), "liere:4", positions=positions)
        b = swap(copy.deepcopy(plain), "liere:4", positions=positions)
        for one, two in zip(encodings_of(a).values(), encodings_of(b).values(), strict=True):
            two.load_state_dict(one.state_dict())
        close(a(images()), b(images()))


@pytest.mark.parametrize(
    "name", ["rope", "rope of a reference", "rope mixed", "rope of DINOv3", "mrope"]
)
def test_convert_gives_timms_own_logits(name: str) -> None:
    model = MODELS[name]()
    inputs: list[Any] = [batch((3, 5), (4, 4), (2, 6)), images(2, 24, 40)]
    expected = [model(x) for x in inputs]
    swap(model, "mixed", convert=True)
    for x, y in zip(inputs, expected, strict=True):
        close(model(x), y)
    if model.embeds.pos_embed_type == "none":  # timm's table goes by the order of patches too
        close(model(permuted(inputs[0])), expected[0])


@pytest.mark.parametrize(
    "words",
    [
        {"grid_indexing": "xy"},
        {"grid_offset": 0.5},
        {"grid_type": "pixel"},
        {"grid_type": "centered", "normalize_coords": "max"},
        {"grid_type": "centered", "normalize_coords": "min", "grid_indexing": "xy"},
        {"ref_feat_shape": (7, 2), "grid_indexing": "xy"},
    ],
    ids=str,
)
def test_cell_by_cell_is_timms_grid(words: dict[str, Any]) -> None:
    from lierope.swap.timm_rotation import OwnGrid  # noqa: PLC0415

    grid = OwnGrid({"grid_indexing": "ij", **words}, 2.0, None)
    whole = grid._build((3, 5), torch.device("cpu"), torch.float32)
    cells = torch.cartesian_prod(torch.arange(3.0), torch.arange(5.0))
    close(grid.at(cells, torch.tensor([[3.0, 5.0]])), whole, 1e-6)


@pytest.mark.parametrize("dropped", [False, True])
@pytest.mark.parametrize("mode", ["patches", "image"])
def test_training(mode: str, dropped: bool) -> None:
    """Every parameter learns; patch dropout and checkpointing keep patch and position together."""
    model = swap(naflex(patch_drop_rate=0.5 if dropped else 0.0), "liere:4").train()
    inputs: list[Any] = [batch((3, 5), (4, 4)), batch((2, 6), (4, 2))]
    if mode == "image":
        inputs = [images(2, 32, 64), images(2, 64, 32)]

    def gradients() -> list[Tensor]:
        model.zero_grad()
        torch.manual_seed(3)
        (model(inputs[0]).square().sum() + model(inputs[1]).square().sum()).backward()
        return [e.generators.grad.clone() for e in encodings_of(model).values()]

    plain = gradients()
    assert all(float(g.abs().max()) > 0 for g in plain)
    model.set_grad_checkpointing(True)
    for a, b in zip(gradients(), plain, strict=True):
        close(a, b, 1e-4)


@pytest.mark.parametrize("mode", ["patches", "image"])
def test_dropped_patches_take_their_positions_along(mode: str) -> None:
    model = swap(naflex(patch_drop_rate=0.5), "mixed").train()
    kept: list[Tensor] = []
    model.patch_drop.register_forward_hook(lambda *a: kept.append(a[2][1]))
    seen: list[Tensor] = []
    model.blocks[0].attn.register_forward_hook(lambda m, *_: seen.append(m.in_flight.read()))
    x: Any = batch((4, 4), (4, 4)) if mode == "patches" else images()
    model(x)
    cells = batch((4, 4), (4, 4))["patch_coord"].float()
    close(seen[0], cells.gather(1, kept[0].unsqueeze(-1).expand(-1, -1, 2)), 0)


@pytest.mark.parametrize("convert", [False, True])
def test_jitter_is_drawn_once_a_training_pass_for_each_sample(convert: bool) -> None:
    if convert:
        kind = partial(naflex, rope_type="axial", pos_embed="none", rope_rescale_coords=2.0)
        model = swap(kind(), "mixed", convert=True)
    else:
        model = swap(naflex(), "mixed", jitter={"rescale": 2.0})
    x = batch((4, 4), (4, 4))
    seen: list[Tensor] = []
    for block in model.blocks:
        block.attn.register_forward_hook(lambda m, *_: seen.append(m.in_flight.read()))
    model(x)
    model.train()(x)
    still, _, moved, again = seen
    assert torch.equal(still, x["patch_coord"].float())
    assert torch.equal(moved, again)
    assert not torch.allclose(moved[0], moved[1])
    close(moved / still.clamp(min=1), moved[:, -3:-2] / 3 * (still > 0), 1e-5)


def test_double_precision() -> None:
    model, x = swap(naflex(), "liere:4"), batch((3, 5), (4, 4))
    exact = copy.deepcopy(model).double()({**x, "patches": x["patches"].double()})
    assert exact.dtype == torch.float64
    close(model(x).double(), exact, 1e-4)


def test_features() -> None:
    model, x = swap(naflex(), "mixed"), batch((3, 5), (4, 4))
    found = model.forward_intermediates(x, output_fmt="NLC", output_dict=True)
    close(found["image_features"], model.forward_features(**x)["patches"])
    words = {"intermediates_only": True, "return_prefix_tokens": False, "output_fmt": "NLC"}
    maps = model.forward_intermediates(images(), **words)
    assert [tuple(m.shape) for m in maps] == [(2, 16, 48)] * 2
    traced = timm.models.FeatureGraphNet(model, out_indices=(0, 1))
    model(images(1, 24, 40))  # so that positions of another pass lie about
    for tokens, patches in zip(traced(images()), maps, strict=True):
        close(tokens[:, model.num_prefix_tokens :], patches)


@everywhere
def test_keys_decay_and_fold(kind: Make) -> None:
    model, x = kind(), batch((3, 5), (4, 4))
    original = copy.deepcopy(model.state_dict())
    swap(model, "cayley")
    new = set(model.state_dict()) - set(original)
    assert new
    assert all(".encoding." in key and "rope" not in key for key in new)
    assert new <= model.no_weight_decay()
    gone = set(original) - set(model.state_dict())
    assert all("pos_embed" in key or key.startswith("rope.") for key in gone)
    model.load_state_dict(original, strict=True)
    model(x).square().sum().backward()
    for encoding in encodings_of(model).values():
        assert all(float(p.grad.abs().max()) > 0 for p in encoding.parameters())
        nn.init.normal_(encoding.skew, std=0.5)
    if not any(m.has_qk_norm() for m in model.modules() if isinstance(m, SwappedAttention)):
        before = model(x)
        close(fold(model)(x), before)


def test_half_precision_does_not_round_coordinates() -> None:
    model = swap(naflex(), "mixed").bfloat16()
    seen: list[Tensor] = []
    model.blocks[0].attn.register_forward_hook(lambda m, *_: seen.append(m.in_flight.read()))
    x = batch((3, 5), (4, 4))
    x["patch_coord"] = x["patch_coord"] + 257  # bfloat16 has no 257
    model({**x, "patches": x["patches"].bfloat16()})
    assert torch.equal(seen[0], x["patch_coord"].float())


def test_copies_and_stored_models() -> None:
    model, x = swap(naflex(patch_drop_rate=0.5), "mixed"), batch((3, 5), (4, 4))
    before = model(x)
    stored = io.BytesIO()
    torch.save(model, stored)
    stored.seek(0)
    for other in (copy.deepcopy(model), torch.load(stored, weights_only=False)):
        assert torch.equal(other(x), before)
        other(batch((2, 2)))
    assert torch.equal(model(x), before)


def test_compile_without_a_break() -> None:
    """Where timm's own rope reads grid sizes back from the device, and breaks the graph."""
    torch._dynamo.reset()
    model, x = swap(naflex(pos_embed="none"), "mixed"), batch((3, 5), (4, 4))
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    close(compiled(x), model(x))


def refused(model: nn.Module, text: str, kind: type = ValueError, **words: Any) -> None:
    modules = dict(model.named_modules())
    with pytest.raises(kind, match=text):
        swap(model, "mixed", **words)
    assert dict(model.named_modules()) == modules


def test_refusals() -> None:
    model = naflex()
    model.patch_drop = nn.Dropout(0.5)
    refused(model, r"^swap: patch_drop must be a PatchDropoutWithIndices, got Dropout$")
    refused(
        MODELS["rope"](),
        r"^swap: only and skip must cover all blocks of the model, a NaFlexV",
        only="blocks.0",
    )
    assert len(encodings_of(swap(naflex(), "mixed", only="blocks.0"))) == 1
    refused(
        naflex(attn_layer="diff", num_heads=2),
        r"^swap: blocks.0.attn is a DiffAttention, which is unknown",
    )
    refused(
        naflex(pos_embed="none"),
        r"^swap: the model must have a position embedding to keep",
        keep_absolute=True,
    )
    model = naflex(pos_embed="none")
    model.embeds.pos_embed_grid_size = None  # as for a model without any table
    refused(
        model,
        r"^swap: positions must be given for a NaFlexVit without pos_embed_grid_size",
        positions="proportional",
    )
    model = swap(naflex(), "mixed")
    with pytest.raises(ValueError, match=r"^swap: rope must be None, because the model has an enc"):
        model.blocks[0].attn(torch.zeros(1, 4, 48), rope=torch.zeros(4, 2))
