"""Wrong calls and what they are told: run by the tests, shown by docs/errors.md."""

# ruff: noqa: E501 (texts are matched whole)

from dataclasses import dataclass
from typing import Any

import torch

import lierope
from cases import normal
from lierope import ops


@dataclass(frozen=True)
class Wrong:
    """A call, the class of the error it raises, and the whole text."""

    call: str
    error: str
    text: str

    def __str__(self) -> str:
        """Name in test ids."""
        return self.call[:70]


def names(device: str = "cpu") -> dict[str, Any]:
    """What the calls speak of."""

    def t(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return normal(*shape, dtype=dtype).to(device)

    return {
        "torch": torch,
        "lierope": lierope,
        "ops": ops,
        "t": t,
        "F64": torch.float64,
        "BF16": torch.bfloat16,
        "Q": t(2, 4, 5, 8),
        "G": t(2, 4, 1, 28),
        "P": t(5, 2),
        "q": t(2, 4, 5, 16),
        "k": t(2, 2, 5, 16),
        "p": t(4, 2),
        "liere": lierope.LieRE(16, 4, num_kv_heads=2, device=device),
    }


def parsed(text: str) -> list[Wrong]:
    """Pairs of lines: a call, and `Error: text` behind blanks."""
    lines = text.strip().splitlines()
    pairs = zip(lines[::2], lines[1::2], strict=True)
    return [Wrong(call, *error.strip().split(": ", 1)) for call, error in pairs]


_OPS = {
    "expm_skew": """
ops.expm_skew(t(4, 3, 2))
    RuntimeError: expm_skew: a must have shape (..., n, n) with n >= 1, got (4, 3, 2)
ops.expm_skew(t(3))
    RuntimeError: expm_skew: a must have shape (..., n, n) with n >= 1, got (3,)
ops.expm_skew(t(2, 0, 0))
    RuntimeError: expm_skew: a must have shape (..., n, n) with n >= 1, got (2, 0, 0)
ops.expm_skew(t(2, 2).int())
    RuntimeError: expm_skew: a must be float32 or float64, got int32
ops.expm_skew([[0.0, 1.0], [0.0, 0.0]])
    TypeError: expm_skew: a must be a tensor, got list
ops.expm_skew(t(3, 3).to_sparse())
    TypeError: expm_skew: a must be a dense tensor, got a sparse_coo one
ops.expm_skew(torch.tensor(1.0))
    RuntimeError: expm_skew: a must have shape (..., n, n) with n >= 1, got ()
ops.expm_skew(t(3, 3).bool())
    RuntimeError: expm_skew: a must be float32 or float64, got bool
ops.expm_skew(t(3, 3, dtype=torch.complex64))
    RuntimeError: expm_skew: a must be float32 or float64, got complex64
ops.expm_skew(t(129, 129).int())
    RuntimeError: expm_skew: a must be float32 or float64, got int32
ops.expm_skew(t(129, 130))
    RuntimeError: expm_skew: a must have shape (..., n, n) with n >= 1, got (129, 130)
""",
    "cayley": """
ops.cayley(t(2, 3))
    RuntimeError: cayley: s must have shape (..., n, n) with n >= 1, got (2, 3)
ops.cayley(t(3, 3).long())
    RuntimeError: cayley: s must be float32 or float64, got int64
ops.cayley(None)
    TypeError: cayley: s must be a tensor, got NoneType
ops.cayley(t(3))
    RuntimeError: cayley: s must have shape (..., n, n) with n >= 1, got (3,)
ops.cayley(t(2, 0, 0))
    RuntimeError: cayley: s must have shape (..., n, n) with n >= 1, got (2, 0, 0)
""",
    "cayley_rotate": """
ops.cayley_rotate(t(5, 8), t(1, 8, 8))
    RuntimeError: cayley_rotate: x must have shape (..., H, N, n), got (5, 8)
ops.cayley_rotate(Q, t(8, 8))
    RuntimeError: cayley_rotate: s must have shape (H, n, n), got (8, 8)
ops.cayley_rotate(Q, t(1, 6, 6))
    RuntimeError: cayley_rotate: x must have n = 6 features as s has, got 8
ops.cayley_rotate(Q, t(3, 8, 8))
    RuntimeError: cayley_rotate: the heads of x must be a multiple of the heads of s, got 4 and 3
ops.cayley_rotate(Q, t(1, 8, 8), bandwidth=-1)
    RuntimeError: cayley_rotate: bandwidth must be 0 or more, got -1
ops.cayley_rotate(Q, t(1, 8, 8, dtype=F64))
    RuntimeError: cayley_rotate: s must be float32 unless q is float64, got float64
ops.cayley_rotate(Q, 1.0)
    TypeError: cayley_rotate: s must be a tensor, got float
ops.cayley_rotate(Q.int(), t(1, 8, 8))
    RuntimeError: cayley_rotate: x must be float32, float64, bfloat16 or float16, got int32
ops.cayley_rotate(Q, t(1, 8, 7))
    RuntimeError: cayley_rotate: s must have shape (..., n, n) with n >= 1, got (1, 8, 7)
ops.cayley_rotate(Q, t(0, 8, 8))
    RuntimeError: cayley_rotate: the heads of x must be a multiple of the heads of s, got 4 and 0
ops.cayley_rotate(Q, t(1, 8, 8).to("meta"))
    RuntimeError: cayley_rotate: s must be on the device of x, cpu, got meta
ops.cayley_rotate(Q, t(1, 8, 8), bandwidth=1.5)
    TypeError: cayley_rotate: bandwidth must be an integer, got float 1.5
ops.cayley_rotate(Q, t(1, 8, 8), bandwidth=2**70)
    ValueError: cayley_rotate: bandwidth must fit in 64 bits, got 1180591620717411303424
""",
    "rotate_pairs": """
ops.rotate_pairs(t(4, 5, 8), Q, t(4, 5, 4))
    RuntimeError: rotate_pairs: q must have shape (B, H, N, D), got (4, 5, 8)
ops.rotate_pairs(Q, t(2, 4, 6, 8), t(4, 5, 4))
    RuntimeError: rotate_pairs: q and k must agree in batch, tokens and head_dim, got (2, 4, 5, 8) and (2, 4, 6, 8)
ops.rotate_pairs(Q, Q.double(), t(4, 5, 4))
    RuntimeError: rotate_pairs: q and k must have one dtype, got float32 and float64
ops.rotate_pairs(Q.int(), Q.int(), t(4, 5, 4))
    RuntimeError: rotate_pairs: q must be float32, float64, bfloat16 or float16, got int32
ops.rotate_pairs(Q, Q, t(4, 5, 4), num_prefix_tokens=6)
    RuntimeError: rotate_pairs: num_prefix_tokens must be between 0 and the 5 tokens, got 6
ops.rotate_pairs(Q, Q, t(4, 4, 4))
    RuntimeError: rotate_pairs: angles must cover the 5 tokens after the prefix, got 4
ops.rotate_pairs(Q, Q, t(3, 4, 5, 4))
    RuntimeError: rotate_pairs: the batch of angles must be 1 or that of q, 2, got 3
ops.rotate_pairs(Q, Q[:, :3], t(4, 5, 4))
    RuntimeError: rotate_pairs: the heads of k must be a multiple of the heads of angles, got 3 and 4
ops.rotate_pairs(Q, Q, t(3, 5, 4))
    RuntimeError: rotate_pairs: the heads of q must be a multiple of the heads of angles, got 4 and 3
ops.rotate_pairs(Q, Q, t(4, 5, 5))
    RuntimeError: rotate_pairs: angles must hold at most head_dim/2 = 4 angles a token, got 5
ops.rotate_pairs(Q, Q, t(5, 4))
    RuntimeError: rotate_pairs: angles must have shape (H, M, D/2) or (B, H, M, D/2), got (5, 4)
ops.rotate_pairs(Q.bfloat16(), Q.bfloat16(), t(4, 5, 4, dtype=BF16))
    RuntimeError: rotate_pairs: angles must be float32 unless q is float64, got bfloat16
ops.rotate_pairs(Q.double(), Q.double(), t(4, 5, 4))
    RuntimeError: rotate_pairs: angles must be float64 as q is, got float32
ops.rotate_pairs(None, Q, t(4, 5, 4))
    TypeError: rotate_pairs: q must be a tensor, got NoneType
ops.rotate_pairs(Q, Q.to_sparse(), t(4, 5, 4))
    TypeError: rotate_pairs: k must be a dense tensor, got a sparse_coo one
ops.rotate_pairs(Q, t(4, 5, 8), t(4, 5, 4))
    RuntimeError: rotate_pairs: k must have shape (B, H, N, D), got (4, 5, 8)
ops.rotate_pairs(Q, Q.to("meta"), t(4, 5, 4))
    RuntimeError: rotate_pairs: k must be on the device of q, cpu, got meta
ops.rotate_pairs(Q, Q, t(4, 5, 4).to("meta"))
    RuntimeError: rotate_pairs: angles must be on the device of q, cpu, got meta
ops.rotate_pairs(Q, Q, t(0, 5, 4))
    RuntimeError: rotate_pairs: the heads of q must be a multiple of the heads of angles, got 4 and 0
ops.rotate_pairs(Q, Q, t(4, 5, 4), num_prefix_tokens=-1)
    RuntimeError: rotate_pairs: num_prefix_tokens must be between 0 and the 5 tokens, got -1
ops.rotate_pairs(Q, Q, t(4, 5, 4), num_prefix_tokens=0.5)
    TypeError: rotate_pairs: num_prefix_tokens must be an integer, got float 0.5
ops.rotate_pairs(Q, Q, t(4, 5, 4), num_prefix_tokens=2**63)
    ValueError: rotate_pairs: num_prefix_tokens must fit in 64 bits, got 9223372036854775808
""",
    "rotate_blocks": """
ops.rotate_blocks(Q, Q, t(4, 5, 2, 4, 3))
    RuntimeError: rotate_blocks: rotations must have shape (H, M, G, b, b) or (B, H, M, G, b, b), got (4, 5, 2, 4, 3)
ops.rotate_blocks(Q, Q, t(4, 5, 3, 4, 4))
    RuntimeError: rotate_blocks: rotations must cover at most head_dim = 8 features, got G*b = 12
ops.rotate_blocks(Q, Q, [1.0])
    TypeError: rotate_blocks: rotations must be a tensor, got list
ops.rotate_blocks(Q, Q, t(5, 4, 4))
    RuntimeError: rotate_blocks: rotations must have shape (H, M, G, b, b) or (B, H, M, G, b, b), got (5, 4, 4)
ops.rotate_blocks(Q, Q, t(4, 4, 2, 4, 4))
    RuntimeError: rotate_blocks: rotations must cover the 5 tokens after the prefix, got 4
ops.rotate_blocks(Q, Q, t(3, 4, 5, 2, 4, 4))
    RuntimeError: rotate_blocks: the batch of rotations must be 1 or that of q, 2, got 3
ops.rotate_blocks(Q, Q, t(3, 5, 2, 4, 4))
    RuntimeError: rotate_blocks: the heads of q must be a multiple of the heads of rotations, got 4 and 3
ops.rotate_blocks(Q, Q.double(), t(4, 5, 2, 4, 4))
    RuntimeError: rotate_blocks: q and k must have one dtype, got float32 and float64
ops.rotate_blocks(Q, Q, t(4, 5, 2, 4, 4, dtype=F64))
    RuntimeError: rotate_blocks: rotations must be float32 unless q is float64, got float64
ops.rotate_blocks(Q, Q, t(4, 5, 2, 4, 4).to("meta"))
    RuntimeError: rotate_blocks: rotations must be on the device of q, cpu, got meta
ops.rotate_blocks(Q, Q, t(4, 5, 2, 4, 4), num_prefix_tokens=6)
    RuntimeError: rotate_blocks: num_prefix_tokens must be between 0 and the 5 tokens, got 6
ops.rotate_blocks(Q, Q, t(4, 5, 2, 4, 4), num_prefix_tokens="1")
    TypeError: rotate_blocks: num_prefix_tokens must be an integer, got str '1'
""",
    "lie_rotations": """
ops.lie_rotations(t(2, 4, 28), P)
    RuntimeError: lie_rotations: generators must have shape (C, H, G, b(b-1)/2), got (2, 4, 28)
ops.lie_rotations(t(2, 4, 1, 27), P)
    RuntimeError: lie_rotations: generators must hold b*(b-1)/2 entries a block for a whole block size b, got 27
ops.lie_rotations(G, t(2))
    RuntimeError: lie_rotations: positions must have shape (..., M, C), got (2,)
ops.lie_rotations(G, t(5, 3))
    RuntimeError: lie_rotations: positions must have as many coordinates as generators, 2, got 3
ops.lie_rotations(G, t(5, 2, dtype=F64))
    RuntimeError: lie_rotations: positions must have the dtype of generators, float32, got float64
ops.lie_rotations(G.long(), P.long())
    RuntimeError: lie_rotations: generators must be float32 or float64, got int64
ops.lie_rotations(None, P)
    TypeError: lie_rotations: generators must be a tensor, got NoneType
ops.lie_rotations(G, P.to("meta"))
    RuntimeError: lie_rotations: positions must be on the device of generators, cpu, got meta
ops.lie_rotations(t(2, 1, 1, 8257), P)
    RuntimeError: lie_rotations: generators must hold b*(b-1)/2 entries a block for a whole block size b, got 8257
ops.lie_rotations(t(2, 1, 1, 8256), t(5, 3))
    RuntimeError: lie_rotations: positions must have as many coordinates as generators, 2, got 3
""",
    "lie_rotate": """
ops.lie_rotate(Q, Q, G, t(4, 2))
    RuntimeError: lie_rotate: positions must cover the 5 tokens after the prefix, got 4
ops.lie_rotate(Q, Q, G, t(1, 2, 5, 2))
    RuntimeError: lie_rotate: positions must have shape (M, C) or (B, M, C), got (1, 2, 5, 2)
ops.lie_rotate(Q, Q, t(2, 4, 2, 28), P)
    RuntimeError: lie_rotate: generators must cover at most head_dim = 8 features, got G*b = 16
ops.lie_rotate(Q, Q, G.double(), P.double())
    RuntimeError: lie_rotate: generators must be float32 unless q is float64, got float64
ops.lie_rotate(Q, Q, G, None)
    TypeError: lie_rotate: positions must be a tensor, got NoneType
ops.lie_rotate(Q, Q, G, P.to_sparse())
    TypeError: lie_rotate: positions must be a dense tensor, got a sparse_coo one
ops.lie_rotate(Q, Q, t(2, 3, 1, 28), P)
    RuntimeError: lie_rotate: the heads of q must be a multiple of the heads of generators, got 4 and 3
ops.lie_rotate(Q, Q, t(2, 4, 28), P)
    RuntimeError: lie_rotate: generators must have shape (C, H, G, b(b-1)/2), got (2, 4, 28)
ops.lie_rotate(Q, Q, t(2, 4, 1, 27), P)
    RuntimeError: lie_rotate: generators must hold b*(b-1)/2 entries a block for a whole block size b, got 27
ops.lie_rotate(Q, Q, G, t(3, 5, 2))
    RuntimeError: lie_rotate: the batch of positions must be 1 or that of q, 2, got 3
ops.lie_rotate(Q, Q, G, t(5, 3))
    RuntimeError: lie_rotate: positions must have as many coordinates as generators, 2, got 3
ops.lie_rotate(Q.double(), Q.double(), G, P)
    RuntimeError: lie_rotate: generators must be float64 as q is, got float32
ops.lie_rotate(Q, Q.to("meta"), G, P)
    RuntimeError: lie_rotate: k must be on the device of q, cpu, got meta
ops.lie_rotate(Q, Q, G.to("meta"), P.to("meta"))
    RuntimeError: lie_rotate: generators must be on the device of q, cpu, got meta
ops.lie_rotate(Q, Q, G, P, num_prefix_tokens=6)
    RuntimeError: lie_rotate: num_prefix_tokens must be between 0 and the 5 tokens, got 6
ops.lie_rotate(Q, Q, G, P, num_prefix_tokens=None)
    TypeError: lie_rotate: num_prefix_tokens must be an integer, got NoneType None
ops.lie_rotate(Q, Q, t(2, 1, 1, 8256), P)
    RuntimeError: lie_rotate: generators must cover at most head_dim = 8 features, got G*b = 129
""",
    "rotate_circulant": """
ops.rotate_circulant(Q, Q, t(4, 5, 3), 0)
    ValueError: rotate_circulant: block_size must be 1 or more, got 0
ops.rotate_circulant(Q, Q, t(4, 5, 4), 8)
    RuntimeError: rotate_circulant: angles must hold (block_size-1)/2 = 3 angles for each block, got 4
ops.rotate_circulant(Q, Q, t(4, 5, 6), 8)
    RuntimeError: rotate_circulant: angles must cover at most head_dim = 8 features, got blocks of 8 times 2
ops.rotate_circulant(Q, Q, t(5, 3), 8)
    RuntimeError: rotate_circulant: angles must have shape (H, M, G*((block_size-1)/2)) or (B, H, M, ...), got (5, 3)
ops.rotate_circulant(Q, Q, None, 8)
    TypeError: rotate_circulant: angles must be a tensor, got NoneType
ops.rotate_circulant(Q, Q, t(4, 5, 3), 8.0)
    TypeError: rotate_circulant: block_size must be an integer, got float 8.0
ops.rotate_circulant(Q, Q, t(4, 5, 3), 2**70)
    ValueError: rotate_circulant: block_size must fit in 64 bits, got 1180591620717411303424
ops.rotate_circulant(Q, Q, t(4, 5, 3).to("meta"), 8)
    RuntimeError: rotate_circulant: angles must be on the device of q, cpu, got meta
ops.rotate_circulant(Q, Q, t(4, 4, 3), 8)
    RuntimeError: rotate_circulant: angles must cover the 5 tokens after the prefix, got 4
ops.rotate_circulant(Q, Q, t(4, 5, 3, dtype=F64), 8)
    RuntimeError: rotate_circulant: angles must be float32 unless q is float64, got float64
ops.rotate_circulant(Q, Q, t(4, 5, 3), 8, num_prefix_tokens=6)
    RuntimeError: rotate_circulant: num_prefix_tokens must be between 0 and the 5 tokens, got 6
ops.rotate_circulant(Q, Q, t(4, 5, 4), 7)
    RuntimeError: rotate_circulant: angles must hold (block_size-1)/2 = 3 angles for each block, got 4
ops.rotate_circulant(Q, Q, t(4, 5, 5), 11)
    RuntimeError: rotate_circulant: angles must cover at most head_dim = 8 features, got blocks of 11 times 1
ops.rotate_circulant(Q, Q.double(), t(4, 5, 3), 7)
    RuntimeError: rotate_circulant: q and k must have one dtype, got float32 and float64
ops.rotate_circulant(Q, Q, t(4, 5, 3), 2)
    RuntimeError: rotate_circulant: angles must hold (block_size-1)/2 = 0 angles for each block, got 3
""",
    "circulant_rotate": """
ops.circulant_rotate(Q, t(2, 4, 8), P)
    ValueError: circulant_angles: coefficients must have shape (C, H, G, b), got (2, 4, 8)
ops.circulant_rotate(Q, t(2, 4, 1, 8), t(5, 3))
    ValueError: circulant_angles: positions must have shape (..., M, 2), got (5, 3)
ops.circulant_rotate(Q[0], t(2, 4, 1, 8), P)
    ValueError: circulant_rotate: x must have shape (B, H, N, D), got (4, 5, 8)
ops.circulant_rotate(1, t(2, 4, 1, 8), P)
    TypeError: circulant_rotate: x must be a tensor, got int
""",
    "circulant_angles": """
ops.circulant_angles(None, P)
    TypeError: circulant_angles: coefficients must be a tensor, got NoneType
ops.circulant_angles(t(2, 4, 1, 8), P.double())
    RuntimeError: circulant_angles: positions must have the dtype of coefficients, float32, got float64
ops.circulant_angles(t(2, 4, 1, 8).int(), P.int())
    RuntimeError: circulant_angles: coefficients must be float32 or float64, got int32
ops.circulant_angles(t(2, 4, 1, 0), P)
    ValueError: circulant_angles: coefficients must have sizes of 1 or more, got (2, 4, 1, 0)
ops.circulant_angles(t(2, 4, 1, 8), P.to("meta"))
    RuntimeError: circulant_angles: positions must be on the device of coefficients, cpu, got meta
""",
}

_MODULES = {
    "Making an encoding": """
lierope.encodings.create("lire", 16, 4)
    ValueError: create: name must be one of none, absolute, axial, visionllama, mixed, liere, cayley, circulant, dense-string, comrope-ap, comrope-ld, harope, se3, got 'lire' (did you mean 'liere'?)
lierope.encodings.create("mixed:8", 16, 4)
    ValueError: mixed: option must be one of theta, init, num_kv_heads, share, rotary_dim, device, dtype, got 'block_size'
lierope.encodings.create("liere:big", 16, 4)
    ValueError: liere: options must be written name=value, got 'big'
lierope.encodings.create("liere", 16, 4, blok_size=4)
    ValueError: liere: option must be one of block_size, init, reorthogonalize, num_kv_heads, share, rotary_dim, device, dtype, got 'blok_size' (did you mean 'block_size'?)
lierope.MixedRoPE(0, 4)
    ValueError: MixedRoPE: head_dim must be a positive integer, got 0
lierope.MixedRoPE(16, 4.0)
    ValueError: MixedRoPE: num_heads must be a positive integer, got 4.0
lierope.MixedRoPE(16, 4, ndim=0)
    ValueError: MixedRoPE: ndim must be a positive integer, got 0
lierope.MixedRoPE(15, 4)
    ValueError: MixedRoPE: head_dim must be even, got 15
lierope.MixedRoPE(16, 4, num_kv_heads=3)
    ValueError: MixedRoPE: num_kv_heads must divide num_heads, got 3 and 4
lierope.MixedRoPE(16, 4, rotary_dim=18)
    ValueError: MixedRoPE: rotary_dim must be at most head_dim, got 18 and 16
lierope.MixedRoPE(16, 4, share="all")
    ValueError: MixedRoPE: share must be one of none, heads, got 'all'
lierope.MixedRoPE(16, 4, theta=-1.0)
    ValueError: MixedRoPE: theta must be a positive number, got -1.0
lierope.MixedRoPE(16, 4, dtype=torch.bfloat16)
    TypeError: MixedRoPE: dtype must be torch.float32 or torch.float64, got torch.bfloat16
lierope.AxialRoPE(16, 4, ndim=9)
    ValueError: AxialRoPE: head_dim must be at least 2 ndim = 18, got 16
lierope.LieRE(16, 4, block_size=5)
    ValueError: LieRE: block_size must divide head_dim, got 5 and 16
lierope.LieRE(16, 4, block_size=1)
    ValueError: LieRE: block_size must be an integer of at least 2, got 1
lierope.LieRE(16, 4, init="zero")
    ValueError: LieRE: init must be one of uniform, rope, small, got 'zero'
lierope.CayleySTRING(16, 4, structure="banded")
    ValueError: CayleySTRING: bandwidth must be given for structure 'banded', got None
lierope.CayleySTRING(16, 4, density=0.5)
    ValueError: CayleySTRING: density must be left out for structure 'dense', got 0.5
lierope.CayleySTRING(16, 4, structure="banded", bandwidth=16)
    ValueError: CayleySTRING: bandwidth must be between 1 and 15, got 16
lierope.CayleySTRING(16, 4, structure="sparse", density=1.5)
    ValueError: CayleySTRING: density must be above 0 and at most 1, got 1.5
lierope.CirculantSTRING(16, 4, block_size=5)
    ValueError: CirculantSTRING: block_size must divide head_dim, got 5 and 16
lierope.ComRoPEAP(16, 4, ndim=3, block_size=8)
    ValueError: ComRoPEAP: block_size must leave a block for each of 3 axes, got 8 for 16 features
lierope.ComRoPELD(16, 4, init="unit")
    ValueError: ComRoPELD: init must be one of normal, small, got 'unit'
""",
    "Calling an encoding": """
liere(t(2, 3, 5, 16), k, p, 1)
    ValueError: LieRE: q must have shape (B, 4, N, 16), got (2, 3, 5, 16)
liere(q[0], k, p, 1)
    ValueError: LieRE: q must have shape (B, 4, N, 16), got (4, 5, 16)
liere(q, t(2, 3, 5, 16), p, 1)
    ValueError: LieRE: k must have shape (B, 2, N, 16), got (2, 3, 5, 16)
liere(q, t(2, 2, 6, 16), p, 1)
    ValueError: LieRE: k must have q's batch and tokens, got (2, 2, 6, 16) and (2, 4, 5, 16)
liere(q, k, p[:3], 1)
    ValueError: LieRE: positions must have shape (4, 2) or (2, 4, 2), one for each token after the prefix, got (3, 2)
liere(q, k, p[:, :1], 1)
    ValueError: LieRE: positions must have shape (4, 2) or (2, 4, 2), one for each token after the prefix, got (4, 1)
liere(q, k, t(3, 4, 2), 1)
    ValueError: LieRE: positions must have shape (4, 2) or (2, 4, 2), one for each token after the prefix, got (3, 4, 2)
liere(q, k, p, 6)
    ValueError: LieRE: num_prefix_tokens must be between 0 and N = 5, got 6
liere(q, k, p, -1)
    ValueError: LieRE: num_prefix_tokens must be between 0 and N = 5, got -1
liere(q, k, p, 1.0)
    TypeError: lie_rotate: num_prefix_tokens must be an integer, got float 1.0
liere(q, k, None, 1)
    TypeError: LieRE: positions must be a tensor, got NoneType
liere([1.0], k, p, 1)
    TypeError: LieRE: q must be a tensor, got list
liere(q, k, p / 0, 1)
    ValueError: LieRE: positions must be finite, got -inf
liere(q.double(), k, p, 1)
    TypeError: LieRE: q must be of a type that torch.float32 parameters serve (float64 for float64, float32 and half types for float32), got torch.float64
liere(q.long(), k, p, 1)
    TypeError: LieRE: q must be a floating type, got torch.int64
liere(q, k.bfloat16(), p, 1)
    TypeError: LieRE: k must have q's type torch.float32, got torch.bfloat16
liere(q, k, p.double(), 1)
    TypeError: LieRE: positions must be torch.float32 for q of torch.float32, got torch.float64
liere(q, k.to("meta"), p, 1)
    ValueError: LieRE: k must be on q's device cpu, got meta
liere(q, k, p.to("meta"), 1)
    ValueError: LieRE: positions must be on q's device cpu, got meta
liere.folded()
    ValueError: LieRE: folded must be called on generators that commute, got such that do not
""",
    "Positions": """
lierope.grid_positions(())
    ValueError: grid_positions: shape must have one positive size for each axis, got ()
lierope.grid_positions((2, 0))
    ValueError: grid_positions: shape must have one positive size for each axis, got (2, 0)
lierope.grid_positions((2, 2), "indx")
    ValueError: grid_positions: mode must be one of proportional, unit, index, centered, got 'indx' (did you mean 'index'?)
lierope.grid_positions((2, 2), "unit", (0, 1))
    ValueError: grid_positions: train_shape must have one positive size for each axis, got (0, 1)
lierope.grid_positions((2, 2), "unit", (2,))
    ValueError: grid_positions: train_shape must have as many axes as shape, got (2,) and (2, 2)
lierope.grid_positions((2, 2), dtype=torch.bfloat16)
    TypeError: grid_positions: dtype must be torch.float32 or torch.float64, got torch.bfloat16
lierope.jitter_positions(t(2))
    ValueError: jitter_positions: positions must have shape (M, C) or (B, M, C), got (2,)
lierope.jitter_positions(t(2, 2).long())
    TypeError: jitter_positions: positions must be a floating type, got torch.int64
lierope.jitter_positions(t(2, 2), shift=-0.1)
    ValueError: jitter_positions: shift must be a number of at least 0.0, got -0.1
lierope.jitter_positions(t(2, 2), rescale=0.5)
    ValueError: jitter_positions: rescale must be a number of at least 1.0, got 0.5
lierope.lift_depth(t(2, 3, 4, 4), t(4, 2), 2)
    ValueError: lift_depth: depth must have shape (B, H, W) or (B, 1, H, W), got (2, 3, 4, 4)
lierope.lift_depth(t(2, 4, 5), t(4, 2), 2)
    ValueError: lift_depth: patch_size must divide the depth's 4 x 5 pixels, got 2 x 2
lierope.lift_depth(t(2, 4, 4), t(3, 2), 2)
    ValueError: lift_depth: positions must have shape (4, C) or (2, 4, C), got (3, 2)
""",
}

OPS = {name: parsed(text) for name, text in _OPS.items()}
MODULES = {name: parsed(text) for name, text in _MODULES.items()}
