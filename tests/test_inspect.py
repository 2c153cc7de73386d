"""`lierope inspect` on models and on what a checkpoint holds: numbers, pictures, refusals."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

pytest.importorskip("lierope.timm", exc_type=ImportError)

from lierope.cli import main
from lierope.diagnostics import ANGLE_LIMIT
from lierope.encodings import create
from lierope.swap import encodings_of, swap
from lierope.timm import timm
from lierope.train.errors import InputError
from lierope.train.inspect import diagnose
from tiny_models import dinov3, vit

Printed = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models of two layers, whatever their names."""
    monkeypatch.setattr(timm, "create_model", partial(timm.create_model, depth=2))


def test_a_model_of_the_registry(tmp_path: Path, capsys: Printed) -> None:
    plot, numbers = tmp_path / "a.png", tmp_path / "a.json"
    options = ["--plot", str(plot), "--json", str(numbers), "--heads"]
    assert main(["inspect", "vit_tiny_patch16_liere8_224", *options]) == 0
    shown = capsys.readouterr().out
    for words in (
        "as it starts",
        "LieRE(head_dim=64",
        "largest",
        "commutator",
        "zeros",
        "blocks.1",
    ):
        assert words in shown, words
    lines = [line for line in shown.splitlines() if not line.startswith("drawn:")]
    assert max(map(len, lines)) <= 100
    for picture in (plot, tmp_path / "a-layers.png"):
        assert picture.read_bytes().startswith(b"\x89PNG")
    found = json.loads(numbers.read_text())
    assert list(found) == ["blocks.0.attn.encoding", "blocks.1.attn.encoding"]
    report = found["blocks.0.attn.encoding"]
    assert 20 < report["largest_angle"] < 60  # U(0, 2 pi), patches over [0, 1]
    assert 1e-8 < report["rounding_error"] < 1e-5
    assert report["sparsity"]["generators"] < 0.01


@pytest.mark.parametrize(
    ("name", "encoding", "words"),
    [
        ("vit_tiny_patch16_224", "cayley", "P from I"),
        ("vit_small_patch16_rope_mixed_224", "mixed", "MixedRoPE(head_dim=64"),
        ("vit_tiny_patch16_224", "none", "rotates nothing: no more to show"),
    ],
)
def test_an_encoding_put_into_a_model(
    name: str, encoding: str, words: str, tmp_path: Path, capsys: Printed
) -> None:
    assert main(["inspect", name, "--encoding", encoding]) == 0
    shown = capsys.readouterr().out
    assert f"{name} as it starts, with {encoding}" in shown
    assert words in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["vit_tiny_patch16_liere_224"],
         "target: must be a file, a folder or a model of timm, got vit_tiny_patch16_liere_224; "
         "did you mean vit_tiny_patch16_liere8_224?"),
        (["vit_tiny_patch16_224"],
         "encoding: must be given, because vit_tiny_patch16_224 has none of ours"),
        (["vit_tiny_patch16_mixed_224", "--encoding", "mixed"],
         "encoding: vit_tiny_patch16_mixed_224 has its own, got mixed"),
        (["vit_tiny_patch16_224", "--encoding", "mixd"],
         "encoding mixd: swap: encoding must be one of"),
        (["vit_tiny_patch16_224", "--encoding", "none", "--plot", "x.png"],
         "plot: there are no frequencies to draw"),
        (["vit_tiny_patch16_224", "--encoding", "mixed", "--plot", "x.pdf"],
         "plot: must end in .png, got x.pdf"),
        (["./missing.safetensors", "--encoding", "mixed"],
         "encoding: a checkpoint has its own, got mixed"),
    ],
)  # fmt: skip
def test_refusals(arguments: list[str], message: str, capsys: Printed) -> None:
    assert main(["inspect", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"lierope inspect: {message}")
    assert error.count("\n") == 1


def test_the_extent_is_that_of_the_positions_a_model_has() -> None:
    model = swap(vit(), "liere:4", positions="index")
    far = diagnose(model, 32)[0].report.largest_angle
    near = diagnose(swap(vit(), "liere:4"), 32)[0].report.largest_angle
    assert far > 2 * near  # 3 cells against 1 grid
    coordinates: Any = swap(dinov3(), "mixed", convert=True)
    assert diagnose(coordinates, 32)[0].report.relativity_violation.largest < 1e-9
    assert all(not hasattr(e.rotate, "__wrapped__") for e in encodings_of(model).values())
    model(torch.zeros(1, 3, 32, 32))


def test_an_encoding_that_no_image_reaches() -> None:
    class Idle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.turn = create("mixed", 8, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    with pytest.raises(InputError, match=r"^target: no encoding of the model was reached by an im"):
        diagnose(Idle(), 32)


def test_sparse_generators_and_large_angles_show(capsys: Printed) -> None:
    model = swap(vit(), "liere:4", positions="index")
    for encoding in encodings_of(model).values():
        with torch.no_grad():
            encoding.generators[..., 3:] = 0
            encoding.generators.mul_(50)
    report = diagnose(model, 32)[0].report
    assert report.sparsity == {"generators": 0.5}
    assert report.largest_angle > ANGLE_LIMIT
    assert report.rounding_error > 1e-6
    nn.init.zeros_(encoding.generators)
    assert diagnose(model, 32)[1].report.sparsity == {"generators": 1.0}
