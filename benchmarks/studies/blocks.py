"""Accuracy, time and memory by block size. LieRE, experiment 3 and table 10."""

from __future__ import annotations

from pathlib import Path

from torch.nn import functional

from benchmarks.speed.memory import peak_memory
from benchmarks.studies.harness import pictures, vision, words
from benchmarks.studies.harness.study import Arm, Context, Metric, Outcome, Study
from benchmarks.studies.harness.summary import Summary
from lierope.train.engine import Run
from lierope.train.plots import clean, figure_of, save

_SIZES = (2, 4, 8, 16, 32, 64)
_ENCODINGS = ("mixed", *(f"liere:{b}" for b in _SIZES), *(f"circulant:{b}" for b in _SIZES[1:]))


def run(context: Context) -> Outcome:
    """Trains a ViT whose heads have 64 features, so that blocks up to 64 fit."""
    settings = vision.settings_of(
        context,
        context.settings["encoding"],
        model_options=context.settings["wide"],
    )
    trained = vision.train(context, settings)
    return vision.outcome(trained, vision.TARGET, mebibytes=_step_memory(trained.run))


def _step_memory(run: Run) -> float:
    """Peak MiB that one training step's forward and backward allocate above what is held."""
    images, labels = next(iter(run.source.train_batches(0)))
    device = run.world.device

    def step() -> None:
        functional.cross_entropy(run.model(images.to(device)), labels.to(device)).backward()

    run.model.train()
    step()
    allocated = peak_memory(step, device).allocated
    return float("nan") if allocated is None else allocated / 2**20


_MEMORY = Metric("mebibytes", "MiB a step", scale=1, digits=1, higher_is_better=False)


def verdict(summary: Summary) -> str:
    """Accuracy against `mixed`, and what the largest blocks cost."""
    accuracy, _, largest, _ = vision.METRICS
    costs = []
    for family in ("liere", "circulant"):
        own = [a for a in summary.arms if a.startswith(family)]
        if own and "mixed" in summary.arms:
            last = own[-1]
            time = _seconds(summary, last) / _seconds(summary, "mixed")
            memory = summary.mean(last, "mebibytes") / summary.mean("mixed", "mebibytes")
            costs.append(f"{words.name(last)} {time:.2f} times the time and {memory:.2f} times the "
                         "memory")  # fmt: skip
    cost = f"A step takes, against `mixed`: {'; '.join(costs)}." if costs else ""
    return "\n".join(
        (
            f"{words.brief(summary, accuracy)} {cost}",
            words.spread(summary, accuracy),
            words.against(summary, accuracy),
            words.against(summary, largest),
        )
    )


def _seconds(summary: Summary, arm: str) -> float:
    found = [o["seconds_per_step"] for o in summary.outcomes(arm).values()]
    return sum(found) / len(found) if found else float("nan")


def draw(summary: Summary, folder: Path) -> list[Path]:
    """What a step costs against what it gives, a point an arm; dots."""
    figure = figure_of(7.2, 4.2)
    axes = figure.add_subplot()
    for family, colour in (("liere", "#0072B2"), ("circulant", "#009E73"), ("mixed", "#E69F00")):
        arms = [a for a in summary.arms if a.startswith(family)]
        points = [(1e3 * _seconds(summary, a), summary.estimate(a, "accuracy"), a) for a in arms]
        known = [(x, e, a) for x, e, a in points if e is not None]
        ends = [(100 * e.mean, *pictures.drawn_interval(e, 100)) for _, e, _ in known]
        axes.errorbar(
            [x for x, _, _ in known], [mean for mean, _, _ in ends],
            [[mean - low for mean, low, _ in ends], [high - mean for mean, _, high in ends]],
            fmt="o-", color=colour, capsize=2, label=family, linewidth=1, markersize=4,
        )  # fmt: skip
        for x, e, arm in known:
            axes.annotate(arm.partition(":")[2], (x, 100 * e.mean), textcoords="offset points",
                          xytext=(4, 5), fontsize=8, color=colour)  # fmt: skip
    axes.set_xlabel("milliseconds of one thread a training step")
    axes.set_ylabel("test accuracy, %")
    clean(axes)
    figure.legend(loc="outside right upper", frameon=False, title="block size\nbeside points")
    save(figure, folder / "blocks.png")
    dots = pictures.dots(summary, vision.METRICS[:3], folder / "blocks-dots.png")
    return [folder / "blocks.png", dots]


STUDY = Study(
    name="blocks",
    question="What do larger blocks give, and what do they cost in time and memory?",
    source="LieRE, experiment 3, table 10 and open question 2",
    version=1,
    arms=[Arm(name, {"encoding": name}) for name in _ENCODINGS],
    settings={
        **vision.DIGITS,
        "epochs": 15,
        "wide": {"embed_dim": 128, "num_heads": 2},
    },
    quick={**vision.QUICK, "wide": {"embed_dim": 128, "num_heads": 2, "depth": 1}},
    quick_arms=("mixed", "liere:8"),
    run=run,
    metrics=[*vision.METRICS[:3], _MEMORY],
    reference="mixed",
    verdict=verdict,
    draw=draw,
    presets={name: values | {"wide": {}} for name, values in vision.PRESETS.items()},
    joined=True,
    papers=(
        "Table 10, accuracy by block size 2, 4, 8, 16, 32, 64: CIFAR-100 68.84, 69.28, 70.32, "
        "69.85, 69.65, 69.99; UCF101 46.30, 45.67, 47.03, 46.86, 46.42, 44.68. Times and memory: "
        "not given."
    ),
)
