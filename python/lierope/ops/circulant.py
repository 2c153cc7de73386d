"""Circulant rotations: exponentials of skew circulant generators, by real FFTs of each block."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lierope._library import circulant_block_sizes
from lierope.ops import rules
from lierope.ops.autograd import differentiable, single_precision, under_autocast, vjp_of
from lierope.ops.rotate_blocks import by_head
from lierope.ops.rows import empty_rows

IN_LIBRARY = circulant_block_sizes()  # every other size goes through torch.fft


def _composed(
    q: Tensor, k: Tensor, angles: Tensor, block_size: int, num_prefix_tokens: int, inverse: bool
) -> tuple[Tensor, Tensor]:
    modes = (block_size - 1) // 2
    blocks = angles.shape[-1] // modes
    features = blocks * block_size

    def rotate(x: Tensor) -> Tensor:
        if x.numel() == 0:
            return x.clone()  # torch.fft refuses an empty batch
        t = by_head(-angles if inverse else angles, x.shape[1], -3).unflatten(-1, (blocks, modes))
        rotated = x[:, :, num_prefix_tokens:, :features].to(t.dtype).unflatten(-1, (blocks, -1))
        spectrum = torch.fft.rfft(rotated)
        turned = spectrum[..., 1 : modes + 1] * torch.complex(t.cos(), t.sin())
        spectrum = torch.cat((spectrum[..., :1], turned, spectrum[..., modes + 1 :]), -1)
        y = torch.fft.irfft(spectrum, n=block_size).flatten(-2).to(x.dtype)
        rest = torch.cat((y, x[:, :, num_prefix_tokens:, features:]), -1)
        return torch.cat((x[:, :, :num_prefix_tokens], rest), 2)

    return rotate(q), rotate(k)


def _composed_backward(
    q_grad: Tensor,
    k_grad: Tensor,
    q_rotated: Tensor,
    k_rotated: Tensor,
    angles: Tensor,
    block_size: int,
    num_prefix_tokens: int,
) -> Any:
    options = (block_size, num_prefix_tokens)
    q, k = _composed(q_rotated, k_rotated, angles, *options, True)
    return vjp_of(_composed, (q, k, angles), (*options, False), (q_grad, k_grad))


_backward = differentiable(
    torch.ops.lierope.rotate_circulant_backward.default, 5, _composed_backward
)


def _gradient(
    tensors: Sequence[Tensor], options: Sequence[Any], needs: Sequence[bool], *grads: Tensor
) -> tuple[Tensor, Tensor, Tensor | None]:
    q_rotated, k_rotated, angles = tensors
    block_size, num_prefix_tokens, inverse = options
    if not needs[2]:
        q_out, k_out = _rotate(*grads, angles, block_size, num_prefix_tokens, not inverse)
        return q_out, k_out, None
    t = -angles if inverse else angles
    q_out, k_out, t_out = _backward(*grads, q_rotated, k_rotated, t, block_size, num_prefix_tokens)
    return q_out, k_out, -t_out if inverse else t_out


_rotate = differentiable(
    torch.ops.lierope.rotate_circulant.default, 3, _composed, _gradient, saved_outputs=2
)


@torch.library.register_fake("lierope::rotate_circulant")
def _fake(
    q: Tensor, k: Tensor, angles: Tensor, block_size: int, num_prefix_tokens: int, inverse: bool
) -> tuple[Tensor, Tensor]:
    rules.rotate_circulant(q, k, angles, block_size, num_prefix_tokens)
    return empty_rows(q, q), empty_rows(k, q)


@torch.library.register_fake("lierope::rotate_circulant_backward")
def _fake_backward(
    q_grad: Tensor,
    k_grad: Tensor,
    q_rotated: Tensor,
    k_rotated: Tensor,
    angles: Tensor,
    block_size: int,
    num_prefix_tokens: int,
) -> tuple[Tensor, Tensor, Tensor]:
    return (
        empty_rows(q_rotated, q_grad),
        empty_rows(k_rotated, q_grad),
        angles.new_empty(angles.shape),
    )


def _check_angles(coefficients: Tensor, positions: Tensor) -> None:
    op, got = "circulant_angles", f"got {rules.shape(coefficients)}"
    if coefficients.dim() != 4:
        raise ValueError(f"{op}: coefficients must have shape (C, H, G, b), {got}")
    if 0 in coefficients.shape:  # no Fourier transform takes nothing
        raise ValueError(f"{op}: coefficients must have sizes of 1 or more, {got}")
    if positions.dim() < 2 or positions.shape[-1] != coefficients.shape[0]:
        raise ValueError(
            f"{op}: positions must have shape (..., M, {coefficients.shape[0]}), "
            f"got {rules.shape(positions)}"
        )
    rules.full(op, "coefficients", coefficients)
    rules.check(
        positions.dtype == coefficients.dtype,
        lambda: (
            f"{op}: positions must have the dtype of coefficients, "
            f"{rules.dtype(coefficients)}, got {rules.dtype(positions)}"
        ),
    )
    rules.one_device(op, "coefficients", coefficients, positions=positions)


def circulant_angles(coefficients: Tensor, positions: Tensor) -> Tensor:
    r"""Angles by which each mode of each block turns at each position.

    .. math:: t_m(p) = 2 \sum_c p_c \operatorname{Im}(\operatorname{rfft} a_c)_m, \qquad
        m = 1 \dots \lfloor (b-1)/2 \rfloor

    t is the imaginary part of the eigenvalues of Σ_c p_c (C_c − C_cᵀ), C_c the circulant matrix
    with first column a_c. Modes 0 and b/2 have the eigenvalue 0: they never turn.

    Args:
        coefficients: a: (C, H, G, b), float32 or float64.
        positions: (..., M, C), of the same dtype; any units.

    Returns:
        (..., H, M, G·⌊(b−1)/2⌋), in radians.

    Raises:
        TypeError: No dense tensor.
        ValueError: Shapes that do not fit.
        RuntimeError: Dtypes or devices that do not fit.

    Source: Circulant-STRING, arXiv 2502.02562, theorem 3.5.

    Example:
        >>> angles = lierope.ops.circulant_angles(torch.randn(2, 3, 4, 16), torch.rand(196, 2))
        >>> angles.shape  # 4 blocks of 7 modes each
        torch.Size([3, 196, 28])
    """
    rules.tensors("circulant_angles", coefficients=coefficients, positions=positions)
    coefficients, positions = single_precision(coefficients), single_precision(positions)
    _check_angles(coefficients, positions)
    modes = (coefficients.shape[-1] - 1) // 2
    eigenvalues = 2 * torch.fft.rfft(coefficients).imag[..., 1 : modes + 1]  # (C, H, G, modes)
    # Elementwise, since autocast would round a product of matrices to 16 bits.
    table = eigenvalues.flatten(2).unsqueeze(2)  # (C, H, 1, G * modes)
    parts = [p[..., None, :, None] * t for p, t in zip(positions.unbind(-1), table, strict=True)]
    return torch.stack(parts).sum(0) if len(parts) != 1 else parts[0]


def rotate_circulant(
    q: Tensor, k: Tensor, angles: Tensor, block_size: int, *, num_prefix_tokens: int = 0
) -> tuple[Tensor, Tensor]:
    r"""Turn the modes of each block of features of queries and keys in one pass.

    .. math:: y = \operatorname{irfft}(e^{i t} \operatorname{rfft}(x))
        \quad\text{for each block of } b \text{ features}

    Args:
        q: (B, Hq, N, D); float32, float64, bfloat16 or float16. Strided inputs are read in place.
        k: (B, Hk, N, D), of q's dtype; Hk may be smaller (grouped-query attention) or 0.
        angles: t in radians: (H, M, G·⌊(b−1)/2⌋), or (B, H, M, …) per sample, with M = N −
            num_prefix_tokens, G·b ≤ D and H a divisor of Hq and Hk. float64 when q is, else
            float32.
        block_size: b. Sizes to 4096 that are products of 2, 3 and 5 have kernels; others go through
            `torch.fft`.
        num_prefix_tokens: The first tokens (class token, registers), which are copied unrotated.

    Returns:
        q and k rotated: new dense tensors of the same shapes and dtypes, in memory in the order of
        q: (B, N, H, D) where the heads of a token lie side by side, else (B, H, N, D). Features
        past G·b are copied.

    Raises:
        TypeError: No dense tensor, no integer.
        ValueError: A block size below 1, an integer of more than 64 bits.
        RuntimeError: Shapes, dtypes or devices that do not fit.

    Source: Circulant-STRING, arXiv 2502.02562, theorem 3.5.

    Example:
        >>> q, k = torch.randn(2, 2, 3, 196, 64).unbind()
        >>> q, k = lierope.ops.rotate_circulant(q, k, torch.rand(3, 196, 28), block_size=16)
    """
    op = "rotate_circulant"
    rules.tensors(op, q=q, k=k, angles=angles)
    block_size = rules.whole(op, "block_size", block_size)
    prefix = rules.whole(op, "num_prefix_tokens", num_prefix_tokens)
    if block_size < 1:
        raise ValueError(f"{op}: block_size must be 1 or more, got {block_size}")
    if under_autocast(q):
        angles = single_precision(angles)
    if block_size not in IN_LIBRARY and not torch.compiler.is_compiling():
        rules.rotate_circulant(q, k, angles, block_size, prefix)
    if block_size <= 2:  # only modes that never turn
        return empty_rows(q, q).copy_(q), empty_rows(k, q).copy_(k)
    rotate = _rotate if block_size in IN_LIBRARY else _composed
    return rotate(q, k, angles, block_size, prefix, False)


def circulant_rotate(
    x: Tensor, coefficients: Tensor, positions: Tensor, *, num_prefix_tokens: int = 0
) -> Tensor:
    r"""Rotate x by exponentials of skew circulant matrices, in O(D log b) a token.

    .. math:: y = \exp\Big(\sum_c p_c (C_c - C_c^\top)\Big) x
        \quad\text{for each block of } b \text{ features}

    Args:
        x: (B, H, N, D); float32, float64, bfloat16 or float16.
        coefficients: (C, Hc, G, b), first columns of the circulant matrices C; Hc a divisor of H,
            G·b ≤ D.
        positions: (M, C), or (B, M, C) per sample, with M = N − num_prefix_tokens; any units.
        num_prefix_tokens: The first tokens (class token, registers), which are copied unrotated.

    Returns:
        y, a new dense tensor of x's shape, dtype and order of memory (that of heads and tokens).

    Raises:
        TypeError: No dense tensor, no integer.
        ValueError, RuntimeError: Shapes, dtypes or devices that do not fit.

    Source: Circulant-STRING, arXiv 2502.02562, section 3 and theorem 3.5.

    Example:
        >>> x, a = torch.randn(2, 3, 196, 64), torch.randn(2, 3, 4, 16)
        >>> y = lierope.ops.circulant_rotate(x, a, torch.rand(196, 2))
        >>> torch.allclose(y.norm(dim=-1), x.norm(dim=-1), atol=1e-4)
        True
    """
    rules.tensors("circulant_rotate", x=x)
    angles = circulant_angles(coefficients, positions)
    block_size = coefficients.shape[-1]
    if x.dim() != 4:
        raise ValueError(f"circulant_rotate: x must have shape (B, H, N, D), got {rules.shape(x)}")
    return rotate_circulant(x, x[:, :0], angles, block_size, num_prefix_tokens=num_prefix_tokens)[0]
