"""Operators on every layout: strides, offsets, nothing at all, sizes of one."""

from collections.abc import Sequence

import pytest
import torch

from cases import KERNELS, OpCase, everywhere, normal, outputs
from lierope import ops


def _copies(x: torch.Tensor) -> list[torch.Tensor]:
    """The same numbers in other places of memory."""
    wide = x.new_empty(*x.shape, 3)[..., 1]  # last stride 3
    shifted = x.new_empty(x.numel() + 1)[1:].view(x.shape)  # unaligned
    turned = x.new_empty(x.shape[::-1]).permute(*range(x.dim() - 1, -1, -1))
    return [y.copy_(x) for y in (wide, shifted, turned)]


def _assert_same(got: Sequence[torch.Tensor], expected: Sequence[torch.Tensor]) -> None:
    # Not to the bit: vectors and the tail behind them may fuse another product of a x + b y.
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("case", everywhere(KERNELS), ids=str)
def test_strides_do_not_matter(case: OpCase) -> None:
    inputs = case.inputs(torch.float32)
    leaves = [x.clone().requires_grad_() for x in inputs]
    expected = outputs(case.function(*leaves))
    total = sum(y.sin().sum() for y in expected)
    grads = torch.autograd.grad(total, leaves)
    for i, x in enumerate(inputs):
        for copy in _copies(x):
            args = [*inputs[:i], copy.requires_grad_(), *inputs[i + 1 :]]
            results = outputs(case.function(*args))
            _assert_same(results, expected)
            (grad,) = torch.autograd.grad(sum(y.sin().sum() for y in results), [copy])
            _assert_same([grad], [grads[i]])


@pytest.mark.parametrize("case", everywhere(KERNELS), ids=str)
def test_strided_gradients(case: OpCase) -> None:
    leaves = [x.clone().requires_grad_() for x in case.inputs(torch.float32)]
    results = outputs(case.function(*leaves))
    plain = [normal(*y.shape, dtype=y.dtype).to(y.device) for y in results]
    expected = torch.autograd.grad(results, leaves, plain, retain_graph=True)
    for variant in range(3):
        grads = [_copies(g)[variant] for g in plain]
        got = torch.autograd.grad(results, leaves, grads, retain_graph=True)
        _assert_same(got, expected)
    ones = [y.new_ones(()).expand(y.shape) for y in results]  # what .sum() sends back
    assert all(
        g.shape == x.shape
        for g, x in zip(torch.autograd.grad(results, leaves, ones), leaves, strict=True)
    )


def _rotations(
    device: str, B: int, H: int, Hk: int, N: int, P: int
) -> list[tuple[torch.Tensor, ...]]:
    q, k = (normal(B, h, N, 8).to(device).requires_grad_() for h in (H, Hk))
    extras = {
        "lie_rotate": (normal(2, 1, 2, 6), normal(N - P, 2)),
        "rotate_pairs": (normal(1, N - P, 4),),
        "rotate_blocks": (normal(1, N - P, 1, 8, 8),),
        "rotate_circulant": (normal(1, N - P, 3),),
    }
    sizes = {"rotate_circulant": (8,)}
    return [
        (
            getattr(ops, op)(
                q, k, *(x.to(device) for x in extra), *sizes.get(op, ()), num_prefix_tokens=P
            ),
            q,
            k,
        )
        for op, extra in extras.items()
    ]


@pytest.mark.parametrize(
    ("B", "H", "Hk", "N", "P"),
    [(0, 2, 2, 3, 0), (2, 2, 2, 0, 0), (2, 2, 0, 3, 1), (1, 1, 1, 1, 0), (2, 2, 2, 3, 3)],
    ids=["no batch", "no tokens", "no keys", "one token", "only prefix"],
)
def test_nothing_and_one(device: str, B: int, H: int, Hk: int, N: int, P: int) -> None:
    for (y, z), q, k in _rotations(device, B, H, Hk, N, P):
        assert y.shape == q.shape
        assert z.shape == k.shape
        grads = torch.autograd.grad((y.sum() + z.sum()), (q, k))
        assert grads[0].shape == q.shape
        if P == N:
            assert torch.equal(y, q)


@pytest.mark.parametrize("shape", [(0, 4, 4), (2, 0, 3, 3), (3, 3), (1, 1), (2, 1, 1)])
@pytest.mark.parametrize("op", [ops.expm_skew, ops.cayley])
def test_matrix_batches(op, shape: tuple[int, ...], device: str) -> None:  # type: ignore[no-untyped-def]
    a = normal(*shape).to(device).requires_grad_()
    r = op(a)
    assert r.shape == shape
    (grad,) = torch.autograd.grad(r.sum(), a)
    assert grad.shape == shape
    if shape[-1] == 1:
        assert torch.equal(r, torch.ones_like(r))


@pytest.mark.parametrize("n", [129, 150])
def test_large_matrices_go_through_torch(n: int, device: str) -> None:
    a = normal(2, n, n, dtype=torch.float64).to(device) / n
    r = ops.expm_skew(a)
    torch.testing.assert_close(
        r @ r.mT, torch.eye(n, dtype=torch.float64, device=device).expand_as(r)
    )


def test_large_blocks_are_composed(device: str) -> None:
    q = normal(1, 1, 2, 132).to(device)
    generators, positions = normal(1, 1, 1, 132 * 131 // 2) / 100, normal(2, 1)
    generators, positions = generators.to(device), positions.to(device)
    y, _ = ops.lie_rotate(q, q, generators, positions)
    torch.testing.assert_close(y.norm(dim=-1), q.norm(dim=-1))


ROTATIONS = [case for case in KERNELS if case.registered[0].startswith(("rotate_", "lie_rotate"))]


@pytest.mark.parametrize("case", everywhere(ROTATIONS), ids=str)
@pytest.mark.parametrize("side_by_side", [True, False])
def test_results_keep_the_order_of_memory(case: OpCase, side_by_side: bool) -> None:
    q, k, *rest = case.inputs(torch.float32)

    def ordered(x: torch.Tensor) -> torch.Tensor:
        return x.transpose(1, 2).contiguous().transpose(1, 2) if side_by_side else x.contiguous()

    q, k = ordered(q).requires_grad_(), ordered(k).requires_grad_()
    inputs = (q, k, *(x.requires_grad_() for x in rest))
    results = outputs(case.function(*inputs))
    grads = torch.autograd.grad(results, inputs, [ordered(torch.ones_like(y)) for y in results])
    for y in (*results, *grads[:2]):
        assert (y.transpose(1, 2) if side_by_side else y).is_contiguous()


UNDONE = [case for case in ROTATIONS if not case.name.startswith("rotate_blocks")]


@pytest.mark.parametrize("case", everywhere(UNDONE), ids=str)
def test_backward_holds_no_input(case: OpCase) -> None:
    # What attention keeps is the rotated q and k: rotations that can be undone need no more.
    q, k, *rest = (x.clone().requires_grad_() for x in case.inputs(torch.float32))
    held: list[int] = []

    def pack(x: torch.Tensor) -> torch.Tensor:
        held.append(x.untyped_storage().data_ptr())
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        results = case.function(q, k, *rest)
    assert {y.untyped_storage().data_ptr() for y in results} <= set(held)
    assert not {x.untyped_storage().data_ptr() for x in (q, k)} & set(held)
