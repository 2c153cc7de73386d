"""Batches from an indexable torch data set on disk, by torch's DataLoader with workers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, DistributedSampler, RandomSampler, Sampler, Subset

from lierope.train import streams
from lierope.train.data import Batch, Source, part_of, split_indices
from lierope.train.errors import InputError, one_line


class LoadedSource(Source):
    """A source over three torch data sets that give (image tensor, label).

    A subclass sets `num_classes`, `in_chans` and `name`, and opens the data sets; the held-out part
    is read with test transforms from the training files.
    """

    name: str
    workers: int = 0

    def _open(self, train: Any, held: Any) -> None:
        kept, out = split_indices(len(train), self.settings.validation, self.name)
        kept = part_of(kept, self.settings.train_fraction, self.name)
        self._train, self._held = Subset(train, kept), Subset(held, out)
        self.train_images = len(kept)
        self._check_batch()

    def _test_set(self, image_size: int) -> Any:
        raise NotImplementedError

    def train_batches(self, epoch: int) -> Iterator[Batch]:
        """Shuffled and augmented; the loader's workers are seeded from torch's global state."""
        seed = streams.number(self.settings.seed, self.name, "order", epoch)
        sampler: Sampler[int]
        if self.world.size > 1:
            sampler = DistributedSampler(
                self._train, self.world.size, self.world.rank, seed=seed % 2**31
            )
        else:
            sampler = RandomSampler(self._train, generator=torch.Generator().manual_seed(seed))
        batch = self.settings.batch_size // self.world.size
        loader = self._loader(self._train, batch, sampler=sampler, drop_last=True)
        for step, item in enumerate(_read(loader)):
            # DistributedSampler pads, which can make one batch more than there are steps.
            if step < self.steps:
                yield item

    def validation_batches(self) -> Iterator[Batch]:
        """The held-out training images."""
        return self._evaluated(self._held)

    def test_batches(self, image_size: int) -> Iterator[Batch]:
        """The test images, resized to `image_size`."""
        return self._evaluated(self._test_set(image_size))

    def _evaluated(self, data: Any) -> Iterator[Batch]:
        mine: Sequence[int] = range(self.world.rank, len(data), self.world.size)
        yield from _read(self._loader(Subset(data, mine), max(1, self.settings.batch_size)))

    def _loader(self, data: Any, batch: int, **options: Any) -> DataLoader[Any]:
        return DataLoader(
            data,
            batch,
            num_workers=self.workers,
            pin_memory=self.world.device.type == "cuda",
            **options,
        )


def _read(loader: DataLoader[Any]) -> Iterator[Batch]:
    """The loader's batches; what stops it, in this process or in a worker, is one line."""
    try:
        yield from loader
    except InputError as error:
        raise InputError(one_line(error)) from None
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(f"root: reading pictures failed: {one_line(error)}") from None
