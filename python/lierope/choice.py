"""One of a fixed set of words, checked; a wrong word is answered with the nearest right one."""

import difflib
from collections.abc import Iterable


def check_choice(owner: str, argument: str, value: str, choices: Iterable[str]) -> str:
    """Returns value if it is one of choices.

    Raises:
        ValueError: `owner: argument must be one of a, b, c, got 'x' (did you mean 'b'?)`.
    """
    known = list(choices)
    if value in known:
        return value
    nearest = difflib.get_close_matches(str(value), known, n=1)
    hint = f" (did you mean {nearest[0]!r}?)" if nearest else ""
    raise ValueError(f"{owner}: {argument} must be one of {', '.join(known)}, got {value!r}{hint}")
