"""Short clips of a digit that moves: the label is the digit and the way it moves."""

from __future__ import annotations

from pathlib import Path

import numpy
import torch
from torch import Tensor

from lierope.train import streams
from lierope.train.data import split_indices
from lierope.train.digits import SIDE, bundled
from lierope.train.errors import InputError, check, one_line

FRAMES, CANVAS = 6, 14
WAYS = ((0, 1), (0, -1), (1, 0), (-1, 0))  # (rows, columns) a frame
CLASSES = 10 * len(WAYS)
_MEAN, _STD = 0.2, 0.4


def split(part: str) -> tuple[Tensor, Tensor]:
    """Digits (count, 8, 8) and their numbers of "train", "validation" or "test"."""
    images, labels = bundled()
    rest, test = split_indices(len(labels), 0.25, "digits", "test")
    train, held = split_indices(len(rest), 0.1, "digits", "validation")
    at = torch.tensor(rest)
    index = {"train": at[train], "validation": at[held], "test": torch.tensor(test)}[part]
    return images[index, 0], labels[index]


def draw(digits: Tensor, numbers: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Clips (B, FRAMES, CANVAS, CANVAS), standardised, and labels 4 * digit + way.

    A digit starts where its way stays inside; one pixel a frame. Frames of one clip in any other
    order show the same places, so the way can be told only by when each frame is.
    """
    B = len(numbers)
    way = torch.randint(len(WAYS), (B,), generator=random)
    steps = torch.tensor(WAYS)[way]  # (B, 2)
    room = CANVAS - SIDE - (FRAMES - 1) * steps.abs() + 1
    start = (torch.rand(B, 2, generator=random) * room).long()
    start = start + (FRAMES - 1) * (steps < 0)
    clips = torch.zeros(B, FRAMES, CANVAS, CANVAS)
    inside = torch.arange(SIDE)
    for frame in range(FRAMES):
        corner = start + frame * steps
        rows = corner[:, 0, None, None] + inside[:, None]
        columns = corner[:, 1, None, None] + inside[None, :]
        clips[torch.arange(B)[:, None, None], frame, rows, columns] = digits
    return (clips - _MEAN) / _STD, len(WAYS) * numbers + way


def load_clips(root: str) -> tuple[list[str], dict[str, list[tuple[Path, int]]]]:
    """Clips on disk, root/{train,val}/CLASS/*.npy, each an array (frames, rows, columns).

    Raises:
        InputError: a folder that is missing or empty, or val's classes that differ from train's.
    """
    folder = Path(root)
    found: dict[str, list[tuple[Path, int]]] = {}
    names: list[str] = []
    parts = ("train", "val")
    check(all((folder / p).is_dir() for p in parts), f"root: must hold train and val, got {root}")
    for part in parts:
        here = sorted(p.name for p in (folder / part).iterdir() if p.is_dir())
        names = names or here
        check(
            here == names and len(names) > 1,
            f"root: train and val must have the same two or more classes, got {root}",
        )
        found[part] = [
            (file, label)
            for label, name in enumerate(names)
            for file in sorted((folder / part / name).glob("*.npy"))
        ]
        check(bool(found[part]), f"root: {folder / part} must hold .npy files")
    return names, found


def read_clip(path: Path) -> Tensor:
    """A clip of (FRAMES, CANVAS, CANVAS), resized, standardised by its own mean and deviation."""
    try:
        values = torch.from_numpy(numpy.load(path, allow_pickle=False).astype("float32"))
        check(values.ndim == 3, f"root: {path} must be (frames, rows, columns)")
    except (OSError, ValueError) as error:
        raise InputError(f"root: {path} cannot be read ({one_line(error)})") from None
    sized = torch.nn.functional.interpolate(
        values[None, None], (FRAMES, CANVAS, CANVAS), mode="trilinear"
    )[0, 0]
    return (sized - sized.mean()) / (sized.std() + 1e-6)


def shuffled_frames(clips: Tensor) -> Tensor:
    """The clips with frames in a random order, the same for all: what a timeless model sees."""
    order = torch.randperm(clips.shape[1], generator=streams.stream("moving-digits", "shuffle"))
    return clips[:, order]
