"""RoPE with learned frequencies over all axes: MixedRoPE, and the base of STRINGs built on it."""

from typing import Any

import torch
from torch import Tensor

from lierope import ops
from lierope.choice import check_choice
from lierope.encodings import frequencies
from lierope.encodings.arguments import check_even, check_full, check_positive
from lierope.encodings.base import Encoding


class Mixed(Encoding):
    """Learned frequencies (C, H', A), A = D / 2 pairs, and the rotation by their angles."""

    def __init__(
        self,
        head_dim: int,
        num_heads: int,
        ndim: int = 2,
        *,
        theta: float = 10.0,
        init: str = "naver",
        **words: Any,
    ) -> None:
        super().__init__(head_dim, num_heads, ndim, **words)
        owner = type(self).__name__
        check_even(owner, self.rotary_dim, head_dim)
        check_positive(owner, "theta", theta)
        self.theta = theta
        self.init = check_choice(owner, "init", init, ("naver", "uniform", "axial"))
        if init == "uniform":
            self.default_positions = "proportional"
        self.frequencies = self._parameter(ndim, self.parameter_heads, self.rotary_dim // 2)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draws the frequencies as `init` says."""
        if self.frequencies.is_meta:
            return
        if self.init == "uniform":
            self.frequencies.uniform_(0, 2 * torch.pi)
        else:
            start = frequencies.mixed if self.init == "naver" else frequencies.axial
            ndim, heads, pairs = self.frequencies.shape
            self.frequencies.copy_(start(ndim, heads, pairs, self.theta))

    def angles(self, positions: Tensor) -> Tensor:
        """Angles sum_c p_c w_c, (..., H', M, A), at positions (..., M, C)."""
        check_full(self, self.frequencies)
        return frequencies.mixed_angles(self.frequencies, positions)

    def rotate(
        self, q: Tensor, k: Tensor, positions: Tensor, num_prefix_tokens: int = 0
    ) -> tuple[Tensor, Tensor]:
        """Turns interleaved pairs by `angles`."""
        return ops.rotate_pairs(q, k, self.angles(positions), num_prefix_tokens=num_prefix_tokens)

    def extra_repr(self) -> str:
        """Adds the start of the frequencies."""
        return f"{super().extra_repr()}, theta={self.theta}, init={self.init!r}"


class MixedRoPE(Mixed):
    """RoPE with learned frequencies that mix the axes (RoPE-Mixed, arXiv 2403.13298).

    Pair a turns by the angle sum_c p_c w_ca, so R(a)^T R(b) = R(b - a). Learned: `frequencies`
    (C, H', D / 2).

    Args:
        theta: ratio of the highest starting frequency (1 radian per unit of position) to the
            lowest.
        init: "naver", the paper's start (a random turn of the axes for each head, theta 10,
            positions in patches); "uniform", U(0, 2 pi) as in LieRE's comparison, for positions in
            [0, 1]; "axial", each pair on one axis.

    Other arguments and errors: see `Encoding`. ValueError also for an odd head_dim.

    Example:
        >>> encoding = lierope.MixedRoPE(head_dim=64, num_heads=3)
        >>> q, k = torch.randn(2, 2, 3, 196, 64).unbind()
        >>> q, k = encoding(q, k, lierope.grid_positions((14, 14), encoding.default_positions))
    """

    short_name = "mixed"

    def __init__(
        self,
        head_dim: int,
        num_heads: int,
        ndim: int = 2,
        *,
        theta: float = 10.0,
        init: str = "naver",
        num_kv_heads: int | None = None,
        share: str = "none",
        rotary_dim: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            head_dim,
            num_heads,
            ndim,
            theta=theta,
            init=init,
            num_kv_heads=num_kv_heads,
            share=share,
            rotary_dim=rotary_dim,
            device=device,
            dtype=dtype,
        )
        self.reset_parameters()


def rope_of(encoding: Encoding, learned: Tensor) -> MixedRoPE:
    """A MixedRoPE with the given frequencies (C, H', A) and the heads of encoding."""
    rope = MixedRoPE(
        encoding.head_dim,
        encoding.num_heads,
        encoding.ndim,
        init="axial",  # overwritten below, and unlike the others it draws no random numbers
        num_kv_heads=encoding.num_kv_heads,
        share=encoding.share,
        rotary_dim=2 * learned.shape[-1],
        device=learned.device,
        dtype=learned.dtype,
    )
    with torch.no_grad():
        rope.frequencies.copy_(learned)
    return rope.train(encoding.training).requires_grad_(next(encoding.parameters()).requires_grad)
