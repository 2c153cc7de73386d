"""One case an operator: the function, its reference, its inputs; the tests run over them."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from devices import DEVICES
from lierope import ops, reference

Inputs = tuple[Tensor, ...]


@dataclass(frozen=True)
class OpCase:
    """A function of tensors, all of them differentiable.

    Attributes:
        name: For test ids.
        function: The operator with its options bound.
        reference: The same in plain torch.
        inputs: dtype -> tensors. Arguments named in `storage` take the dtype; the others its
            arithmetic type.
        registered: The `torch.ops.lierope` operators behind it; none where torch's own do the work,
            which promise no bits.
    """

    name: str
    function: Callable[..., Any]
    reference: Callable[..., Any]
    inputs: Callable[[torch.dtype], Inputs]
    registered: tuple[str, ...]

    def __str__(self) -> str:
        """Name in test ids."""
        return self.name

    def on(self, device: str) -> "OpCase":
        """The same on a device; the reference still computes on the CPU."""
        if device == "cpu":
            return self

        def compared(*inputs: Tensor) -> Inputs:
            results = outputs(self.reference(*(x.cpu() for x in inputs)))
            return tuple(y.to(device) for y in results)

        return replace(
            self,
            name=f"{self.name}-{device}",
            reference=compared,
            inputs=lambda dtype: tuple(moved(x, device) for x in self.inputs(dtype)),
        )


def compute(dtype: torch.dtype) -> torch.dtype:
    """Type that arithmetic on `dtype` is done in."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def normal(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    """Reproducible normal numbers, the same for every dtype up to rounding."""
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def moved(x: Tensor, device: str) -> Tensor:
    """The tensor with its strides and offset, in a copy of its whole memory."""
    whole = x.as_strided((x.untyped_storage().nbytes() // x.element_size(),), (1,), 0)
    return whole.to(device).as_strided(x.shape, x.stride(), x.storage_offset())


def tokens(dtype: torch.dtype, H: int = 2, Hk: int = 2, N: int = 5, D: int = 8) -> Inputs:
    """Q and k as timm makes them: strided views of one packed projection."""
    packed = normal(2, N, H + 2 * Hk, D, dtype=dtype, seed=1).transpose(1, 2)
    return packed[:, :H], packed[:, H : H + Hk]


def _with_prefix(function: Callable[..., Any], prefix: int, **options: Any) -> Callable[..., Any]:
    return lambda *args: function(*args, num_prefix_tokens=prefix, **options)


def _rotation_case(
    name: str,
    op: str,
    extra: Callable[[torch.dtype], Inputs],
    heads: dict[str, int],
    prefix: int = 0,
    **options: Any,
) -> OpCase:
    return OpCase(
        name,
        _with_prefix(getattr(ops, op), prefix, **options),
        _with_prefix(getattr(reference, op), prefix, **options),
        lambda dtype: (*tokens(dtype, **heads), *extra(compute(dtype))),
        () if "torch" in name else (op, f"{op}_backward"),
    )


def _matrices(op: str, n: int, registered: tuple[str, ...], scale: float = 1.0) -> OpCase:
    return OpCase(
        f"{op}-{n}",
        getattr(ops, op),
        getattr(reference, op),
        lambda dtype: (normal(2, 3, n, n, dtype=compute(dtype), seed=n) * scale,),
        registered,
    )


def _lie(b: int, C: int, N: int, samples: int | None = None, H: int = 2, D: int = 8) -> Any:
    entries = b * (b - 1) // 2
    sample = () if samples is None else (samples,)
    return lambda dtype: (
        normal(C, H, D // b, entries, dtype=dtype, seed=2),
        normal(*sample, N, C, dtype=dtype, seed=3),
    )


CASES = [
    *(
        _matrices("expm_skew", n, ("expm_skew", "expm_skew_backward"))
        for n in (1, 2, 3, 4, 5, 8, 9, 17)
    ),
    *(_matrices("cayley", n, ("cayley", "cayley_backward")) for n in (1, 3, 8)),
    *(
        OpCase(
            f"lie_rotations-{b}",
            ops.lie_rotations,
            reference.lie_rotations,
            lambda dtype, b=b: _lie(b, 2, 3)(compute(dtype)),
            ("lie_rotations", "lie_rotations_backward"),
        )
        for b in (2, 4, 8)
    ),
    _rotation_case("lie_rotate-2", "lie_rotate", _lie(2, 2, 5), {}),
    _rotation_case("lie_rotate-8-prefix-3d", "lie_rotate", _lie(8, 3, 4), {}, 1),
    _rotation_case("lie_rotate-4-sample", "lie_rotate", _lie(4, 2, 5, samples=2), {}),
    _rotation_case("lie_rotate-12-gqa", "lie_rotate", _lie(12, 2, 4, D=12), {"H": 4, "D": 14}, 1),
    _rotation_case(
        "rotate_pairs", "rotate_pairs", lambda t: (normal(2, 5, 4, dtype=t, seed=4),), {}
    ),
    _rotation_case(
        "rotate_pairs-half-prefix-gqa-partial",
        "rotate_pairs",
        lambda t: (normal(1, 3, 3, dtype=t, seed=4),),
        {"H": 4, "Hk": 2},
        2,
        interleaved=False,
    ),
    _rotation_case(
        "rotate_pairs-sample", "rotate_pairs", lambda t: (normal(2, 2, 5, 4, dtype=t, seed=4),), {}
    ),
    _rotation_case(
        "rotate_blocks-4", "rotate_blocks", lambda t: (normal(2, 5, 2, 4, 4, dtype=t, seed=5),), {}
    ),
    _rotation_case(
        "rotate_blocks-3-prefix-gqa-partial-sample",
        "rotate_blocks",
        lambda t: (normal(2, 2, 4, 2, 3, 3, dtype=t, seed=5),),
        {"H": 4, "Hk": 2},
        1,
    ),
    _rotation_case(
        "rotate_circulant-8",
        "rotate_circulant",
        lambda t: (normal(2, 5, 3, dtype=t, seed=6),),
        {},
        block_size=8,
    ),
    _rotation_case(
        "rotate_circulant-4-prefix-gqa-sample",
        "rotate_circulant",
        lambda t: (normal(2, 1, 4, 2, dtype=t, seed=6),),
        {"H": 4, "Hk": 2},
        1,
        block_size=4,
    ),
    _rotation_case(
        "rotate_circulant-7-torch-fft",
        "rotate_circulant",
        lambda t: (normal(2, 5, 3, dtype=t, seed=6),),
        {},
        block_size=7,
    ),
    OpCase(
        "circulant_rotate-8",
        ops.circulant_rotate,
        reference.circulant_rotate,
        lambda dtype: (
            tokens(dtype)[0],
            normal(2, 2, 1, 8, dtype=compute(dtype), seed=7),
            normal(5, 2, dtype=compute(dtype), seed=8),
        ),
        (),
    ),
    OpCase(
        "cayley_rotate-dense",
        ops.cayley_rotate,
        reference.cayley_rotate,
        lambda dtype: (tokens(dtype)[0], normal(2, 8, 8, dtype=compute(dtype), seed=9)),
        ("cayley_rotate",),
    ),
    OpCase(
        "cayley_rotate-band-shared",
        lambda x, s: ops.cayley_rotate(x, s, bandwidth=2),
        lambda x, s: reference.cayley_rotate(x, s, bandwidth=2),
        lambda dtype: (tokens(dtype)[0], normal(1, 8, 8, dtype=compute(dtype), seed=9)),
        ("cayley_rotate",),
    ),
]


KERNELS = [case for case in CASES if case.registered]


def everywhere(cases: list[OpCase]) -> list[OpCase]:
    """The cases on every device of this machine."""
    return [case.on(device) for device in DEVICES for case in cases]


def outputs(result: Any) -> Inputs:
    """Results as a tuple."""
    return (result,) if isinstance(result, Tensor) else tuple(result)
