"""The arrow task (after arXiv 2406.10322): say which way the arrow points that the Y's base faces.

A grid of 12x12-pixel cells holds one Y, eight arrows and the letters A to E. From the base of the
Y a ray runs to the border; exactly one arrow lies on it, and its direction is the label. The other
seven lie elsewhere, so a model without positions can do no better than name the commonest arrow.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import torch

from lierope.train import glyphs, streams
from lierope.train.config import Settings
from lierope.train.data import Batch, Source
from lierope.train.distributed import World
from lierope.train.errors import check

BAG_OF_ARROWS = 0.442  # E[count of the commonest of 8 arrows in 4 directions] / 8
_NOISE = 0.5
_DISTRACTORS, _LETTERS = 7, 5
_HELD_IMAGES, _TEST_IMAGES, _CHUNK = 1024, 4096, 256
_STEPS = ((-1, 0), (0, 1), (1, 0), (0, -1))  # up, right, down, left as (row, column)
_MIN_GRID = 4  # 1 Y, 8 arrows, 5 letters and a free ray


class Arrows(Source):
    """Generated on the fly: four classes (up, right, down, left), one channel."""

    num_classes = 4
    in_chans = 1

    def __init__(self, settings: Settings, world: World) -> None:
        super().__init__(settings, world)
        for size in (settings.image_size, *settings.eval_sizes):
            check(
                size % glyphs.SIDE == 0 and size >= _MIN_GRID * glyphs.SIDE,
                f"image-size: must be a multiple of {glyphs.SIDE} from "
                f"{_MIN_GRID * glyphs.SIDE} up for arrows, got {size}",
            )
        self.train_images = settings.epoch_images
        self._check_batch()

    def train_batches(self, epoch: int) -> Iterator[Batch]:
        """New images every epoch."""
        size, count = self.settings.image_size, self.settings.batch_size
        random = streams.stream(self.settings.seed, "arrows", "train", epoch)
        for _ in range(self.steps):
            yield self._share(*draw(count, size // glyphs.SIDE, random))

    def validation_batches(self) -> Iterator[Batch]:
        """A fixed set at the training size."""
        return self._fixed("validation", self.settings.image_size, _HELD_IMAGES)

    def test_batches(self, image_size: int) -> Iterator[Batch]:
        """A fixed set at any size that is a multiple of 12 pixels."""
        return self._fixed("test", image_size, _TEST_IMAGES)

    def _fixed(self, split: str, size: int, images: int) -> Iterator[Batch]:
        random = streams.stream("arrows", split, size)
        for _ in range(images // _CHUNK):
            yield self._share(*draw(_CHUNK, size // glyphs.SIDE, random))


def draw(count: int, grid: int, random: torch.Generator) -> Batch:
    """Images (count, 1, 12 grid, 12 grid) with noise of deviation 0.5, and their labels."""
    cells, labels = layout(count, grid, random)
    images = _BITMAPS[cells].view(count, grid, grid, glyphs.SIDE, glyphs.SIDE)
    images = images.permute(0, 1, 3, 2, 4).reshape(count, 1, grid * glyphs.SIDE, -1)
    return images + _NOISE * torch.randn(images.shape, generator=random), labels


def layout(count: int, grid: int, random: torch.Generator) -> Batch:
    """Glyph numbers (count, grid * grid) and the label of each grid."""
    origins, directions, lengths, on_ray = _rays(grid)
    ray = torch.randint(len(origins), (count,), generator=random)
    origin, direction, mask = origins[ray], directions[ray], on_ray[ray]
    distance = 1 + (torch.rand(count, generator=random) * lengths[ray]).long()
    step = torch.tensor([dy * grid + dx for dy, dx in _STEPS])
    target = origin + distance * step[direction]
    labels = torch.randint(4, (count,), generator=random)
    others = torch.randint(4, (count, _DISTRACTORS), generator=random)

    # A random key per cell; taken or forbidden cells get a key below all others.
    keys = torch.rand(count, grid * grid, generator=random)
    keys.scatter_(1, torch.stack((origin, target), 1), -1.0)
    far = keys.masked_fill(mask, -1.0).topk(_DISTRACTORS, 1).indices
    letters = keys.scatter(1, far, -1.0).topk(_LETTERS, 1).indices

    cells = torch.zeros(count, grid * grid, dtype=torch.int64)
    cells.scatter_(1, far, glyphs.ARROWS + others)
    cells.scatter_(1, letters, (glyphs.LETTERS + torch.arange(_LETTERS)).expand(count, -1))
    cells.scatter_(1, target[:, None], glyphs.ARROWS + labels[:, None])
    cells.scatter_(1, origin[:, None], glyphs.YS + direction[:, None])
    return cells, labels


@cache
def _rays(grid: int) -> tuple[torch.Tensor, ...]:
    """Every (cell, direction) with a cell before it: origins, directions, lengths, cells on it."""
    rows, columns = torch.meshgrid(torch.arange(grid), torch.arange(grid), indexing="ij")
    room = torch.stack((rows, grid - 1 - columns, grid - 1 - rows, columns), -1).view(-1, 4)
    origins, directions = torch.nonzero(room, as_tuple=True)
    lengths = room[origins, directions]
    on_ray = torch.zeros(len(origins), grid * grid, dtype=torch.bool)
    for index, (origin, direction) in enumerate(
        zip(origins.tolist(), directions.tolist(), strict=True)
    ):
        step = _STEPS[direction][0] * grid + _STEPS[direction][1]
        on_ray[index, origin + step * torch.arange(1, int(lengths[index]) + 1)] = True
    return origins, directions, lengths, on_ray


_BITMAPS = glyphs.bitmaps()
