"""Scenes of a few marked cells on a grid, for a small detector: tokens, boxes' centres, classes."""

from __future__ import annotations

import torch
from torch import Tensor

KINDS, NOTHING = 3, 3  # classes of objects, and the class of an empty slot or cell
MOST = 3  # objects a scene
_NOISE = 0.4


def draw(count: int, grid: int, random: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Patches (count, grid * grid, 2 * KINDS), centres (count, MOST, 2), kinds (count, MOST).

    An object lights its own cell in its kind's channel and half of the cell to its right in the
    next three, so that a pair of cells makes an object; single cells of the latter sort are
    distractors. Centres are cells over `grid`, in [0, 1); absent objects have kind `NOTHING`.
    """
    patches = _NOISE * torch.randn(count, grid, grid, 2 * KINDS, generator=random)
    # Objects stand on a coarse grid of 1 x 2 cells, so that none covers another.
    pairs = grid * (grid // 2)
    place = torch.rand(count, pairs, generator=random).argsort(1)[:, : 2 * MOST]
    row, column = place // (grid // 2), place % (grid // 2) * 2
    present = torch.rand(count, MOST, generator=random) < 0.7
    present[:, 0] = True
    kinds = torch.randint(KINDS, (count, 2 * MOST), generator=random)
    at = torch.arange(count)
    for slot in range(2 * MOST):
        shown = present[:, slot].float() if slot < MOST else torch.ones(count)
        r, c, k = row[:, slot], column[:, slot], kinds[:, slot]
        if slot < MOST:
            patches[at, r, c, k] += 2 * shown
        patches[at, r, c + 1, KINDS + k] += 2 * shown
    centres = torch.stack((row[:, :MOST], column[:, :MOST]), -1).float() / grid
    kinds = torch.where(present, kinds[:, :MOST], NOTHING)
    return patches.flatten(1, 2), centres, kinds
