"""Ten thousand optimiser steps: do rotations stay rotations? LieRE, next check 1.

One layer's rotations learn scores that they cannot fit (those of a random rotation at each
position), so that gradients push for all of the steps. No decay, no schedule: the worst that
training does to an encoding, at a rate ten times the usual.
"""

from __future__ import annotations

import copy
import math
from pathlib import Path

import torch
from torch import Tensor

import lierope
from benchmarks.studies.harness import pictures, words
from benchmarks.studies.harness.loop import clock
from benchmarks.studies.harness.study import Arm, Context, Metric, Outcome, Study
from benchmarks.studies.harness.summary import Summary
from lierope.diagnostics import generator_matrices, rotation_matrices
from lierope.encodings import Encoding, create
from lierope.train import streams

_HEADS, _WIDTH = 2, 64
_FAR = 8.0  # times the trained range, where angles are as much larger


def _target(cells: int, random: torch.Generator) -> Tensor:
    """Random orthogonal matrices (H, cells, D, D)."""
    gauss = torch.randn(_HEADS, cells, _WIDTH, _WIDTH, generator=random)
    rotations: Tensor = torch.linalg.qr(gauss)[0]
    return rotations


def _measure(encoding: Encoding, positions: Tensor) -> dict[str, float]:
    """How far float32's rotations are from orthogonal and from float64's, and their angles."""
    exact = copy.deepcopy(encoding).double()
    found = {}
    with torch.no_grad():
        for name, scale in (("", 1.0), ("far ", _FAR)):
            R = rotation_matrices(encoding, scale * positions).double()
            true = rotation_matrices(exact, scale * positions.double())
            eye = torch.eye(R.shape[-1], dtype=R.dtype)
            found[f"{name}orthogonality"] = float((R.mT @ R - eye).abs().max())
            found[f"{name}error"] = float((R - true).abs().max())
        found["angle"] = _largest_angle(exact, positions.double())
    return found


def _largest_angle(encoding: Encoding, positions: Tensor) -> float:
    generators = generator_matrices(encoding)  # (C, ..., n, n)
    sums = torch.tensordot(positions, generators, 1)
    return float(torch.linalg.matrix_norm(sums, 2).max())


def run(context: Context) -> Outcome:
    """Takes the steps, measuring now and then."""
    settings, seed = context.settings, context.seed
    torch.manual_seed(streams.number(seed, "stability"))
    encoding = create(settings["encoding"], _WIDTH, _HEADS, 2, **settings["options"])
    side = settings["side"]
    positions = lierope.grid_positions((side, side), encoding.default_positions)
    random = streams.stream(seed, "stability", "target")
    cells = side * side
    q, k = (torch.randn(1, _HEADS, cells, _WIDTH, generator=random) for _ in range(2))
    target = _target(cells, random)
    wanted = (target @ q[..., None]).squeeze(-1) @ (target @ k[..., None]).squeeze(-1).mT
    optimizer = torch.optim.Adam(encoding.parameters(), lr=settings["lr"])
    curves: dict[str, list[tuple[float, float]]] = {}
    bad, seconds = 0, []
    for step in range(settings["steps"] + 1):
        if step % settings["evaluate_every"] == 0:
            for name, value in _measure(encoding, positions).items():
                curves.setdefault(name, []).append((step, value))
            context.tell(step / settings["steps"])
        start = clock(context.device)
        turned_q, turned_k = encoding(q, k, positions)
        loss = (turned_q @ turned_k.mT - wanted).square().mean() / _WIDTH
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        bad += not math.isfinite(float(loss.detach()))
        optimizer.step()
        seconds.append(clock(context.device) - start)
    last = {name: points[-1][1] for name, points in curves.items()}
    first = curves["angle"][0][1]
    return Outcome(
        metrics={
            **last,
            "nonfinite": float(bad),
            "loss": float(loss.detach()),
            "growth": last["angle"] / first if first else math.nan,
            "start": curves["orthogonality"][0][1],
        },
        curves=curves,
        parameters=sum(p.numel() for p in encoding.parameters()),
        position_parameters=sum(p.numel() for p in encoding.parameters()),
        seconds_per_step=sorted(seconds)[len(seconds) // 2],
    )


_METRICS = (
    Metric("orthogonality", "RᵀR − I after, ×1e-7", scale=1e7, higher_is_better=False),
    Metric("start", "before, ×1e-7", scale=1e7, higher_is_better=False),
    Metric("far orthogonality", "8 times as far, ×1e-7", scale=1e7, higher_is_better=False),
    Metric("error", "error to float64, ×1e-7", scale=1e7, higher_is_better=False),
    Metric("angle", "largest angle, rad", scale=1, digits=0),
    Metric("nonfinite", "steps not finite", scale=1, digits=0, higher_is_better=False),
)


def verdict(summary: Summary) -> str:
    """Whether anything broke or drifted, the worst orthogonality, and the growth of angles."""
    orthogonality, _, far, error, angle, _ = _METRICS
    broken = [a for a in summary.arms if summary.mean(a, "nonfinite") > 0]
    growth = {a: summary.mean(a, "growth") for a in summary.arms}
    largest = max(growth, key=lambda a: growth[a] if growth[a] == growth[a] else 0.0)
    steps = summary.rows[0]["settings"]["steps"]
    worst = max(summary.mean(a, "orthogonality") for a in summary.arms)
    changes = {a: summary.change(a, "start", "orthogonality") for a in summary.arms}
    grew = [a for a, change in changes.items() if change is not None and change.low > 0]
    return (
        f"In {steps:,} steps {words.listed(broken)} had a loss that was not finite, and no arm's "
        f"mean largest entry of RᵀR − I passes {worst:.1g}; it grew, by its interval, for "
        f"{words.listed(grew)}.\n"
        f"{words.spread(summary, orthogonality)} {words.spread(summary, far)} "
        f"{words.spread(summary, error)} {words.spread(summary, angle)} Angles grew most for "
        f"{words.name(largest)}, {growth[largest]:.1f} times."
    )


def draw(summary: Summary, folder: Path) -> list[Path]:
    """Orthogonality and angles over the steps."""
    return [
        pictures.curves(
            summary, "orthogonality", folder / "stability.png", logarithmic=True,
            xlabel="optimiser steps", ylabel="largest entry of RᵀR − I",
        ),
        pictures.curves(
            summary, "angle", folder / "stability-angle.png", logarithmic=True,
            xlabel="optimiser steps", ylabel="largest angle of a rotation, radians",
        ),
    ]  # fmt: skip


STUDY = Study(
    name="stability",
    question="Do rotations stay rotations over ten thousand steps, at every block size and start?",
    source="LieRE, next check 1",
    version=1,
    arms=[
        *(
            Arm(f"liere:{b}, {init}", {"encoding": f"liere:{b}", "options": {"init": init}})
            for b in (2, 8, 64)
            for init in ("uniform", "rope", "small")
        ),
        *(
            Arm(name, {"encoding": name})
            for name in ("mixed", "cayley", "circulant", "dense-string", "comrope-ld", "comrope-ap")
        ),
    ],
    settings={
        "encoding": "mixed",
        "options": {},
        "steps": 10_000,
        "lr": 1e-2,
        "side": 3,
        "evaluate_every": 500,
    },
    quick={"steps": 40, "evaluate_every": 20},
    quick_arms=("liere:8, uniform", "mixed"),
    run=run,
    metrics=_METRICS,
    verdict=verdict,
    draw=draw,
    papers="Neither paper gives figures.",
)
