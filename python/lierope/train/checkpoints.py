"""Reads and writes checkpoints: one safetensors file, tensors and JSON, nothing executed at load.

The header's `lierope` entry is a JSON text: the settings, epochs done, the history, the optimiser's
numbers. Its `digest` entry is a SHA-256 of that text and of every tensor: a bit that a disk lost is
found. Tensors are named `model.<parameter>` and `optimizer.<index>.<state>`.
"""

from __future__ import annotations

import hashlib
import json
import platform
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

import lierope
from lierope.train.atomic import write_file
from lierope.train.config import Settings
from lierope.train.errors import InputError, check, one_line
from lierope.train.extras import extra

FORMAT = 2
_WITHOUT_DIGEST = 1  # an older format, which is still read
State = dict[str, torch.Tensor]


@dataclass
class Checkpoint:
    """A run at the end of an epoch."""

    settings: Settings
    in_chans: int
    num_classes: int
    epoch: int  # epochs done
    history: list[dict[str, float]]
    model: State
    optimizer: dict[str, Any] | None = None  # torch's state_dict, or none in a `best` file
    scaler: dict[str, Any] = field(default_factory=dict)


def versions() -> dict[str, str]:
    """The software a result depends on."""
    return {
        "lierope": lierope.__version__,
        "torch": torch.__version__,
        "timm": extra("timm").__version__,
        "python": platform.python_version(),
    }


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Writes a checkpoint atomically: `path` holds the old file or the whole new one."""
    tensors = {f"model.{name}": value for name, value in checkpoint.model.items()}
    meta: dict[str, Any] = {
        "format": FORMAT,
        "settings": checkpoint.settings.to_json(),
        "in_chans": checkpoint.in_chans,
        "num_classes": checkpoint.num_classes,
        "epoch": checkpoint.epoch,
        "history": checkpoint.history,
        "scaler": checkpoint.scaler,
        "versions": versions(),
    }
    if checkpoint.optimizer is not None:
        meta["optimizer"], moments = _split(checkpoint.optimizer)
        tensors |= moments
    # Copies, so that no two names share memory: safetensors refuses those.
    tensors = {k: v.detach().to("cpu", copy=True).contiguous() for k, v in tensors.items()}
    text = json.dumps(meta)
    header = {"lierope": text, "digest": digest(text, tensors)}
    write_file(path, lambda part: _write(part, tensors, header))


def digest(text: str, tensors: State) -> str:
    """SHA-256 of the header's JSON and of the names, types, shapes and bytes of all tensors."""
    whole = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        value = tensors[name]
        whole.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        whole.update(value.contiguous().flatten().view(torch.uint8).numpy().data)
    return whole.hexdigest()


def load(path: Path) -> Checkpoint:
    """Reads a checkpoint.

    Raises:
        InputError: the file is missing, cut short, corrupt, or not a checkpoint of lierope train.
    """
    tensors, text, written = _read(path)
    try:
        meta = json.loads(text)
        known = (FORMAT, _WITHOUT_DIGEST)
        check(meta["format"] in known, f"format {meta['format']}, this version reads {FORMAT}")
        whole = meta["format"] == _WITHOUT_DIGEST or digest(text, tensors) == written
        check(whole, "its contents are not those that were written")
        model = {k[len("model.") :]: v for k, v in tensors.items() if k.startswith("model.")}
        return Checkpoint(
            settings=Settings.from_json(meta["settings"]),
            in_chans=int(meta["in_chans"]),
            num_classes=int(meta["num_classes"]),
            epoch=int(meta["epoch"]),
            history=list(meta["history"]),
            model=model,
            optimizer=_join(meta["optimizer"], tensors) if "optimizer" in meta else None,
            scaler=dict(meta["scaler"]),
        )
    except (InputError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"checkpoint: {path} is damaged ({one_line(error)})") from None


def load_weights(model: torch.nn.Module, checkpoint: Checkpoint, path: Path) -> None:
    """Puts a checkpoint's weights into a model of the same configuration.

    Raises:
        InputError: names or shapes differ; the message shows the first difference.
    """
    own = model.state_dict()
    for name in sorted(own.keys() | checkpoint.model.keys()):
        if name not in checkpoint.model:
            problem = f"lacks {name}"
        elif name not in own:
            problem = f"holds {name}, which the model lacks"
        elif own[name].shape != checkpoint.model[name].shape:
            problem = f"has {name} of shape {tuple(checkpoint.model[name].shape)}, the model "
            problem += str(tuple(own[name].shape))
        else:
            continue
        raise InputError(f"checkpoint: {path} is of another configuration: it {problem}")
    model.load_state_dict(checkpoint.model)


def _write(part: Path, tensors: State, header: dict[str, str]) -> None:
    try:
        extra("safetensors.torch").save_file(tensors, part, header)
    except extra("safetensors").SafetensorError as error:  # a full disk too
        raise OSError(one_line(error)) from None


def _read(path: Path) -> tuple[State, str, str]:
    safetensors = extra("safetensors")
    try:
        # `open` first: its errors name what is wrong with a path, safetensors' do not.
        with path.open("rb"):
            pass
        with safetensors.safe_open(path, framework="pt") as file:
            meta = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except OSError as error:
        raise InputError(f"checkpoint: cannot read {path}: {error.strerror or error}") from None
    except safetensors.SafetensorError as error:
        raise InputError(
            f"checkpoint: {path} is cut short or not a safetensors file ({one_line(error)})"
        ) from None
    if "lierope" not in meta:
        raise InputError(f"checkpoint: {path} was not written by lierope train")
    return tensors, str(meta["lierope"]), str(meta.get("digest"))


def _split(state: dict[str, Any]) -> tuple[dict[str, Any], State]:
    """An optimiser's state_dict as plain JSON and named tensors."""
    tensors: State = {}
    plain: dict[str, dict[str, Any]] = {}
    for index, values in state["state"].items():
        for name, value in values.items():
            if isinstance(value, torch.Tensor):
                tensors[f"optimizer.{index}.{name}"] = value
            else:
                plain.setdefault(str(index), {})[name] = value
    return {"param_groups": state["param_groups"], "state": plain}, tensors


def _join(meta: dict[str, Any], tensors: State) -> dict[str, Any]:
    state: dict[int, dict[str, Any]] = {int(i): dict(v) for i, v in meta["state"].items()}
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            _, index, name = key.split(".", 2)
            state.setdefault(int(index), {})[name] = value
    return {"state": state, "param_groups": meta["param_groups"]}
