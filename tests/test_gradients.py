"""Gradients of every operator: first and second order, reverse and forward mode, in float64."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from cases import CASES, OpCase, compute, everywhere, outputs


def _inputs(case: OpCase) -> list[torch.Tensor]:
    return [x.clone().requires_grad_() for x in case.inputs(torch.float64)]


@pytest.mark.parametrize("case", everywhere(CASES), ids=str)
def test_first_order(case: OpCase) -> None:
    inputs = _inputs(case)
    assert gradcheck(case.function, inputs, fast_mode=True, check_batched_grad=True)
    assert gradcheck(
        case.function,
        inputs,
        fast_mode=True,
        check_forward_ad=True,
        check_backward_ad=False,
        check_batched_forward_grad=False,
    )


@pytest.mark.parametrize("case", everywhere([c for c in CASES if "17" not in c.name]), ids=str)
def test_second_order(case: OpCase) -> None:
    assert gradgradcheck(case.function, _inputs(case), fast_mode=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("case", everywhere(CASES), ids=str)
def test_against_the_reference(case: OpCase, dtype: torch.dtype) -> None:
    def gradients(function, inputs):  # type: ignore[no-untyped-def]
        inputs = [x.detach().requires_grad_() for x in inputs]
        results = outputs(function(*inputs))
        weights = [
            torch.arange(y.numel(), device=y.device).view(y.shape).sin().to(y.dtype)
            for y in results
        ]
        return torch.autograd.grad(results, inputs, weights)

    inputs = case.inputs(dtype)
    exact = gradients(case.reference, [x.double() for x in inputs])
    plain = gradients(case.reference, [x.to(compute(dtype)) for x in inputs])
    for g, e, p in zip(gradients(case.function, inputs), exact, plain, strict=True):
        error, size = (g.double() - e).abs().max(), e.abs().max()
        # Half types round q, k and the gradient that comes in: one unit in the last place of each.
        rounding = torch.finfo(dtype).eps * size * (4 if dtype == torch.bfloat16 else 1)
        assert error <= 2 * (p.double() - e).abs().max() + rounding


@pytest.mark.parametrize("case", everywhere(CASES), ids=str)
def test_only_the_gradients_asked_for(case: OpCase) -> None:
    for wanted in range(len(case.inputs(torch.float64))):
        inputs = case.inputs(torch.float64)
        full = [x.clone().requires_grad_() for x in inputs]
        alone = [x.clone().requires_grad_(i == wanted) for i, x in enumerate(inputs)]
        total = sum(y.sin().sum() for y in outputs(case.function(*full)))
        expected = torch.autograd.grad(total, full)[wanted]
        sum(y.sin().sum() for y in outputs(case.function(*alone))).backward()
        grad = alone[wanted].grad
        assert grad is not None
        torch.testing.assert_close(grad, expected, rtol=1e-12, atol=1e-12)
        assert all(x.grad is None for i, x in enumerate(alone) if i != wanted)
