"""Scikit-learn's bundled handwritten digits (1,797 images, 8x8) on a larger canvas.

In training a digit lies at a random offset, turned by up to 10 degrees and scaled by up to 10 %.
In tests it lies anywhere on a canvas that may be larger than any seen in training: what this asks
of a model is to know a digit by where its strokes are to each other, not where they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import torch
from torch.nn import functional

from lierope.train import streams
from lierope.train.config import Settings
from lierope.train.data import Batch, Source, part_of, split_indices
from lierope.train.distributed import World
from lierope.train.errors import check
from lierope.train.extras import extra

SIDE = 8
_TEST_FRACTION = 0.25  # 450 images, fixed for every seed and setting
_PLACEMENTS = 4  # offsets at which each held-out image is shown: less noise than one
_MEAN, _STD = 0.3, 0.4  # of the pixels, ink 1


@cache
def bundled() -> tuple[torch.Tensor, torch.Tensor]:
    """All images (1797, 1, 8, 8) in [0, 1] and their numbers."""
    bunch = extra("sklearn.datasets").load_digits()
    images = torch.tensor(bunch.images, dtype=torch.float32)[:, None] / 16
    return images, torch.tensor(bunch.target, dtype=torch.int64)


class Digits(Source):
    """Digits 0 to 9, one channel."""

    num_classes = 10
    in_chans = 1

    def __init__(self, settings: Settings, world: World) -> None:
        super().__init__(settings, world)
        for size in (settings.image_size, *settings.eval_sizes):
            check(size >= SIDE, f"image-size: must be at least {SIDE} for digits, got {size}")
        images, labels = bundled()
        rest, test = split_indices(len(labels), _TEST_FRACTION, "digits", "test")
        train, held = split_indices(len(rest), settings.validation, "digits", "validation")
        train = part_of(train, settings.train_fraction, "digits")
        rest_index = torch.tensor(rest)
        self._train = _take(images, labels, rest_index[train])
        self._held = _take(images, labels, rest_index[held])
        self._test = _take(images, labels, torch.tensor(test))
        self.train_images = len(train)
        self._check_batch()

    def train_batches(self, epoch: int) -> Iterator[Batch]:
        """Shuffled, placed, turned and scaled images."""
        seed, count = self.settings.seed, self.settings.batch_size
        images, labels = self._train
        random = streams.stream(seed, "digits", "train", epoch)
        order = torch.randperm(len(labels), generator=random)
        placed = self._draw(images[order], self.settings.image_size, random, augment=True)
        labels = labels[order]
        for start in range(0, self.steps * count, count):
            yield self._share(placed[start : start + count], labels[start : start + count])

    def validation_batches(self) -> Iterator[Batch]:
        """Held-out images at fixed random offsets on the training canvas."""
        return self._placed(self._held, self.settings.image_size, "validation")

    def test_batches(self, image_size: int) -> Iterator[Batch]:
        """Test images at fixed random offsets on a canvas of `image_size` pixels."""
        return self._placed(self._test, image_size, "test")

    def _draw(
        self, images: torch.Tensor, size: int, random: torch.Generator, *, augment: bool
    ) -> torch.Tensor:
        return place(images, size, random, augment=augment)

    def _placed(self, data: Batch, size: int, split: str) -> Iterator[Batch]:
        images, labels = (x.repeat_interleave(_PLACEMENTS, 0) for x in data)
        placed = self._draw(images, size, streams.stream("digits", split, size), augment=False)
        images, labels = self._share(placed, labels)
        yield from zip(torch.split(images, 256), torch.split(labels, 256), strict=True)


def place(
    images: torch.Tensor,
    size: int,
    random: torch.Generator,
    *,
    augment: bool,
    offsets: tuple[int, int] | None = None,
) -> torch.Tensor:
    """Draws each 8x8 image on a blank canvas at a random whole-pixel offset, standardised.

    Args:
        images: (B, 1, 8, 8) in [0, 1].
        size: side of the canvas in pixels, at least 8.
        random: where offsets, angles and scales come from.
        augment: also turn by U(-10, 10) degrees and scale by U(0.9, 1.1), bilinearly.
        offsets: the least and the largest offset, in pixels; all that fit when None.

    Returns:
        (B, 1, size, size).
    """
    count = len(images)
    low, high = offsets or (0, size - SIDE)
    offset = torch.randint(low, high + 1, (count, 2), generator=random).float()
    angle, scale = torch.zeros(count), torch.ones(count)
    if augment:
        angle = torch.deg2rad(torch.rand(count, generator=random) * 20 - 10)
        scale = torch.rand(count, generator=random) * 0.2 + 0.9
    middle = (SIDE - 1) / 2
    axis = torch.arange(size, dtype=torch.float32) - middle
    dy = axis[None, :, None] - offset[:, 0, None, None]  # from the digit's middle, (B, size, 1)
    dx = axis[None, None, :] - offset[:, 1, None, None]
    cos, sin = ((f(angle) / scale)[:, None, None] for f in (torch.cos, torch.sin))
    source = torch.stack((cos * dx + sin * dy, cos * dy - sin * dx), -1) + middle
    # grid_sample's coordinates without aligned corners: pixel i of n lies at (2 i + 1) / n - 1.
    canvas = functional.grid_sample(images, (2 * source + 1) / SIDE - 1, align_corners=False)
    return (canvas - _MEAN) / _STD


def _take(images: torch.Tensor, labels: torch.Tensor, index: torch.Tensor) -> Batch:
    return images[index], labels[index]
