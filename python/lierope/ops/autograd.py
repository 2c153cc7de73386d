"""Makes an operator differentiable, once, for every transform that PyTorch has.

`torch.library.register_autograd` serves opcheck, compile and export but fails under `torch.func`;
an `autograd.Function` with vmap and jvp serves `torch.func` but `torch.compile` refuses its jvp. So
the same rule is given to both: the operator carries it for the compiler, the Function for
everything else.
"""

import inspect
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd import forward_ad

import lierope._library  # noqa: F401 (the operators are there once it is loaded)

Composed = Callable[..., Any]


class Backward(Protocol):
    """Rule for the gradient: the tensors it saved, the options, gradients of the outputs."""

    def __call__(
        self,
        tensors: Sequence[Tensor],
        options: Sequence[Any],
        needs: Sequence[bool],
        *grads: Tensor,
    ) -> Sequence[Tensor | None]:
        """Return one gradient for each tensor argument; `needs` says which are wanted."""


Jvp = Callable[[Sequence[Tensor], Sequence[Any], Sequence[Tensor]], Any]


def differentiable(
    op: Any,
    tensors: int,
    composed: Composed,
    backward: Backward | None = None,
    jvp: Jvp | None = None,
    *,
    saved_outputs: int = 0,
) -> Callable[..., Any]:
    """Return `op` as a function that can be differentiated to any order `composed` can.

    Args:
        op: An operator whose first `tensors` arguments are tensors and whose others are plain
            options.
        tensors: How many.
        composed: The same function of the same arguments, composed of torch's own (never of ours:
            functorch cannot enter a rule a second time once the transform that recorded it has
            ended). Derivatives for which there is no kernel (forward mode, second order) come from
            it.
        backward: The rule for the gradient, usually another differentiable operator; by default
            that of `composed`.
        jvp: Rule for forward mode (tensors, options, tangents); by default that of `composed`.
        saved_outputs: The backward is given the outputs in place of that many first tensors: an
            attention keeps its rotated q and k anyway, so that a rotation which can be undone
            needs no memory of its own.
    """
    gradient = backward or _backward_of(composed)
    tangent = jvp or _jvp_of(composed)

    class Rule:
        @staticmethod
        def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
            every = (output,) if isinstance(output, Tensor) else output
            saved = every[:saved_outputs]
            ctx.save_for_backward(*saved, *inputs[saved_outputs:tensors])
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
            given = [
                torch.zeros_like(p) if t is None else t
                for p, t in zip(primals, tangents, strict=False)
            ]
            return tangent(primals, ctx.options, given)

        @staticmethod
        def vmap(info: Any, in_dims: tuple[int | None, ...], *args: Any) -> Any:
            return _looped(call, info.batch_size, in_dims, args)

    def forward(*args: Any) -> Any:
        # The operator's own derivative rule is for the compiler: here it would only cost time.
        with torch._C._AutoDispatchBelowAutograd():
            try:
                return op(*args)
            except NotImplementedError as error:  # 47 lines that list every backend
                kind = str(error).partition("from the '")[2].partition("'")[0]
                raise NotImplementedError(
                    f"{op._schema.name.partition('::')[2]}: tensors must be dense and on a CPU or "
                    f"CUDA, got the backend {kind or 'of none'}"
                ) from None

    # Function.apply asks for the signature at every call, which costs more than the call when it is
    # not at hand.
    forward.__signature__ = inspect.signature(forward)  # type: ignore[attr-defined]

    members = {name: Rule.__dict__[name] for name in ("setup_context", "backward", "jvp", "vmap")}
    name = str(op).replace(".", "_")
    function: Any = type(
        name, (torch.autograd.Function,), {"forward": staticmethod(forward), **members}
    )
    torch.library.register_autograd(
        op,
        Rule.backward,
        setup_context=Rule.setup_context,
    )

    def call(*args: Any) -> Any:
        if torch.compiler.is_compiling():
            return op(*args)
        return function.apply(*args) if _anyone_differentiates() else forward(*args)

    return call


def _anyone_differentiates() -> bool:
    """Whether gradients are recorded, tangents carried, or torch.func is at work."""
    return (
        torch.is_grad_enabled()
        or forward_ad._current_level >= 0
        or torch._C._are_functorch_transforms_active()
    )


def vjp_of(composed: Composed, inputs: Sequence[Tensor], options: Sequence[Any], grads: Any) -> Any:
    """Gradients of `composed(*inputs, *options)` for those of its outputs; differentiable."""
    return _pullback(lambda *args: composed(*args, *options), *inputs)[1](grads)


def _pullback(function: Composed, *inputs: Any) -> tuple[Any, Composed]:
    """torch.func.vjp without auxiliary outputs, whose annotation counts three results."""
    results: Any = torch.func.vjp(function, *inputs)
    return results[0], results[1]


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
        results, pullback = _pullback(lambda *args: composed(*args, *options), *tensors)
        zeros = (
            torch.zeros_like(results)
            if isinstance(results, Tensor)
            else tuple(map(torch.zeros_like, results))
        )
        return _pullback(pullback, zeros)[1](tuple(tangents))[0]

    return jvp


def _looped(call: Composed, size: int, dims: Sequence[int | None], args: Sequence[Any]) -> Any:
    """Batching rule where kernels have no room for one more batch dimension: a call each."""
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
    """Cast a result to the dtype that came, but keep float32 under autocast, as torch.exp does."""
    return x if under_autocast(like) else x.to(like.dtype)


def under_autocast(x: Tensor) -> bool:
    """Whether autocast is on for the device of `x` (some, such as meta, have none)."""
    device = x.device.type
    return torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
