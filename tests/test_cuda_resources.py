"""What ptxas said of every CUDA kernel: none spills; the record and its table are whole."""

from __future__ import annotations

import shutil

import pytest
from benchmarks.markers import markers
from tools.cuda_resources import (
    MARKER,
    RECORD,
    ROOT,
    TEXT,
    Kernel,
    ResourceError,
    parse_log,
    read_record,
    short_name,
    spilling,
    table,
)

LOG = """ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_ZN7lierope4cuda10sum_slicesIfEEvPKT_PS2_ll' for 'sm_80'
ptxas info    : Function properties for _ZN7lierope4cuda10sum_slicesIfEEvPKT_PS2_ll
    40 bytes stack frame, 4 bytes spill stores, 8 bytes spill loads
ptxas info    : Used 72 registers, used 1 barriers, 40 bytes cumulative stack size, 96 bytes smem
ptxas info    : Compile time = 29.064 ms
ptxas info    : Compiling entry function '_ZN7lierope4cuda10sum_slicesIdEEvPKT_PS2_ll' for 'sm_90'
ptxas info    : Function properties for _ZN7lierope4cuda10sum_slicesIdEEvPKT_PS2_ll
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 32 registers, used 0 barriers
"""

needs_filter = pytest.mark.skipif(shutil.which("c++filt") is None, reason="needs c++filt")


@needs_filter
def test_a_log_is_read_kernel_by_kernel() -> None:
    single, double = parse_log("sums", LOG)
    assert single == Kernel("sums", "sum_slices<float>", 80, 72, 12, 40, 96)
    assert double == Kernel("sums", "sum_slices<double>", 90, 32, 0, 0, 0)
    assert spilling([single, double]) == ["sums: sum_slices<float> spills 12 bytes on sm_80"]


@needs_filter
def test_a_log_that_was_cut_off_is_an_error() -> None:
    with pytest.raises(ResourceError, match="sums: must have numbers for every kernel, got none"):
        parse_log("sums", LOG[: LOG.rindex("ptxas info    : Used")])


@pytest.mark.parametrize(
    ("signature", "name"),
    [
        ("void lierope::cuda::f<lierope::cuda::Half, true>(lierope::P, int)", "f<Half, true>"),
        ("void lierope::cuda::g<float, (int)8>(float*)", "g<float, 8>"),
        ("lierope::cuda::h(int)", "h"),
    ],
)
def test_names_are_short(signature: str, name: str) -> None:
    assert short_name(signature) == name


def test_no_kernel_of_the_record_spills() -> None:
    assert spilling(read_record()) == []


def test_the_record_holds_every_kernel_source_on_every_architecture() -> None:
    kernels = read_record()
    sources = {path.stem for path in (ROOT / "cuda").glob("*.cu")}
    architectures = {kernel.architecture for kernel in kernels}
    assert {80, 90, 100} <= architectures
    missing = {(s, a) for s in sources for a in architectures}
    missing -= {(k.source, k.architecture) for k in kernels}
    assert not missing, f"run make cuda, then python -m tools.cuda_resources, for {sorted(missing)}"


def test_the_table_is_that_of_the_record() -> None:
    begin, end = markers(MARKER)
    written = TEXT.read_text(encoding="utf-8").split(begin)[1].split(end)[0]
    assert table(read_record()) in written
    assert RECORD.read_text(encoding="utf-8").count('"source"') == len(read_record())
