"""CIFAR-10 and CIFAR-100 from disk, by torchvision's readers and transforms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lierope.train.config import Settings
from lierope.train.distributed import World
from lierope.train.errors import InputError, check, one_line
from lierope.train.extras import extra
from lierope.train.loaders import LoadedSource

_FOLDERS = {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}
_FILES = {"cifar10": "data_batch_1 to data_batch_5 and test_batch", "cifar100": "train and test"}
_MEAN, _STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
_SIDE = 32


class Cifar(LoadedSource):
    """50,000 training and 10,000 test images of 32x32 pixels, resized to the canvas asked for."""

    in_chans = 3

    def __init__(self, settings: Settings, world: World, workers: int = 0) -> None:
        super().__init__(settings, world)
        self.name, self.workers = settings.data, workers
        self.num_classes = 100 if settings.data == "cifar100" else 10
        self._root = _check_root(settings)
        self._open(self._read(True, self._augmented()), self._read(True, self._plain(None)))

    def _test_set(self, image_size: int) -> Any:
        return self._read(False, self._plain(image_size))

    def _read(self, train: bool, transform: Any) -> Any:
        name = f"torch/{self.settings.data}"
        try:
            data = extra("timm.data").create_dataset(
                name, str(self._root), "train" if train else "validation", download=False
            )
        except (RuntimeError, OSError, EOFError, ValueError) as error:
            raise InputError(f"root: cannot read {self._root}: {one_line(error)}") from None
        data.transform = transform
        return data

    def _augmented(self) -> Any:
        t = extra("torchvision.transforms")
        size = self.settings.image_size
        steps = [t.RandomCrop(_SIDE, padding=4, padding_mode="reflect"), t.RandomHorizontalFlip()]
        if size != _SIDE:
            steps.insert(0, t.Resize(size))
            steps[1] = t.RandomCrop(size, padding=size // 8, padding_mode="reflect")
        if self.settings.auto_augment:
            augment = extra("timm.data.auto_augment")
            mean = tuple(round(255 * value) for value in _MEAN)
            steps.append(
                augment.rand_augment_transform(self.settings.auto_augment, {"img_mean": mean})
            )
        return t.Compose([*steps, t.ToTensor(), t.Normalize(_MEAN, _STD)])

    def _plain(self, image_size: int | None) -> Any:
        t = extra("torchvision.transforms")
        size = image_size or self.settings.image_size
        resize = [] if size == _SIDE else [t.Resize(size)]
        return t.Compose([*resize, t.ToTensor(), t.Normalize(_MEAN, _STD)])


def _check_root(settings: Settings) -> Path:
    data, folder = settings.data, _FOLDERS[settings.data]
    check(settings.root is not None, f"root: must name the folder that holds {folder} for {data}")
    root = Path(settings.root or "")
    if root.name == folder:
        root = root.parent
    check(
        (root / folder).is_dir(),
        f"root: must hold {folder} with {_FILES[data]} (the python version of {data}, unpacked), "
        f"got {settings.root}",
    )
    return root
