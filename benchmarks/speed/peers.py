"""The forms of each operator: ours, and other ways to compute the same at their best."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.speed.cases import BenchCase
from benchmarks.speed.forms import (
    Builder,
    Function,
    Maker,
    Pass,
    compiled,
    one_pass,
    optional,
    skew_of_norm,
)
from lierope import grid_positions, ops


def expm_skew(case: BenchCase, device: torch.device) -> dict[str, Maker]:
    """Exponentials of skew matrices; torch is given A itself, so that it has nothing to form."""
    dtype = getattr(torch, case.dtype)
    a = skew_of_norm(case.shape, case.norm or 1.0, device).to(dtype).requires_grad_()

    def closed(a: Tensor) -> Tensor:
        angle = a[:, 0, 1]
        cos, sin = angle.cos(), angle.sin()
        return torch.stack((cos, sin, -sin, cos), -1).view(a.shape)

    forms = {
        "lierope": ops.expm_skew,
        "torch.matrix_exp": torch.linalg.matrix_exp,
        "torch cos/sin": closed,
    }
    return {name: _maker(form, (a,), case.backward) for name, form in forms.items()}


def lie_rotate(case: BenchCase, device: torch.device) -> dict[str, Maker]:
    """A LieRE layer: generators and positions to rotated q and k."""
    b, C = case.option("block_size"), case.option("ndim")
    q, k = packed_qk(case, device, requires_grad=True)
    H, N, D = q.shape[1:]
    generator = torch.Generator().manual_seed(0)
    entries = b * (b - 1) // 2
    packed = torch.rand(C, H, D // b, entries, generator=generator) * (2 * torch.pi)
    packed = packed.to(device)
    prefix = 0 if case.option("per_sample") else 1
    if case.option("per_sample"):
        positions = torch.rand(q.shape[0], N, C, generator=generator).to(device)
    else:
        positions = square_positions(N - prefix, device)
    row, column = torch.triu_indices(b, b, 1, device=device)
    raw = torch.zeros(C, H, D // b, b, b, device=device)
    raw[..., row, column] = packed

    def ours(q: Tensor, k: Tensor, generators: Tensor) -> tuple[Tensor, Tensor]:
        return ops.lie_rotate(q, k, generators, positions, num_prefix_tokens=prefix)

    def plain(q: Tensor, k: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        return plain_lie_rotate(q, k, raw, positions, prefix)

    ours_leaves = (q, k, packed.requires_grad_())
    plain_leaves = (q, k, raw.requires_grad_())
    return {
        "lierope": _maker(ours, ours_leaves, case.backward),
        "plain": _maker(plain, plain_leaves, case.backward),
        "plain compiled": _compiled_maker(plain, plain_leaves, case.backward),
    }


def plain_lie_rotate(
    q: Tensor, k: Tensor, raw: Tensor, positions: Tensor, prefix: int
) -> tuple[Tensor, Tensor]:
    """LieRE as its authors write it: triu, einsum, matrix_exp, matmul; raw (C, H, G, b, b)."""
    upper = raw.triu(1)
    A = torch.einsum("chgij,...mc->...hmgij", upper - upper.mT, positions)
    # Through one batch dimension: matrix_exp refuses several whose strides do not collapse.
    R = torch.linalg.matrix_exp(A.flatten(0, -3)).view(A.shape)
    G, b = raw.shape[2], raw.shape[-1]

    def rotate(x: Tensor) -> Tensor:
        blocks = x[:, :, prefix:].reshape(*x[:, :, prefix:].shape[:-1], G, b)
        y = torch.einsum("...hmgij,...hmgj->...hmgi", R, blocks).flatten(-2)
        return torch.cat((x[:, :, :prefix], y), 2) if prefix else y

    return rotate(q), rotate(k)


def rotate_pairs(case: BenchCase, device: torch.device) -> dict[str, Maker]:
    """Rotation of pairs by angles; the peers are given the sines and cosines that we compute."""
    learned = case.option("learned")
    q, k = packed_qk(case, device, requires_grad=True)
    H, N, D = q.shape[1:]
    generator = torch.Generator().manual_seed(0)
    frequencies = torch.randn(2, H, D // 2, generator=generator).to(device)
    angles = torch.einsum("cha,nc->hna", frequencies, 14 * square_positions(N - 1, device))
    doubled = angles.repeat_interleave(2, -1)
    table = torch.cat((doubled.sin(), doubled.cos()), -1)
    turns = torch.polar(torch.ones_like(angles), angles)
    for tensor in (angles, table, turns):
        tensor.requires_grad_(learned)

    def ours(q: Tensor, k: Tensor, angles: Tensor) -> tuple[Tensor, Tensor]:
        return ops.rotate_pairs(q, k, angles, num_prefix_tokens=1)

    def as_timm(q: Tensor, k: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
        # As in timm's AttentionRope.forward.
        rotate = optional("timm.layers.pos_embed_sincos").apply_rot_embed_cat
        q = torch.cat([q[:, :, :1, :], rotate(q[:, :, 1:, :], table)], dim=2).type_as(q)
        k = torch.cat([k[:, :, :1, :], rotate(k[:, :, 1:, :], table)], dim=2).type_as(k)
        return q, k

    def as_complex(q: Tensor, k: Tensor, turns: Tensor) -> tuple[Tensor, Tensor]:
        # As in the authors' RoPE-ViT and in Llama.
        def rotate(x: Tensor) -> Tensor:
            z = torch.view_as_complex(x[:, :, 1:].float().reshape(*x[:, :, 1:].shape[:-1], -1, 2))
            return torch.cat((x[:, :, :1], torch.view_as_real(z * turns).flatten(3).type_as(x)), 2)

        return rotate(q), rotate(k)

    optional("lierope.timm")  # timm itself, also beside a torchvision of another build
    backward = case.backward
    return {
        "lierope": _maker(ours, (q, k, angles), backward),
        "timm": _maker(as_timm, (q, k, table), backward),
        "timm compiled": _compiled_maker(as_timm, (q, k, table), backward),
        "complex": _maker(as_complex, (q, k, turns), backward),
        "copy": lambda: one_pass(_copy, (q, k), backward, comparable=False),
    }


def packed_qk(case: BenchCase, device: torch.device, requires_grad: bool) -> tuple[Tensor, Tensor]:
    """Views q and k (B, H, N, D) as timm has them: of one projection (B, N, 3, H, D)."""
    B, H, N, D = case.shape
    generator = torch.Generator().manual_seed(2)
    qkv = torch.randn(B, N, 3, H, D, generator=generator)
    qkv = qkv.to(device, getattr(torch, case.dtype)).permute(2, 0, 3, 1, 4)
    q, k, _ = (x.detach().requires_grad_(requires_grad) for x in qkv.unbind(0))
    return q, k


def square_positions(tokens: int, device: torch.device) -> Tensor:
    """Positions of a square grid of patches, in [0, 1] as LieRE has them."""
    side = int(tokens**0.5)
    if side * side != tokens:
        raise ValueError(f"square_positions: tokens must be a square number, got {tokens}")
    return grid_positions((side, side), mode="proportional", device=device)


def _copy(q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    # With the heads of a token side by side, as they come and as our results lie.
    return q.transpose(1, 2).contiguous(), k.transpose(1, 2).contiguous()


def _maker(function: Function, leaves: tuple[Tensor, ...], backward: bool) -> Maker:
    return lambda: one_pass(function, leaves, backward)


def _compiled_maker(function: Function, leaves: tuple[Tensor, ...], backward: bool) -> Maker:
    return lambda: one_pass(compiled(function), leaves, backward)


def cayley(case: BenchCase, device: torch.device) -> dict[str, Maker]:
    """P of given S, as parameters: n(n-1)/2 numbers a matrix are what all forms need."""
    s = skew_of_norm(case.shape, case.norm or 1.0, device).triu(1).requires_grad_()
    n = case.shape[-1]

    def solve(s: Tensor) -> Tensor:
        upper = s.triu(1)
        return _cayley_by_solve(upper - upper.mT)

    def batched() -> Any:
        module = nn.Module()
        weight = torch.eye(n, device=device).repeat(case.shape[0], 1, 1)
        module.register_parameter("weight", nn.Parameter(weight))
        return module

    def parametrized() -> tuple[Function, Tensor]:
        module = batched()
        nn.utils.parametrizations.orthogonal(
            module, orthogonal_map="cayley", use_trivialization=False
        )
        original = module.parametrizations.weight.original
        return lambda original: module.weight, original

    def geotorch() -> tuple[Function, Tensor]:
        library = optional("geotorch")
        module = batched()
        library.orthogonal(module, "weight", triv="cayley")
        original = next(module.parametrizations.weight.parameters())
        return lambda original: module.weight, original

    # These two have parameters of their own: the work is the same, the matrix is not.
    def of_module(form: Function) -> Maker:
        def make() -> Pass:
            function, original = form()
            return one_pass(function, (original,), case.backward, comparable=False)

        return make

    return {
        "lierope": _maker(ops.cayley, (s,), case.backward),
        "torch solve": _maker(solve, (s,), case.backward),
        "parametrizations.orthogonal": of_module(parametrized),
        "geotorch": of_module(geotorch),
    }


def cayley_rotate(case: BenchCase, device: torch.device) -> dict[str, Maker]:
    """P x for every token."""
    x, _ = packed_qk(case, device, requires_grad=True)
    H, D, w = x.shape[1], x.shape[-1], case.option("bandwidth")
    s = skew_of_norm((H, D, D), case.norm or 1.0, device).triu(1)
    s = (s if w is None else s.tril(w)).requires_grad_()

    def ours(x: Tensor, s: Tensor) -> Tensor:
        return ops.cayley_rotate(x, s, bandwidth=w)

    def solve(x: Tensor, s: Tensor) -> Tensor:
        upper = s.triu(1) if w is None else s.triu(1).tril(w)
        return x @ _cayley_by_solve(upper - upper.mT).mT

    return {
        "lierope": _maker(ours, (x, s), case.backward),
        "torch solve": _maker(solve, (x, s), case.backward),
    }


def _cayley_by_solve(S: Tensor) -> Tensor:
    eye = torch.eye(S.shape[-1], dtype=S.dtype, device=S.device)
    result: Tensor = torch.linalg.solve(eye + S, eye - S)
    return result


OPERATORS: dict[str, Builder] = {
    "expm_skew": expm_skew,
    "lie_rotate": lie_rotate,
    "rotate_pairs": rotate_pairs,
    "cayley": cayley,
    "cayley_rotate": cayley_rotate,
}
