"""One bad number stays where it is: in its token and head, in this call, forward and backward."""

import pytest
import torch

from cases import KERNELS, OpCase, everywhere, normal, outputs
from lierope import ops

BAD = [float("nan"), float("inf")]


def _gradients(case: OpCase, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
    leaves = [x.detach().clone().requires_grad_() for x in inputs]
    results = outputs(case.function(*leaves))
    return [*results, *torch.autograd.grad(sum(y.sum() for y in results), leaves)]


@pytest.mark.parametrize("case", everywhere(KERNELS), ids=str)
def test_a_bad_call_leaves_nothing_for_the_next(case: OpCase) -> None:
    inputs = list(case.inputs(torch.float32))
    expected = _gradients(case, inputs)
    for i, x in enumerate(inputs):
        _gradients(case, [*inputs[:i], torch.full_like(x, float("nan")), *inputs[i + 1 :]])
        for y, e in zip(_gradients(case, inputs), expected, strict=True):
            assert torch.equal(y, e)


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("b", [2, 3, 4, 5, 8, 12, 16, 33, 64])
def test_position(b: int, bad: float, device: str) -> None:
    q = normal(2, 2, 29, b, dtype=torch.float32).to(device).requires_grad_()
    generators = normal(2, 2, 1, b * (b - 1) // 2, dtype=torch.float32).to(device)
    generators.requires_grad_()
    positions = normal(29, 2, dtype=torch.float32).to(device)
    spoilt = positions.clone()
    spoilt[7, 1] = bad
    results = []
    for p in (positions, spoilt):
        p.requires_grad_()
        y, _ = ops.lie_rotate(q, q, generators, p)
        formed = ops.lie_rotations(generators, p)
        *own, shared = torch.autograd.grad(y.sin().sum(), (q, p, generators))
        results.append((y, *own, formed[None]))
        for gradient in (shared, *torch.autograd.grad(formed.sin().sum(), generators)):
            assert gradient.isnan().all() == (p is spoilt)
    others = torch.arange(29, device=device) != 7
    for good, got in zip(results[0], results[1], strict=True):
        token = -2 if good.dim() == 2 else 2
        rows = others.nonzero().flatten()
        assert torch.equal(got.index_select(token, rows), good.index_select(token, rows))
        assert got.select(token, 7).isnan().all()


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("op", ["rotate_pairs", "rotate_blocks", "rotate_circulant"])
def test_token(op: str, bad: float, device: str) -> None:
    extra = {
        "rotate_pairs": (normal(2, 19, 4, dtype=torch.float32),),
        "rotate_blocks": (normal(2, 19, 1, 8, 8, dtype=torch.float32),),
        "rotate_circulant": (normal(2, 19, 3, dtype=torch.float32),),
    }[op]
    sizes = (8,) if op == "rotate_circulant" else ()
    q, *extra = (x.to(device) for x in (normal(2, 2, 19, 8, dtype=torch.float32), *extra))
    spoilt = q.clone()
    spoilt[1, 0, 7, 3] = bad
    good, got = (getattr(ops, op)(x, x, *extra, *sizes)[0] for x in (q, spoilt))
    changed = ~torch.isclose(got, good, rtol=0, atol=0)
    assert changed[1, 0, 7].any()
    changed[1, 0, 7] = False
    assert not changed.any()


@pytest.mark.parametrize("op", [ops.expm_skew, ops.cayley])
@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("n", [2, 3, 4, 6, 8, 11, 16, 33])
def test_matrix(n: int, bad: float, op, device: str) -> None:  # type: ignore[no-untyped-def]
    a = normal(21, n, n, dtype=torch.float32).to(device)
    spoilt = a.clone()
    spoilt[5, 0, 1] = bad
    good, got = op(a), op(spoilt)
    assert got[5].isnan().all()
    keep = torch.arange(21, device=device) != 5
    assert torch.equal(got[keep], good[keep])
