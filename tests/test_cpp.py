"""A C++ program calls the operators and a compiled model by LibTorch, as `make cpp` does."""

import importlib.util
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("lierope.timm", exc_type=ImportError)

HERE = Path(__file__).resolve().parent


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which(os.environ.get("CXX", "g++")), reason="needs a compiler")
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_a_program_without_python(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("cpp_run", HERE / "cpp" / "run.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    done = script.run(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    told = done.stdout.splitlines()
    assert [line.split()[0] for line in told[:-1]] == ["ok"] * 15
    assert told[-1] == "15 passed, 0 failed"
    dynamic = subprocess.check_output(["readelf", "-d", str(tmp_path / "program")], text=True)
    needed = re.findall(r"\(NEEDED\).*\[(.+)\]", dynamic)
    assert "libtorch_cpu.so" in needed
    assert not [name for name in needed if "python" in name or "lierope" in name]
