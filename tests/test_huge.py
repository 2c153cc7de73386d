"""More elements than 32 bits count: offsets past 2^31 are computed in 64."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from cases import normal
from lierope import ops

BF16, F32 = torch.bfloat16, torch.float32
SAMPLES = (1 << 15) + 1


pytestmark = pytest.mark.skipif(
    os.environ.get("LIEROPE_HUGE") != "1",
    reason="takes minutes and 10 GiB of memory: LIEROPE_HUGE=1 asks for it",
)


def _none(x: Tensor) -> Tensor:
    return x[:, :0]


ROTATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "rotate_pairs": lambda x: ops.rotate_pairs(x, _none(x), normal(1, 1024, 32, dtype=F32))[0],
    "rotate_blocks": lambda x: ops.rotate_blocks(x, _none(x), normal(1, 1024, 16, 4, 4, dtype=F32))[
        0
    ],
    "lie_rotate": lambda x: ops.lie_rotate(
        x, _none(x), normal(2, 1, 16, 6, dtype=F32), normal(1024, 2, dtype=F32)
    )[0],
    "cayley_rotate": lambda x: ops.cayley_rotate(x, normal(1, 64, 64, dtype=F32) / 8, bandwidth=2),
}


@pytest.mark.parametrize("name", ROTATIONS)
def test_the_last_token_of_more_than_two_thousand_million_numbers(name: str) -> None:
    """One sample seen from everywhere is read; every copy of it is turned and written."""
    sample = normal(1, 1, 1024, 64).to(BF16)
    y = ROTATIONS[name](sample.expand(SAMPLES, 1, 1024, 64))
    assert y.numel() > 1 << 31
    alone = ROTATIONS[name](sample)
    for last in (0, SAMPLES // 2, SAMPLES - 1):
        torch.testing.assert_close(y[last : last + 1], alone)


@pytest.mark.parametrize("op", [ops.expm_skew, ops.cayley])
def test_the_last_matrix_of_as_many_entries(op: Callable[[Tensor], Tensor]) -> None:
    count = (1 << 25) + 1
    a = normal(1, 8, 8, dtype=F32)
    p = op(a.expand(count, 8, 8))
    assert p.numel() > 1 << 31
    alone = op(a)
    for last in (0, count // 2, count - 1):
        torch.testing.assert_close(p[last : last + 1], alone)
