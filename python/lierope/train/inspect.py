"""`lierope inspect`: what the encodings of a checkpoint, or of a fresh model, do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lierope import diagnostics
from lierope.encodings import Encoding
from lierope.swap import encodings_of, swap
from lierope.train import checkpoints, inspect_plots, inspect_tables, plots
from lierope.train import model as models
from lierope.train.atomic import write_json
from lierope.train.checkpoints import Checkpoint
from lierope.train.errors import InputError, check, one_line, suggestion
from lierope.train.extras import extra
from lierope.train.inspect_tables import Layer

_SAMPLES = 64


@dataclass(frozen=True)
class Subject:
    """What is inspected: a model, and lines that say what it is."""

    network: nn.Module
    facts: tuple[str, ...]
    image_size: int | None


def inspect(
    target: str,
    encoding: str | None = None,
    plot: Path | None = None,
    heads: bool = False,
    json: Path | None = None,
) -> int:
    """Prints the tables of a checkpoint or of a model of timm's registry.

    Args:
        target: A .safetensors file, a run's folder, or the name of a model.
        encoding: Put into the model first; a checkpoint has its own.
        plot: A PNG to draw every head's frequencies into; a second one, `…-layers.png` beside it,
            shows the other measurements.
        heads: Also a table with a row for every head.
        json: A file that gets the numbers.
    """
    if plot is not None:
        check(plot.suffix == ".png", f"plot: must end in .png, got {plot}")
    subject = _subject(target, encoding)
    layers = diagnose(subject.network, subject.image_size)
    console = extra("rich.console").Console()
    console.print("\n".join(subject.facts), highlight=False)
    if json is not None:
        write_json(json, {layer.name: layer.report.as_dict() for layer in layers})
    if not any(layer.report.parameters or layer.frequencies.any() for layer in layers):
        print(f"The encoding {layers[0].report.encoding} rotates nothing: no more to show.")
        check(plot is None, "plot: there are no frequencies to draw")
        return 0
    inspect_tables.show(console, layers, heads)
    if plot is not None:
        drawn = [(layer.name, layer.frequencies) for layer in layers]
        plots.frequencies(drawn, inspect_tables.axes_of(layers[0]), plot)
        beside = plot.with_name(f"{plot.stem}-layers.png")
        inspect_plots.layers(layers, beside)
        print("drawn:", plot, beside)
    return 0


def _subject(target: str, encoding: str | None) -> Subject:
    path = Path(target)
    # A name of timm's has no folder and no suffix; whatever else is said to be missing.
    if not path.exists() and path.name == target and not path.suffix:
        return _fresh(target, encoding)
    check(encoding is None, f"encoding: a checkpoint has its own, got {encoding}")
    if path.is_dir():
        path = path / "best.safetensors"
    checkpoint = checkpoints.load(path)
    network = rebuild(checkpoint, path)
    return Subject(network, _facts(path, checkpoint, network), checkpoint.settings.image_size)


def _fresh(name: str, encoding: str | None) -> Subject:
    """A model as it starts; its own rotation is taken over where it has one."""
    timm = extra("timm")
    extra("lierope.timm")
    if not timm.is_model(name):
        hint = suggestion(name, timm.list_models())
        raise InputError(f"target: must be a file, a folder or a model of timm, got {name}{hint}")
    network: nn.Module = timm.create_model(name).eval()
    if encodings_of(network):
        check(encoding is None, f"encoding: {name} has its own, got {encoding}")
    else:
        check(encoding is not None, f"encoding: must be given, because {name} has none of ours")
        own = getattr(network, "rope", None) is not None
        try:
            swap(network, str(encoding), convert=own)
        except (TypeError, ValueError, NotImplementedError) as error:
            raise InputError(f"encoding {encoding}: {one_line(error)}") from None
    counts = models.parameters(network)
    facts = (
        f"{name} as it starts" + (f", with {encoding}" if encoding else ""),
        f"{counts.total:,} parameters, {counts.position:,} of them for positions",
    )
    return Subject(network, facts, None)


def rebuild(checkpoint: Checkpoint, path: Path) -> nn.Module:
    """The model of a checkpoint with its weights, ready to be used.

    Raises:
        InputError: the weights do not fit the model the checkpoint's settings describe.
    """
    try:
        network = models.build(checkpoint.settings, checkpoint.in_chans, checkpoint.num_classes)
    except InputError as error:
        raise InputError(f"checkpoint: {path} does not describe a model: {error}") from None
    checkpoints.load_weights(network, checkpoint, path)
    return network.eval()


def diagnose(network: nn.Module, image_size: int | None = None) -> list[Layer]:
    """Measures every encoding of a model over the positions that an image's patches get."""
    positions = _positions(network, image_size)
    extent = float((positions.amax(0) - positions.amin(0)).max())
    layers = []
    for name, encoding in models.encodings(network).items():
        report = diagnostics.inspect(encoding, extent or None)
        layers.append(Layer(name, report, *_by_head(encoding, extent or 1.0)))
    return layers


@torch.no_grad()
def _by_head(encoding: Encoding, extent: float) -> tuple[Tensor, Tensor, Tensor]:
    """Frequencies (C, H, planes), distances (M,) and the violation (H, M) at them."""
    # Singular values of a skew matrix come in equal pairs, one pair a plane.
    values: Tensor = torch.linalg.svdvals(diagnostics.generator_matrices(encoding).double())
    random = torch.Generator().manual_seed(0)
    a, b = torch.rand(2, _SAMPLES, encoding.ndim, generator=random) * extent
    violation = diagnostics.relativity_violation(encoding, a, b)
    return values[..., ::2], (b - a).norm(dim=-1), violation.double()


class _Reached(Exception):  # noqa: N818 (it ends a forward pass, and is no error)
    """Thrown by the first encoding that is called, with its positions."""


@torch.no_grad()
def _positions(network: nn.Module, image_size: int | None) -> Tensor:
    """What the first encoding is given for an image, (M, C)."""

    def stop(q: Tensor, k: Tensor, positions: Tensor, *_: object, **__: object) -> None:
        raise _Reached(positions if positions.dim() == 2 else positions[0])

    every: list[Any] = list(models.encodings(network).values())
    for encoding in every:
        encoding.rotate = stop
    config: Any = getattr(network, "pretrained_cfg", None) or {}
    channels, size, _ = config.get("input_size", (3, 224, 224))
    own: Any = getattr(network, "patch_embed", None)
    channels = own.proj.in_channels if own is not None else channels
    side = image_size or size
    try:
        network(torch.zeros(1, channels, side, side))
    except _Reached as reached:
        positions: Tensor = reached.args[0]
        return positions
    finally:
        for encoding in every:
            del encoding.rotate
    raise InputError("target: no encoding of the model was reached by an image")


def _facts(path: Path, checkpoint: Checkpoint, network: nn.Module) -> tuple[str, ...]:
    s, counts = checkpoint.settings, models.parameters(network)
    last = checkpoint.history[-1] if checkpoint.history else {}
    held_out = 100 * last.get("validation_accuracy", float("nan"))
    return (
        f"{path}",
        f"{s.model} with {s.encoding}, trained on {s.data} at {s.image_size} px, seed {s.seed}",
        f"epoch {checkpoint.epoch} of {s.epochs}, held-out accuracy {held_out:.1f} %",
        f"{counts.total:,} parameters, {counts.position:,} of them for positions",
    )
