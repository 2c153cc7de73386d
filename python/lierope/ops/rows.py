"""The order of memory of rotated queries and keys."""

from torch import Tensor


def empty_rows(x: Tensor, order: Tensor) -> Tensor:
    """A dense tensor like x (B, H, N, D) whose order of memory is that of `order`.

    Where the heads of a token lie side by side, as in a projection (B, N, H, D), they stay so:
    attention's result takes the order of its queries, and the next projection reads it in that one.
    """
    if order.stride(1) < order.stride(2):
        B, H, N, D = x.shape
        return x.new_empty((B, N, H, D)).transpose(1, 2)
    return x.new_empty(x.shape)
