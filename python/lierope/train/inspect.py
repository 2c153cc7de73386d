"""`lierope inspect`: what the encodings of a checkpoint have learned, layer by layer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lierope import diagnostics
from lierope.encodings import Encoding
from lierope.train import checkpoints, plots
from lierope.train import model as models
from lierope.train.checkpoints import Checkpoint
from lierope.train.errors import InputError, check
from lierope.train.extras import extra

_AXES = {1: ("x",), 2: ("y", "x"), 3: ("t", "y", "x")}


@dataclass(frozen=True)
class Layer:
    """One encoding of a model: where it sits, its diagnosis, and its frequencies."""

    name: str
    report: diagnostics.Report
    frequencies: torch.Tensor  # (C, H, planes) in radians per unit of position, largest first


def inspect(path: Path, plot: Path | None = None, heads: bool = False) -> int:
    """Prints the tables of a checkpoint; `plot` also draws the frequencies of every head."""
    if path.is_dir():
        path = path / "best.safetensors"
    if plot is not None:
        check(plot.suffix == ".png", f"plot: must end in .png, got {plot}")
    checkpoint = checkpoints.load(path)
    network = rebuild(checkpoint, path)
    layers = diagnose(network, checkpoint)
    console = extra("rich.console").Console()
    _print_facts(console, path, checkpoint, network)
    if not any(layer.report.parameters or layer.frequencies.any() for layer in layers):
        print(f"The encoding {checkpoint.settings.encoding} rotates nothing: no more to show.")
        check(plot is None, "plot: there are no frequencies to draw")
        return 0
    console.print(_table(layers))
    if heads:
        console.print(_head_table(layers))
    print(_LEGEND)
    if plot is not None:
        plots.frequencies([(x.name, x.frequencies) for x in layers], axes_of(layers[0]), plot)
        print("drawn:", plot)
    return 0


_LEGEND = """\
Frequencies along each axis: radians per unit of position, over heads and planes; the largest is
the spectral norm of that axis's generator. Commutator: 0 if the axes' rotations commute.
Orthogonality: largest entry of |RtR - I|. Relativity: how far scores are from depending on b - a
alone, |R(a)tR(b) - R(0)tR(b-a)| / sqrt(D), the largest over pairs in the training grid."""


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


def diagnose(network: nn.Module, checkpoint: Checkpoint) -> list[Layer]:
    """Measures every encoding of a model over the extent of its training grid."""
    side = network.patch_embed.grid_size[0]  # type: ignore[union-attr, index]
    layers = []
    for name, encoding in models.encodings(network).items():
        mode = checkpoint.settings.positions or encoding.default_positions
        extent = 1.0 if mode in ("proportional", "unit") else float(side)
        layers.append(Layer(name, diagnostics.inspect(encoding, extent), _frequencies(encoding)))
    return layers


def axes_of(layer: Layer) -> tuple[str, ...]:
    """Names of the position axes."""
    count = len(layer.frequencies)
    return _AXES.get(count, tuple(str(axis) for axis in range(count)))


@torch.no_grad()
def _frequencies(encoding: Encoding) -> torch.Tensor:
    # Singular values of a skew matrix come in equal pairs, one pair a plane.
    values: torch.Tensor = torch.linalg.svdvals(diagnostics.generator_matrices(encoding).double())
    return values[..., ::2]


def _print_facts(console: Any, path: Path, checkpoint: Checkpoint, network: nn.Module) -> None:
    s, counts = checkpoint.settings, models.parameters(network)
    last = checkpoint.history[-1] if checkpoint.history else {}
    held_out = 100 * last.get("validation_accuracy", float("nan"))
    lines = (
        f"{path}",
        f"{s.model} with {s.encoding}, trained on {s.data} at {s.image_size} px, seed {s.seed}",
        f"epoch {checkpoint.epoch} of {s.epochs}, held-out accuracy {held_out:.1f} %",
        f"{counts.total:,} parameters, {counts.position:,} of them for positions",
    )
    console.print("\n".join(lines), highlight=False)


def _table(layers: list[Layer]) -> Any:
    table = extra("rich.table").Table(title=layers[0].report.encoding)
    table.add_column("layer", no_wrap=True)
    columns = [f"frequency\nalong {axis}:\nmedian, max" for axis in axes_of(layers[0])]
    columns += ["commu-\ntator", "orthog-\nonality", "rela-\ntivity"]
    # The circulant's basis is Fourier's, whatever it learns: its distance from I says nothing.
    with_basis = "skew" in layers[0].report.shapes
    for column in columns + (["P\nfrom I"] if with_basis else []):
        table.add_column(column, justify="right")
    for layer in layers:
        report = layer.report
        cells = [f"{x.median:.2g}, {x.largest:.3g}" for x in report.frequencies]
        cells += [f"{report.commutator:.2g}", f"{report.orthogonality_error:.2g}"]
        cells += [f"{report.relativity_violation.largest:.2g}"]
        cells += [f"{report.basis_distance:.3f}"] if with_basis else []
        table.add_row(_short(layer.name), *cells)
    return table


def _head_table(layers: list[Layer]) -> Any:
    table = extra("rich.table").Table(title="frequencies of each head: median / largest")
    table.add_column("layer", no_wrap=True)
    table.add_column("head", justify="right")
    for axis in axes_of(layers[0]):
        table.add_column(f"along {axis}", justify="right")
    for layer in layers:
        for head in range(layer.frequencies.shape[1]):
            values = layer.frequencies[:, head]
            cells = [f"{float(v.median()):.3g} / {float(v.max()):.3g}" for v in values]
            table.add_row(_short(layer.name), str(head), *cells)
    return table


def _short(name: str) -> str:
    return name.removesuffix(".attn.encoding")
