"""A linear layer whose rows a basis turns: the backward turns them again, nothing holds them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from lierope.ops.autograd import under_autocast
from lierope.swap.rows import basis_gradient, multiply_rows


def turned_linear(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, *, basis: Tensor, num_heads: int
) -> Tensor:
    r"""`linear(x, P W, bias)` that keeps x, P and W for the backward, not the product P W.

    .. math:: y = P W x + b, \qquad \bar x = (P W)^\top \bar y, \quad
        \bar W = P^\top \bar y x^\top, \quad \bar P = \bar y x^\top W^\top

    x, P and W are there anyway; P W would be as much memory as W once more in every layer.

    Args:
        x: (..., dim), two axes or more.
        weight: W (S·num_heads·D, dim): of q, of k, or of both on each other.
        bias: b (S·num_heads·D,), turned already.
        basis: P (H', D, D), as for `multiply_rows`.
        num_heads: Heads in each of the S projections.

    Returns:
        (..., S·num_heads·D), the same numbers in the same type as `linear` gives.
    """
    # Dynamo takes no Function with a jvp, and a compiler chooses by itself what to make anew.
    if torch.compiler.is_compiling() or not torch.is_grad_enabled():
        return linear(x, multiply_rows(basis, weight, num_heads), bias)
    # Casts by hand, because the backward runs without autocast.
    x = x.to(linear_dtype(x))
    bias = None if bias is None else bias.to(linear_dtype(bias))
    function: Any = _TurnedLinear
    y: Tensor = function.apply(x, basis, weight, bias, num_heads, linear_dtype(weight))
    return y


def linear_dtype(x: Tensor) -> torch.dtype:
    """The type to which `linear` casts an argument."""
    if under_autocast(x) and x.dtype != torch.float64:
        return torch.get_autocast_dtype(x.device.type)
    return x.dtype


class _TurnedLinear(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(
        x: Tensor,
        basis: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        num_heads: int,
        dtype: torch.dtype,
    ) -> Tensor:
        return linear(x, multiply_rows(basis, weight, num_heads).to(dtype), bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, basis, weight, _, ctx.num_heads, ctx.dtype = inputs
        learned = any(ctx.needs_input_grad[1:3])
        ctx.save_for_backward(x if learned else None, basis, weight)
        ctx.save_for_forward(x, basis, weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, basis, weight = ctx.saved_tensors
        of_x, of_basis, of_weight, of_bias = ctx.needs_input_grad[:4]
        every = grad.reshape(-1, grad.shape[-1])
        found: list[Tensor | None] = [None] * 6
        if of_x:
            found[0] = grad @ multiply_rows(basis, weight, ctx.num_heads).to(ctx.dtype)
        if of_basis or of_weight:
            turned = (every.mT @ x.reshape(-1, x.shape[-1])).to(weight.dtype)
            if of_basis:
                found[1] = basis_gradient(basis, weight, turned, ctx.num_heads)
            if of_weight:
                found[2] = multiply_rows(basis.mT, turned, ctx.num_heads)
        if of_bias:
            found[3] = every.sum(0)
        return tuple(found)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        x, basis, weight = ctx.saved_tensors
        x_t, basis_t, weight_t, bias_t = tangents[:4]
        turned, by_basis, by_weight = (
            multiply_rows(*pair, ctx.num_heads).to(ctx.dtype)
            for pair in ((basis, weight), (basis_t, weight), (basis, weight_t))
        )
        return linear(x_t, turned, bias_t) + linear(x, by_basis + by_weight)
