"""What timm expects of a model (checkpoint filters, registry, scripts), and parity with its own."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lierope.encodings import CayleySTRING, CirculantSTRING, LieRE, MixedRoPE
from lierope.swap import encodings_of, swap
from lierope.swap.attention import SwappedAttention
from lierope.swap.registered import NAMES
from lierope.timm import timm
from tiny_models import SIZE, dinov3, eva, images, naver, vit

Make = Callable[..., nn.Module]
TINY = {"img_size": SIZE, "patch_size": 8, "depth": 2, "embed_dim": 48, "num_heads": 3}
TINY |= {"num_classes": 5}


def close(a: Tensor, b: Tensor, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", NAMES)
def test_registered_models(name: str) -> None:
    model = timm.create_model(name, **TINY).eval()
    kinds = {"mixed": MixedRoPE, "liere8": LieRE, "cayley": CayleySTRING}
    kinds |= {"circulant": CirculantSTRING}
    kind = next(cls for word, cls in kinds.items() if word in name)
    found = encodings_of(model)
    assert len(found) == 2
    assert all(type(encoding) is kind for encoding in found.values())
    assert model.pos_embed is None
    assert model(images()).shape == (2, 5)


def test_registered_models_are_the_plain_ones_swapped() -> None:
    assert {f"vit_base_patch16_{word}_224" for word in ("liere8", "cayley_string", "mixed")} | {
        "vit_small_patch16_circulant_string_224",
        "vit_tiny_patch16_liere8_224",
    } <= set(NAMES)
    assert set(timm.list_models("vit_*_liere8_224")) == {n for n in NAMES if "liere8" in n}
    model = timm.create_model("vit_tiny_patch16_liere8_224")
    assert model.embed_dim == 192
    assert all(e.block_size == 8 for e in encodings_of(model).values())
    assert model.default_cfg["input_size"] == (3, 224, 224)
    maps = timm.create_model(
        "vit_tiny_patch16_mixed_224", features_only=True, out_indices=(0, 1), **TINY
    )(images())
    assert [tuple(m.shape) for m in maps] == [(2, 48, 4, 4)] * len(maps)
    with pytest.raises(ValueError, match=r"^vit_tiny_patch16_mixed_224: pretrained must be False"):
        timm.create_model("vit_tiny_patch16_mixed_224", pretrained=True)


def test_a_checkpoint_of_a_registered_model_loads_by_path(tmp_path: Path) -> None:
    name = "vit_tiny_patch16_cayley_string_224"
    model = timm.create_model(name, **TINY).eval()
    for encoding in encodings_of(model).values():
        nn.init.normal_(encoding.skew)
    torch.save(model.state_dict(), tmp_path / "model.pth")
    again = timm.create_model(name, checkpoint_path=str(tmp_path / "model.pth"), **TINY).eval()
    assert torch.equal(again(images()), model(images()))


def test_a_script_of_timm_can_name_them(tmp_path: Path) -> None:
    """The recipe of docs/models.md: import lierope.timm, then run the script."""
    script = tmp_path / "train.py"
    script.write_text(
        "import sys, timm\n"
        f"model = timm.create_model(sys.argv[1], **{TINY!r})\n"
        "print(type(model.blocks[0].attn.encoding).__name__)\n"
    )
    recipe = (
        "import sys, runpy, lierope.timm; sys.argv = sys.argv[1:]; "
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", recipe, str(script), "vit_tiny_patch16_liere8_224"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.stdout.strip() == "LieRE", done.stderr


FAMILIES = [
    "vit_small_patch16_rope_224",
    "vit_small_patch16_rope_mixed_224",
    "vit_small_patch16_rope_ape_224",
    "vit_small_patch16_rope_mixed_ape_224",
    "vit_small_patch16_dinov3",
    "vit_small_plus_patch16_dinov3_qkvb",
    "vit_medium_patch16_rope_reg1_gap_256",
    "vit_pe_core_tiny_patch16_384",
    "eva02_tiny_patch14_224",
    "vit_base_patch16_lingbot",
    "vit_base_patch16_sapiens2",
]
OPTIONS = {"vit_base_patch16_sapiens2": {"num_kv_heads": (6, 12)}}


@pytest.mark.parametrize("name", FAMILIES)
def test_convert_gives_the_logits_of_timms_models(name: str) -> None:
    """True widths and settings, two blocks deep, on their own image size and another."""
    torch.manual_seed(0)
    model = timm.create_model(
        name, depth=2, num_classes=7, dynamic_img_size=True, **OPTIONS.get(name, {})
    ).eval()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if parameter.ndim > 1 and "rope" not in key:
                parameter.normal_(std=parameter[0].numel() ** -0.5)
    patch = model.patch_embed.patch_size[0]
    inputs = [images(1, model.default_cfg["input_size"][1]), images(1, 5 * patch, 8 * patch)]
    with torch.no_grad():
        expected = [model(x) for x in inputs]
        swap(model, "mixed", convert=True)
        assert len(encodings_of(model)) == 2
        for x, y in zip(inputs, expected, strict=True):
            close(model(x), y)


@pytest.mark.parametrize("kind", [vit, eva, naver, dinov3], ids=["vit", "eva", "rope", "dinov3"])
def test_timms_checkpoint_filters_keep_what_is_new(kind: Make) -> None:
    """Eva's drops every key that holds the letters "rope"."""
    model = swap(kind(), "cayley")
    state = model.state_dict()
    module = "vision_transformer" if kind is vit else "eva"
    kept = import_module(f"timm.models.{module}").checkpoint_filter_fn(dict(state), model)
    assert {key for key in state if ".encoding." in key} <= set(kept)


@pytest.mark.parametrize("fused", [False, True])
def test_attention_is_fused_where_timm_says_so(fused: bool) -> None:
    timm.layers.set_fused_attn(fused)
    try:
        model = swap(vit(), "mixed")
    finally:
        timm.layers.set_fused_attn(True)
    attention = [m for m in model.modules() if isinstance(m, SwappedAttention)]
    assert [m.fused_attn for m in attention] == [fused, fused]


def test_blocks_of_a_size_for_each_layer() -> None:
    model = swap(vit(depth=3), "liere", block_size=[2, 4, 8])
    assert [e.block_size for e in encodings_of(model).values()] == [2, 4, 8]
    model = swap(vit(depth=3), "liere", block_size=(8, 4), skip="blocks.1")
    assert [e.block_size for e in encodings_of(model).values()] == [8, 4]
    with pytest.raises(ValueError, match=r"^swap: block_size must have one size for each of 3 lay"):
        swap(vit(depth=3), "liere", block_size=(2, 4))


@pytest.mark.parametrize("kind", [vit, eva], ids=["vit", "eva"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_torchscript_by_tracing_and_an_error_for_the_rest(kind: Make) -> None:
    model, x = swap(kind(), "mixed"), images()
    stored = io.BytesIO()
    with torch.no_grad():  # else the graph holds Python's autograd functions
        torch.jit.save(torch.jit.trace(model, x), stored)
    stored.seek(0)
    traced = torch.jit.load(stored)
    other = images().flip(0)
    close(traced(other), model(other))
    with pytest.raises(NotImplementedError, match=r"^swap: torch.jit.script cannot compile a swap"):
        torch.jit.script(model)


def test_a_forward_that_somebody_replaced_is_refused() -> None:
    model = vit()
    attention = model.blocks[1].attn
    attention.forward = attention.forward
    with pytest.raises(ValueError, match=r"^swap: blocks.1.attn has a forward of its own that som"):
        swap(model, "mixed")


def test_hooks_on_attention_survive() -> None:
    model, calls = vit(), []
    handle = model.blocks[0].attn.register_forward_hook(lambda *_: calls.append(1))
    swap(model, "mixed")
    model(images())
    handle.remove()
    model(images())
    assert calls == [1]


def test_models_with_a_rotation_of_their_own_kind_are_refused_by_name() -> None:
    names = ["samvit_base_patch16", "beit_base_patch16_224", "swin_tiny_patch4_window7_224"]
    names += ["gemma4_vit_167m", "qwen3_vit_88m", "deepseek_vit_412m"]  # tables of their own
    for name in names:
        with torch.device("meta"):
            model = timm.create_model(name)
        with pytest.raises(
            ValueError, match=rf"^swap: model must be, .*got {type(model).__name__}"
        ):
            swap(model, "mixed")
