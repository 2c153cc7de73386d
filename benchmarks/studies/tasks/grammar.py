"""Text from a small grammar with nesting, agreement and repeats: the same on every machine.

A sentence names subjects, relative clauses open brackets that close in order, verbs agree in number
with a subject that may stand far back, and a name that was introduced comes again. Characters are
predicted, so short-range spelling and long-range agreement both count.
"""

from __future__ import annotations

import hashlib
import random

from lierope.train import streams

_NOUNS = ("cat", "river", "engine", "poet", "stone", "lantern", "child", "orchard")
_VERBS = ("see", "follow", "paint", "carry", "forget", "answer")
_NAMES = ("Ada", "Emmy", "Sophus", "Elie", "Arthur", "Carl", "Hypatia", "Kurt")
_OPEN = {"(": ")", "[": "]", "{": "}"}


def text(length: int, *key: streams.Key) -> str:
    """At least `length` characters, cut there."""
    draw = random.Random(streams.number("grammar", *key))
    parts: list[str] = []
    size = 0
    while size < length:
        parts.append(_sentence(draw))
        size += len(parts[-1])
    return "".join(parts)[:length]


def digest(written: str) -> str:
    """A short hash, to tell whether two machines had the same text."""
    return hashlib.blake2b(written.encode(), digest_size=8).hexdigest()


def _sentence(draw: random.Random) -> str:
    name = draw.choice(_NAMES)
    subject, plural = draw.choice(_NOUNS), draw.random() < 0.5
    clause = _clause(draw, draw.randrange(3))
    verb = draw.choice(_VERBS)
    ending = "" if plural else "s"
    return (
        f"{name}: the {subject}{'s' if plural else ''} {clause}{verb}{ending} the "
        f"{draw.choice(_NOUNS)}, said {name}.\n"
    )


def _clause(draw: random.Random, depth: int) -> str:
    if depth == 0:
        return ""
    mark = draw.choice(list(_OPEN))
    return (
        f"{mark}{draw.choice(_NOUNS)} {_clause(draw, depth - 1)}{draw.choice(_VERBS)}{_OPEN[mark]} "
    )
