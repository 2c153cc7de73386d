"""Digits trained on in one corner of a canvas and tested in another: what carries over?"""

from __future__ import annotations

import torch

from lierope.train.digits import Digits, place
from lierope.train.engine import Run

SEEN, UNSEEN = (0, 1), (3, 4)  # offsets in pixels, on a canvas of 12
CANVAS = 12


class ShiftedDigits(Digits):
    """Digits at offsets of a range of their own, which may be changed between tests."""

    offsets: tuple[int, int] = SEEN

    def _draw(
        self, images: torch.Tensor, size: int, random: torch.Generator, *, augment: bool
    ) -> torch.Tensor:
        return place(images, size, random, augment=augment, offsets=self.offsets)


def begin(run: Run) -> None:
    """Gives a run of digits these digits."""
    run.source = ShiftedDigits(run.settings, run.world)


def unseen_accuracy(run: Run) -> float:
    """The test accuracy of a trained run at offsets that it never saw."""
    source = run.source
    assert isinstance(source, ShiftedDigits)
    source.offsets = UNSEEN
    try:
        return run.evaluate(source.test_batches(run.settings.image_size))[1]
    finally:
        source.offsets = SEEN
