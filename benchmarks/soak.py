"""Trains with changing shapes for an hour, watches memory and speed: python -m benchmarks.soak."""

from __future__ import annotations

import argparse
import gc
import platform
import random
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

import lierope
from benchmarks.speed.record import RESULTS, machine
from lierope.timm import timm
from lierope.train import plots
from lierope.train.atomic import write_json

ENCODINGS = (
    "axial", "mixed", "liere:8", "liere:16", "cayley", "cayley:banded=4", "circulant:16",
    "dense-string", "comrope-ld", "harope",
)  # fmt: skip
SIDES, BATCHES = range(2, 15), range(1, 7)  # patches a side, images
# Of the last quarter against the second one: the first fills caches and the allocator's pools.
MOST_GROWTH, MOST_SLOWING = 1.02, 1.10


@dataclass(frozen=True)
class Sample:
    """One look at the process: minutes since the start, steps done, resident MiB, reference ms."""

    minute: float
    steps: int
    resident: float
    reference: float


def resident() -> float:
    """MiB of the process that are in memory (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def model_with(encoding: str) -> nn.Module:
    """A small timm ViT of any image size with an encoding."""
    model = timm.create_model(
        "vit_tiny_patch16_224", img_size=32, patch_size=4, embed_dim=64, depth=2, num_heads=2,
        num_classes=10, dynamic_img_size=True,
    )  # fmt: skip
    return lierope.swap(model, encoding)


class Trainer:
    """One model and its optimiser."""

    def __init__(self, encoding: str) -> None:
        self.model = model_with(encoding)
        self.optimizer = torch.optim.AdamW(lierope.param_groups(self.model, lr=1e-4))

    def step(self, batch: int, side: int) -> None:
        """One training step on random images of side * 4 pixels."""
        images, labels = torch.randn(batch, 3, 4 * side, 4 * side), torch.randint(10, (batch,))
        loss = functional.cross_entropy(self.model(images), labels)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()


def own_positions(draw: random.Random) -> None:
    """A LieRE layer at positions of each sample's own, of random sizes."""
    block, heads, tokens = draw.choice((3, 4, 8, 16, 32)), draw.randint(1, 3), draw.randint(1, 40)
    q = torch.randn(draw.randint(1, 3), heads, tokens, 2 * block, requires_grad=True)
    positions = torch.rand(len(q), tokens, 3, requires_grad=True)
    generators = torch.randn(3, heads, 2, block * (block - 1) // 2, requires_grad=True)
    rotated = lierope.ops.lie_rotate(q, q, generators, positions)
    torch.stack(rotated).square().mean().backward()


def reference(trainers: Sequence[Trainer]) -> float:
    """Milliseconds of processor time of the same steps each time, the median of three rounds."""
    rounds = []
    for _ in range(3):
        start = time.process_time()
        for trainer in trainers:
            trainer.step(4, 8)
        rounds.append(1e3 * (time.process_time() - start))
    return statistics.median(rounds)


def soak(minutes: float, every: float, seed: int) -> list[Sample]:
    """Steps of random encodings and shapes; a sample every so many seconds."""
    torch.set_num_threads(1)  # so that processor time does not depend on what else runs
    torch.manual_seed(seed)
    draw = random.Random(seed)
    trainers = [Trainer(encoding) for encoding in ENCODINGS]
    samples: list[Sample] = []
    start, steps = time.monotonic(), 0
    while (now := time.monotonic() - start) < 60 * minutes or len(samples) < 8:
        if now >= every * len(samples):
            gc.collect()
            samples.append(Sample(now / 60, steps, resident(), reference(trainers)))
            print(
                f"{now / 60:6.1f} min  {steps:8d} steps  {samples[-1].resident:7.1f} MiB  "
                f"{samples[-1].reference:6.1f} ms",
                flush=True,
            )
        draw.choice(trainers).step(draw.choice(BATCHES), draw.choice(SIDES))
        own_positions(draw)
        steps += 1
    return samples


def judge(samples: Sequence[Sample]) -> dict[str, Any]:
    """Memory and time of the last quarter over the second one, and whether both are in bounds."""
    quarter = len(samples) // 4
    second, last = samples[quarter : 2 * quarter], samples[-quarter:]
    growth = statistics.median(s.resident for s in last) / statistics.median(
        s.resident for s in second
    )
    slowing = statistics.median(s.reference for s in last) / statistics.median(
        s.reference for s in second
    )
    return {
        "memory, last quarter over second": growth,
        "time, last quarter over second": slowing,
        "bounds": [MOST_GROWTH, MOST_SLOWING],
        "passed": growth <= MOST_GROWTH and slowing <= MOST_SLOWING,
    }


def draw_samples(samples: Sequence[Sample], path: Path) -> None:
    """Resident memory and the reference steps' time over minutes."""
    figure = plots.figure_of(7.2, 3.6)
    memory, speed = figure.subplots(1, 2)
    minutes = [s.minute for s in samples]
    for axes, values, label in (
        (memory, [s.resident for s in samples], "resident memory, MiB"),
        (speed, [s.reference for s in samples], "processor time of the same ten steps, ms"),
    ):
        axes.plot(minutes, values, color=plots.COLOURS[0], linewidth=1.4)
        axes.set_ylim(0, 1.25 * max(values))
        axes.set_xlabel("minutes")
        axes.set_ylabel(label)
        plots.clean(axes)
    plots.save(figure, path)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs, writes soak.json and soak.png, returns 1 if memory grew or steps slowed."""
    parser = argparse.ArgumentParser(prog="benchmarks.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--every", type=float, default=30, help="seconds between looks")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=RESULTS / "soak.json")
    args = parser.parse_args(argv)
    samples = soak(args.minutes, args.every, args.seed)
    found = judge(samples)
    write_json(
        args.output,
        {
            "command": f"python -m benchmarks.soak --minutes {args.minutes:g}",
            "machine": machine(torch.device("cpu")),
            "torch": str(torch.__version__),
            "python": platform.python_version(),
            "encodings": ENCODINGS,
            "found": found,
            "samples": [asdict(sample) for sample in samples],
        },
    )
    draw_samples(samples, args.output.with_suffix(".png"))
    print(found)
    return 0 if found["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
