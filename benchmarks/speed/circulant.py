"""The forms of the circulant rotation: ours, torch's FFT, dense products with a Fourier basis."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from benchmarks.speed.cases import BenchCase
from benchmarks.speed.forms import Maker, one_pass
from benchmarks.speed.peers import packed_qk
from lierope import ops


def circulant(case: BenchCase, device: torch.device) -> dict[str, Maker]:
    """Coefficients and positions to rotated x, block by block of b features."""
    b = case.option("block_size")
    x, _ = packed_qk(case, device, requires_grad=True)
    H, N, D = x.shape[1:]
    generator = torch.Generator().manual_seed(0)
    c = torch.randn(2, H, D // b, b, generator=generator).to(device).requires_grad_()
    positions = torch.rand(N, 2, generator=generator).to(device)
    basis = fourier_basis(b, device)

    def ours(x: Tensor, c: Tensor) -> Tensor:
        return ops.circulant_rotate(x, c, positions)

    def by_fft(x: Tensor, c: Tensor) -> Tensor:
        t = 2 * torch.einsum("chgm,nc->hngm", torch.fft.rfft(c).imag, positions)
        turns = torch.polar(torch.ones_like(t), t)
        spectrum = torch.fft.rfft(x.reshape(*x.shape[:-1], D // b, b)) * turns
        y: Tensor = torch.fft.irfft(spectrum, n=b)
        return y.flatten(-2)

    def dense(x: Tensor, c: Tensor) -> Tensor:
        planes = (b - 1) // 2
        t = 2 * torch.einsum("chgm,nc->hngm", torch.fft.rfft(c).imag, positions)
        t = t[..., 1 : 1 + planes]
        cos, sin = t.cos(), t.sin()
        z = x.reshape(*x.shape[:-1], D // b, b) @ basis.mT
        u, v, still = torch.split(z, [planes, planes, b - 2 * planes], -1)
        z = torch.cat((u * cos - v * sin, u * sin + v * cos, still), -1)
        return (z @ basis).flatten(-2)

    leaves, backward = (x, c), case.backward
    return {
        "lierope": lambda: one_pass(ours, leaves, backward),
        "torch.fft": lambda: one_pass(by_fft, leaves, backward),
        "dense DFT": lambda: one_pass(dense, leaves, backward),
    }


def fourier_basis(b: int, device: torch.device) -> Tensor:
    """Rows: cosines and minus sines of each turning plane, then what does not turn; orthonormal."""
    planes = (b - 1) // 2
    j = torch.arange(b, dtype=torch.float64)
    phase = torch.arange(1, planes + 1).double().unsqueeze(-1) * j * (2 * math.pi / b)
    still = [torch.ones(b).double()] + ([] if b % 2 else [1 - 2 * (j % 2)])
    rows = (math.sqrt(2 / b) * phase.cos(), -math.sqrt(2 / b) * phase.sin())
    return torch.cat((*rows, torch.stack(still) / math.sqrt(b))).float().to(device)
