"""The training loop: it learns, resumes exactly, and its checkpoints are whole or refused."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

pytest.importorskip("lierope.timm", exc_type=ImportError)

from lierope.train import atomic, checkpoints, launch, report, streams
from lierope.train import model as models
from lierope.train.config import PRESETS, Settings, preset
from lierope.train.distributed import World
from lierope.train.engine import Run
from lierope.train.errors import InputError
from lierope.train.inspect import rebuild

ENCODINGS = ("none", "absolute", "mixed", "liere:8", "cayley", "circulant")


def tiny(**changes: Any) -> Settings:
    """Digits with a model of one layer: an epoch takes half a second."""
    values = preset("digits", None, None)
    values["model_options"] |= {"depth": 1, "embed_dim": 32, "num_heads": 2}
    values |= {"epochs": 2, "batch_size": 64, "warmup_epochs": 0, "eval_sizes": (12,)}
    return Settings(**({"data": "digits", "encoding": "mixed"} | values | changes))


class StoppedError(Exception):
    """A run interrupted from outside."""


def stop_after(epoch: int) -> Any:
    def on_epoch(row: dict[str, float]) -> None:
        if row["epoch"] == epoch:
            raise StoppedError

    return on_epoch


def without_times(result: dict[str, Any]) -> dict[str, Any]:
    plain = json.loads(json.dumps(result))
    del plain["seconds_per_epoch"]
    for row in plain["history"]:
        del row["seconds"]
    return plain


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """The folder of a run of one epoch."""
    Run(tiny(epochs=1), tmp_path, World()).train()
    return tmp_path


def test_training_reduces_the_loss(tmp_path: Path) -> None:
    result = Run(tiny(epochs=4, batch_size=32, encoding="liere:8"), tmp_path, World()).train()
    losses = [row["train_loss"] for row in result["history"]]
    assert losses[-1] < 0.8 * losses[0]
    assert result["test_accuracy"]["10"] > 0.2  # ten classes
    assert list(result["test_accuracy"]) == ["10", "12"]


@pytest.mark.parametrize("changes", [
    {"encoding": "mixed"},
    {"encoding": "cayley", "drop_path": 0.2, "model_options": {"proj_drop_rate": 0.1}},
    {"encoding": "liere:8", "amp": "bf16"},
    {"encoding": "mixed", "mixup": 0.8, "cutmix": 1.0},
], ids=["plain", "dropout", "bf16", "mixed pictures"])  # fmt: skip
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path: Path, changes: dict[str, Any]) -> None:
    options = tiny().model_options | changes.get("model_options", {})
    settings = tiny(epochs=3, **(changes | {"model_options": options}))
    whole = Run(settings, tmp_path / "whole", World()).train()
    with pytest.raises(StoppedError):
        Run(settings, tmp_path / "parts", World()).train(on_epoch=stop_after(2))
    torch.rand(7)  # the state of the process must not matter
    resumed = Run(settings, tmp_path / "parts", World()).train(resume=True)
    assert without_times(resumed) == without_times(whole)
    ends = [checkpoints.load(tmp_path / part / "last.safetensors") for part in ("whole", "parts")]
    assert ends[0].model.keys() == ends[1].model.keys()
    for name, value in ends[0].model.items():
        assert torch.equal(value, ends[1].model[name]), name
    torch.testing.assert_close(
        ends[0].optimizer["state"], ends[1].optimizer["state"], rtol=0, atol=0
    )


def test_seeds_differ_and_repeat(tmp_path: Path) -> None:
    def loss(name: str, seed: int) -> float:
        run = Run(tiny(epochs=1, seed=seed), tmp_path / name, World())
        return float(run.train()["history"][0]["train_loss"])

    first = loss("a", 0)
    assert loss("b", 0) == first
    assert loss("c", 1) != first


def test_resume_refuses_another_run(finished: Path) -> None:
    with pytest.raises(InputError, match=r"resume: .* is of another run: lr 0.004 there, 0.1 here"):
        Run(tiny(epochs=1, lr=0.1), finished, World()).train(resume=True)


def test_an_exploding_loss_is_one_line(tmp_path: Path) -> None:
    run = Run(tiny(epochs=1, lr=1e30, clip_grad=None, optimizer="sgd"), tmp_path, World())
    with pytest.raises(
        InputError, match=r"mixed-seed0: the loss became \w+ in epoch 1; try a lower"
    ):
        run.train()
    assert not list(tmp_path.glob("*.safetensors"))


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_no_encoding_is_decayed(encoding: str) -> None:
    model = models.build(tiny(encoding=encoding), 1, 10)
    undecayed = models.undecayed(model)
    own = {name for name, _ in model.named_parameters() if ".encoding." in name}
    assert own <= undecayed
    assert ("pos_embed" in undecayed) or encoding != "absolute"
    assert not any(name.endswith("mlp.fc1.weight") for name in undecayed)


def test_parameters_are_counted() -> None:
    counts = {e: models.parameters(models.build(tiny(encoding=e), 1, 10)) for e in ENCODINGS}
    assert counts["none"].position == 0
    assert counts["absolute"].position == 25 * 32
    # 2 axes, 2 heads of 16: 8 planes each; 2 blocks of 28 numbers; the skew matrix and 2 x 8.
    assert counts["mixed"].position == 2 * 2 * 8
    assert counts["liere:8"].position == 2 * 2 * 2 * 28
    assert counts["cayley"].position == 2 * (16 * 15 // 2) + 2 * 2 * 8
    assert len({c.total - c.position for c in counts.values()}) == 1


# Checkpoints


def test_a_checkpoint_returns_what_was_saved(finished: Path) -> None:
    last = checkpoints.load(finished / "last.safetensors")
    assert last.settings == tiny(epochs=1)
    assert (last.epoch, last.in_chans, last.num_classes) == (1, 1, 10)
    assert last.optimizer is not None
    assert checkpoints.load(finished / "best.safetensors").optimizer is None
    model = models.build(last.settings, last.in_chans, last.num_classes)
    checkpoints.load_weights(model, last, finished)


@pytest.mark.parametrize("failure", ["replace", "write"])
def test_a_failed_write_keeps_the_old_file(
    finished: Path, monkeypatch: pytest.MonkeyPatch, failure: str
) -> None:
    path = finished / "last.safetensors"
    before = path.read_bytes()
    checkpoint = checkpoints.load(path)

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    if failure == "replace":
        monkeypatch.setattr(os, "replace", fail)
    else:
        monkeypatch.setattr("safetensors.torch.save_file", fail)
    with pytest.raises(InputError, match=r"cannot write .*last.safetensors: No space left"):
        checkpoints.save(path, checkpoint)
    assert path.read_bytes() == before
    assert not list(finished.glob(".*"))


def test_a_killed_write_leaves_no_part_under_the_name(tmp_path: Path) -> None:
    path = tmp_path / "file"
    atomic.write_text(path, "old")

    def die(part: Path) -> None:
        part.write_text("half")
        assert path.read_text() == "old"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        atomic.write_file(path, die)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(("damage", "message"), [
    (lambda data: data[:-100], "is cut short or not a safetensors file"),
    (lambda data: data[:5], "is cut short or not a safetensors file"),
    (lambda data: b"", "is cut short or not a safetensors file"),
    (lambda data: bytes(range(256)) * 8, "is cut short or not a safetensors file"),
    (lambda data: data.replace(b'\\"format\\": 2', b'\\"format\\": 7'), "is damaged .format 7"),
    (lambda data: data.replace(b'\\"epoch\\": 1,', b'\\"epoxh\\": 1,'), "not those that were"),
    (lambda data: data.replace(b'\\"depth\\": 1', b'\\"depth\\": 2'), "not those that were"),
    (lambda data: data[:-1] + bytes([data[-1] ^ 1]), "is damaged .its contents are not those that"),
], ids=["tail", "head", "empty", "noise", "format", "key", "depth", "weight"])  # fmt: skip
def test_a_damaged_checkpoint_is_refused(finished: Path, damage: Any, message: str) -> None:
    path = finished / "best.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match=message) as error:
        rebuild(checkpoints.load(path), path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("old", "new", "message"), [
    ('"epoch": 1,', '"epoxh": 1,', r"is damaged .'epoch'"),
    ('"embed_dim": 32', '"embed_dim": 16', r"another configuration: it has \S+ of shape"),
    ('"depth": 1', '"depth": 2', "another configuration: it lacks blocks.1."),
    ('"lr": 0.004', '"lr": -1.0', "is damaged .lr: must be positive, got -1"),
    ('"seed": 0', '"sead": 0', "is damaged .settings: unknown sead"),
    ('"format": 2', '"format": 1', None),  # without a digest, as the first version wrote them
], ids=["key", "width", "depth", "value", "setting", "older"])  # fmt: skip
def test_a_checkpoint_written_otherwise_is_refused(
    finished: Path, old: str, new: str, message: str | None
) -> None:
    path = finished / "best.safetensors"
    with safe_open(path, "pt") as file:
        text = file.metadata()["lierope"]
    tensors = load_file(path)
    assert old in text
    text = text.replace(old, new)
    header = {"lierope": text, "digest": checkpoints.digest(text, tensors)}
    if message is None:
        del header["digest"]
    save_file(tensors, path, header)
    if message is None:
        rebuild(checkpoints.load(path), path)
        return
    with pytest.raises(InputError, match=message):
        rebuild(checkpoints.load(path), path)


def test_another_programs_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"weight": torch.zeros(2)}, path)
    with pytest.raises(InputError, match="was not written by lierope train"):
        checkpoints.load(path)
    with pytest.raises(InputError, match=r"cannot read .*missing.*No such file"):
        checkpoints.load(tmp_path / "missing.safetensors")


# Settings and report


@pytest.mark.parametrize(("changes", "message"), [
    ({"data": "digit"}, r"data: must be one of .*, got digit; did you mean digits\?"),
    ({"amp": "bf"}, r"amp: must be one of off, bf16, fp16, got bf; did you mean bf16\?"),
    ({"epochs": -1}, "epochs: must be at least 1, got -1"),
    ({"batch_size": 0}, "batch-size: must be at least 1, got 0"),
    ({"image_size": 0}, "image-size: must be at least 1, got 0"),
    ({"eval_sizes": (12, -2)}, "eval-sizes: must be at least 1, got -2"),
    ({"lr": 0.0}, "lr: must be positive, got 0"),
    ({"seed": -1}, "seeds: must be at least 0, got -1"),
    ({"weight_decay": -0.1}, "weight-decay: must be at least 0, got -0.1"),
    ({"drop_path": 1.0}, r"drop-path: must be in \[0, 1\), got 1"),
    ({"validation": 1.0}, r"validation: must be in \(0, 1\), got 1"),
    ({"warmup_epochs": 2}, "warmup-epochs: must be less than epochs, got 2 and 2"),
])  # fmt: skip
def test_a_setting_out_of_range_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"^{message}$"):
        tiny(**changes)


@pytest.mark.parametrize("data", PRESETS)
def test_settings_survive_json(data: str) -> None:
    settings = Settings(data=data, encoding="mixed", **preset(data, None, None))
    assert Settings.from_json(json.loads(json.dumps(settings.to_json()))) == settings


def test_another_model_keeps_its_own_width() -> None:
    values = preset("digits", "vit_small_patch16_224", 20)
    assert values["model_options"] == {"in_chans": 1, "patch_size": 2}
    assert (values["image_size"], values["eval_sizes"]) == (20, (24, 32))


def test_default_test_sizes_fit_the_patches() -> None:
    values = preset("imagefolder", "vit_base_patch14_reg4_dinov2", None)
    settings = Settings(data="imagefolder", encoding="mixed", **values)
    assert settings.eval_sizes == (288, 384)
    assert models.fit_eval_sizes(settings).eval_sizes == (294, 378)


def test_a_summary_is_a_mean_over_seeds() -> None:
    def result(seed: int, accuracy: float) -> dict[str, Any]:
        return {
            "settings": replace(tiny(), seed=seed).to_json(),
            "test_accuracy": {"10": accuracy},
            "position_parameters": 1,
            "total_parameters": 2,
            "seconds_per_epoch": 1.0,
        }

    (row,) = report.summarise([result(0, 0.5), result(1, 0.7)])
    assert row["seeds"] == [0, 1]
    assert row["test_accuracy"]["10"]["mean"] == pytest.approx(0.6)
    assert row["test_accuracy"]["10"]["sd"] == pytest.approx(0.02**0.5)


def test_cores_are_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "cores", lambda: 8)
    assert launch.choose_jobs("digits", 6, None, None) == (6, 1)
    assert launch.choose_jobs("digits", 6, None, 4) == (2, 4)
    assert launch.choose_jobs("imagefolder", 6, None, None) == (1, 8)
    assert launch.choose_jobs("imagefolder", 6, 2, None) == (2, 4)
    assert launch.choose_jobs("digits", 2, 5, 1) == (2, 1)


def test_streams_depend_on_the_whole_key() -> None:
    numbers = {streams.number(*key) for key in ((1, "a", 2), (12, "a"), ("1a", 2), (1, "a", 3))}
    assert len(numbers) == 4
    assert streams.number(1, "a", 2) == streams.number(1, "a", 2)
