"""What the training loop asks of a data set, and how one is split and shared out."""

from __future__ import annotations

import abc
from collections.abc import Iterator

import torch

from lierope.train import streams
from lierope.train.config import Settings
from lierope.train.distributed import World
from lierope.train.errors import check

Batch = tuple[torch.Tensor, torch.Tensor]  # images (B, C, H, W) float32, labels (B,) int64


class Source(abc.ABC):
    """Batches of one data set for one process of a run.

    Each training batch is drawn for all processes together and every process takes its share, so
    that the images of a step do not depend on the number of processes.
    """

    num_classes: int
    in_chans: int
    train_images: int  # per epoch, over all processes

    def __init__(self, settings: Settings, world: World) -> None:
        self.settings = settings
        self.world = world
        check(
            settings.batch_size % world.size == 0,
            f"batch-size: must be a multiple of the number of processes, got "
            f"{settings.batch_size} and {world.size}",
        )

    @property
    def steps(self) -> int:
        """Optimiser steps an epoch; the last incomplete batch is dropped."""
        return self.train_images // self.settings.batch_size

    @abc.abstractmethod
    def train_batches(self, epoch: int) -> Iterator[Batch]:
        """This process's share of every batch of an epoch, augmented; depends on (seed, epoch)."""

    @abc.abstractmethod
    def validation_batches(self) -> Iterator[Batch]:
        """This process's share of the images held out from training, never augmented."""

    @abc.abstractmethod
    def test_batches(self, image_size: int) -> Iterator[Batch]:
        """This process's share of the test images at a canvas size in pixels."""

    def _check_batch(self) -> None:
        check(
            self.train_images >= self.settings.batch_size,
            f"batch-size: must be at most the {self.train_images} training images, "
            f"got {self.settings.batch_size}",
        )

    def _share(self, images: torch.Tensor, labels: torch.Tensor) -> Batch:
        rank, size = self.world.rank, self.world.size
        return images[rank::size], labels[rank::size]


def split_indices(count: int, fraction: float, *key: streams.Key) -> tuple[list[int], list[int]]:
    """A fixed random split of range(count) into (training, validation), at least one in each."""
    held = min(max(1, round(count * fraction)), count - 1)
    order = torch.randperm(count, generator=streams.stream("split", *key)).tolist()
    return sorted(order[held:]), sorted(order[:held])


def part_of(indices: list[int], fraction: float, *key: streams.Key) -> list[int]:
    """A fixed random part of the indices, at least one; a smaller fraction's is in a larger's."""
    order = torch.randperm(len(indices), generator=streams.stream("part", *key)).tolist()
    kept = order[: max(1, round(fraction * len(indices)))]
    return sorted(indices[i] for i in kept)
