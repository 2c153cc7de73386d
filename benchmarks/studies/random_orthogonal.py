"""Fixed random rotations in place of learned ones: does the structure matter? LieRE, check 2.

A random rotation for each cell of the grid, the same for q and k, names the cell: an absolute code.
Where every offset was trained on, that is enough; so digits are trained on in one corner of the
canvas and tested in the other.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.studies.harness import pictures, vision, words
from benchmarks.studies.harness.study import Arm, Context, Metric, Outcome, Study
from benchmarks.studies.harness.summary import Summary
from benchmarks.studies.tasks import shifted_digits
from lierope import ops
from lierope.encodings import Encoding
from lierope.train import streams


class RandomRotations(Encoding):
    """R(cell) drawn once from the uniform (Haar) distribution of b x b rotations, never learned.

    Args:
        like: the encoding whose place it takes; gives sizes.
        cells: of the grid, one rotation each, head by head.
        block_size: b.
        random: where the rotations come from.
    """

    short_name = "random-orthogonal"

    def __init__(
        self, like: Encoding, cells: int, block_size: int, random: torch.Generator
    ) -> None:
        super().__init__(like.head_dim, like.num_heads, like.ndim)
        shape = (like.num_heads, cells, like.head_dim // block_size, block_size, block_size)
        gauss = torch.randn(shape, generator=random, dtype=torch.float64)
        q, r = torch.linalg.qr(gauss)
        # Signs of R's diagonal make the distribution uniform (Mezzadri 2007, section 5).
        q = q * r.diagonal(dim1=-2, dim2=-1).sign()[..., None, :]
        q[..., 0] *= torch.linalg.det(q)[..., None]
        self.register_buffer("rotations", q.float(), persistent=True)

    def rotate(
        self, q: Tensor, k: Tensor, positions: Tensor, num_prefix_tokens: int = 0
    ) -> tuple[Tensor, Tensor]:
        """Turns the tokens of a whole grid, in its order."""
        rotations: Any = self.rotations
        return ops.rotate_blocks(q, k, rotations, num_prefix_tokens=num_prefix_tokens)


def run(context: Context) -> Outcome:
    """Trains at offsets of 0 and 1 pixels, tests there and at 3 and 4."""
    settings = context.settings
    chosen = vision.settings_of(context, settings["encoding"], image_size=shifted_digits.CANVAS)

    def prepare(model: nn.Module) -> None:
        if settings["random_blocks"]:
            _randomise(model, settings["random_blocks"], context.seed)

    trained = vision.train(context, chosen, prepare=prepare, start=shifted_digits.begin)
    return vision.outcome(
        trained, vision.TARGET, unseen=shifted_digits.unseen_accuracy(trained.run)
    )


def _randomise(model: Any, block_size: int, seed: int) -> None:
    cells = model.patch_embed.num_patches
    for layer, block in enumerate(model.blocks):
        random = streams.stream(seed, "random-orthogonal", layer)
        block.attn.encoding = RandomRotations(block.attn.encoding, cells, block_size, random)


_UNSEEN = Metric("unseen", "unseen offsets, %")


def verdict(summary: Summary) -> str:
    """Random against learned blocks of the same size."""
    chosen = [(f"random:{b}", f"liere:{b}") for b in (2, 8, 16)]
    what = "random rotations against learned ones of the same blocks"
    found = [words.pairs(summary, metric, what, chosen) for metric in (_UNSEEN, STUDY.metrics[0])]
    others = [a for a in summary.arms if not a.startswith("random")]
    return f"{found[0]}\n{found[1]} {words.spread(summary, _UNSEEN, others)}"


def draw(summary: Summary, folder: Path) -> list[Path]:
    """Dots by arm."""
    return [
        pictures.dots(
            summary, STUDY.metrics, folder / "random-orthogonal.png", lines={"chance": 0.1}
        )
    ]


STUDY = Study(
    name="random-orthogonal",
    question="Do fixed random rotations serve as well as learned ones?",
    source="LieRE, check 2",
    version=1,
    arms=[
        *(Arm(n, {"encoding": n}) for n in ("absolute", "mixed", "cayley")),
        *(Arm(f"liere:{b}", {"encoding": f"liere:{b}"}) for b in (2, 8, 16)),
        *(Arm(f"random:{b}", {"encoding": f"liere:{b}", "random_blocks": b}) for b in (2, 8, 16)),
    ],
    settings={**vision.DIGITS, "eval_sizes": [], "epochs": 20, "random_blocks": 0},
    quick={"epochs": 1},
    quick_arms=("liere:8", "random:8"),
    run=run,
    metrics=[Metric("accuracy", "seen offsets, %"), _UNSEEN],
    reference="mixed",
    verdict=verdict,
    draw=draw,
    papers=("LieRE proposes the ablation and gives no figures."),
)
