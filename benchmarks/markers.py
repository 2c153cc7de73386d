"""Writes measured tables into a text between two markers; nothing else of it changes."""

import os
from pathlib import Path

from benchmarks.speed.record import RecordError, write_text


def markers(name: str) -> tuple[str, str]:
    """The lines that enclose what is measured."""
    return f"<!-- {name}:begin -->", f"<!-- {name}:end -->"


def around_markers(path: Path, name: str) -> tuple[str, str]:
    """What stands before and after the part of the text that is ours.

    Raises:
        RecordError: The file is missing or has not each marker once, in order.
    """
    begin, end = markers(name)
    try:
        text = path.read_bytes().decode()  # with its own ends of lines
    except (OSError, UnicodeDecodeError) as error:
        raise RecordError(f"readme: must be a text file, got {path}") from error
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise RecordError(f"readme: must have {begin} and {end} once each, in order, got {path}")
    return text.split(begin)[0], text.split(end)[1]


def write_between(path: Path, name: str, body: str) -> None:
    """Replace what stands between the markers.

    Raises:
        RecordError: The file is missing or has not each marker once, in order.
    """
    before, after = around_markers(path, name)
    begin, end = markers(name)
    write_text(path, f"{before}{begin}\n{body}{end}{after}")


def relative(path: Path, folder: Path) -> str:
    """How a text in `folder` links to a file."""
    return Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()
