"""The data sets by name."""

from __future__ import annotations

from lierope.train.arrows import Arrows
from lierope.train.cifar import Cifar
from lierope.train.config import Settings
from lierope.train.data import Source
from lierope.train.digits import Digits
from lierope.train.distributed import World
from lierope.train.folders import ImageFolders


def open_source(settings: Settings, world: World, workers: int = 0) -> Source:
    """Opens the data set named by `settings.data`; raises InputError where it cannot be read."""
    if settings.data == "digits":
        return Digits(settings, world)
    if settings.data == "arrows":
        return Arrows(settings, world)
    if settings.data == "imagefolder":
        return ImageFolders(settings, world, workers)
    return Cifar(settings, world, workers)
