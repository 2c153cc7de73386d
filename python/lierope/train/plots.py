"""The pictures: accuracies by encoding and canvas, training curves, learned frequencies."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch

from lierope.train.arrows import BAG_OF_ARROWS
from lierope.train.atomic import write_file
from lierope.train.config import Settings
from lierope.train.extras import extra

# Okabe and Ito's eight colours, told apart by colour-blind eyes too.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000", "#B8A800")
_CANVASES = ("#08306b", "#4292c6", "#9ecae1", "#c6dbef")  # darkest: the size trained on


def summary(summaries: list[dict[str, Any]], settings: Settings, path: Path) -> None:
    """Bars of test accuracy: a group per encoding, a bar per canvas, darkest the one trained on."""
    sizes = list(summaries[0]["test_accuracy"])
    figure = figure_of(max(6.4, 1.3 * len(summaries) + 1.5), 4.2)
    axes = figure.add_subplot()
    width = 0.8 / len(sizes)
    for index, size in enumerate(sizes):
        values = [row["test_accuracy"][size] for row in summaries]
        heights = [100 * value["mean"] for value in values]
        errors = [100 * value["sd"] for value in values] if len(summaries[0]["seeds"]) > 1 else None
        bars = axes.bar(
            [x + (index - (len(sizes) - 1) / 2) * width for x in range(len(summaries))],
            heights,
            width * 0.94,
            yerr=errors,
            capsize=2,
            color=_CANVASES[min(index, len(_CANVASES) - 1)],
            label=f"{size} px" + (", trained on" if index == 0 else ", unseen"),
        )
        axes.bar_label(bars, fmt="%.0f", padding=2, fontsize=8)
    axes.set_xticks(range(len(summaries)), [row["encoding"] for row in summaries])
    axes.set_ylabel("test accuracy, %")
    axes.set_ylim(0, 112)
    axes.set_yticks(range(0, 101, 20))
    _reference_line(axes, settings)
    clean(axes)
    seeds = len(summaries[0]["seeds"])
    over = f"mean and sd of {seeds} seeds" if seeds > 1 else "1 seed"
    axes.set_title(f"{settings.data}: one ViT, {len(summaries)} position encodings ({over})")
    figure.legend(
        *axes.get_legend_handles_labels(),
        loc="outside lower center",
        ncols=len(sizes) + 1,
        frameon=False,
        title="image size",
    )
    save(figure, path)


def curves(results: list[dict[str, Any]], settings: Settings, path: Path) -> None:
    """Loss and held-out accuracy over epochs: a line per encoding, a faint one per seed."""
    figure = figure_of(10, 4)
    panels = figure.subplots(1, 2)
    wanted = (
        ("train_loss", "training loss", 1),
        ("validation_accuracy", "held-out accuracy, %", 100),
    )
    encodings = list(dict.fromkeys(result["settings"]["encoding"] for result in results))
    for axes, (column, label, factor) in zip(panels, wanted, strict=True):
        for index, encoding in enumerate(encodings):
            rows = [r["history"] for r in results if r["settings"]["encoding"] == encoding]
            lines = [[factor * row[column] for row in history] for history in rows]
            epochs = range(1, len(lines[0]) + 1)
            colour = COLOURS[index % len(COLOURS)]
            if len(lines) > 1:
                for line in lines:
                    axes.plot(epochs, line, color=colour, alpha=0.25, linewidth=0.8)
            mean = [sum(values) / len(values) for values in zip(*lines, strict=True)]
            marker = "o" if len(mean) == 1 else None
            axes.plot(epochs, mean, color=colour, label=encoding, marker=marker)
        axes.set_xlabel("epoch")
        axes.set_ylabel(label)
        clean(axes)
    panels[0].set_yscale("log")
    figure.suptitle(f"{settings.data}, {settings.model}")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper", frameon=False)
    save(figure, path)


def _reference_line(axes: Any, settings: Settings) -> None:
    if settings.data == "arrows":
        axes.axhline(100 * BAG_OF_ARROWS, color="#555555", linewidth=1, linestyle="--",
                     label="best without positions")  # fmt: skip


def figure_of(width: float, height: float) -> Any:
    """A figure of that many inches."""
    # Else a first run on a machine says that it builds a font cache.
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
    # Figure without pyplot: no display, no global state, safe in any thread.
    return extra("matplotlib.figure").Figure(figsize=(width, height), layout="constrained", dpi=150)


def clean(axes: Any) -> None:
    """Takes away what carries no information."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)


def save(figure: Any, path: Path) -> None:
    """Writes a PNG whole or not at all."""
    write_file(path, lambda part: figure.savefig(part, format="png"))


def frequencies(
    layers: list[tuple[str, torch.Tensor]], axis_names: tuple[str, ...], path: Path
) -> None:
    """Dots: the frequencies of every head, a panel per layer, a colour per position axis.

    Args:
        layers: name and frequencies (C, H, planes) of each layer.
        axis_names: names of the C position axes.
        path: the PNG to write.
    """
    columns = min(4, len(layers))
    rows = -(-len(layers) // columns)
    figure = figure_of(max(5.0, 3.2 * columns), 2.8 * rows + 0.6)
    panels = figure.subplots(rows, columns, sharey=True, squeeze=False).flatten()
    for panel, (name, values) in zip(panels, layers, strict=False):
        for axis, label in enumerate(axis_names):
            heads, planes = values.shape[1:]
            shift = 0.3 * (axis - (len(axis_names) - 1) / 2)
            x = torch.arange(heads).repeat_interleave(planes) + shift
            panel.plot(x, values[axis].flatten(), ".", color=COLOURS[axis], alpha=0.7,
                       label=f"along {label}", markersize=5)  # fmt: skip
        panel.set_title(name.removesuffix(".attn.encoding"), fontsize=10)
        panel.set_xticks(range(values.shape[1]))
        panel.set_xlabel("head")
        clean(panel)
    for panel in panels[len(layers) :]:
        panel.set_visible(False)
    panels[0].set_ylabel("radians per unit of position")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center",
                  ncols=len(axis_names), frameon=False)  # fmt: skip
    save(figure, path)
