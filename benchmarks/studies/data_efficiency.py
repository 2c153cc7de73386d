"""How many images does each encoding need? LieRE, figure 4."""

from __future__ import annotations

from pathlib import Path

from benchmarks.studies.harness import pictures, vision, words
from benchmarks.studies.harness.study import Arm, Context, Metric, Outcome, Study
from benchmarks.studies.harness.summary import Summary

_FRACTIONS = (0.2, 0.4, 0.6, 0.9)


def run(context: Context) -> Outcome:
    """Trains on each part of the images for the same number of steps, one model after another."""
    settings = context.settings
    metrics, outcome = {}, None
    for fraction in settings["fractions"]:
        chosen = vision.settings_of(
            context,
            settings["encoding"],
            train_fraction=fraction,
            epochs=max(1, round(settings["epochs"] / fraction)),
        )
        trained = vision.train(context, chosen, part=f"fraction-{fraction:g}")
        outcome = vision.outcome(trained)
        metrics[f"accuracy/{fraction:g}"] = outcome.metrics["accuracy"]
    assert outcome is not None
    return Outcome(
        metrics=metrics,
        parameters=outcome.parameters,
        position_parameters=outcome.position_parameters,
        seconds_per_step=outcome.seconds_per_step,
    )


def verdict(summary: Summary) -> str:
    """The differences at each fraction."""
    known = [m for m in STUDY.metrics if any(summary.values(a, m.name) for a in summary.arms)]
    answer = " ".join(words.brief(summary, metric) for metric in known[:1])
    return f"{answer}\n" + " ".join(words.against(summary, metric) for metric in known)


def draw(summary: Summary, folder: Path) -> list[Path]:
    """Accuracy against the fraction."""
    fractions = {100 * f: f"accuracy/{f:g}" for f in _FRACTIONS}
    return [
        pictures.against(
            summary, fractions, folder / "data-efficiency.png",
            xlabel="training images used, %", ylabel="test accuracy, %",
        )
    ]  # fmt: skip


_ENCODINGS = ("absolute", "visionllama", "mixed", "mixed:init=uniform", "liere:8", "cayley")

STUDY = Study(
    name="data-efficiency",
    question="Which encodings need fewer images?",
    source="LieRE, figure 4",
    version=1,
    arms=[Arm(name, {"encoding": name}) for name in _ENCODINGS],
    settings={
        **vision.DIGITS,
        "eval_sizes": [],
        "epochs": 15,  # passes over all images; over a part of them as many more
        "fractions": list(_FRACTIONS),
    },
    quick={"epochs": 1, "fractions": [0.9]},
    quick_arms=("absolute", "mixed"),
    run=run,
    metrics=[Metric(f"accuracy/{f:g}", f"{100 * f:.0f} % of images: test, %") for f in _FRACTIONS],
    reference="mixed",
    verdict=verdict,
    draw=draw,
    presets={name: values | {"eval_sizes": []} for name, values in vision.PRESETS.items()},
    joined=True,
    papers=(
        "Figure 4 (no numbers in the text): from 20 to 90 % of CIFAR-100, LieRE and RoPE-Mixed lie "
        "above the others."
    ),
)
