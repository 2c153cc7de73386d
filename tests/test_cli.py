"""The command line as a user meets it: help, results on disk, exit codes and one-line errors."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("lierope.timm", exc_type=ImportError)

from safetensors import safe_open

from lierope.cli import main

TINY = ["--model-options", '{"depth": 1, "embed_dim": 32, "num_heads": 2}', "--batch-size", "64"]
ONE = ["train", "--data", "digits", "--epochs", "1", *TINY]


def lierope(*arguments: str, cwd: Path | None = None, launcher: list[str] | None = None) -> Any:
    """Runs the command line in a process of its own."""
    command = [sys.executable, "-m", *(launcher or []), "lierope", *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "100"}
    return subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """Two encodings, one epoch each, in two processes."""
    folder = tmp_path_factory.mktemp("trained")
    done = lierope(*ONE, "--encoding", "liere:8", "cayley", "--output", "out", "--jobs", "2",
                   cwd=folder)  # fmt: skip
    return folder / "out", done


def test_help_names_every_command() -> None:
    done = lierope("--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert all(word in done.stdout for word in ("train", "inspect", "bench", "study"))


@pytest.mark.parametrize("command", ["train", "inspect", "bench", "study"])
def test_help_fits_a_terminal(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    assert end.value.code == 0
    assert all(len(line) <= 100 for line in capsys.readouterr().out.splitlines())


def test_a_run_leaves_its_results(trained: tuple[Path, Any]) -> None:
    output, done = trained
    assert (done.returncode, done.stderr) == (0, "")
    for words in ("liere:8", "cayley", "seconds", "held out", "lierope inspect"):
        assert words in done.stdout
    names = {path.name for path in output.iterdir()}
    assert names == {"results.json", "summary.png", "curves.png", "liere-8-seed0", "cayley-seed0"}
    assert (output / "summary.png").read_bytes().startswith(b"\x89PNG")
    results = json.loads((output / "results.json").read_text())
    assert results["command"][:2] == ["lierope", "train"]
    assert results["versions"]["timm"]
    assert results["machine"]["threads"] == 1
    assert [row["encoding"] for row in results["summary"]] == ["liere:8", "cayley"]
    assert set(results["summary"][0]["test_accuracy"]) == {"10", "12", "16"}
    with (output / "cayley-seed0" / "metrics.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert float(row["train_loss"]) > 0
    with safe_open(output / "cayley-seed0" / "best.safetensors", "pt") as file:
        assert "model.blocks.0.attn.encoding.skew" in file.keys()  # noqa: SIM118


def test_inspect_reads_a_run(
    trained: tuple[Path, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trained[0] / "cayley-seed0"
    plot = tmp_path / "frequencies.png"
    assert main(["inspect", str(run), "--plot", str(plot), "--heads"]) == 0
    shown = capsys.readouterr().out
    assert "vit_tiny_patch16_224 with cayley, trained on digits at 10 px, seed 0" in shown
    assert "CayleySTRING(head_dim=16" in shown
    assert "blocks.0" in shown
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert main(["inspect", str(run / "last.safetensors")]) == 0


def test_a_run_is_resumed_and_kept(
    trained: tuple[Path, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    output, _ = trained
    same = [*ONE, "--encoding", "liere:8", "--output", str(output)]
    before = (output / "liere-8-seed0" / "last.safetensors").read_bytes()
    assert main(same) == 2
    assert "already holds the run liere-8-seed0; add --resume" in capsys.readouterr().err
    assert main([*same, "--resume", "--lr", "0.1"]) == 2
    assert "is of another run: lr 0.004 there, 0.1 here" in capsys.readouterr().err
    assert main([*same, "--resume"]) == 0
    assert (output / "liere-8-seed0" / "last.safetensors").read_bytes() == before


def test_a_run_is_trained_anew_when_asked(tmp_path: Path) -> None:
    arguments = [*ONE, "--encoding", "mixed", "--jobs", "1", "--output", str(tmp_path)]
    folder = tmp_path / "mixed-seed0"
    folder.mkdir()
    (folder / "last.safetensors").write_bytes(b"of another program")
    (folder / "metrics.csv").write_text("old")
    (folder / "notes.txt").write_text("mine")
    assert main([*arguments, "--overwrite"]) == 0
    assert (folder / "metrics.csv").read_text().count("\n") == 2
    with safe_open(folder / "last.safetensors", framework="pt") as file:
        assert any("frequencies" in name for name in file.keys())  # noqa: SIM118
    assert (folder / "notes.txt").read_text() == "mine"


def nobody_left(group: int) -> bool:
    """Whether every process of a group ends within some seconds."""
    for _ in range(100):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Tests that a shell put in the background ignore SIGINT, and so would what they start."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupted_run_ends_at_once_and_goes_on(tmp_path: Path) -> None:
    arguments = ["train", "--epochs", "40", *TINY, "--encoding", "none", "absolute", "--jobs", "2"]
    process = subprocess.Popen(
        [sys.executable, "-m", "lierope", *arguments], cwd=tmp_path, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert process.stdout is not None
    assert "epoch" in process.stdout.readline()
    os.killpg(process.pid, signal.SIGINT)
    _, error = process.communicate(timeout=120)
    assert (process.returncode, error) == (
        130,
        "lierope train: interrupted; add --resume to go on\n",
    )
    assert nobody_left(process.pid)
    runs = tmp_path / "runs" / "digits"
    assert not (runs / "results.json").exists()
    assert list(runs.glob("*/last.safetensors"))


BAD = {
    "encoding": (["--encoding", "mixt"], "encoding mixt: .*mixed"),
    "block": (["--encoding", "liere:7"], "encoding liere:7: .*got 7"),
    "model": (["--model", "vit_tny_patch16_224"],
              "model: must be a model of timm, got vit_tny_patch16_224; did you mean vit_tiny"),
    "not a ViT": (["--model", "resnet18"], "model: resnet18 cannot be built as a vision transf"),
    "model option": (["--model-options", '{"deep": 3}'], "model: .*'deep'"),
    "data": (["--data", "cifar"], "data: must be one of .*, got cifar; did you mean cifar10"),
    "root": (["--data", "cifar10", "--root", "nowhere"], "root: must hold cifar-10-batches-py"),
    "image size": (["--image-size", "11"],
                   "image-size: must be a multiple of the patch size 2 of vit_tiny.*, got 11"),
    "eval size": (["--eval-sizes", "13"], "eval-sizes: must be a multiple of the patch .*13"),
    "epochs": (["--epochs", "-3"], "epochs: must be at least 1, got -3"),
    "optimizer": (["--optimizer", "adamx"], "optimizer: must be one of timm's, .*did you mean"),
    "schedule": (["--schedule", "cosin"], "schedule: must be one of .*; did you mean cosine"),
    "jobs": (["--jobs", "0"], "jobs: must be at least 1, got 0"),
    "device": (["--device", "tpu"], "device: must be one of cpu, cuda, got tpu"),
    "batch": (["--batch-size", "5000"], "batch-size: must be at most the 1213 training images"),
    "both": (["--resume", "--overwrite"], "resume: cannot go together with --overwrite"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_writes_nothing(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments, message = BAD[case]
    assert main([*ONE, *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("lierope train: ")
    assert re.search(message, captured.err), captured.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("arguments", "message"), [
    ([], "lierope: the following arguments are required: COMMAND"),
    (["trian"], "argument COMMAND: invalid choice: 'trian'"),
    (["train", "--epochs", "many"], "argument --epochs: invalid int value: 'many'"),
    (["train", "--model-options", "{"], "argument --model-options: "),
    (["train", "--share", "some"], "argument --share: invalid choice"),
])  # fmt: skip
def test_bad_arguments_are_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_an_error_in_a_process_of_its_own_has_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    done = lierope(*ONE, "--output", "file", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("lierope train: output: must be a folder that can be written")
    assert done.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_inspect_refuses_what_is_no_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    noise = tmp_path / "noise.safetensors"
    noise.write_bytes(b"noise" * 99)
    for path, message in (
        (noise, "is cut short or not a safetensors file"),
        (tmp_path / "missing", "cannot read"),
        (tmp_path, "cannot read"),
    ):
        assert main(["inspect", str(path)]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1


def test_bench_times_every_operator(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    threads = torch.get_num_threads()
    path = tmp_path / "bench.json"
    try:
        arguments = ["--quick", "--shape", "1,2,16,16", "--threads", "2", "--json", str(path)]
        assert main(["bench", *arguments]) == 0
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    record = json.loads(path.read_text())
    assert record["threads"] == 2
    names = [row["name"] for row in record["cases"]]
    assert names == ["expm_skew", "expm_skew", "rotate_pairs", "lie_rotate"]
    for row in record["cases"]:
        assert row["ours"] > 0 < row["plain"]
        assert row["difference"] < 1e-4
        assert row["rounds"] >= 5
    told = capsys.readouterr().out
    assert all(name in told for name in names)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--threads", "0"], "threads: must be at least 1, got 0"),
        (["--shape", "1,2,3"], "shape: must be four numbers B,H,N,D, got 1,2,3"),
        (["--shape", "1,0,4,8"], "shape: must be positive, got 1,0,4,8"),
        (["--shape", "1,2,5,8"], "shape: N must be a square number of patches, got 5"),
        (["--shape", "1,2,4,12"], "shape: D must be a multiple of 8, got 12"),
    ],
)
def test_bench_refuses_in_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "--quick", *arguments]) == 2
    assert capsys.readouterr().err == f"lierope bench: {message}\n"
