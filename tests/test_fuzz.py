"""Thousands of calls of every operator with arguments that are nearly right: none crashes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import lierope

ROOT = Path(__file__).resolve().parents[1]
CALLS = 4000
SETS = ("baseline", "avx2", "avx512")


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which(os.environ.get("CXX", "g++")), reason="needs a compiler")
@pytest.mark.skipif("LIEROPE_LIBRARY" in os.environ, reason="calls the library of the package")
def test_calls_that_are_nearly_right(tmp_path: Path) -> None:
    words = {"PYTHON": sys.executable, "OMP_NUM_THREADS": "2"}
    program = tmp_path / "replay"
    subprocess.run(
        ["bash", ROOT / "tools" / "replay.sh", program], check=True, env=os.environ | words
    )
    kernels_here = SETS[: SETS.index(lierope.build_info().instruction_set) + 1]
    for kernels in kernels_here:
        done = subprocess.run(
            [program, str(CALLS)],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | words | {"LIEROPE_ISA": kernels},
        )
        told = (done.stdout + done.stderr)[-2000:]
        assert done.returncode == 0, f"{kernels}: {told}"
        calls, accepted = (int(word) for word in re.findall(r"\d+", done.stdout.splitlines()[-1]))
        assert calls == CALLS
        assert CALLS / 4 < accepted < CALLS  # both sides of every check are met
