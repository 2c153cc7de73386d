"""The forms of rotations as matrices: forming them, and multiplying by given ones."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.speed.cases import BenchCase
from benchmarks.speed.forms import Maker, compiled, one_pass, skew_of_norm
from benchmarks.speed.peers import packed_qk, square_positions
from lierope import ops


def lie_rotations(case: BenchCase, device: torch.device) -> dict[str, Maker]:
    """Rotations of a grid: generators (2, H, G, ...) and positions to (H, M, G, b, b)."""
    H, G, M, b = case.shape
    generator = torch.Generator().manual_seed(0)
    packed = torch.rand(2, H, G, b * (b - 1) // 2, generator=generator) * (2 * torch.pi)
    packed = packed.to(device).requires_grad_()
    row, column = torch.triu_indices(b, b, 1, device=device)
    raw = torch.zeros(2, H, G, b, b, device=device)
    raw[..., row, column] = packed.detach()
    positions = square_positions(M, device)

    def ours(generators: Tensor) -> Tensor:
        return ops.lie_rotations(generators, positions)

    def plain(raw: Tensor) -> Tensor:
        upper = raw.triu(1)
        A = torch.einsum("chgij,mc->hmgij", upper - upper.mT, positions)
        R: Tensor = torch.linalg.matrix_exp(A.flatten(0, -3)).view(A.shape)
        return R

    backward = case.backward
    return {
        "lierope": lambda: one_pass(ours, (packed,), backward),
        "plain": lambda: one_pass(plain, (raw.requires_grad_(),), backward),
    }


def rotate_blocks(case: BenchCase, device: torch.device) -> dict[str, Maker]:
    """Given rotations (H, M, G, b, b), shared by the batch, times packed q and k."""
    b = case.option("block_size")
    q, k = packed_qk(case, device, requires_grad=True)
    H, N, D = q.shape[1:]
    skew = skew_of_norm((H * (N - 1) * (D // b), b, b), 3.0, device)
    R = torch.linalg.matrix_exp(skew).view(H, N - 1, D // b, b, b).requires_grad_()

    def ours(q: Tensor, k: Tensor, R: Tensor) -> tuple[Tensor, Tensor]:
        return ops.rotate_blocks(q, k, R, num_prefix_tokens=1)

    def plain(q: Tensor, k: Tensor, R: Tensor) -> tuple[Tensor, Tensor]:
        def rotate(x: Tensor) -> Tensor:
            blocks = x[:, :, 1:].unflatten(-1, (-1, b))
            y = torch.einsum("hmgij,nhmgj->nhmgi", R, blocks).flatten(-2)
            return torch.cat((x[:, :, :1], y), 2)

        return rotate(q), rotate(k)

    leaves, backward = (q, k, R), case.backward
    return {
        "lierope": lambda: one_pass(ours, leaves, backward),
        "plain": lambda: one_pass(plain, leaves, backward),
        "plain compiled": lambda: one_pass(compiled(plain), leaves, backward),
    }
