"""Swapped models leave Python: torch.export, AOTInductor, ONNX, with sizes that may change."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from lierope import export
from lierope.encodings import LieRE, create
from lierope.encodings.fixed import FixedRotations
from lierope.swap import encodings_of, fold, swap
from tiny_models import PLAIN, eva, images, vit

Make = Callable[..., nn.Module]
FAMILIES = ("mixed", "liere:4", "cayley", "circulant")

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def learned(kind: Make, encoding: str) -> nn.Module:
    model = swap(kind(), encoding).eval()
    for module in encodings_of(model).values():
        if hasattr(module, "skew"):
            nn.init.normal_(module.skew, std=0.5)
    return model


def same(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "encoding"), [*((vit, name) for name in FAMILIES), (eva, "liere:4")]
)
@torch.no_grad()
def test_export_with_dynamic_batch_and_image_size(kind: Make, encoding: str) -> None:
    model = learned(partial(kind, dynamic_img_size=True), encoding)
    shape = {0: Dim("batch"), 2: 8 * Dim("rows", min=2, max=16), 3: 8 * Dim("columns", min=2)}
    program = torch.export.export(model, (images(3),), dynamic_shapes=(shape,))
    for batch, height, width in ((1, 32, 32), (5, 48, 64), (2, 16, 40)):
        x = images(batch, height, width)
        same(program.module()(x), model(x))


def test_an_exported_program_sees_new_weights() -> None:
    """Nothing that evaluation keeps is baked in."""
    model, x = learned(vit, "liere:4"), images()
    with torch.no_grad():
        model(x)
        program = torch.export.export(model, (x,)).module()
        for holder in (model, program):
            for name, parameter in holder.named_parameters():
                if "generators" in name:
                    parameter.mul_(0.5)
        same(program(x), model(x))


@pytest.mark.parametrize("encoding", FAMILIES)
@torch.no_grad()
def test_operators_can_be_written_out(encoding: str) -> None:
    model, x = learned(vit, encoding), images()
    program = torch.export.export(model, (x,)).run_decompositions(export.decompositions())
    targets = [str(n.target) for n in program.graph.nodes if n.op == "call_function"]
    assert not any("lierope" in target for target in targets)
    same(program.module()(x), model(x))


def test_every_forward_operator_has_its_writing() -> None:
    written = {str(op).split(".")[1] for op in export.decompositions()}
    names = {
        schema.name.split("::")[1]
        for schema in torch._C._jit_get_all_schemas()
        if schema.name.startswith("lierope::")
    }
    assert written == {name for name in names if not name.endswith("_backward")}


@pytest.mark.slow
@torch.no_grad()
def test_ahead_of_time_compilation(tmp_path: Path) -> None:
    """One package of two encodings: the C++ compiler takes most of the time."""

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.turns = nn.ModuleList(create(name, 8, 2) for name in ("liere:4", "cayley"))

        def forward(self, q: Tensor, positions: Tensor) -> Tensor:
            for turn in self.turns:
                q, _ = turn(q, q, positions, 1)
            return q

    model = Two().eval()
    q, p = torch.randn(2, 2, 5, 8), torch.rand(4, 2)
    batch, tokens = Dim("batch", min=2), Dim("tokens", min=3, max=1024)
    shapes = ({0: batch, 2: tokens + 1}, {0: tokens})
    program = torch.export.export(model, (q, p), dynamic_shapes=shapes)
    package = torch._inductor.aoti_compile_and_package(
        program, package_path=str(tmp_path / "model.pt2")
    )
    compiled: Any = torch._inductor.aoti_load_package(package)
    for size in ((2, 4), (3, 7)):
        q, p = torch.randn(size[0], 2, size[1] + 1, 8), torch.rand(size[1], 2)
        same(compiled(q, p), model(q, p))


ONNX: dict[str, tuple[Make, str]] = {
    "folded cayley": (vit, "cayley"),
    "folded circulant": (PLAIN["registers"], "circulant"),
    "fixed liere, eva": (eva, "liere:8"),
}


@pytest.mark.skipif(not find_spec("onnxscript"), reason="needs onnx and onnxscript")
@pytest.mark.parametrize(("kind", "encoding"), ONNX.values(), ids=ONNX.keys())
@torch.no_grad()
def test_onnx(kind: Make, encoding: str) -> None:
    from onnx.reference import ReferenceEvaluator  # noqa: PLC0415

    model, x = learned(partial(kind, depth=1), encoding), images()
    expected = model(x)
    if "liere" in encoding:
        export.fix_positions(model, x)
    elif encoding != "mixed":
        fold(model)
    program = export.onnx_program(model, (x,))
    graph = program.model_proto
    assert {node.domain for node in graph.graph.node} <= {""}
    (found,) = ReferenceEvaluator(graph).run(None, {graph.graph.input[0].name: x.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), expected, rtol=1e-4, atol=1e-4)


def test_onnx_says_what_to_call_first() -> None:
    x = (images(),)
    with pytest.raises(
        ValueError, match=r"attn.encoding: exponentials .*fix_positions .*got LieRE"
    ):
        export.onnx_program(learned(vit, "liere:4"), x)
    with pytest.raises(ValueError, match=r"attn.encoding: .*lierope.fold first, got CayleySTRING"):
        export.onnx_program(learned(vit, "cayley"), x)


def test_onnx_without_its_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> None:
        raise ImportError("No module named 'onnxscript'", name="onnxscript")

    monkeypatch.setattr(torch.onnx, "export", missing)
    with pytest.raises(ImportError, match=r"^onnx_program: onnxscript is missing; pip install on"):
        export.onnx_program(learned(vit, "mixed"), (images(),))


@pytest.mark.parametrize("share", ["none", "heads", "layers", "all"])
@torch.no_grad()
def test_fixed_positions_change_no_output(share: str) -> None:
    model = swap(vit(dynamic_img_size=True), "liere:8", share=share)
    expected = model(images(2, 48))
    plain = copy.deepcopy(model)
    assert export.fix_positions(model.train(), images(1, 48)).training
    same(model.eval()(images(2, 48)), expected)
    kinds = {type(e) for e in encodings_of(model).values()}
    assert kinds == {FixedRotations}
    again = export.fix_positions(plain, images(1, 48))
    again.load_state_dict(model.state_dict())
    with pytest.raises(ValueError, match=r"^FixedRotations: positions must be the 36 .*, got 16$"):
        model(images(2, 32))


def test_positions_that_cannot_be_fixed() -> None:
    with pytest.raises(ValueError, match=r"^fix_positions: model must have .*, got none$"):
        export.fix_positions(swap(vit(), "mixed"), images())

    class Holder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.idle = LieRE(8, 2), LieRE(8, 2)

        def forward(self, x: Tensor, positions: Tensor) -> Tensor:
            return self.used(x, x, positions)[0]

    x = torch.zeros(2, 2, 3, 8)
    with pytest.raises(ValueError, match=r"positions of used must be the same for all samples"):
        export.fix_positions(Holder(), x, torch.rand(2, 3, 2))
    with pytest.raises(ValueError, match=r"^fix_positions: the example must reach idle, which"):
        export.fix_positions(Holder(), x, torch.rand(3, 2))
    with pytest.raises(TypeError, match=r"^FixedRotations: like must be .*, got MixedRoPE$"):
        FixedRotations(create("mixed", 8, 2), torch.zeros(3, 2))
    with pytest.raises(ValueError, match=r"^FixedRotations: positions must have .*got \(3, 3\)$"):
        FixedRotations(LieRE(8, 2), torch.zeros(3, 3))
