"""RoPE bound to axes: AxialRoPE, and VisionLLaMA's as LieRE's paper compares with it."""

from typing import Any

import torch
from torch import Tensor

from lierope import ops
from lierope.choice import check_choice
from lierope.encodings import frequencies
from lierope.encodings.arguments import check_full, check_positive
from lierope.encodings.base import Encoding


class _Axial(Encoding):
    """Pairs dealt to the axes in order: pair c n + j turns by p_c w_cj, n = D // (2 C).

    The D - 2 C n features left over are not rotated. Axis 0 is the first column of positions
    (rows of an image for `grid_positions`).
    """

    def __init__(self, head_dim: int, num_heads: int, ndim: int = 2, **words: Any) -> None:
        super().__init__(head_dim, num_heads, ndim, **words)
        self.pairs_per_axis = self.rotary_dim // (2 * ndim)
        if self.pairs_per_axis < 1:
            name = "head_dim" if self.rotary_dim == head_dim else "rotary_dim"
            raise ValueError(
                f"{type(self).__name__}: {name} must be at least 2 ndim = {2 * ndim}, "
                f"got {self.rotary_dim}"
            )

    def spectrum(self, device: torch.device) -> Tensor:
        """The frequencies of one axis, (n,), float64, in radians per unit of position.

        Made on the device: a copy from the host would stall it.
        """
        raise NotImplementedError

    def axis_frequencies(self, positions: Tensor) -> Tensor:
        """(C, H' or 1, n), of positions' type and device: not kept, so that no move can miss it."""
        return self.spectrum(positions.device).to(positions.dtype).expand(self.ndim, 1, -1)

    def angles(self, positions: Tensor) -> Tensor:
        """Angles (..., H' or 1, M, C n) at positions (..., M, C)."""
        return frequencies.axial_angles(self.axis_frequencies(positions), positions)

    def rotate(
        self, q: Tensor, k: Tensor, positions: Tensor, num_prefix_tokens: int = 0
    ) -> tuple[Tensor, Tensor]:
        """Turns interleaved pairs by `angles`."""
        return ops.rotate_pairs(q, k, self.angles(positions), num_prefix_tokens=num_prefix_tokens)


class AxialRoPE(_Axial):
    """RoPE with each pair of features bound to one axis (axial RoPE of arXiv 2403.13298).

    Pair c n + j of n = D // (2 C) pairs an axis turns by p_c theta^(-j / n); leftover features
    are not rotated.

    Args:
        theta: ratio of the highest frequency (1 radian per unit of position) to the lowest.
        learned: make the frequencies a parameter, `frequencies` (C, H', n). Only those of the
            pairs' own axes are stored, so that training can't mix the axes.

    Other arguments and errors: see `Encoding`. ValueError also for head_dim below 2 C.

    Example:
        >>> encoding = lierope.AxialRoPE(head_dim=64, num_heads=3)
        >>> q, k = torch.randn(2, 2, 3, 196, 64).unbind()
        >>> q, k = encoding(q, k, lierope.grid_positions((14, 14), encoding.default_positions))
    """

    short_name = "axial"

    def __init__(
        self,
        head_dim: int,
        num_heads: int,
        ndim: int = 2,
        *,
        theta: float = 100.0,
        learned: bool = False,
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
            num_kv_heads=num_kv_heads,
            share=share,
            rotary_dim=rotary_dim,
            device=device,
            dtype=dtype,
        )
        check_positive(type(self).__name__, "theta", theta)
        self.theta = theta
        self.learned = learned
        if learned:
            self.frequencies = self._parameter(ndim, self.parameter_heads, self.pairs_per_axis)
        self.reset_parameters()

    def spectrum(self, device: torch.device) -> Tensor:
        """The powers theta^(-j / n)."""
        return frequencies.geometric(self.pairs_per_axis, self.theta, device)

    def axis_frequencies(self, positions: Tensor) -> Tensor:
        """The learned frequencies, or the spectrum for every axis."""
        if not self.learned:
            return super().axis_frequencies(positions)
        check_full(self, self.frequencies)
        return self.frequencies

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Learned frequencies start at the spectrum."""
        if self.learned and not self.frequencies.is_meta:
            self.frequencies.copy_(self.spectrum(self.frequencies.device))

    def extra_repr(self) -> str:
        """Adds theta and whether frequencies are learned."""
        return f"{super().extra_repr()}, theta={self.theta}, learned={self.learned}"


class VisionLLaMA(_Axial):
    """Axial rotations as LieRE's authors run VisionLLaMA (arXiv 2403.00522) as a baseline.

    Pair c n + j of n = D // (2 C) turns by p_c f_j, with f_j = exp(-4 j / (n - 1)) for
    init="geometric" and j / (n - 1) for init="even", at positions in [0, 1]. Nothing is learned.
    Angles never pass 1 radian on the training grid, which makes it slow to learn.

    Arguments and errors: see `Encoding`. ValueError also for head_dim below 2 C.

    Example:
        >>> encoding = lierope.VisionLLaMA(head_dim=64, num_heads=3)
        >>> q, k = torch.randn(2, 2, 3, 196, 64).unbind()
        >>> q, k = encoding(q, k, lierope.grid_positions((14, 14), encoding.default_positions))
    """

    short_name = "visionllama"
    default_positions = "proportional"

    def __init__(
        self,
        head_dim: int,
        num_heads: int,
        ndim: int = 2,
        *,
        init: str = "geometric",
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
            num_kv_heads=num_kv_heads,
            share=share,
            rotary_dim=rotary_dim,
            device=device,
            dtype=dtype,
        )
        self.init = check_choice(type(self).__name__, "init", init, ("geometric", "even"))

    def spectrum(self, device: torch.device) -> Tensor:
        """The exponentials exp(-4 j / (n - 1)), or j / (n - 1)."""
        steps = torch.linspace(0, 1, self.pairs_per_axis, dtype=torch.float64, device=device)
        return steps if self.init == "even" else (-4 * steps).exp()

    def extra_repr(self) -> str:
        """Adds the spectrum."""
        return f"{super().extra_repr()}, init={self.init!r}"
