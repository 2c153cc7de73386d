"""Random numbers that depend only on a key such as (seed, "order", epoch): what makes resume exact.

Nothing random outlives an epoch, so a run that stops after epoch e and goes on later draws what
an uninterrupted run would have drawn, on any number of processes.
"""

from __future__ import annotations

import hashlib
import random

import numpy
import torch

Key = int | str


def number(*key: Key) -> int:
    """A 63-bit seed from a key; different keys give unrelated seeds."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def stream(*key: Key) -> torch.Generator:
    """A CPU generator for one purpose."""
    return torch.Generator().manual_seed(number(*key))


def seed_all(*key: Key) -> None:
    """Seeds torch (all devices), Python and numpy for code that draws from the global state."""
    torch.manual_seed(number(*key))
    random.seed(number(*key, "python"))
    numpy.random.seed(number(*key, "numpy") % 2**32)
