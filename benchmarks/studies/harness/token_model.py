"""A small pre-norm transformer over tokens at given positions, with any encoding of the library."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from lierope import encodings


class Attention(nn.Module):
    """Self-attention whose queries and keys the encoding rotates."""

    def __init__(self, dim: int, heads: int, encoding: encodings.Encoding) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(dim, 3 * dim, bias=False), nn.Linear(dim, dim)
        self.encoding = encoding

    def forward(self, x: Tensor, positions: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
        """Of x (B, N, dim) at positions (N, C) or (B, N, C); mask (B, N): keys that exist."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        q, k = self.encoding(q, k, positions)
        keys = None if mask is None else mask[:, None, None, :]
        y = functional.scaled_dot_product_attention(q, k, v, keys, is_causal=causal)
        out: Tensor = self.proj(y.transpose(1, 2).flatten(2))
        return out


class Block(nn.Module):
    """Attention and MLP, each after a norm and beside a residual path."""

    def __init__(self, dim: int, attention: Attention, mlp_ratio: float) -> None:
        super().__init__()
        hidden = int(dim * mlp_ratio)
        self.norm1, self.attn = nn.LayerNorm(dim), attention
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))

    def forward(self, x: Tensor, positions: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
        """Arguments as of `Attention`."""
        x = x + self.attn(self.norm1(x), positions, mask, causal)
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class TokenTransformer(nn.Module):
    """Blocks, a last norm, pooling over tokens and a linear head.

    Args:
        encoding: name as of `lierope.encodings.create`; "none" for no rotation. Each layer and
            head has parameters of its own.
        ndim: position dimensions.
        outputs: of the head.
        pool: "mean", "max", or "none" for an output at each token.
        causal: whether a token sees only those before it.
        options: of the encoding.
    """

    def __init__(
        self,
        encoding: str,
        ndim: int,
        outputs: int,
        *,
        dim: int = 64,
        depth: int = 2,
        heads: int = 4,
        mlp_ratio: float = 2.0,
        pool: str = "mean",
        causal: bool = False,
        options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.pool, self.causal = pool, causal
        self.blocks = nn.ModuleList(
            Block(
                dim,
                Attention(
                    dim,
                    heads,
                    encodings.create(encoding, dim // heads, heads, ndim, **(options or {})),
                ),
                mlp_ratio,
            )
            for _ in range(depth)
        )
        self.norm, self.head = nn.LayerNorm(dim), nn.Linear(dim, outputs)
        self.apply(_start)

    @property
    def encoding(self) -> encodings.Encoding:
        """That of the first layer; its `default_positions` are those it starts for."""
        block = self.blocks[0]
        assert isinstance(block, Block)
        return block.attn.encoding

    def forward(self, x: Tensor, positions: Tensor, mask: Tensor | None = None) -> Tensor:
        """Outputs (B, outputs), or (B, N, outputs) without pooling.

        Args:
            x: embedded tokens (B, N, dim).
            positions: (N, C) or (B, N, C).
            mask: (B, N), False where a token is padding.
        """
        for block in self.blocks:
            x = block(x, positions, mask, self.causal)
        x = self.norm(x)
        if self.pool != "none":
            x = _pooled(x, mask, self.pool)
        out: Tensor = self.head(x)
        return out


def position_parameters(model: nn.Module) -> int:
    """How many numbers the encodings of a model learn."""
    found = {
        id(p): p.numel()
        for module in model.modules()
        if isinstance(module, encodings.Encoding)
        for p in module.parameters()
        if p.requires_grad
    }
    return sum(found.values())


def _pooled(x: Tensor, mask: Tensor | None, pool: str) -> Tensor:
    if mask is None:
        return x.mean(1) if pool == "mean" else x.amax(1)
    if pool == "mean":
        weight = mask[..., None].to(x.dtype)
        return (x * weight).sum(1) / weight.sum(1)
    return x.masked_fill(~mask[..., None], -torch.inf).amax(1)


def _start(module: nn.Module) -> None:
    # 1/sqrt(fan in): at timm's 0.02 so narrow a model stands still for hundreds of steps.
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=module.in_features**-0.5)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
