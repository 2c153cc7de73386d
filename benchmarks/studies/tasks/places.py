"""Sequences of marks whose label hangs on an absolute place, or on a place beside a key."""

from __future__ import annotations

import itertools
from collections import Counter
from functools import cache

import torch
from torch import Tensor

MARKS = 4  # classes
KEY, BEGIN, FILLERS = MARKS, MARKS + 1, 10
VOCABULARY = MARKS + 2 + FILLERS
PLACE = 9  # where the mark of the absolute task stands
DISTANCE = 3  # of the mark from the key in the relative task
_OTHERS = 6  # marks elsewhere: so that their mere presence says little


@cache
def ceiling() -> float:
    """The best accuracy without positions: the expected share of a sequence's commonest mark."""
    marks = _OTHERS + 1
    drawn = itertools.product(range(MARKS), repeat=marks)
    commonest = sum(max(Counter(d).values()) for d in drawn)
    return float(commonest / marks / MARKS**marks)


def draw(task: str, count: int, length: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Tokens (count, length) and labels (count,).

    Both tasks' sequences have fillers, one key and 7 marks. The label is the mark at `PLACE`
    (task "absolute") or the mark `DISTANCE` after the key ("relative"), all else being random.

    Args:
        task: "absolute" or "relative".
        count: of sequences.
        length: at least 16.
        random: where they come from.
    """
    tokens = BEGIN + 1 + torch.randint(FILLERS, (count, length), generator=random)
    labels = torch.randint(MARKS, (count,), generator=random)
    rows = torch.arange(count)
    key = torch.randint(length - DISTANCE, (count,), generator=random)
    if task == "absolute":
        key = torch.where(key == PLACE, key + 1, key)
        answer = torch.full((count,), PLACE)
    else:
        answer = key + DISTANCE
    keys = torch.rand(count, length, generator=random)
    keys[rows, key] = -1
    keys[rows, answer] = -1
    others = keys.topk(_OTHERS, 1).indices
    tokens.scatter_(1, others, torch.randint(MARKS, others.shape, generator=random))
    tokens[rows, key] = KEY
    tokens[rows, answer] = labels
    return tokens, labels
