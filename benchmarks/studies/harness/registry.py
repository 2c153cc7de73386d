"""The studies by name; a study's module is imported when it is asked for."""

from __future__ import annotations

import importlib

from benchmarks.studies.harness.study import Study, check_study
from lierope.train.errors import check_name

NAMES = (
    "images", "arrows", "resolution", "pointcloud", "rgbd", "video", "highdim", "documents",
    "sequence", "frequencies", "random-orthogonal", "blocks", "basis", "relativity", "matching",
    "pose", "shuffle", "data-efficiency", "sharing", "stability",
)  # fmt: skip


def load(name: str) -> Study:
    """The study of that name, `STUDY` of the module of that name.

    Raises:
        InputError: there is none; the nearest is suggested.
    """
    check_name("name", name, NAMES)
    module = importlib.import_module(f"benchmarks.studies.{name.replace('-', '_')}")
    study: Study = module.STUDY
    check_study(study)
    return study
