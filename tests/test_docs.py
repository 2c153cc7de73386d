"""The examples of docs/models.md and docs/training.md run as they stand."""

from __future__ import annotations

import doctest
from pathlib import Path

import pytest
import torch

pytest.importorskip("lierope.timm", exc_type=ImportError)
pytest.importorskip("transformers", minversion="5")

PAGE = Path(__file__).resolve().parents[1] / "docs" / "models.md"


@pytest.mark.parametrize("name", ["models.md", "training.md"])
def test_examples_run(name: str) -> None:
    torch.manual_seed(0)
    path = PAGE.with_name(name)
    page = path.read_text()
    failed, tried = doctest.testfile(str(path), module_relative=False)
    assert failed == 0
    assert tried == page.count("\n>>> ")


def test_every_test_that_the_readme_names_is_there() -> None:
    readme = (PAGE.parents[1] / "README.md").read_text()
    table = readme.split("## What works with what")[1].split("\n## ")[0]
    rows = [row for row in table.splitlines() if row.startswith("| ")][1:]
    assert rows
    for row in rows:
        named = [word.strip("`,") for word in row.split("|")[-2].split()]
        assert named, row
        for name in named:
            assert list(PAGE.parents[1].glob(name)), name
