"""Planes that skew matrices share when they commute: there they are rotations by angles."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_TOLERANCE = 2e-6  # of the largest entry: what rounding to float32 leaves of commuting matrices
_TRIALS = 16


def common_planes(matrices: Tensor) -> tuple[Tensor, Tensor] | None:
    """An orthonormal basis in which skew matrices that commute turn pairs of features.

    A_c = Qᵀ Λ_c Q, with Λ_c zero but for the blocks [[0, −ω_cj], [ω_cj, 0]] of the pairs (2j,
    2j + 1). The planes are the eigenspaces of a combination Σ α_c A_c that tells them apart: the
    best of some, since rounding mixes planes of almost equal frequency.

    Args:
        matrices: A, (C, n, n), skew, float64.

    Returns:
        Q (n, n), the planes that turn first, and ω (C, n // 2), so that exp(Σ p_c A_c) =
        Qᵀ R Q with R a RoPE of angles Σ p_c ω_c; None where the matrices have no planes in common.
    """
    scale = float(matrices.abs().amax())
    if not math.isfinite(scale):
        return None
    c = torch.arange(len(matrices), dtype=matrices.dtype, device=matrices.device)
    trials = 1 if len(matrices) == 1 else _TRIALS
    tried = [_planes_of(matrices, torch.cos(t + 2.4 * t * c + c), scale) for t in range(trials)]
    basis, frequencies, error = min(tried, key=lambda found: found[2])
    return (basis, frequencies) if error <= _TOLERANCE else None


def _planes_of(matrices: Tensor, weights: Tensor, scale: float) -> tuple[Tensor, Tensor, float]:
    """Basis, frequencies, and how far the matrices are from blocks in it, relative to scale."""
    n = matrices.shape[-1]
    mixed = torch.einsum("c,cij->ij", weights, matrices)
    sizes, vectors = torch.linalg.eigh(1j * mixed)
    turning = vectors[:, sizes > max(_TOLERANCE * scale, torch.finfo(sizes.dtype).tiny)]
    # u of +ω and its conjugate of −ω are orthogonal: √2 Re u, √2 Im u span the plane.
    rows = 2**0.5 * torch.stack((turning.real, turning.imag), -1).flatten(1).mT
    rest = torch.linalg.qr(rows.mT, mode="complete").Q[:, len(rows) :]
    basis = torch.cat((rows, rest.mT))
    turned = basis @ matrices @ basis.mT
    frequencies = turned[:, 1::2, ::2].diagonal(dim1=-2, dim2=-1)[:, : n // 2]
    left = turned - _blocks(frequencies, n)
    skewed = basis @ basis.mT - torch.eye(n, dtype=basis.dtype, device=basis.device)
    error = max(float(left.abs().amax()) / (scale or 1.0), float(skewed.abs().amax()))
    return basis, frequencies, error


def _blocks(frequencies: Tensor, n: int) -> Tensor:
    """Λ_c (C, n, n)."""
    blocks = frequencies.new_zeros(len(frequencies), n, n)
    first = torch.arange(0, 2 * frequencies.shape[1], 2, device=frequencies.device)
    blocks[:, first + 1, first] = frequencies
    blocks[:, first, first + 1] = -frequencies
    return blocks
