"""Models for other runtimes: rotations fixed on a grid, operators written out, ONNX."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

import lierope.ops  # noqa: F401 (its files are found by name below: functions hide them)
from lierope.encodings import Encoding
from lierope.encodings.fixed import FixedRotations

Model = TypeVar("Model", bound=nn.Module)

_WRITTEN_OUT = {
    "expm_skew": ("expm_skew", "composed_expm_skew"),
    "lie_rotations": ("lie_rotations", "composed_lie_rotations"),
    "lie_rotate": ("lie_rotate", "_composed"),
    "rotate_blocks": ("rotate_blocks", "composed_rotate_blocks"),
    "rotate_pairs": ("rotate_pairs", "_composed"),
    "rotate_circulant": ("circulant", "_composed"),
    "cayley": ("cayley", "_composed"),
    "cayley_rotate": ("cayley", "_composed_rotate"),
}


def decompositions() -> dict[Any, Callable[..., Any]]:
    """Every operator in terms of torch's own, for `ExportedProgram.run_decompositions`.

    A program without lierope's operators runs where its library is not: ONNX, ExecuTorch, other
    compilers.

    Example:
        >>> import timm
        >>> model = timm.create_model("vit_tiny_patch16_224", depth=2, num_classes=10)
        >>> model = lierope.swap(model, "mixed").eval()
        >>> program = torch.export.export(model, (torch.randn(1, 3, 224, 224),))
        >>> program = program.run_decompositions(lierope.export.decompositions())
        >>> any("lierope" in str(node.target) for node in program.graph.nodes)
        False
    """
    return {
        getattr(torch.ops.lierope, op).default: getattr(sys.modules[f"lierope.ops.{file}"], name)
        for op, (file, name) in _WRITTEN_OUT.items()
    }


@torch.no_grad()
def fix_positions(model: Model, *example: Any) -> Model:
    """Replace encodings made of exponentials by the rotations that an example's positions give.

    For inference on one grid: `FixedRotations` holds the matrices, and costs one product a block.
    STRING is folded instead (`lierope.fold`), and RoPE's angles are cheap as they are.

    Args:
        model: Holds `LieRE` encodings, each called at positions that all samples share. It is
            changed in place.
        *example: What the model is called with; only the positions it leads to matter.

    Returns:
        The same model.

    Raises:
        ValueError: No encoding to fix, one that the example does not reach, or positions that
            differ between samples or calls. Nothing is changed then.

    Example:
        >>> import timm
        >>> model = timm.create_model("vit_tiny_patch16_224", depth=2, num_classes=10)
        >>> model = lierope.swap(model, "liere", block_size=8).eval()
        >>> images = torch.randn(2, 3, 224, 224)
        >>> before = model(images)
        >>> torch.allclose(lierope.export.fix_positions(model, images)(images), before, atol=1e-4)
        True
    """
    found = {m: name for name, m in model.named_modules() if _fixable(m)}
    if not found:
        raise ValueError(
            "fix_positions: model must have encodings with rotations (LieRE), got none"
        )
    seen = _positions_of(model, found, example)
    fixed = {encoding: FixedRotations(encoding, seen[encoding]) for encoding in found}
    for holder in list(model.modules()):
        for name, child in holder.named_children():
            if child in fixed:
                setattr(holder, name, fixed[child])
    return model


def onnx_program(
    model: nn.Module, args: tuple[Any, ...], dynamic_shapes: Any = None
) -> torch.onnx.ONNXProgram:
    """A model as ONNX, by torch's exporter; it needs the packages onnx and onnxscript.

    For example::

        lierope.fold(model)                                   # STRING
        lierope.export.fix_positions(model, images)           # LieRE
        lierope.export.onnx_program(model.eval(), (images,)).save("model.onnx")

    Args:
        model: In eval mode, folded or fixed where its encodings need it.
        args: What to trace it with.
        dynamic_shapes: As of `torch.export.export`.

    Raises:
        ValueError: An encoding that ONNX cannot express as it is; the text says what to call.
        ImportError: onnxscript is missing.
    """
    for name, encoding in model.named_modules():
        if not isinstance(encoding, Encoding):
            continue
        kind = type(encoding).__name__
        if _fixable(encoding):
            raise ValueError(
                f"onnx_program: {name}: exponentials are no ONNX operator; "
                f"call lierope.export.fix_positions first, got {kind}"
            )
        if encoding.basis() is not None:
            raise ValueError(
                f"onnx_program: {name}: a learned basis must be folded; "
                f"call lierope.fold first, got {kind}"
            )
    program = torch.export.export(model, args, dynamic_shapes=dynamic_shapes)
    written = program.run_decompositions(decompositions())
    try:
        made = torch.onnx.export(written, dynamo=True, verbose=False)
    except ImportError as error:
        raise ImportError(
            f"onnx_program: {error.name} is missing; pip install onnx onnxscript"
        ) from error
    assert made is not None
    return made


def _fixable(module: nn.Module) -> bool:
    return isinstance(module, Encoding) and callable(getattr(module, "rotations", None))


def _positions_of(
    model: nn.Module, found: dict[nn.Module, str], example: tuple[Any, ...]
) -> dict[nn.Module, Tensor]:
    """The positions that each encoding gets in one pass, (M, C)."""
    seen: dict[nn.Module, Tensor] = {}

    def recorded(encoding: Any, rotate: Callable[..., Any]) -> Callable[..., Any]:
        def recording(q: Tensor, k: Tensor, positions: Tensor, *rest: Any, **words: Any) -> Any:
            _agree(found[encoding], seen.get(encoding), positions)
            seen[encoding] = positions if positions.dim() == 2 else positions[0]
            return rotate(q, k, positions, *rest, **words)

        return recording

    training = model.training
    for encoding in found:
        kept: Any = encoding
        kept.rotate = recorded(encoding, kept.rotate)
    try:
        model.eval()(*example)
    finally:
        for encoding in found:
            del encoding.rotate
        model.train(training)
    for encoding, name in found.items():
        if encoding not in seen:
            raise ValueError(f"fix_positions: the example must reach {name}, which it does not")
    return seen


def _agree(name: str, before: Tensor | None, positions: Tensor) -> None:
    samples = positions if positions.dim() == 3 else positions.unsqueeze(0)
    first = samples[0] if before is None else before
    if first.shape != samples.shape[1:] or not bool((samples == first).all()):
        raise ValueError(
            f"fix_positions: positions of {name} must be the same for all samples and calls"
        )
