"""What operators ask of their arguments, said again for tensors that no kernel sees.

Kernels check what they are given (csrc/ops). Meta and fake tensors never reach one, nor do sizes
that torch's own functions serve; a wrong call of those gets the same words from here.
"""

import operator
from collections.abc import Callable
from math import isqrt
from typing import Any

import torch
from torch import Tensor

STORAGE = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
_INT64 = 1 << 63


def check(condition: Any, text: Callable[[], str]) -> None:
    """Raise unless the condition holds; sizes unknown while tracing are left to the kernel."""
    if not isinstance(condition, torch.SymBool) and not condition:
        raise RuntimeError(text())


def tensors(op: str, **arguments: Any) -> None:
    """Every argument is a dense tensor."""
    for name, x in arguments.items():
        if not isinstance(x, Tensor):
            raise TypeError(f"{op}: {name} must be a tensor, got {type(x).__name__}")
        if x.layout is not torch.strided or x.is_nested:
            layout = "nested" if x.is_nested else f"{x.layout}".removeprefix("torch.")
            raise TypeError(f"{op}: {name} must be a dense tensor, got a {layout} one")


def whole(op: str, name: str, value: Any) -> Any:
    """The value as an int (or as it is while tracing) of 64 bits."""
    if isinstance(value, torch.SymInt):
        return value
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(
            f"{op}: {name} must be an integer, got {type(value).__name__} {value!r}"
        ) from None
    if not -_INT64 <= number < _INT64:
        raise ValueError(f"{op}: {name} must fit in 64 bits, got {number}")
    return number


def one_device(op: str, other: str, like: Tensor, **arguments: Tensor) -> None:
    """The arguments lie where `like`, the argument `other`, does."""
    for name, x in arguments.items():
        check(
            x.device == like.device,
            lambda name=name, x=x: (  # type: ignore[misc]
                f"{op}: {name} must be on the device of {other}, {like.device}, got {x.device}"
            ),
        )


def square(op: str, name: str, t: Tensor) -> None:
    """(..., n, n), n >= 1, in float32 or float64."""
    full(op, name, t)
    fits = t.dim() >= 2
    text = f"{op}: {name} must have shape (..., n, n) with n >= 1, got "
    check(fits, lambda: text + shape(t))
    check(t.shape[-1] == t.shape[-2], lambda: text + shape(t))
    check(t.shape[-1] >= 1, lambda: text + shape(t))


def full(op: str, name: str, t: Tensor) -> None:
    """float32 or float64."""
    check(
        t.dtype in (torch.float32, torch.float64),
        lambda: f"{op}: {name} must be float32 or float64, got {dtype(t)}",
    )


def stored(op: str, name: str, t: Tensor) -> None:
    """One of the types that q and k may have."""
    check(
        t.dtype in STORAGE,
        lambda: f"{op}: {name} must be float32, float64, bfloat16 or float16, got {dtype(t)}",
    )


def computed(op: str, name: str, t: Tensor, q: Tensor) -> None:
    """The type that arithmetic on q is done in."""
    if q.dtype == torch.float64:
        check(
            t.dtype == torch.float64,
            lambda: f"{op}: {name} must be float64 as q is, got {dtype(t)}",
        )
    else:
        check(
            t.dtype == torch.float32,
            lambda: f"{op}: {name} must be float32 unless q is float64, got {dtype(t)}",
        )


def multiple(op: str, which: str, heads: Any, name: str, own: Any) -> None:
    """`heads` is a multiple of the heads of the argument `name`."""
    text = f"{op}: the heads of {which} must be a multiple of the heads of {name}, got "
    check(own > 0, lambda: text + f"{heads} and {own}")
    check(heads % own == 0, lambda: text + f"{heads} and {own}")


def tokens(
    op: str, q: Tensor, k: Tensor, name: str, turned: tuple[Any, Any, Any], prefix: Any
) -> None:
    """Tokens fit each other and `turned` = (heads, points, samples) of the argument `name`."""
    for which, x in (("q", q), ("k", k)):
        check(
            x.dim() == 4,
            lambda which=which, x=x: (  # type: ignore[misc]
                f"{op}: {which} must have shape (B, H, N, D), got {shape(x)}"
            ),
        )
    for dim in (0, 2, 3):
        check(
            q.shape[dim] == k.shape[dim],
            lambda: (
                f"{op}: q and k must agree in batch, tokens and head_dim, "
                f"got {shape(q)} and {shape(k)}"
            ),
        )
    check(
        q.dtype == k.dtype,
        lambda: f"{op}: q and k must have one dtype, got {dtype(q)} and {dtype(k)}",
    )
    count, (heads, points, samples) = q.shape[2], turned
    text = f"{op}: num_prefix_tokens must be between 0 and the {count} tokens, got {prefix}"
    check(prefix >= 0, lambda: text)
    check(prefix <= count, lambda: text)
    check(
        points == count - prefix,
        lambda: (
            f"{op}: {name} must cover the {count - prefix} tokens after the prefix, got {points}"
        ),
    )
    if not isinstance(samples, torch.SymInt) and samples != 1:
        check(
            samples == q.shape[0],
            lambda: (
                f"{op}: the batch of {name} must be 1 or that of q, {q.shape[0]}, got {samples}"
            ),
        )
    owner = "generators" if name == "positions" else name
    multiple(op, "q", q.shape[1], owner, heads)
    multiple(op, "k", k.shape[1], owner, heads)
    stored(op, "q", q)


def rotate_pairs(q: Tensor, k: Tensor, angles: Tensor, prefix: Any) -> None:
    """Rules of `rotate_pairs`."""
    op = "rotate_pairs"
    one_device(op, "q", q, k=k, angles=angles)
    text = f"{op}: angles must have shape (H, M, D/2) or (B, H, M, D/2), got {shape(angles)}"
    check(angles.dim() in (3, 4), lambda: text)
    tokens(op, q, k, "angles", _turned(angles, 3), prefix)
    pairs, half = angles.shape[-1], q.shape[3] // 2
    check(
        pairs <= half,
        lambda: f"{op}: angles must hold at most head_dim/2 = {half} angles a token, got {pairs}",
    )
    computed(op, "angles", angles, q)


def rotate_blocks(q: Tensor, k: Tensor, rotations: Tensor, prefix: Any) -> None:
    """Rules of `rotate_blocks`."""
    op = "rotate_blocks"
    one_device(op, "q", q, k=k, rotations=rotations)
    text = (
        f"{op}: rotations must have shape (H, M, G, b, b) or (B, H, M, G, b, b), "
        f"got {shape(rotations)}"
    )
    check(rotations.dim() in (5, 6), lambda: text)
    check(rotations.shape[-1] == rotations.shape[-2], lambda: text)
    tokens(op, q, k, "rotations", _turned(rotations, 5), prefix)
    _features(op, "rotations", rotations.shape[-3] * rotations.shape[-1], q)
    computed(op, "rotations", rotations, q)


def rotate_circulant(q: Tensor, k: Tensor, angles: Tensor, block_size: int, prefix: Any) -> None:
    """Rules of `rotate_circulant`."""
    op = "rotate_circulant"
    one_device(op, "q", q, k=k, angles=angles)
    text = (
        f"{op}: angles must have shape (H, M, G*((block_size-1)/2)) or (B, H, M, ...), "
        f"got {shape(angles)}"
    )
    check(angles.dim() in (3, 4), lambda: text)
    tokens(op, q, k, "angles", _turned(angles, 3), prefix)
    modes, given = (block_size - 1) // 2, angles.shape[-1]
    check(
        given % modes == 0 if modes else given == 0,
        lambda: (
            f"{op}: angles must hold (block_size-1)/2 = {modes} angles for each block, got {given}"
        ),
    )
    blocks = given // modes if modes else 0
    check(
        blocks * block_size <= q.shape[3],
        lambda: (
            f"{op}: angles must cover at most head_dim = {q.shape[3]} features, "
            f"got blocks of {block_size} times {blocks}"
        ),
    )
    computed(op, "angles", angles, q)


def lie(op: str, generators: Tensor, positions: Tensor) -> None:
    """Rules of generators and positions."""
    one_device(op, "generators", generators, positions=positions)
    check(
        generators.dim() == 4,
        lambda: f"{op}: generators must have shape (C, H, G, b(b-1)/2), got {shape(generators)}",
    )
    check(
        positions.dim() >= 2,
        lambda: f"{op}: positions must have shape (..., M, C), got {shape(positions)}",
    )
    check(
        positions.shape[-1] == generators.shape[0],
        lambda: (
            f"{op}: positions must have as many coordinates as generators, "
            f"{generators.shape[0]}, got {positions.shape[-1]}"
        ),
    )
    full(op, "generators", generators)
    check(
        positions.dtype == generators.dtype,
        lambda: (
            f"{op}: positions must have the dtype of generators, {dtype(generators)}, "
            f"got {dtype(positions)}"
        ),
    )
    entries = generators.shape[3]
    if not isinstance(entries, torch.SymInt):
        b = (1 + isqrt(1 + 8 * entries)) // 2
        check(
            b * (b - 1) // 2 == entries,
            lambda: (
                f"{op}: generators must hold b*(b-1)/2 entries a block for a whole block size b, "
                f"got {entries}"
            ),
        )


def lie_rotate(
    q: Tensor, k: Tensor, generators: Tensor, positions: Tensor, prefix: Any, block_size: int
) -> None:
    """Rules of `lie_rotate` besides those of `lie`."""
    op = "lie_rotate"
    check(
        positions.dim() <= 3,
        lambda: f"{op}: positions must have shape (M, C) or (B, M, C), got {shape(positions)}",
    )
    one_device(op, "q", q, k=k, generators=generators)
    samples = positions.shape[0] if positions.dim() == 3 else 1
    tokens(op, q, k, "positions", (generators.shape[1], positions.shape[-2], samples), prefix)
    _features(op, "generators", generators.shape[2] * block_size, q)
    computed(op, "generators", generators, q)


def cayley_rotate(x: Tensor, s: Tensor, bandwidth: Any) -> None:
    """Rules of `cayley_rotate`."""
    op = "cayley_rotate"
    one_device(op, "x", x, s=s)
    check(x.dim() >= 3, lambda: f"{op}: x must have shape (..., H, N, n), got {shape(x)}")
    check(s.dim() == 3, lambda: f"{op}: s must have shape (H, n, n), got {shape(s)}")
    text = f"{op}: s must have shape (..., n, n) with n >= 1, got {shape(s)}"
    check(s.shape[1] == s.shape[2], lambda: text)
    check(s.shape[1] >= 1, lambda: text)
    stored(op, "x", x)
    computed(op, "s", s, x)
    check(
        x.shape[-1] == s.shape[-1],
        lambda: f"{op}: x must have n = {s.shape[-1]} features as s has, got {x.shape[-1]}",
    )
    multiple(op, "x", x.shape[-3], "s", s.shape[0])
    check(bandwidth >= 0, lambda: f"{op}: bandwidth must be 0 or more, got {bandwidth}")


def _features(op: str, name: str, features: Any, q: Tensor) -> None:
    check(
        features <= q.shape[3],
        lambda: (
            f"{op}: {name} must cover at most head_dim = {q.shape[3]} features, "
            f"got G*b = {features}"
        ),
    )


def _turned(t: Tensor, dims: int) -> tuple[Any, Any, Any]:
    """(heads, points, samples) of (H, M, ...), or of (B, H, M, ...)."""
    return t.shape[-dims], t.shape[1 - dims], t.shape[0] if t.dim() > dims else 1


def shape(t: Tensor) -> str:
    """A shape as kernels write it."""
    return f"{tuple(t.shape)}"


def dtype(t: Tensor) -> str:
    """A dtype as kernels write it."""
    return f"{t.dtype}".removeprefix("torch.")
