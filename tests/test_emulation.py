"""The emulation of CUDA sees planted faults: missing barriers, divergence, writes out of bounds."""

import os
import platform
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent / "emulation" / "faulty_kernels.cpp"
ORDERS = ["forward", "reverse", "1", "2"]

pytestmark = [
    pytest.mark.skipif(platform.machine() != "x86_64", reason="fibers are written for x86-64"),
    pytest.mark.skipif(shutil.which("g++") is None, reason="no g++"),
]


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    """Compiler of the faulty kernels, once for each set of flags."""
    folder = tmp_path_factory.mktemp("faulty")

    @cache
    def compiled(*flags: str) -> Path:
        output = folder / ("faulty" + "".join(flags).replace("=", "_"))
        words = ["g++", "-std=c++20", "-O1", "-Wall", "-Wextra", "-DLIEROPE_EMULATED"]
        subprocess.run([*words, *flags, str(SOURCE), "-o", str(output)], check=True)
        return output

    return compiled


def _run(program: Path, *words: str, order: str = "") -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if k != "LD_PRELOAD"}
    return subprocess.run(
        [str(program), *words],
        env={**clean, "LIEROPE_EMULATION_ORDER": order, "ASAN_OPTIONS": "detect_leaks=0"},
        capture_output=True,
        text=True,
        check=False,
    )


def _reports(program: Path, order: str) -> dict[str, str]:
    result = _run(program, order=order)
    assert result.returncode == 0, result.stderr
    lines = (line.split(": ", 1) for line in result.stdout.splitlines())
    return dict(lines)


@pytest.mark.parametrize("order", ORDERS)
def test_sound_kernels_pass_in_every_order(build, order: str) -> None:  # type: ignore[no-untyped-def]
    for name, outcome in _reports(build(), order).items():
        if name.startswith("sound"):
            assert outcome == "0 wrong", name


@pytest.mark.parametrize(
    "kernel", ["reversed", "reversed_twice", "neighbour_of_warp", "reads_unwritten"]
)
def test_a_missing_barrier_shows_in_some_order(build, kernel: str) -> None:  # type: ignore[no-untyped-def]
    outcomes = [_reports(build(), order)[f"faulty {kernel}"] for order in ORDERS]
    assert any(outcome != "0 wrong" for outcome in outcomes), outcomes


@pytest.mark.parametrize(
    ("kernel", "text"),
    [
        ("barrier_for_some", "a barrier is not reached by every thread of the block"),
        ("two_barriers", "threads of a block wait at different barriers"),
        ("shuffle_for_some", "a collective of the warp is not reached by every lane of its mask"),
        ("shuffle_of_a_part", "a shuffle reads a lane that takes no part in it"),
        ("writes_shared", "a thread wrote beyond its shared memory"),
    ],
)
@pytest.mark.parametrize("order", ORDERS)
def test_a_fault_is_an_error_that_says_what(build, order: str, kernel: str, text: str) -> None:  # type: ignore[no-untyped-def]
    outcome = _reports(build(), order)[f"faulty {kernel}"]
    assert outcome.startswith(f"emulated CUDA: {text} (block 0, 0, 0")
    if kernel != "writes_shared":
        assert f"{SOURCE.name}:" in outcome


def test_a_launch_that_no_processor_can_do(build) -> None:  # type: ignore[no-untyped-def]
    text = _reports(build(), "")["impossible launch"]
    assert text.startswith("emulated CUDA: no processor can launch a grid of (1, 1, 1) blocks of")


def test_an_unknown_order_is_an_error(build) -> None:  # type: ignore[no-untyped-def]
    outcome = _reports(build(), "sideways")["sound reversed"]
    assert outcome == "LIEROPE_EMULATION_ORDER must be forward, reverse or a seed, got sideways"


@pytest.mark.parametrize("kernel", ["writes_global", "writes_shared"])
def test_writes_out_of_bounds_under_address_sanitizer(build, kernel: str) -> None:  # type: ignore[no-untyped-def]
    result = _run(build("-fsanitize=address", "-g1"), kernel)
    assert f"sound {kernel}: 0 wrong" in result.stdout
    assert result.returncode != 0
    assert "ERROR: AddressSanitizer" in result.stderr
    assert f" in void {kernel}<false>(float*)" in result.stderr
