"""Texts on disk, root/CLASS/*.txt, as bytes: 80 % to train on, 10 % held out, 10 % for the test."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from lierope.train import streams
from lierope.train.errors import check

BYTES = 256


@dataclass(frozen=True)
class Texts:
    """The first bytes of every file (count, length), and labels (count,)."""

    tokens: Tensor
    labels: Tensor


def load(root: str, length: int) -> tuple[list[str], Texts, Texts, Texts]:
    """Class names and the three parts; the split is the same for every seed.

    Raises:
        InputError: no such folder, fewer than two classes, or a class without a text.
    """
    folder = Path(root)
    check(folder.is_dir(), f"root: must be a folder of folders of texts, got {root}")
    classes = sorted(path.name for path in folder.iterdir() if path.is_dir())
    check(len(classes) > 1, f"root: must hold a folder for each of two or more classes, got {root}")
    rows, labels = [], []
    for label, name in enumerate(classes):
        files = sorted((folder / name).glob("*.txt"))
        check(bool(files), f"root: {folder / name} must hold .txt files")
        for file in files:
            found = file.read_bytes()[:length]
            rows.append(list(found.ljust(length)))
            labels.append(label)
    check(len(rows) >= 10, f"root: must hold 10 texts or more, got {len(rows)}")
    order = torch.randperm(len(rows), generator=streams.stream("text-folders", "split"))
    tokens, numbers = torch.tensor(rows)[order], torch.tensor(labels)[order]
    tenth = max(1, len(rows) // 10)
    cuts = [len(rows) - 2 * tenth, tenth, tenth]
    parts = zip(tokens.split(cuts), numbers.split(cuts), strict=True)
    train, held, test = (Texts(*part) for part in parts)
    return classes, train, held, test
