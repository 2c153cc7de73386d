"""Test on larger images with positions extended, fixed or centred. LieRE, next check 3.

A model is trained once; then a larger grid gets coordinates in three ways, in the units that the
model was trained in:

- extended: the same distance from patch to patch, from the same corner (the modes "index" and
  "proportional" of `lierope.grid_positions`)
- fixed: the same range of coordinates, patches closer together (the mode "unit")
- centred: the same distance, about the middle of the training grid (the mode "centered")

A relative encoding cannot tell extended from centred. On the default canvases objects keep their
size in pixels and the margin grows, which suits extended positions; where images are resized, as in
the presets, objects grow with the image, which suits fixed ones.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.studies.harness import pictures, vision, words
from benchmarks.studies.harness.study import Arm, Context, Metric, Outcome, Study
from benchmarks.studies.harness.summary import Summary
from lierope.positions import grid_positions
from lierope.swap.grid import GridPositions
from lierope.train.plots import clean, figure_of, save

WAYS = ("extended", "fixed", "centred")
_TRAINED = 10  # pixels a side of the default images


class OtherPositions(GridPositions):
    """The coordinates of a grid that is larger than the one trained on, in one of the ways."""

    def __init__(self, trained: GridPositions, train_shape: Iterable[int], way: str) -> None:
        super().__init__(trained.mode, tuple(train_shape))
        self.way = way

    def _build(self, shape: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
        assert self.train_shape is not None
        trained = grid_positions(
            self.train_shape, self.mode, train_shape=self.train_shape, dtype=torch.float64
        )
        low, high = trained.amin(0), trained.amax(0)
        axes = [
            _axis(size, before, float(low[c]), float(high[c]), self.way)
            for c, (size, before) in enumerate(zip(shape, self.train_shape, strict=True))
        ]
        grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).flatten(0, -2)
        return grid.to(device, dtype)


def _axis(size: int, before: int, low: float, high: float, way: str) -> Tensor:
    index = torch.arange(size, dtype=torch.float64)
    step = (high - low) / max(before - 1, 1)
    if way == "fixed":
        return low + index * (high - low) / max(size - 1, 1)
    return low + step * (index - ((size - before) / 2 if way == "centred" else 0))


def run(context: Context) -> Outcome:
    """Trains as `images`, tests every size in every way."""
    trained = vision.train(context, vision.settings_of(context, context.settings["encoding"]))
    run = trained.run
    dropped: Any = run.model.patch_drop  # swap's announcement of positions stands in its place
    embedding: Any = run.model.patch_embed
    metrics = {}
    if context.settings["encoding"] not in ("none", "absolute"):
        own: GridPositions = dropped.positions
        for way in WAYS:
            dropped.positions = OtherPositions(own, embedding.grid_size, way)
            for size in run.settings.eval_sizes:
                metrics[f"{way}@{size}"] = run.evaluate(run.source.test_batches(size))[1]
    else:  # none and absolute: timm resizes the table, if there is one
        tested = trained.result["test_accuracy"]
        metrics = {f"fixed@{size}": tested[str(size)] for size in run.settings.eval_sizes}
    return vision.outcome(trained, **metrics)


def verdict(summary: Summary) -> str:
    """What each way of larger positions does to an arm, and the arms against each other."""
    known = [m for m in STUDY.metrics if m.name.startswith("extended@")]
    known = [m for m in known if any(summary.values(a, m.name) for a in summary.arms)]
    ways = [_ways(summary, int(m.name.partition("@")[2])) for m in reversed(known)]
    rest = [
        words.against(summary, m, arms=[a for a in summary.arms if summary.values(a, m.name)])
        for m in known
    ]
    return "\n".join((*ways, *rest)) or "No arm has positions to extend."


def _ways(summary: Summary, size: int) -> str:
    found = []
    for way in ("fixed", "centred"):
        same, lost, unclear = words.kept(summary, f"extended@{size}", f"{way}@{size}", 0.5)
        parts = [f"less accurate for {words.listed(lost)}"] if lost else []
        parts += [f"the same within half a point for {words.listed(same)}"] if same else []
        parts += [f"not told apart for {words.listed(unclear)}"] if unclear else []
        if parts:
            found.append(f"{way} positions are {', '.join(parts)}")
    return f"On {size} px, against extended positions, {'; '.join(found)}." if found else ""


_LOOKS = {"extended": ("#0072B2", "-"), "fixed": ("#D55E00", "-"), "centred": ("#000000", ":")}


def draw(summary: Summary, folder: Path) -> list[Path]:
    """A panel an arm with a line for each way; all arms with extended positions."""
    sizes = STUDY.settings["eval_sizes"]
    made = [_panels(summary, sizes, folder / "resolution.png")]
    by_size = {_TRAINED: "accuracy"} | {size: f"extended@{size}" for size in sizes}
    arms = [a for a in summary.arms if summary.values(a, by_size[sizes[0]])]
    if arms:
        made.append(
            pictures.against(
                summary,
                by_size,
                folder / "resolution-extended.png",
                arms=arms,
                xlabel=f"pixels a side (trained on {_TRAINED}), extended positions",
                ylabel="test accuracy, %",
            )
        )
    return made


def _panels(summary: Summary, sizes: list[int], path: Path) -> Path:
    columns = min(4, len(summary.arms))
    rows = -(-len(summary.arms) // columns)
    figure = figure_of(2.3 * columns + 0.6, 2.0 * rows + 0.8)
    panels = figure.subplots(rows, columns, sharey=True, squeeze=False).flatten()
    for panel, arm in zip(panels, summary.arms, strict=False):
        for way, (colour, dash) in _LOOKS.items():
            names = {_TRAINED: "accuracy"} | {size: f"{way}@{size}" for size in sizes}
            found = ((x, summary.estimate(arm, name)) for x, name in names.items())
            points = [(x, e) for x, e in found if e is not None]
            if len(points) < 2:  # the size trained on alone: this arm has no such way
                continue
            x = [size for size, _ in points]
            low, high = zip(*(pictures.drawn_interval(e, 100) for _, e in points), strict=True)
            panel.plot(x, [100 * e.mean for _, e in points], color=colour, linestyle=dash,
                       marker="o", markersize=2.5, linewidth=1.3, label=way)  # fmt: skip
            panel.fill_between(x, low, high, color=colour, alpha=0.12, linewidth=0)
        panel.set_title(arm, fontsize=9)
        panel.set_xticks([_TRAINED, *sizes])
        panel.tick_params(axis="x", labelsize=8)
        panel.set_ylim(0, 103)
        clean(panel)
    for panel in panels[len(summary.arms) :]:
        panel.set_visible(False)
    shown = {label: line for panel in panels
             for line, label in zip(*panel.get_legend_handles_labels(), strict=True)}  # fmt: skip
    figure.legend(shown.values(), shown.keys(), loc="outside lower right", frameon=False,
                  ncols=len(shown), title="positions of the larger images")  # fmt: skip
    figure.supxlabel(f"pixels a side (trained on {_TRAINED})", fontsize=10)
    figure.supylabel("test accuracy, %", fontsize=10)
    save(figure, path)
    return path


_ENCODINGS = ("none", "absolute", "axial", "mixed", "mixed:init=uniform", "liere:2", "liere:8",
              "liere:head", "cayley", "circulant")  # fmt: skip
_SIZES = [12, 14, 16, 20, 24]

STUDY = Study(
    name="resolution",
    question="Which encodings hold on larger images, and with which positions?",
    source="LieRE, next check 3 and figure 7",
    version=1,
    arms=[Arm(name, {"encoding": name}) for name in _ENCODINGS],
    settings={**vision.DIGITS, "eval_sizes": _SIZES},
    quick={"epochs": 1, "eval_sizes": [12, 16]},
    quick_arms=("absolute", "mixed"),
    run=run,
    metrics=[
        Metric("accuracy", "10 px, %"),
        *(Metric(f"{way}@{size}", f"{size} px {way}, %") for size in (16, 24) for way in WAYS),
    ],
    reference="mixed",
    verdict=verdict,
    draw=draw,
    presets={
        name: values | {"eval_sizes": [32, 48, 64, 96] if "cifar" in name else
                        [160, 224, 256, 320, 384, 512]}
        for name, values in vision.PRESETS.items()
    },
    joined=True,
    papers=(
        "LieRE, figure 7 (ImageNet, tested at 196 to 448 px): LieRE-64 equals RoPE-Mixed up to 320 "
        "px and is better above. An independent replication of STRING (192, 224, 256, 320, 384, "
        "512 px): 79.90, 80.96, 81.60, 81.85, 81.58, 79.97; RoPE-Mixed 80.50, 81.51, 82.22, 82.62, "
        "82.12, 80.63."
    ),
)  # fmt: skip
