"""Folders of images, one folder per class (ImageNet's layout), by timm's reader and transforms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lierope.train.config import Settings
from lierope.train.distributed import World
from lierope.train.errors import InputError, check, one_line
from lierope.train.extras import extra
from lierope.train.loaders import LoadedSource

_TRAIN = ("train", "training")
_TEST = ("val", "valid", "validation", "test", "eval")


class ImageFolders(LoadedSource):
    """ROOT/train/CLASS/*.jpg and ROOT/val/CLASS/*.jpg; `val` is the test set."""

    in_chans = 3
    name = "imagefolder"

    def __init__(self, settings: Settings, world: World, workers: int = 0) -> None:
        super().__init__(settings, world)
        self.workers = workers
        check(settings.root is not None, "root: must name a folder with train and val for images")
        root = Path(settings.root or "")
        self._train_folder = _subfolder(root, _TRAIN)
        self._test_folder = _subfolder(root, _TEST)
        train, held = (self._read(self._train_folder, t) for t in (True, False))
        classes = train.reader.class_to_idx
        check(len(classes) > 1, f"root: must hold at least 2 classes, got {self._train_folder}")
        self._classes = classes
        self.num_classes = len(classes)
        self._check_test_classes()
        self._open(train, held)

    def _test_set(self, image_size: int) -> Any:
        return self._read(self._test_folder, False, image_size, self._classes)

    def _check_test_classes(self) -> None:
        # A class the training part lacks would be left out of the test without a word.
        found = set(self._read(self._test_folder, False).reader.class_to_idx)
        unknown = sorted(found - set(self._classes))
        check(
            not unknown,
            f"root: {self._test_folder} holds classes that {self._train_folder} lacks: "
            f"{', '.join(unknown[:5])}",
        )

    def _read(
        self, folder: Path, training: bool, image_size: int | None = None, classes: Any = None
    ) -> Any:
        data = extra("timm.data")
        try:
            read = data.ImageDataset(str(folder), class_map=classes)
        except (RuntimeError, OSError) as error:
            raise InputError(f"root: cannot read {folder}: {one_line(error)}") from None
        transform = data.create_transform(
            image_size or self.settings.image_size,
            is_training=training,
            auto_augment=self.settings.auto_augment if training else None,
            interpolation="bicubic",
            crop_pct=0.875,
        )
        return Pictures(read.reader, transform)


class Pictures:
    """Pictures of a reader of timm's, of which none is passed over: a damaged one is an error.

    timm's own data set takes the next picture instead, which would train on some twice, and count
    them twice in a test.
    """

    def __init__(self, reader: Any, transform: Any) -> None:
        self.reader, self.transform = reader, transform

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        """(image tensor, label); raises InputError with the file's name."""
        try:
            file, label = self.reader[index]
            with file:
                picture = extra("PIL.Image").open(file).convert("RGB")
        except Exception as error:  # decoders raise whatever the bytes make them stumble over
            name = self.reader.filename(index, absolute=True)
            raise InputError(f"root: cannot read the picture {name}: {_why(error)}") from None
        return self.transform(picture), label


def _why(error: Exception) -> str:
    text = one_line(error)
    return "not a picture" if text.startswith("cannot identify image file") else text


def _subfolder(root: Path, names: tuple[str, ...]) -> Path:
    check(root.is_dir(), f"root: must be a folder with train and val, got {root} (not a folder)")
    for name in names:
        if (root / name).is_dir():
            return root / name
    raise InputError(
        f"root: must hold train/CLASS/*.jpg and val/CLASS/*.jpg, got {root} without {names[0]}"
    )
