"""Makes an operator differentiable, once, for every transform: eager, double backward, forward mode, torch.func, compile.

`torch.library.register_autograd` serves opcheck, compile and export but fails under `torch.func`; an
`autograd.Function` with vmap and jvp serves `torch.func` but `torch.compile` refuses its jvp. So the same rule is given
to both: the operator carries it for the compiler, the Function for everything else.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

import lierope._library  # noqa: F401 (the operators are there once it is loaded)

Composed = Callable[..., Any]


class Backward(Protocol):
    """Rule for the gradient: tensors and options as the operator got them, gradients of its outputs."""

    def __call__(
        self, tensors: Sequence[Tensor], options: Sequence[Any], needs: Sequence[bool], *grads: Tensor
    ) -> Sequence[Tensor | None]:
        """Return one gradient for each of `tensors`; `needs` says which are wanted."""


Jvp = Callable[[Sequence[Tensor], Sequence[Any], Sequence[Tensor]], Any]


def differentiable(
    op: Any,
    tensors: int,
    composed: Composed,
    backward: Backward | None = None,
    jvp: Jvp | None = None,
) -> Callable[..., Any]:
    """Return `op` as a function that can be differentiated to any order `composed` can.

    Args:
        op: An operator whose first `tensors` arguments are tensors and whose others are plain options.
        tensors: How many.
        composed: The same function of the same arguments, composed of differentiable ones. Derivatives for which there
            is no kernel (forward mode, second order) come from it.
        backward: The rule for the gradient, usually another differentiable operator; by default that of `composed`.
        jvp: Rule for forward mode (tensors, options, tangents); by default that of `composed`.
    """
    gradient = backward or _backward_of(composed)
    tangent = jvp or _jvp_of(composed)

    class Rule:
        @staticmethod
        def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
            ctx.save_for_backward(*inputs[:tensors])
            ctx.save_for_forward(*inputs[:tensors])
            ctx.options = inputs[tensors:]

        @staticmethod
        def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
            needs = ctx.needs_input_grad[:tensors]
            results = gradient(ctx.saved_tensors, ctx.options, needs, *grads)
            return (*results, *(None for _ in ctx.options))

        @staticmethod
        def jvp(ctx: Any, *tangents: Tensor | None) -> Any:
            primals = ctx.saved_tensors
            given = [torch.zeros_like(p) if t is None else t for p, t in zip(primals, tangents, strict=False)]
            return tangent(primals, ctx.options, given)

        @staticmethod
        def vmap(info: Any, in_dims: tuple[int | None, ...], *args: Any) -> Any:
            return _looped(call, info.batch_size, in_dims, args)

    members = {name: Rule.__dict__[name] for name in ("setup_context", "backward", "jvp", "vmap")}
    name = str(op).replace(".", "_")
    function: Any = type(name, (torch.autograd.Function,), {"forward": staticmethod(op), **members})
    torch.library.register_autograd(
        op,
        Rule.backward,
        setup_context=lambda ctx, inputs, output: Rule.setup_context(ctx, inputs, output),
    )

    def call(*args: Any) -> Any:
        return op(*args) if torch.compiler.is_compiling() else function.apply(*args)

    return call


def vjp_of(composed: Composed, inputs: Sequence[Tensor], options: Sequence[Any], grads: Any) -> Any:
    """Gradients of `composed(*inputs, *options)` for the gradients of its outputs; itself differentiable."""
    _, pullback = torch.func.vjp(lambda *args: composed(*args, *options), *inputs)
    return pullback(grads)


def _backward_of(composed: Composed) -> Backward:
    def backward(
        tensors: Sequence[Tensor], options: Sequence[Any], needs: Sequence[bool], *grads: Tensor
    ) -> Sequence[Tensor | None]:
        return tuple(vjp_of(composed, tensors, options, grads if len(grads) > 1 else grads[0]))

    return backward


def _jvp_of(composed: Composed) -> Jvp:
    def jvp(tensors: Sequence[Tensor], options: Sequence[Any], tangents: Sequence[Tensor]) -> Any:
        # Forward mode does not nest, reverse mode does: the pullback is linear in the gradients it
        # is given, and the transpose of that linear map is the tangent map.
        results, pullback = torch.func.vjp(lambda *args: composed(*args, *options), *tensors)
        zeros = torch.zeros_like(results) if isinstance(results, Tensor) else tuple(map(torch.zeros_like, results))
        _, transposed = torch.func.vjp(pullback, zeros)
        return transposed(tuple(tangents))[0]

    return jvp


def _looped(call: Composed, size: int, dims: Sequence[int | None], args: Sequence[Any]) -> Any:
    """Batching rule for operators whose kernels have no room for one more batch dimension: one call each."""
    results = []
    for i in range(size):
        results.append(
            call(*(a if d is None else a.select(d, i) for a, d in zip(args, dims, strict=True)))
        )
    if isinstance(results[0], Tensor):
        return torch.stack(results), 0
    stacked = tuple(torch.stack(parts) for parts in zip(*results, strict=True))
    return stacked, (0,) * len(stacked)


def single_precision(x: Tensor) -> Tensor:
    """Upcast bfloat16 and float16: angles and exponentials are computed in float32 or better."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def back_to(x: Tensor, like: Tensor) -> Tensor:
    """Cast a result to the dtype that came, except under autocast, which keeps float32 as torch's own exp does."""
    autocast = torch.is_autocast_enabled(like.device.type)
    return x if autocast else x.to(like.dtype)
