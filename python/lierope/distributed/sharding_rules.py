"""How every operator may be sharded, told to DTensor: by sample and by head, never by token.

A rule is a line of letters, one for each axis of each tensor: B samples, H heads of tokens, h heads
of rotations, which may be a single one that all share. Splitting by samples or by heads splits
every tensor that has the letter; the others are replicated, and their gradients are partial sums.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.distributed.tensor import DTensor, Partial, Placement, Replicate, Shard
from torch.distributed.tensor._op_schema import RuntimeSchemaInfo
from torch.distributed.tensor.experimental import register_sharding

Sharding = tuple[list[Placement], list[Placement | None]]

# Inputs -> outputs; an output is shaped as the first input that is written alike. "(B)" is there
# only when the tensor has that axis; "*" is any number of leading axes, each a letter of its own.
RULES = {
    "expm_skew": "*.. -> *..",
    "expm_skew_backward": "*.. *.. -> *..",
    "cayley": "*.. -> *..",
    "cayley_backward": "*.. *.. -> *..",
    "cayley_rotate": "*H.. h.. -> *H..",
    "lie_rotations": ".h.. (B).. -> (B)h....",
    "lie_rotations_backward": ".h.. (B).. (B)h.... -> .h.. (B)..",
    "lie_rotate": "BH.. BH.. .h.. (B).. -> BH.. BH..",
    "lie_rotate_backward": "BH.. BH.. BH.. BH.. .h.. (B).. -> BH.. BH.. .h.. (B)..",
    "rotate_blocks": "BH.. BH.. (B)h.... -> BH.. BH..",
    "rotate_blocks_backward": "BH.. BH.. BH.. BH.. (B)h.... -> BH.. BH.. (B)h....",
    "rotate_pairs": "BH.. BH.. (B)h.. -> BH.. BH..",
    "rotate_pairs_backward": "BH.. BH.. BH.. BH.. (B)h.. -> BH.. BH.. (B)h..",
    "rotate_circulant": "BH.. BH.. (B)h.. -> BH.. BH..",
    "rotate_circulant_backward": "BH.. BH.. BH.. BH.. (B)h.. -> BH.. BH.. (B)h..",
}


def register() -> None:
    """Give DTensor the rule of every operator; again is harmless."""
    for name, rule in RULES.items():
        op = getattr(torch.ops.lierope, name).default
        register_sharding(op)(_strategy(rule))
        plain = [not isinstance(a.type, torch.TensorType) for a in op._schema.arguments]
        if any(plain):
            # Options decide shapes of outputs, so what is remembered must depend on all of them:
            # DTensor by itself looks for integers only.
            info = RuntimeSchemaInfo(plain.index(True), needs_pytree=True)
            DTensor._op_dispatcher.sharding_propagator.op_to_schema_info[op] = info


def _strategy(rule: str) -> Callable[..., list[Sharding]]:
    left, right = (side.split() for side in rule.split("->"))

    def shardings(*args: Any) -> list[Sharding]:
        specs, options = args[: len(left)], args[len(left) :]
        letters = [_spell(word, spec.ndim) for word, spec in zip(left, specs, strict=True)]
        kept: list[Sharding] = []
        for letter in ("", *sorted(set("".join(letters).upper()) - {"."})):
            axes = [_axis(letter, word, spec) for word, spec in zip(letters, specs, strict=True)]
            if letter and not _belong_together(axes, specs):
                continue
            known = dict(zip(reversed(left), reversed(axes), strict=True))
            new = {w: _axis(letter, _spell_output(w, letters), None) for w in right}
            made = [_made(letter, (new | known)[word]) for word in right]
            given: list[Placement | None] = [Replicate() if a is None else Shard(a) for a in axes]
            kept.append((made, given + [None for _ in options]))
        return kept

    return shardings


def _made(letter: str, axis: int | None) -> Placement:
    if axis is not None:
        return Shard(axis)
    return Partial() if letter else Replicate()


def _spell(word: str, ndim: int) -> str:
    """The letters of a tensor of ndim axes: "(B)h.." -> "Bh.." or "h..", "*.." -> "ab.."."""
    if "*" in word:
        return word.replace("*", "ACDEFG"[: ndim - len(word) + 1])
    bare = word.replace("(B)", "")
    return bare if ndim == len(bare) else f"B{bare}"


def _spell_output(word: str, letters: Sequence[str]) -> str:
    """The letters of an output shaped as no input: it has samples where an input has."""
    return word.replace("(B)", "B" if any("B" in given for given in letters) else "")


def _axis(letter: str, word: str, spec: Any) -> int | None:
    if letter == "H" and "h" in word:
        axis = word.index("h")
        return axis if spec is None or spec.shape[axis] > 1 else None
    return word.index(letter) if letter and letter in word else None


def _belong_together(axes: Sequence[int | None], specs: Sequence[Any]) -> bool:
    """Whether a rank's chunks fit each other: q heads of a group with their k head's rotation."""
    pairs = zip(axes, specs, strict=True)
    sizes = {int(spec.shape[axis]) for axis, spec in pairs if axis is not None}
    return len(sizes) == 1 or (
        len(sizes) > 1 and all(size % specs[0].mesh.size() == 0 for size in sizes)
    )
