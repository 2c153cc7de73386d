"""Checks of what encodings are given: sizes, options of a short name, and tensors of forward."""

import ast
import difflib
import inspect
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from lierope.encodings.base import Encoding

_HALF_TO_SINGLE = (torch.float32, torch.bfloat16, torch.float16)


def check_sizes(
    owner: str,
    head_dim: int,
    num_heads: int,
    ndim: int,
    *,
    num_kv_heads: int | None,
    rotary_dim: int | None,
) -> None:
    """Raises ValueError for a size below 1, heads that do not divide, or too many features."""
    sizes = {"head_dim": head_dim, "num_heads": num_heads, "ndim": ndim}
    if num_kv_heads is not None:
        sizes["num_kv_heads"] = num_kv_heads
    if rotary_dim is not None:
        sizes["rotary_dim"] = rotary_dim
    for name, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise ValueError(f"{owner}: {name} must be a positive integer, got {size!r}")
    if num_kv_heads is not None and num_heads % num_kv_heads:
        raise ValueError(
            f"{owner}: num_kv_heads must divide num_heads, got {num_kv_heads} and {num_heads}"
        )
    if rotary_dim is not None and rotary_dim > head_dim:
        raise ValueError(
            f"{owner}: rotary_dim must be at most head_dim, got {rotary_dim} and {head_dim}"
        )


def check_even(owner: str, rotary_dim: int, head_dim: int) -> None:
    """Raises ValueError if features can't be paired."""
    if rotary_dim % 2:
        name = "head_dim" if rotary_dim == head_dim else "rotary_dim"
        raise ValueError(f"{owner}: {name} must be even, got {rotary_dim}")


def check_block(owner: str, block_size: int, rotary_dim: int, head_dim: int, least: int) -> None:
    """Raises ValueError unless block_size is at least `least` and divides the features."""
    if isinstance(block_size, bool) or not isinstance(block_size, int) or block_size < least:
        raise ValueError(
            f"{owner}: block_size must be an integer of at least {least}, got {block_size!r}"
        )
    if rotary_dim % block_size:
        name = "head_dim" if rotary_dim == head_dim else "rotary_dim"
        raise ValueError(
            f"{owner}: block_size must divide {name}, got {block_size} and {rotary_dim}"
        )


def check_positive(owner: str, argument: str, value: float) -> None:
    """Raises ValueError unless value is a finite number above 0."""
    if not 0 < value < float("inf"):
        raise ValueError(f"{owner}: {argument} must be a positive number, got {value!r}")


def check_full(encoding: "Encoding", parameter: Tensor) -> None:
    """Raises TypeError for parameters narrowed behind the encoding's back: FSDP's param_dtype."""
    if parameter.dtype not in (torch.float32, torch.float64):
        raise TypeError(
            f"{type(encoding).__name__}: parameters must be float32 or float64, got "
            f"{parameter.dtype}; under FSDP see lierope.distributed.fully_shard_encodings"
        )


def option_names(cls: "type[Encoding]") -> list[str]:
    """Every keyword that the constructors of cls and its bases take, sizes left out."""
    sizes = ("self", "head_dim", "num_heads", "ndim")
    constructors = [
        base.__dict__["__init__"] for base in cls.__mro__ if "__init__" in base.__dict__
    ]
    words = [
        name
        for constructor in constructors
        if "head_dim" in inspect.signature(constructor).parameters
        for name, word in inspect.signature(constructor).parameters.items()
        if word.kind != word.VAR_KEYWORD and name not in sizes
    ]
    return list(dict.fromkeys(words))


def check_option(cls: "type[Encoding]", name: str) -> None:
    """Raises ValueError, with the nearest right name, if cls has no option of that name."""
    known = option_names(cls)
    if name not in known:
        nearest = difflib.get_close_matches(name, known, n=1)
        hint = f" (did you mean {nearest[0]!r}?)" if nearest else ""
        raise ValueError(
            f"{cls.short_name}: option must be one of {', '.join(known)}, got {name!r}{hint}"
        )


def check_options(cls: "type[Encoding]", text: str) -> dict[str, Any]:
    """Parses "8" (a block size) or "init=small,block_size=8" into words of the constructor."""
    options: dict[str, Any] = {}
    for part in text.split(","):
        name, equals, value = part.partition("=")
        if not equals and part.isdigit():
            name, value = "block_size", part
        elif not equals:
            raise ValueError(f"{cls.short_name}: options must be written name=value, got {part!r}")
        check_option(cls, name.strip())
        options[name.strip()] = _literal(value.strip())
    return options


def check_forward(
    encoding: "Encoding", q: Tensor, k: Tensor, positions: Tensor, num_prefix_tokens: int
) -> None:
    """Raises ValueError or TypeError unless q, k and positions fit the encoding and each other."""
    owner = type(encoding).__name__
    for name, x in (("q", q), ("k", k), ("positions", positions)):
        if not isinstance(x, Tensor):
            raise TypeError(f"{owner}: {name} must be a tensor, got {type(x).__name__}")
    _check_shapes(encoding, owner, q, k)
    tokens = q.shape[2] - num_prefix_tokens
    if num_prefix_tokens < 0 or tokens < 0:
        raise ValueError(
            f"{owner}: num_prefix_tokens must be between 0 and N = {q.shape[2]}, "
            f"got {num_prefix_tokens}"
        )
    _check_positions(encoding, owner, q, positions, tokens)
    _check_types(encoding, owner, q, k, positions)
    if readable(positions) and not bool(torch.isfinite(positions).all()):
        worst = positions[~torch.isfinite(positions)][0].item()
        raise ValueError(f"{owner}: positions must be finite, got {worst}")


def _check_shapes(encoding: "Encoding", owner: str, q: Tensor, k: Tensor) -> None:
    for name, x, heads in (("q", q, encoding.num_heads), ("k", k, encoding.num_kv_heads)):
        if x.dim() != 4 or x.shape[1] != heads or x.shape[3] != encoding.head_dim:
            raise ValueError(
                f"{owner}: {name} must have shape (B, {heads}, N, {encoding.head_dim}), "
                f"got {tuple(x.shape)}"
            )
    if q.shape[0] != k.shape[0] or q.shape[2] != k.shape[2]:
        raise ValueError(
            f"{owner}: k must have q's batch and tokens, got {tuple(k.shape)} and {tuple(q.shape)}"
        )


def _check_positions(
    encoding: "Encoding", owner: str, q: Tensor, positions: Tensor, tokens: int
) -> None:
    batch, ndim = q.shape[0], encoding.ndim
    shape = tuple(positions.shape)
    if shape not in ((tokens, ndim), (batch, tokens, ndim)):
        raise ValueError(
            f"{owner}: positions must have shape ({tokens}, {ndim}) or "
            f"({batch}, {tokens}, {ndim}), one for each token after the prefix, got {shape}"
        )


def _check_types(encoding: "Encoding", owner: str, q: Tensor, k: Tensor, positions: Tensor) -> None:
    if q.dtype not in (*_HALF_TO_SINGLE, torch.float64):
        raise TypeError(f"{owner}: q must be a floating type, got {q.dtype}")
    angle = torch.float64 if q.dtype == torch.float64 else torch.float32
    own = next(encoding.parameters(), None)
    if own is not None and own.dtype != angle:
        raise TypeError(
            f"{owner}: q must be of a type that {own.dtype} parameters serve "
            f"(float64 for float64, float32 and half types for float32), got {q.dtype}"
        )
    if k.dtype != q.dtype:
        raise TypeError(f"{owner}: k must have q's type {q.dtype}, got {k.dtype}")
    if positions.dtype != angle:
        raise TypeError(
            f"{owner}: positions must be {angle} for q of {q.dtype}, got {positions.dtype}"
        )
    others = {"k": k, "positions": positions} | ({} if own is None else {"the encoding": own})
    for name, tensor in others.items():
        if tensor.device != q.device:
            raise ValueError(
                f"{owner}: {name} must be on q's device {q.device}, got {tensor.device}"
            )


def readable(positions: Tensor) -> bool:
    """Whether values can be looked at without stalling a device or breaking a trace or a vmap."""
    return (
        not torch.compiler.is_compiling()
        and positions.device.type == "cpu"
        and type(positions) in (Tensor, torch.nn.Parameter)
        and not torch._C._functorch.is_functorch_wrapped_tensor(positions)
    )


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
