"""Every check of an operator speaks: the operator, the argument, the rule and what came."""

# ruff: noqa: E501 (texts are matched whole)

import re
import sys

import pytest
import torch

from cases import normal
from lierope import ops

F32, F64, BF16 = torch.float32, torch.float64, torch.bfloat16
DEVICE = "cpu"  # of the test that runs


def t(*shape: int, dtype: torch.dtype = F32) -> torch.Tensor:
    """A tensor of that shape."""
    return normal(*shape, dtype=dtype).to(DEVICE)


Q = t(2, 4, 5, 8)
LIE = (t(2, 4, 1, 28), t(5, 2))


@pytest.fixture(autouse=True)
def everything_on_the_device(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "DEVICE", device)
    monkeypatch.setattr(sys.modules[__name__], "Q", Q.to(device))
    monkeypatch.setattr(sys.modules[__name__], "LIE", tuple(x.to(device) for x in LIE))


ERRORS = [
    # expm_skew
    (
        lambda: ops.expm_skew(t(4, 3, 2)),
        "expm_skew: a must have shape (..., n, n) with n >= 1, got (4, 3, 2)",
    ),
    (lambda: ops.expm_skew(t(3)), "expm_skew: a must have shape (..., n, n) with n >= 1, got (3,)"),
    (
        lambda: ops.expm_skew(t(2, 0, 0)),
        "expm_skew: a must have shape (..., n, n) with n >= 1, got (2, 0, 0)",
    ),
    (lambda: ops.expm_skew(t(2, 2).int()), "expm_skew: a must be float32 or float64, got int32"),
    (
        lambda: torch.ops.lierope.expm_skew(t(129, 129)),
        "expm_skew: n must be at most 128 (lierope.ops.expm_skew takes larger ones), got 129",
    ),
    (
        lambda: torch.ops.lierope.expm_skew_backward(t(3, 3), t(2, 2)),
        "expm_skew_backward: grad must have the shape of a, (3, 3), got (2, 2)",
    ),
    (
        lambda: torch.ops.lierope.expm_skew_backward(t(3, 3), t(3, 3, dtype=F64)),
        "expm_skew_backward: grad must have the dtype of a, float32, got float64",
    ),
    # cayley
    (lambda: ops.cayley(t(2, 3)), "cayley: s must have shape (..., n, n) with n >= 1, got (2, 3)"),
    (lambda: ops.cayley(t(3, 3).long()), "cayley: s must be float32 or float64, got int64"),
    (
        lambda: ops.cayley_rotate(t(5, 8), t(1, 8, 8)),
        "cayley_rotate: x must have shape (..., H, N, n), got (5, 8)",
    ),
    (
        lambda: ops.cayley_rotate(Q, t(8, 8)),
        "cayley_rotate: s must have shape (H, n, n), got (8, 8)",
    ),
    (
        lambda: ops.cayley_rotate(Q, t(1, 6, 6)),
        "cayley_rotate: x must have n = 6 features as s has, got 8",
    ),
    (
        lambda: ops.cayley_rotate(Q, t(3, 8, 8)),
        "cayley_rotate: the heads of x must be a multiple of the heads of s, got 4 and 3",
    ),
    (
        lambda: ops.cayley_rotate(Q, t(1, 8, 8), bandwidth=-1),
        "cayley_rotate: bandwidth must be 0 or more, got -1",
    ),
    (
        lambda: ops.cayley_rotate(Q, t(1, 8, 8, dtype=F64)),
        "cayley_rotate: s must be float32 unless q is float64, got float64",
    ),
    # q and k
    (
        lambda: ops.rotate_pairs(t(4, 5, 8), Q, t(4, 5, 4)),
        "rotate_pairs: q must have shape (B, H, N, D), got (4, 5, 8)",
    ),
    (
        lambda: ops.rotate_pairs(Q, t(2, 4, 6, 8), t(4, 5, 4)),
        "rotate_pairs: q and k must agree in batch, tokens and head_dim, got (2, 4, 5, 8) and (2, 4, 6, 8)",
    ),
    (
        lambda: ops.rotate_pairs(Q, Q.double(), t(4, 5, 4)),
        "rotate_pairs: q and k must have one dtype, got float32 and float64",
    ),
    (
        lambda: ops.rotate_pairs(Q.int(), Q.int(), t(4, 5, 4)),
        "rotate_pairs: q must be float32, float64, bfloat16 or float16, got int32",
    ),
    (
        lambda: ops.rotate_pairs(Q, Q, t(4, 5, 4), num_prefix_tokens=6),
        "rotate_pairs: num_prefix_tokens must be between 0 and the 5 tokens, got 6",
    ),
    # angles
    (
        lambda: ops.rotate_pairs(Q, Q, t(4, 4, 4)),
        "rotate_pairs: angles must cover the 5 tokens after the prefix, got 4",
    ),
    (
        lambda: ops.rotate_pairs(Q, Q, t(3, 4, 5, 4)),
        "rotate_pairs: the batch of angles must be 1 or that of q, 2, got 3",
    ),
    (
        lambda: ops.rotate_pairs(Q, Q[:, :3], t(4, 5, 4)),
        "rotate_pairs: the heads of k must be a multiple of the heads of angles, got 3 and 4",
    ),
    (
        lambda: ops.rotate_pairs(Q, Q, t(3, 5, 4)),
        "rotate_pairs: the heads of q must be a multiple of the heads of angles, got 4 and 3",
    ),
    (
        lambda: ops.rotate_pairs(Q, Q, t(4, 5, 5)),
        "rotate_pairs: angles must hold at most head_dim/2 = 4 angles a token, got 5",
    ),
    (
        lambda: ops.rotate_pairs(Q, Q, t(5, 4)),
        "rotate_pairs: angles must have shape (H, M, D/2) or (B, H, M, D/2), got (5, 4)",
    ),
    (
        lambda: ops.rotate_pairs(Q.bfloat16(), Q.bfloat16(), t(4, 5, 4, dtype=BF16)),
        "rotate_pairs: angles must be float32 unless q is float64, got bfloat16",
    ),
    (
        lambda: ops.rotate_pairs(Q.double(), Q.double(), t(4, 5, 4)),
        "rotate_pairs: angles must be float64 as q is, got float32",
    ),
    # rotations
    (
        lambda: ops.rotate_blocks(Q, Q, t(4, 5, 2, 4, 3)),
        "rotate_blocks: rotations must have shape (H, M, G, b, b) or (B, H, M, G, b, b), got (4, 5, 2, 4, 3)",
    ),
    (
        lambda: ops.rotate_blocks(Q, Q, t(4, 5, 3, 4, 4)),
        "rotate_blocks: rotations must cover at most head_dim = 8 features, got G*b = 12",
    ),
    # generators and positions
    (
        lambda: ops.lie_rotations(t(2, 4, 28), LIE[1]),
        "lie_rotations: generators must have shape (C, H, G, b(b-1)/2), got (2, 4, 28)",
    ),
    (
        lambda: ops.lie_rotations(t(2, 4, 1, 27), LIE[1]),
        "lie_rotations: generators must hold b*(b-1)/2 entries a block for a whole block size b, got 27",
    ),
    (
        lambda: ops.lie_rotations(LIE[0], t(2)),
        "lie_rotations: positions must have shape (..., M, C), got (2,)",
    ),
    (
        lambda: ops.lie_rotations(LIE[0], t(5, 3)),
        "lie_rotations: positions must have as many coordinates as generators, 2, got 3",
    ),
    (
        lambda: ops.lie_rotations(LIE[0], t(5, 2, dtype=F64)),
        "lie_rotations: positions must have the dtype of generators, float32, got float64",
    ),
    (
        lambda: ops.lie_rotations(LIE[0].long(), LIE[1].long()),
        "lie_rotations: generators must be float32 or float64, got int64",
    ),
    (
        lambda: ops.lie_rotate(Q, Q, LIE[0], t(4, 2)),
        "lie_rotate: positions must cover the 5 tokens after the prefix, got 4",
    ),
    (
        lambda: ops.lie_rotate(Q, Q, LIE[0], t(1, 2, 5, 2)),
        "lie_rotate: positions must have shape (M, C) or (B, M, C), got (1, 2, 5, 2)",
    ),
    (
        lambda: ops.lie_rotate(Q, Q, t(2, 4, 2, 28), LIE[1]),
        "lie_rotate: generators must cover at most head_dim = 8 features, got G*b = 16",
    ),
    (
        lambda: ops.lie_rotate(Q, Q, LIE[0].double(), LIE[1].double()),
        "lie_rotate: generators must be float32 unless q is float64, got float64",
    ),
    # circulant
    (
        lambda: ops.rotate_circulant(Q, Q, t(4, 5, 3), 0),
        "rotate_circulant: block_size must be 1 or more, got 0",
    ),
    (
        lambda: torch.ops.lierope.rotate_circulant(Q, Q, t(4, 5, 3), 7, 0, False),
        "rotate_circulant: block_size must be one that the library's FFT holds "
        "(lierope.ops.rotate_circulant takes every size), got 7",
    ),
    (
        lambda: ops.rotate_circulant(Q, Q, t(4, 5, 4), 8),
        "rotate_circulant: angles must hold (block_size-1)/2 = 3 angles for each block, got 4",
    ),
    (
        lambda: ops.rotate_circulant(Q, Q, t(4, 5, 6), 8),
        "rotate_circulant: angles must cover at most head_dim = 8 features, got blocks of 8 times 2",
    ),
    (
        lambda: ops.rotate_circulant(Q, Q, t(5, 3), 8),
        "rotate_circulant: angles must have shape (H, M, G*((block_size-1)/2)) or (B, H, M, ...), got (5, 3)",
    ),
    (
        lambda: ops.circulant_rotate(Q, t(2, 4, 8), LIE[1]),
        "circulant_angles: coefficients must have shape (C, H, G, b), got (2, 4, 8)",
    ),
    (
        lambda: ops.circulant_rotate(Q, t(2, 4, 1, 8), t(5, 3)),
        "circulant_angles: positions must have shape (..., M, 2), got (5, 3)",
    ),
]


@pytest.mark.parametrize(("call", "text"), ERRORS, ids=[text[:60] for _, text in ERRORS])
def test_error(call, text: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises((RuntimeError, ValueError), match="^" + re.escape(text) + "$"):
        call()


def test_gradients_are_checked_too() -> None:
    grads = (t(2, 4, 5, 6), Q)
    text = "rotate_pairs_backward: q_grad must have the shape of q, (2, 4, 5, 8), got (2, 4, 5, 6)"
    with pytest.raises(RuntimeError, match=re.escape(text)):
        torch.ops.lierope.rotate_pairs_backward(*grads, Q, Q, t(4, 5, 4), 0, True)
    text = "lie_rotations_backward: grad must have the shape of the rotations, got (2, 2)"
    with pytest.raises(RuntimeError, match=re.escape(text)):
        torch.ops.lierope.lie_rotations_backward(*LIE, t(2, 2), True)
