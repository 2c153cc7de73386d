"""The error a user's input can cause: one line, no traceback, exit code 2."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(Exception):
    """Something the user gave cannot work; the text is the whole message."""


class DivergenceError(InputError):
    """A loss became NaN or infinite."""


class Ended(BaseException):
    """SIGTERM came: whatever is running is left as an exception leaves it."""


def one_line(error: BaseException) -> str:
    """The first line of another library's error, fit to be quoted inside ours."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if lines and lines[0].startswith("Caught ") and " worker process " in lines[0]:
        # torch hands on what a loader's process raised as its traceback, the error last.
        return lines[-1].partition(": ")[2] or lines[-1]
    return lines[0] if lines else type(error).__name__


def suggestion(name: str, known: Iterable[str]) -> str:
    """`, did you mean X?` for the nearest known name, else an empty string."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else ""


def check_name(argument: str, name: str, known: Iterable[str]) -> str:
    """Returns `name` if it is known, else raises with the nearest one."""
    names = list(known)
    if name not in names:
        raise InputError(
            f"{argument}: must be one of {', '.join(names)}, got {name}{suggestion(name, names)}"
        )
    return name


def check(condition: bool, message: str) -> None:
    """Raises InputError(message) unless the condition holds."""
    if not condition:
        raise InputError(message)
