"""Sphinx builds the pages of this folder and the reference of every public name: `make docs`."""

from typing import Any

import lierope

project = "lierope"
release = version = lierope.__version__
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.doctest",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
html_theme = "furo"
html_title = f"lierope {version}"
exclude_patterns: list[str] = []
default_role = "py:obj"  # a name in backticks leads to it where it is documented

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # docstrings give shapes and types
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
myst_url_schemes = ["http", "https"]

doctest_global_setup = """
import torch, lierope
torch.manual_seed(0)
"""


def escape_bars(
    _app: Any, _what: str, _name: str, _object: Any, _options: Any, lines: list[str]
) -> None:
    """Norms are written |x|; reStructuredText takes what is between bars for a substitution."""
    lines[:] = [line if ">>>" in line else line.replace("|", r"\|") for line in lines]


def setup(app: Any) -> None:
    """What Sphinx calls."""
    app.connect("autodoc-process-docstring", escape_bars)
