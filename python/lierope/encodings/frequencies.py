"""Frequencies of the RoPE family: the spectra they start from, and the angles they give."""

import math

import torch
from torch import Tensor


def geometric(count: int, theta: float, device: torch.device | None = None) -> Tensor:
    """The spectrum of RoPE, theta^(-j / count) for j = 0 .. count - 1, in float64."""
    return theta ** -(torch.arange(count, dtype=torch.float64, device=device) / count)


def mixed(ndim: int, heads: int, pairs: int, theta: float) -> Tensor:
    """The start of RoPE-Mixed (arXiv 2403.13298, naver-ai/rope-vit), for any number of dimensions.

    Each head draws an orthonormal frame of position space. The pairs are dealt to the C axes of
    that frame in groups of pairs / C, each group with RoPE's spectrum along its axis. In 2-D the
    frame is (cos f, sin f), (-sin f, cos f), f uniform in (0, 2 pi): naver's own start; in 1-D
    it is RoPE.

    Returns:
        (C, H', pairs), float64.
    """
    count = math.ceil(pairs / ndim)
    magnitude = theta ** -(torch.arange(count, dtype=torch.float64) * ndim / pairs)
    # (C axes of position space, H', C frame axes, 1) x (count) -> group after group
    frames = _frames(ndim, heads).permute(1, 0, 2).unsqueeze(-1)
    return (frames * magnitude).flatten(-2)[..., :pairs].contiguous()


def axial(ndim: int, heads: int, pairs: int, theta: float) -> Tensor:
    """Every pair bound to one axis, axis after axis, as in AxialRoPE; (C, H', pairs), float64.

    Pairs left over when C does not divide them have frequency 0.
    """
    count = pairs // ndim
    frequencies = torch.zeros(ndim, heads, pairs, dtype=torch.float64)
    for axis in range(ndim):
        frequencies[axis, :, axis * count : (axis + 1) * count] = geometric(count, theta)
    return frequencies


def mixed_angles(frequencies: Tensor, positions: Tensor) -> Tensor:
    """sum_c p_c w_c: (C, H', A), (..., M, C) -> (..., H', M, A).

    Sums of products, not a matrix product: autocast leaves these in full precision.
    """
    p = positions.unsqueeze(-3)
    angles = p[..., 0:1] * frequencies[0].unsqueeze(-2)
    for c in range(1, frequencies.shape[0]):
        angles = angles + p[..., c : c + 1] * frequencies[c].unsqueeze(-2)
    return angles


def axial_angles(frequencies: Tensor, positions: Tensor) -> Tensor:
    """p_c w_c, axis after axis: (C, H', n), (..., M, C) -> (..., H', M, C n)."""
    # (..., 1, M, C, 1) x (H', 1, C, n)
    angles = positions.unsqueeze(-3).unsqueeze(-1) * frequencies.permute(1, 0, 2).unsqueeze(1)
    return angles.flatten(-2)


def _frames(ndim: int, heads: int) -> Tensor:
    """Random orthonormal frames (H', C, C), a frame's axes in the columns."""
    if ndim == 1:
        return torch.ones(heads, 1, 1, dtype=torch.float64)
    if ndim == 2:
        turn = 2 * math.pi * torch.rand(heads, dtype=torch.float64)
        cos, sin = turn.cos(), turn.sin()
        return torch.stack((cos, -sin, sin, cos), -1).view(heads, 2, 2)
    frames, triangle = torch.linalg.qr(torch.randn(heads, ndim, ndim, dtype=torch.float64))
    # without the signs of the diagonal, QR does not give the uniform distribution
    uniform: Tensor = frames * triangle.diagonal(dim1=-2, dim2=-1).sign().unsqueeze(-2)
    return uniform
