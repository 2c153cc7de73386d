"""Writes a file whole or not at all: a temporary file beside it, fsync, then os.replace."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lierope.train.errors import InputError


def write_file(path: Path, write: Callable[[Path], None]) -> None:
    """Calls `write` on a temporary path in the same folder and renames it over `path`.

    A reader sees the old file or the new one, never a part; a failed write leaves no file behind.

    Raises:
        InputError: the folder cannot be written or the disk is full.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise InputError(f"output: cannot write {path}: {error.strerror or error}") from None
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text atomically."""
    write_file(path, lambda temporary: _write_text(temporary, text))


def write_json(path: Path, value: Any) -> None:
    """Writes JSON atomically, indented for people."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def make_folder(path: Path) -> Path:
    """Creates a folder and its parents, and proves that files can be written in it."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f".lierope.{os.getpid()}.tmp"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InputError(
            f"output: must be a folder that can be written, got {path} ({error.strerror})"
        ) from None
    return path


def remove_parts(folder: Path) -> None:
    """Removes what a killed process left of files it was writing in its own folder."""
    for part in folder.glob(".*.tmp"):
        part.unlink(missing_ok=True)


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _sync_folder(folder: Path) -> None:
    # The rename itself lives in the folder's own data, which a power cut can lose.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
