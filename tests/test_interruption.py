"""Training that is interrupted, runs out of disk or reads damaged files: nothing good is lost."""

from __future__ import annotations

import ast
import errno
import json
import os
import random
import re
import resource
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("lierope.timm", exc_type=ImportError)

from PIL import Image

from lierope.cli import main
from lierope.train import atomic, checkpoints, engine
from lierope.train.distributed import World
from lierope.train.engine import Run
from lierope.train.errors import InputError
from test_train import StoppedError, stop_after, tiny, without_times

PACKAGE = Path(__file__).resolve().parents[1] / "python" / "lierope"
EPOCHS = 12
TRAIN = [
    *("train", "--data", "digits", "--encoding", "liere:8", "--epochs", str(EPOCHS)),
    *("--batch-size", "256", "--eval-sizes", "12", "--jobs", "1", "--output", "out"),
    *("--model-options", '{"depth": 1, "embed_dim": 16, "num_heads": 2, "proj_drop_rate": 0.1}'),
]
RUN = Path("out") / "liere-8-seed0"


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """The command line, in a process of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-m", "lierope", *TRAIN, *arguments], cwd=folder, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def finish(folder: Path, *arguments: str) -> None:
    process = start(folder, *arguments)
    _, error = process.communicate(timeout=240)
    assert (process.returncode, error) == (0, "")


def trained(folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Final weights with moments, and the result without its times."""
    last = checkpoints.load(folder / RUN / "last.safetensors")
    best = checkpoints.load(folder / RUN / "best.safetensors")
    assert last.optimizer is not None
    moments = {
        f"{index}.{name}": value
        for index, state in last.optimizer["state"].items()
        for name, value in state.items()
    }
    tensors = last.model | moments | {f"best.{k}": v for k, v in best.model.items()}
    return tensors, without_times(json.loads((folder / RUN / "result.json").read_text()))


def same(one: Path, other: Path) -> None:
    """Two folders hold the same run, bit for bit."""
    (tensors, result), (others, also) = trained(one), trained(other)
    assert tensors.keys() == others.keys()
    assert all(torch.equal(value, others[name]) for name, value in tensors.items())
    assert result == also
    lengths = [len((f / RUN / "metrics.csv").read_text().splitlines()) for f in (one, other)]
    assert lengths == [EPOCHS + 1] * 2
    assert not list((other / RUN).glob(".*"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    finish(folder)
    return folder


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    for _ in range(6000):
        if condition() or process.poll() is not None:
            return
        time.sleep(0.02)
    raise AssertionError("nothing came within two minutes")


def epochs_done(folder: Path) -> int:
    path = folder / RUN / "metrics.csv"
    return len(path.read_text().splitlines()) - 1 if path.exists() else 0


def test_killed_and_ended_at_random_moments_it_goes_on_to_the_same_weights(
    whole: Path, tmp_path: Path
) -> None:
    """SIGKILL, which nothing can answer, and SIGTERM, at moments drawn within an epoch."""
    draw, arguments = random.Random(os.getpid()), []
    for target, number in ((2, signal.SIGKILL), (5, signal.SIGTERM), (8, signal.SIGKILL)):
        process = start(tmp_path, *arguments)
        wait_for(lambda target=target: epochs_done(tmp_path) >= target, process)
        time.sleep(draw.uniform(0, 0.15))
        process.send_signal(number)
        _, error = process.communicate(timeout=60)
        assert target <= checkpoints.load(tmp_path / RUN / "last.safetensors").epoch <= EPOCHS
        assert not (tmp_path / RUN / "result.json").exists()
        if number == signal.SIGTERM:
            assert process.returncode == 143
            assert error == "lierope train: ended by SIGTERM; add --resume to go on\n"
            assert not list((tmp_path / RUN).glob(".*"))
        else:
            assert process.returncode == -signal.SIGKILL
        arguments = ["--resume"]
    finish(tmp_path, "--resume")
    same(whole, tmp_path)


@pytest.mark.parametrize("moment", ["best", "last", "metrics", "result"])
def test_ended_between_two_files_it_goes_on_to_the_same(
    moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process is gone right after the file was renamed, in the last epoch or the one before."""
    settings = tiny(epochs=2, batch_size=256)
    expected = Run(settings, tmp_path / "whole", World()).train()
    replace = os.replace
    last_time = {"best": 1, "last": 2, "metrics": 2, "result": 1}[moment]
    seen = []

    def gone(part: Path, path: Path) -> None:
        replace(part, path)
        seen.append(path.name)
        if path.name.startswith(moment) and seen.count(path.name) == last_time:
            raise StoppedError

    monkeypatch.setattr(os, "replace", gone)
    with pytest.raises(StoppedError):
        Run(settings, tmp_path / "parts", World()).train()
    monkeypatch.undo()
    resumed = Run(settings, tmp_path / "parts", World()).train(resume=True)
    assert without_times(resumed) == without_times(expected)
    lines = [(tmp_path / p / "metrics.csv").read_text().count("\n") for p in ("whole", "parts")]
    assert lines == [3, 3]


# A full disk.


@pytest.mark.parametrize("target", ["best", "last", "metrics", "result"])
@pytest.mark.parametrize("where", ["open", "write", "fsync", "replace"])
def test_a_full_disk_keeps_what_was_there(
    where: str, target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = tiny(epochs=2, batch_size=256)
    with pytest.raises(StoppedError):
        Run(settings, tmp_path, World()).train(on_epoch=stop_after(1))
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    monkeypatch.setattr(engine, "_best", lambda history: history[-1])  # so that it is written too
    _fill_disk(where, target, monkeypatch)
    with pytest.raises(InputError, match=rf"output: cannot write .*{target}.*: No space left"):
        Run(settings, tmp_path, World()).train(resume=True)
    monkeypatch.undo()
    for name, data in before.items():
        if name.startswith(target):
            assert (tmp_path / name).read_bytes() == data
    assert not list(tmp_path.glob(".*"))
    resumed = Run(settings, tmp_path, World()).train(resume=True)
    assert len(resumed["history"]) == 2


def _fill_disk(where: str, target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is full from the moment `target` is written."""
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    write_file, fsync, replace = atomic.write_file, os.fsync, os.replace
    writing = [""]

    def named(path: Path, write: Callable[[Path], None]) -> None:
        writing[0] = path.name

        def full_write(part: Path) -> None:
            if where == "write":
                part.write_bytes(b"half of it")
            raise full

        hit = path.name.startswith(target) and where in ("open", "write")
        write_file(path, full_write if hit else write)

    def refusing(real: Callable[..., Any], here: bool) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            if here and writing[0].startswith(target):
                raise full
            return real(*arguments)

        return call

    monkeypatch.setattr(checkpoints, "write_file", named)
    monkeypatch.setattr(atomic, "write_file", named)
    monkeypatch.setattr(os, "fsync", refusing(fsync, where == "fsync"))
    monkeypatch.setattr(os, "replace", refusing(replace, where == "replace"))


def test_a_file_that_may_not_grow_is_a_full_disk(tmp_path: Path) -> None:
    """The kernel itself refuses, in the middle of what safetensors writes."""
    settings = tiny(epochs=2, batch_size=256)
    with pytest.raises(StoppedError):
        Run(settings, tmp_path, World()).train(on_epoch=stop_after(1))
    before = (tmp_path / "last.safetensors").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    run = Run(settings, tmp_path, World())
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 4, limits[1]))
        with pytest.raises(
            InputError, match=r"^output: cannot write .*: .*File too large"
        ) as error:
            run.train(resume=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(error.value)
    assert (tmp_path / "last.safetensors").read_bytes() == before
    assert not list(tmp_path.glob(".*"))


# Damaged checkpoints.


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of a checkpoint after one of two epochs."""
    folder = tmp_path_factory.mktemp("good")
    with pytest.raises(StoppedError):
        Run(tiny(epochs=2, batch_size=256), folder, World()).train(on_epoch=stop_after(1))
    return (folder / "last.safetensors").read_bytes()


def _refused(data: bytes, path: Path) -> None:
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"^checkpoint: .*last.safetensors ") as error:
        checkpoints.load(path)
    assert "\n" not in str(error.value)
    assert path.read_bytes() == data


def test_a_checkpoint_cut_anywhere_is_refused(good: bytes, tmp_path: Path) -> None:
    header = 8 + struct.unpack("<Q", good[:8])[0]
    cuts = [0, 1, 7, 8, 9, header // 2, header - 1, header, header + 1, len(good) - 1]
    draw = random.Random(0)
    for cut in [*cuts, *(draw.randrange(len(good)) for _ in range(20))]:
        _refused(good[:cut], tmp_path / "last.safetensors")
    _refused(good + b"more", tmp_path / "last.safetensors")
    _refused(good[:-8] + bytes(8), tmp_path / "last.safetensors")


def test_no_flipped_bit_goes_unseen(good: bytes, tmp_path: Path) -> None:
    header = 8 + struct.unpack("<Q", good[:8])[0]
    draw = random.Random(1)
    places = [draw.randrange(header) for _ in range(150)]
    places += [draw.randrange(header, len(good)) for _ in range(50)]
    for place in places:
        flipped = bytearray(good)
        flipped[place] ^= 1 << draw.randrange(8)
        _refused(bytes(flipped), tmp_path / "last.safetensors")


def test_a_run_with_a_damaged_checkpoint_stops_and_touches_nothing(
    good: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "out" / "mixed-seed0"
    folder.mkdir(parents=True)
    (folder / "best.safetensors").write_bytes(good)
    (folder / "last.safetensors").write_bytes(good[: len(good) // 2])
    arguments = ["train", "--encoding", "mixed", "--output", str(tmp_path / "out"), "--resume"]
    assert main([*arguments, "--epochs", "1", "--jobs", "1"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("lierope train: checkpoint: ")
    assert error.count("\n") == 1
    assert (folder / "best.safetensors").read_bytes() == good
    assert (folder / "last.safetensors").read_bytes() == good[: len(good) // 2]


# Pictures.


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Two classes of six pictures to train on, and two each to test."""
    for part, count in (("train", 6), ("val", 2)):
        for label in "ab":
            (tmp_path / "data" / part / label).mkdir(parents=True)
            for number in range(count):
                picture = Image.effect_noise((40, 40), 40 + number).convert("RGB")
                picture.save(tmp_path / "data" / part / label / f"{number}.png")
    return tmp_path / "data"


def _damage(root: Path, how: str) -> None:
    picture = root / "train" / "a" / "3.png"
    if how == "truncated":
        picture.write_bytes(picture.read_bytes()[:200])
    elif how == "noise":
        picture.write_bytes(random.Random(0).randbytes(500))
    elif how == "empty":
        picture.write_bytes(b"")
    elif how == "gone":
        picture.unlink()
        picture.symlink_to("nowhere.png")
    elif how == "test":
        (root / "val" / "b" / "1.png").write_text("no picture")
    elif how == "no test":
        shutil.rmtree(root / "val")
        (root / "val").mkdir()
    elif how == "labels":
        (root / "val" / "b").rename(root / "val" / "c")
    elif how == "file":
        shutil.rmtree(root / "train")
        (root / "train").write_text("")


@pytest.mark.parametrize(
    ("how", "workers", "message"),
    [
        ("truncated", "0", r"root: cannot read the picture .*a/3.png: .*runcated"),
        ("truncated", "1", r"root: cannot read the picture .*a/3.png: .*runcated"),
        ("noise", "0", r"root: cannot read the picture .*a/3.png: not a picture"),
        ("empty", "0", r"root: cannot read the picture .*a/3.png: not a picture"),
        ("gone", "0", r"root: cannot read the picture .*a/3.png: .*No such file"),
        ("test", "0", r"root: cannot read the picture .*b/1.png: not a picture"),
        ("no test", "0", r"root: cannot read .*val: Found 0 images"),
        ("labels", "0", r"root: .*val holds classes that .*train lacks: c"),
        ("file", "0", r"root: must hold train/CLASS/\*.jpg and val/CLASS/\*.jpg, got .*"),
    ],
)
def test_damaged_pictures_are_named(
    how: str, workers: str, message: str, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _damage(pictures, how)
    arguments = [
        *("train", "--data", "imagefolder", "--root", str(pictures), "--encoding", "mixed"),
        *("--epochs", "1", "--batch-size", "4", "--image-size", "32", "--eval-sizes"),
        *("--workers", workers, "--output", str(pictures.parent / "out")),
        *("--model-options", '{"depth": 1, "embed_dim": 16, "num_heads": 2, "patch_size": 8}'),
    ]
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.match(f"lierope train: {message}", error), error


# Nothing that is read can run.


def test_nothing_foreign_is_executed() -> None:
    """No pickle, no torch.load without weights_only, no eval, no network: in the whole package."""
    refused = {"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal", "joblib"}
    network = {"urllib", "requests", "http", "socket", "ftplib", "huggingface_hub"}
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            roots = {name.split(".")[0] for name in names}
            assert not roots & (refused | network), f"{path}: {roots}"
            if isinstance(node, ast.Call):
                _check_call(path, node)


def _check_call(path: Path, node: ast.Call) -> None:
    called = ast.unparse(node.func)
    line = f"{path}:{node.lineno}: {called}"
    assert called not in ("eval", "exec", "compile", "os.system", "__import__"), line
    assert not called.startswith(("pickle.", "subprocess.")), line
    if called.endswith("torch.load"):
        words = {word.arg: ast.unparse(word.value) for word in node.keywords}
        assert words.get("weights_only") == "True", line
    for word in node.keywords:
        if word.arg in ("download", "pretrained", "trust_remote_code"):
            assert ast.unparse(word.value) == "False", line
