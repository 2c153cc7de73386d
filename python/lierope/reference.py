"""The mathematics of `lierope.ops` in plain torch, written to be read: the truth of the tests.

Same names, same signatures, same results, and differentiable to any order, but slow and hungry
for memory; nothing here is used at run time. No argument is checked. Letters: B batch, H heads,
N tokens, P prefix tokens, M = N - P positions, D head dim, b block size, G blocks per head,
C position dims, A pairs of features.

Sources: LieRE (arXiv 2406.10322), STRING (arXiv 2502.02562), GTA (arXiv 2310.10375).
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor


def expm_skew(a: Tensor) -> Tensor:
    """Exponential of the skew matrix with a's strict upper triangle, (..., n, n) -> (..., n, n).

    torch's exponential of a single matrix is wrong by up to 7e-6 for norms between 0.05 and 0.58
    (pytorch#196592) and half types come out as garbage, so one matrix is doubled to a batch of
    two and half types are computed in float32.
    """
    skew = _skew(a.to(_compute_dtype(a)))
    batch = skew.reshape(-1, *skew.shape[-2:]) if skew.numel() else skew
    if batch.numel() == 0:
        return skew.to(a.dtype)
    if batch.shape[0] == 1:
        batch = batch.expand(2, -1, -1)
    exponential: Tensor = torch.linalg.matrix_exp(batch.contiguous())
    exponential = exponential[: math.prod(skew.shape[:-2])]
    return exponential.reshape(skew.shape).to(a.dtype)


def expm_skew_oracle(a: Tensor) -> Tensor:
    """The same in float64 by the eigenvalues of the Hermitian i A; not to be differentiated.

    Error against 40 digits: 1e-15 at norm 1, 7e-15 at 100, 2e-13 at 1000.
    """
    skew = _skew(a.detach().double())
    eigenvalues, vectors = torch.linalg.eigh(1j * skew)
    phases = torch.polar(torch.ones_like(eigenvalues), -eigenvalues)
    rotation: Tensor = ((vectors * phases.unsqueeze(-2)) @ vectors.mH).real
    return rotation


def lie_rotations(generators: Tensor, positions: Tensor) -> Tensor:
    """exp(sum_c p_c A_c): (C, H, G, b(b-1)/2), (..., M, C) -> (..., H, M, G, b, b); LieRE, sec. 4.

    A generator holds the strict upper triangle of A row by row, so b = 2 gives
    [[cos, sin], [-sin, cos]].
    """
    packed = torch.einsum("chgu,...mc->...hmgu", generators, positions)
    return expm_skew(unpack_skew(packed))


def unpack_skew(packed: Tensor) -> Tensor:
    """(..., b(b-1)/2), the strict upper triangle row by row -> the skew matrix (..., b, b)."""
    size = packed.shape[-1]
    b = (1 + math.isqrt(1 + 8 * size)) // 2
    if size == 0:
        return packed.new_zeros(*packed.shape[:-1], b, b)
    row, column = torch.triu_indices(b, b, 1, device=packed.device)
    entry = torch.zeros(b, b, dtype=torch.long, device=packed.device)
    sign = packed.new_zeros(b, b)
    entry[row, column] = entry[column, row] = torch.arange(size, device=packed.device)
    sign[row, column], sign[column, row] = 1, -1
    return packed[..., entry] * sign


def rotate_blocks(
    q: Tensor, k: Tensor, rotations: Tensor, *, num_prefix_tokens: int = 0
) -> tuple[Tensor, Tensor]:
    """y_g = R_g x_g for each block g of b features; rotations ([B,] H, M, G, b, b).

    The P first tokens and the features after G b are copied.
    """

    def rotate(x: Tensor) -> Tensor:
        blocks, b = rotations.shape[-3], rotations.shape[-1]
        x = x.to(rotations.dtype).reshape(*x.shape[:-1], blocks, b)
        return torch.einsum("...mgij,...mgj->...mgi", _per_head(rotations, x, 5), x).flatten(-2)

    features = rotations.shape[-3] * rotations.shape[-1]
    return (
        _on_patch_features(rotate, q, features, num_prefix_tokens),
        _on_patch_features(rotate, k, features, num_prefix_tokens),
    )


def lie_rotate(
    q: Tensor, k: Tensor, generators: Tensor, positions: Tensor, *, num_prefix_tokens: int = 0
) -> tuple[Tensor, Tensor]:
    """Rotates: y = exp(sum_c p_c A_c) x for every block of features."""
    rotations = lie_rotations(generators, positions)
    return rotate_blocks(q, k, rotations, num_prefix_tokens=num_prefix_tokens)


def rotate_pairs(
    q: Tensor, k: Tensor, angles: Tensor, *, num_prefix_tokens: int = 0, interleaved: bool = True
) -> tuple[Tensor, Tensor]:
    """(x0, x1) -> (x0 cos t - x1 sin t, x0 sin t + x1 cos t); angles ([B,] H, M, A).

    Pairs are the features (2i, 2i + 1), or (i, i + A) when not interleaved.
    """
    pairs = angles.shape[-1]

    def rotate(x: Tensor) -> Tensor:
        x = x.to(angles.dtype).reshape(*x.shape[:-1], *((pairs, 2) if interleaved else (2, pairs)))
        x0, x1 = x.unbind(-1 if interleaved else -2)
        t = _per_head(angles, x0, 3)
        rotated = x0 * t.cos() - x1 * t.sin(), x0 * t.sin() + x1 * t.cos()
        return torch.stack(rotated, -1 if interleaved else -2).flatten(-2)

    return (
        _on_patch_features(rotate, q, 2 * pairs, num_prefix_tokens),
        _on_patch_features(rotate, k, 2 * pairs, num_prefix_tokens),
    )


def rotate_poses(
    q: Tensor, k: Tensor, poses: Tensor, *, num_prefix_tokens: int = 0
) -> tuple[Tensor, Tensor]:
    """Gives g^T q and g^-1 k for each block of 4 features; poses g ([B,] M, 4, 4). GTA, section 3.

    Scores q_i^T g_i g_j^-1 k_j stay when every g becomes g h. The features after the last whole
    block are copied.
    """
    blocks = q.shape[-1] // 4
    into, back = (m.unsqueeze(-3).expand(*m.shape[:-2], blocks, 4, 4).unsqueeze(-5)
                  for m in (poses.mT, torch.linalg.inv(poses)))  # fmt: skip
    return (
        rotate_blocks(q, q[:, :0], into, num_prefix_tokens=num_prefix_tokens)[0],
        rotate_blocks(k, k[:, :0], back, num_prefix_tokens=num_prefix_tokens)[0],
    )


def cayley(s: Tensor) -> Tensor:
    """P = (I - S)(I + S)^-1, S skew with s's strict upper triangle. STRING, section 3."""
    skew = _skew(s.to(_compute_dtype(s)))
    identity = torch.eye(skew.shape[-1], dtype=skew.dtype, device=skew.device).expand_as(skew)
    p: Tensor = torch.linalg.solve(identity + skew, identity - skew)
    return p.to(s.dtype)


def cayley_rotate(x: Tensor, s: Tensor, *, bandwidth: int | None = None) -> Tensor:
    """P x, with x (..., H, N, n), s (H or 1, n, n); s_ij with |i - j| > bandwidth are read as 0."""
    if bandwidth is not None:
        s = s.triu(1) - s.triu(bandwidth + 1)
    return (x.to(s.dtype) @ cayley(s).mT).to(x.dtype)


def circulant_angles(coefficients: Tensor, positions: Tensor) -> Tensor:
    """t_m = 2 sum_c p_c Im(rfft c_c)_m, m = 1 .. (b-1)//2: (C, H, G, b) -> (..., H, M, G (b-1)//2).

    i t_m are the eigenvalues of sum_c p_c (C_c - C_c^T), where C_c is the circulant matrix whose
    first column holds the coefficients. Those of m = 0 and m = b/2 are 0.
    """
    frequencies = 2 * torch.fft.rfft(coefficients).imag
    frequencies = frequencies[..., 1 : 1 + (coefficients.shape[-1] - 1) // 2].flatten(-2)
    return torch.einsum("cha,...mc->...hma", frequencies, positions)


def rotate_circulant(
    q: Tensor, k: Tensor, angles: Tensor, block_size: int, *, num_prefix_tokens: int = 0
) -> tuple[Tensor, Tensor]:
    """Turns spectra: irfft(e^{it} rfft x) for each block of b; angles ([B,] H, M, G (b-1)//2)."""
    planes = (block_size - 1) // 2
    if planes == 0:
        return q.clone(), k.clone()
    blocks = angles.shape[-1] // planes

    def rotate(x: Tensor) -> Tensor:
        t = angles.reshape(*angles.shape[:-1], blocks, planes)
        nyquist = block_size // 2 - planes
        t = _per_head(torch.nn.functional.pad(t, (1, nyquist)), x, 4)
        spectrum = torch.fft.rfft(x.to(angles.dtype).reshape(*x.shape[:-1], blocks, block_size))
        spectrum = spectrum * torch.complex(t.cos(), t.sin())
        y: Tensor = torch.fft.irfft(spectrum, n=block_size)
        return y.flatten(-2)

    return (
        _on_patch_features(rotate, q, blocks * block_size, num_prefix_tokens),
        _on_patch_features(rotate, k, blocks * block_size, num_prefix_tokens),
    )


def circulant_rotate(
    x: Tensor, coefficients: Tensor, positions: Tensor, *, num_prefix_tokens: int = 0
) -> Tensor:
    """Rotates: y = exp(sum_c p_c (C_c - C_c^T)) x for every block. STRING, theorem 3.5."""
    angles = circulant_angles(coefficients, positions)
    block_size = coefficients.shape[-1]
    return rotate_circulant(x, x[:, :0], angles, block_size, num_prefix_tokens=num_prefix_tokens)[0]


def _skew(a: Tensor) -> Tensor:
    upper = a.triu(1)
    return upper - upper.mT


def _compute_dtype(a: Tensor) -> torch.dtype:
    return torch.float32 if a.dtype in (torch.bfloat16, torch.float16) else a.dtype


def _per_head(rotations: Tensor, x: Tensor, dims: int) -> Tensor:
    """Repeats the head dimension, dims from the end, so that head h of x meets h Ha // H."""
    heads = rotations.shape[-dims]
    return rotations if heads == 1 else rotations.repeat_interleave(x.shape[1] // heads, -dims)


def _on_patch_features(
    rotate: Callable[[Tensor], Tensor], x: Tensor, features: int, num_prefix_tokens: int
) -> Tensor:
    """Applies rotate to the first features of the tokens after the prefix and copies the rest."""
    prefix, patches = x[:, :, :num_prefix_tokens], x[:, :, num_prefix_tokens:]
    if patches.numel() == 0:  # an empty FFT is an error in MKL
        return x.clone()
    rotated = rotate(patches[..., :features]).to(x.dtype)
    return torch.cat((prefix, torch.cat((rotated, patches[..., features:]), -1)), 2)
