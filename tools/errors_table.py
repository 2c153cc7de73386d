"""Writes docs/errors.md, the table of what wrong calls are told, from the list the tests run."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "errors.md"
INTRODUCTION = """\
# Errors

What wrong calls are told. Every message is one line, `name: rule, got what came`, and nothing is
allocated, written or changed before it. `tests/test_errors.py` and `tests/test_hostile.py` make
each of these calls and compare the whole text; this page is written from the same list by
`python -m tools.errors_table`.

Tensors on the meta device, and fake tensors while a compiler traces, are told the same; sizes that
a tracer does not know are left to the kernel. What fits every rule but not the memory is told
`name: out of memory for a tensor of float32 and shape (…)`.

In the calls below `t(2, 3)` makes a float32 tensor of that shape; `Q` is (B, H, N, D) =
(2, 4, 5, 8), `G` are generators (2, 4, 1, 28) and `P` positions (5, 2). For encodings `q` is
(2, 4, 5, 16), `k` (2, 2, 5, 16), `p` (4, 2), and `liere` is
`lierope.LieRE(16, 4, num_kv_heads=2)`, called with one prefix token.
"""


def page() -> str:
    """The whole page."""
    sys.path.insert(0, str(ROOT / "tests"))
    from error_cases import MODULES, OPS  # noqa: PLC0415

    sections = [(f"`lierope.ops.{name}`", wrong) for name, wrong in OPS.items()]
    sections += list(MODULES.items())
    return INTRODUCTION + "".join(_section(title, wrong) for title, wrong in sections)


def _section(title: str, wrong: Sequence[Any]) -> str:
    rows = [f"| {_code(w.call)} | {w.error} | {_message(w.text)} |" for w in wrong]
    head = f"\n## {title}\n\n| call | raises | rule | got |\n|---|---|---|---|\n"
    return head + "\n".join(rows) + "\n"


def _message(text: str) -> str:
    rule, _, got = text.partition(", got ")
    return f"{_code(rule)} | {_code(got)}"


def _code(text: str) -> str:
    return f"`{text}`".replace("|", "\\|") if text else ""


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print("written:", PAGE.relative_to(ROOT))
