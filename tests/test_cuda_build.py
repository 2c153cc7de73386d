"""The CUDA library, built where there is no GPU: its registrations, its needs, its errors."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import lierope

ROOT = Path(__file__).resolve().parents[1]
LIBRARY = Path(lierope.__file__).parent / "liblierope_cuda.so"
SCHEMAS = re.findall(r'"(\w+)\(Tensor', (ROOT / "csrc" / "library.cpp").read_text())

built = pytest.mark.skipif(not LIBRARY.exists(), reason="make cuda was not run")
# torch's libraries stand in on a torch without CUDA: empty but for what ours asks of them.
STAND_IN = 'extern "C" int aoti_torch_get_current_cuda_stream(int, void**) { return 1; }'
LOAD = """
import ctypes, torch, lierope
cuda = torch._C.DispatchKeySet(torch._C.DispatchKey.CUDA)
if torch.version.cuda is None:
    torch.ops.load_library({library!r})
q, t = torch.zeros(1, 1, 2, 4), torch.zeros(1, 2, 2)
"""


def _python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder of libraries named as torch's CUDA ones."""
    folder = tmp_path_factory.mktemp("stand-ins")
    if torch.version.cuda is not None:
        return str(folder)  # the real ones are there
    for name in ("libtorch_cuda.so", "libc10_cuda.so"):
        words = ["g++", "-shared", "-fPIC", "-x", "c++", "-", f"-Wl,-soname,{name}"]
        output = ["-o", str(folder / name)]
        subprocess.run([*words, *output], input=STAND_IN, text=True, check=True)
    return str(folder)


@built
def test_every_operator_has_a_cuda_kernel(stand_ins: str) -> None:
    code = LOAD.format(library=str(LIBRARY)) + (
        f"for name in {SCHEMAS}:\n"
        "    has = torch._C._dispatch_has_kernel_for_dispatch_key\n"
        "    assert has(f'lierope::{name}', 'CUDA'), name\n"
        "print('all')"
    )
    result = _python(code, LD_LIBRARY_PATH=stand_ins)
    assert result.stdout.strip() == "all", result.stderr


@built
def test_tensors_elsewhere_are_an_error(stand_ins: str) -> None:
    code = LOAD.format(library=str(LIBRARY)) + (
        "op = torch.ops.lierope.rotate_pairs.default\n"
        "try:\n"
        "    op.redispatch(cuda, q, q, t, 0, True, False)\n"
        "except RuntimeError as error:\n"
        "    print(error)"
    )
    result = _python(code, LD_LIBRARY_PATH=stand_ins)
    text = "rotate_pairs: q must be on the GPU like the other arguments, got cpu"
    assert text in result.stdout, result.stderr


@built
def test_it_needs_no_more_than_the_stable_abi() -> None:
    """One file serves every torch from 2.11 on, and every Python."""
    listing = subprocess.run(
        ["nm", "-D", "--undefined-only", str(LIBRARY)], capture_output=True, text=True, check=True
    )
    names = {line.split()[-1] for line in listing.stdout.splitlines()}
    system = re.compile(r"@(GLIBC|GLIBCXX|CXXABI|GCC)_|^_ITM_|^__gmon_start__$|^__cxa_finalize")
    foreign = {n for n in names if not system.search(n) and not n.startswith(("aoti_", "torch_"))}
    assert not foreign


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc")
@pytest.mark.parametrize("source", ["rotate_pairs", "rotate_blocks"])
def test_aligned_rows_are_written_16_bytes_at_once(source: str, tmp_path: Path) -> None:
    """As PTX shows, where nvcc may take the assignment of a vector apart."""
    ptx = tmp_path / "kernels.ptx"
    words = ["nvcc", "-std=c++20", "-O3", "--expt-relaxed-constexpr", "-arch=compute_90", "-ptx"]
    subprocess.run(
        [*words, str(ROOT / "cuda" / f"{source}.cu"), "-o", str(ptx)],
        check=True,
        capture_output=True,
    )
    kernels = re.findall(r"\.entry (\w+)\((.*?)\n}\n", ptx.read_text(), re.DOTALL)
    # The last template argument of a layout, or of a kernel on blocks of 8, says wide; an angle's
    # gradient is written as it is.
    wide = {name: text for name, text in kernels if re.search(r"PairLayout.*Lb1EE|Li8ELb1E", name)}
    assert len(wide) >= 6
    for name, text in wide.items():
        stores = set(re.findall(r"st\.global[\w.]*", text))
        assert "st.global.wb.v4.u32" in stores, name
        sums = {"st.global.f32", "st.global.f64"} if "backward" in name else set()
        assert stores <= {"st.global.wb.v4.u32", *sums}, name


def test_missing_kernels_say_how_to_build_them() -> None:
    """On a torch with CUDA where `make cuda` was not run."""
    code = (
        "import torch, lierope\n"
        "from lierope import _library\n"
        "kept = _library._explain_missing_cuda()\n"
        "cuda = torch._C.DispatchKeySet(torch._C.DispatchKey.CUDA)\n"
        f"for name in {SCHEMAS}:\n"
        "    has = torch._C._dispatch_has_kernel_for_dispatch_key\n"
        "    assert has(f'lierope::{name}', 'CUDA'), name\n"
        "try:\n"
        "    torch.ops.lierope.expm_skew.default.redispatch(cuda, torch.zeros(2, 2))\n"
        "except RuntimeError as error:\n"
        "    print(error)"
    )
    result = _python(code)
    assert result.stdout.strip() == "lierope: no CUDA kernels: run make cuda", result.stderr


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ({"LIEROPE_BUILD": "gpu"}, "LIEROPE_BUILD must be cpu, cuda or emulated, got gpu"),
        (
            {"LIEROPE_BUILD": "cuda", "PATH": "/nowhere", "CUDA_HOME": "", "CUDA_PATH": ""},
            "lierope: no nvcc: put it on PATH, or name the toolkit's folder in CUDA_HOME",
        ),
    ],
    ids=["build", "nvcc"],
)
def test_a_build_that_cannot_be(words: dict[str, str], text: str, tmp_path: Path) -> None:
    if "PATH" in words and Path("/usr/local/cuda/bin/nvcc").exists():
        pytest.skip("nvcc is in its usual folder")
    command = [sys.executable, "setup.py", "-q", "build_ext", "--build-lib", str(tmp_path)]
    result = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **words}, capture_output=True, text=True, check=False
    )
    assert result.returncode != 0
    assert text in result.stderr


def test_a_device_that_does_not_fit_is_named() -> None:
    """A tensor of another kind than the first, brought to the CPU's kernel by hand."""
    code = (
        "import torch, lierope\n"
        "cpu = torch._C.DispatchKeySet(torch._C.DispatchKey.CPU)\n"
        "q, k = torch.zeros(1, 1, 2, 4), torch.zeros(1, 1, 2, 4, device='meta')\n"
        "op = torch.ops.lierope.rotate_pairs.default\n"
        "try:\n"
        "    op.redispatch(cpu, q, k, torch.zeros(1, 2, 2), 0, True, False)\n"
        "except RuntimeError as error:\n"
        "    print(error)"
    )
    result = _python(code)
    text = "rotate_pairs: k must be on the device of q, cpu, got another device"
    assert text in result.stdout, result.stderr


def test_a_named_library_that_is_missing() -> None:
    result = _python("import lierope", LIEROPE_LIBRARY="/nowhere/lib.so")
    assert "lierope: the compiled library /nowhere/lib.so of LIEROPE_LIBRARY is missing: run" in (
        result.stderr
    )


def test_a_package_refuses_an_old_cuda_library(tmp_path: Path) -> None:
    copy = tmp_path / "lierope"
    ignored = shutil.ignore_patterns(".git", ".venv", "build", "runs", "*.so", "__pycache__")
    shutil.copytree(ROOT, copy, ignore=ignored)
    (copy / "python" / "lierope" / "liblierope_cuda.so").write_bytes(b"of other sources")
    result = subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "--build-lib", str(tmp_path / "out")],
        cwd=copy,
        env={**os.environ, "CXX": "false"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode != 0
    assert "liblierope_cuda.so is older than its sources: run make cuda, or remove it" in (
        result.stderr
    )
