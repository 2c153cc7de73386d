"""Examples of pages and docstrings run as they stand; the reference has every public name."""

from __future__ import annotations

import doctest
import inspect
import re
from pathlib import Path

import pytest
import torch

import lierope
import lierope.diagnostics
import lierope.distributed
import lierope.encodings
import lierope.large_angles

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


# The reference.

MODULES = {
    "lierope": lierope,
    "lierope.ops": lierope.ops,
    "lierope.conversion": lierope.conversion,
    "lierope.diagnostics": lierope.diagnostics,
    "lierope.distributed": lierope.distributed,
    "lierope.encodings": lierope.encodings,
    "lierope.export": lierope.export,
    "lierope.large_angles": lierope.large_angles,
}


def _public() -> dict[str, object]:
    """Every public class and function by the name that the reference gives it."""
    found = {}
    for module_name, module in MODULES.items():
        names = getattr(module, "__all__", None)
        for name, value in vars(module).items():
            own = getattr(value, "__module__", None) == module_name
            if (
                (name in names if names is not None else own)
                and not name.startswith("_")
                and (inspect.isclass(value) or inspect.isfunction(value))
            ):
                found[f"{module_name}.{name}"] = value
    top = {f"lierope.{name}" for name in lierope.__all__}
    return {  # encodings are shown once, where people import them from
        name: value
        for name, value in found.items()
        if name in top or f"lierope.{name.rpartition('.')[2]}" not in top
    }


def test_the_reference_has_every_public_name() -> None:
    shown, module = set(), ""
    for line in PAGE.with_name("api.md").read_text().splitlines():
        word, _, rest = line.partition(":: ")
        if word == ".. currentmodule":
            module = rest
        elif word.startswith(".. auto"):
            shown.add(f"{module}.{rest}")
    assert shown == set(_public())


WITHOUT_EXAMPLE = {  # they need processes, packages, or are results of what has one
    "lierope.distributed.HeadParallel", "lierope.distributed.fully_shard_encodings",
    "lierope.export.onnx_program", "lierope.diagnostics.Report", "lierope.diagnostics.Spread",
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(set(_public()) - WITHOUT_EXAMPLE))
def test_examples_of_docstrings_run(name: str) -> None:
    torch.manual_seed(0)
    text = inspect.getdoc(_public()[name]) or ""
    example = doctest.DocTestParser().get_doctest(
        text, {"torch": torch, "lierope": lierope}, name, None, 0
    )
    assert example.examples, "no example"
    report: list[str] = []
    doctest.DocTestRunner().run(example, out=report.append)
    assert not report, "".join(report)


# Pages.

ROOT = PAGE.parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


def _anchors(page: Path) -> set[str]:
    """What headings are called in addresses: lower case, words joined by hyphens."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text()):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        assert path.exists(), target
        assert not anchor or anchor in _anchors(path), target


def test_every_page_is_in_the_table_of_contents() -> None:
    index = PAGE.with_name("index.md").read_text()
    listed = index.split("```{toctree}")[1].split("```")[0].split("\n\n")[1].split()
    assert {*listed, "index"} == {path.stem for path in PAGE.parent.glob("*.md")}


def test_the_readmes_examples_run() -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(blocks) >= 5
    turns = lierope.ops.expm_skew(torch.randn(5, 3, 3))
    poses = torch.eye(4).repeat(5, 1, 1)
    poses[:, :3, :3] = turns
    q, k = torch.randn(2, 1, 12, 5, 64).unbind()
    given = {
        "images": torch.rand(1, 3, 224, 224),
        "loss": torch.Tensor.sum,
        "q": q,
        "k": k,
        "positions": torch.rand(5, 3),
        "poses": poses,
        "A": torch.randn(7, 8, 8),
        "angles": torch.rand(12, 5, 32),
    }
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {"torch": torch, "lierope": lierope, **given})


def test_the_pages_build(tmp_path: Path) -> None:
    pytest.importorskip("furo")
    pytest.importorskip("myst_parser")
    main = pytest.importorskip("sphinx.cmd.build").build_main
    words = ["-q", "-W", "-b", "html", "-d", str(tmp_path / "cache")]
    assert main([*words, str(PAGE.parent), str(tmp_path / "pages")]) == 0
    assert "lierope.ops.expm_skew" in (tmp_path / "pages" / "api.html").read_text()


def test_the_citation_is_of_this_version() -> None:
    yaml = pytest.importorskip("yaml")
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == lierope.__version__
    readme = (ROOT / "README.md").read_text()
    assert all(paper["url"].rpartition("/")[2] in readme for paper in citation["references"])
    changes = (ROOT / "CHANGELOG.md").read_text()
    assert "## [Unreleased]" in changes
