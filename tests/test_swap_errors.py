"""What swap refuses: one line that names the module, and a model that is left as it was."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import nn

from lierope import import_timm
from lierope.swap import encodings_of, swap
from lierope.timm import timm
from tiny_models import BLOCKS, dinov3, eva, images, naver, naver_mixed, vit


def refused(
    model: Any, text: str, encoding: Any = "mixed", kind: type = ValueError, **words: Any
) -> None:
    modules = dict(model.named_modules()) if isinstance(model, nn.Module) else {}
    pos_embed, rng = getattr(model, "pos_embed", None), torch.get_rng_state()
    with pytest.raises(kind, match=text) as caught:
        swap(model, encoding, **words)
    assert "\n" not in str(caught.value)
    if modules:
        assert dict(model.named_modules()) == modules
        assert model.pos_embed is pos_embed if hasattr(model, "pos_embed") else True
        assert not encodings_of(model)
    torch.set_rng_state(rng)


@pytest.mark.parametrize("kind", ["ParallelScalingBlock", "DiffParallelScalingBlock"])
def test_inlined_attention(kind: str) -> None:
    model = vit(block_fn=getattr(BLOCKS, kind), embed_dim=48, num_heads=3)
    refused(model, rf"^swap: blocks.0 is a {kind}, whose attention is inlined; only blocks with")


def test_attention_of_an_unknown_class() -> None:
    class Mine(timm.layers.Attention):
        pass

    known = "known are Attention, AttentionRope, EvaAttention$"
    refused(
        vit(attn_layer="diff", num_heads=2),
        rf"^swap: blocks.0.attn is a DiffAttention, which is unknown; {known}",
    )
    refused(vit(attn_layer=Mine), rf"^swap: blocks.0.attn is a Mine, which is unknown; {known}")


def test_no_attention() -> None:
    model = vit()
    model.blocks[1] = nn.Sequential(nn.Linear(48, 48))
    refused(model, r"^swap: blocks.1 is a Sequential, in which no attention module was found$")
    model.blocks = nn.Sequential()
    refused(model, r"^swap: no attention was found in blocks, which is empty$")


def test_a_block_inside_another_module_is_named_in_full() -> None:
    whole = nn.ModuleDict({"net": vit(block_fn=BLOCKS.ParallelScalingBlock)})
    refused(whole, r"^swap: net.blocks.0 is a ParallelScalingBlock")


def test_models_that_are_none() -> None:
    refused(
        nn.Linear(2, 2),
        r"^swap: model must be, or hold, a vision transformer of timm, transformers or torchvision "
        r"\(any other needs coordinates for its torch.nn.MultiheadAttention\), got Linear$",
    )
    refused(timm.create_model("resnet18"), r"^swap: model must be, or hold, .*, got ResNet$")
    refused("vit", r"^swap: model must be a torch.nn.Module, got str$", kind=TypeError)


@pytest.mark.parametrize("kind", [vit, eva], ids=["vit", "eva"])
def test_swapped_already(kind: Any) -> None:
    model = swap(kind(), "mixed")
    with pytest.raises(
        ValueError, match=r"^swap: blocks.0.attn is swapped already, with MixedRoPE$"
    ):
        swap(model, "liere")
    assert model(images()).shape == (2, 5)


def test_sizes_that_the_encoding_cannot_take() -> None:
    refused(vit(), r"^swap: blocks.0.attn: LieRE: block_size must divide head_dim", "liere:5")
    refused(vit(), r"^swap: blocks.0.attn: LieRE: block_size must divide", "liere", block_size=32)
    refused(
        vit(embed_dim=45, num_heads=3),
        r"^swap: blocks.0.attn: MixedRoPE: head_dim must be even, got 15$",
    )


def test_arguments() -> None:
    refused(
        vit(), r"^swap: encoding must be one of .*, got 'lier' \(did you mean 'liere'\?\)$", "lier"
    )
    refused(vit(), r"^swap: encoding must be a short name or an Encoding class", 3, TypeError)
    refused(vit(), r"^swap: encoding must be a short name or .*Linear", nn.Linear, TypeError)
    refused(
        vit(), r"^swap: share must be one of none, heads, layers, all, got 'head'", share="head"
    )
    refused(vit(), r"^swap: positions must be one of .*, got 'indices'", positions="indices")
    refused(vit(), r"^swap: jitter's keys must be one of .*, got 'shiff'", jitter={"shiff": 1})
    refused(vit(), r"jitter must be a number of at least 1.0, got 0.5", jitter={"jitter": 0.5})
    refused(vit(), r"^swap: ndim is read off the model, got 3$", ndim=3)
    refused(vit(), r"^swap: blocks.0.attn: mixed: option must be one of .*, got 'tehta'", tehta=1)
    refused(
        vit(),
        r"^swap: only must match names such as 'blocks.0.attn', got 'blocks.7'$",
        only="blocks.7",
    )
    refused(vit(), r"^swap: skip must match names such as .*, got 'head'$", skip=["head"])
    refused(vit(), r"^swap: only and skip must leave some attention, got none$", skip="blocks.*")
    refused(
        eva(), r"^swap: only and skip must cover all blocks of the model, an Eva", only="blocks.0"
    )


def test_tables_that_cannot_be_kept() -> None:
    text = r"^swap: the model must have a position embedding to keep, got none$"
    refused(naver(), text, "absolute")
    refused(vit(pos_embed="none"), text, keep_absolute=True)


def test_patch_dropout_of_another_kind() -> None:
    model = vit()
    model.patch_drop = nn.Dropout(0.1)
    refused(model, r"^swap: patch_drop must be a PatchDropout or Identity, got Dropout$")


def test_conversions_that_cannot_be() -> None:
    words = {"convert": True}
    refused(vit(), r"^swap: convert needs a rotary embedding, but rope is None$", **words)
    refused(naver(), r"^swap: positions must be left out to convert", positions="index", **words)
    refused(
        naver(),
        r"convert needs an encoding that starts from RoPE's.*CirculantSTRING$",
        "circulant",
        **words,
    )
    refused(
        naver(),
        r"^swap: blocks.0.attn: convert needs 8 pairs a head, got 6$",
        rotary_dim=12,
        **words,
    )
    refused(
        naver_mixed(), r"convert to AxialRoPE needs frequencies bound to axes$", "axial", **words
    )
    refused(naver_mixed(), r"convert needs parameters for 3 heads, got 1$", share="heads", **words)
    refused(
        naver_mixed(),
        r"share must be none or heads to convert rope, got 'layers'$",
        share="layers",
        **words,
    )
    model = eva()
    model.rope = nn.Identity()
    refused(model, r"^swap: convert does not know rope, which is a Identity$", **words)
    original = dinov3().state_dict()
    model = swap(dinov3(), "mixed", convert=True)
    with pytest.raises(ValueError, match=r"^swap: a model swapped with convert=True loads weights"):
        model.load_state_dict(original)
    model.load_state_dict(model.state_dict())


def test_eva_attention_without_positions() -> None:
    model = swap(eva(), "mixed")
    with pytest.raises(ValueError, match=r"^swap: rope must hold the token positions, got None$"):
        model.blocks[0](torch.zeros(1, 17, 48))


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120
    )


def test_a_missing_timm_names_the_extra() -> None:
    blocked = "import sys; sys.modules['{}'] = None; import lierope; "
    for package in ("timm", "torchvision"):
        done = python(blocked.format(package) + "import lierope.timm")
        last = done.stderr.strip().splitlines()[-1]
        assert last.startswith("ImportError: lierope.timm: ")
        assert last.endswith("pip install 'lierope[train]'")


def test_lierope_imports_without_timm_and_mends_torchvision_once() -> None:
    done = python(
        "import lierope, sys; assert 'timm' not in sys.modules;"
        "import lierope.timm, timm, torchvision.transforms"
    )
    assert done.returncode == 0, done.stderr
    if import_timm._declared is None:
        return  # torchvision's own operators load: nothing to mend
    mended = (
        "import torch; library = torch.library.Library('torchvision', 'FRAGMENT');"
        "library.define('nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor');"
        "import lierope.timm, timm"
    )
    done = python(mended)
    assert done.returncode == 0, done.stderr
