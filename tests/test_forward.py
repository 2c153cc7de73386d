"""Every operator computes what its reference computes, in every dtype."""

import pytest
import torch

from cases import CASES, KERNELS, OpCase, compute, everywhere, outputs


def is_dense(y: torch.Tensor) -> bool:
    """Whether memory holds y's elements alone, in the order of (B, H, N) or (B, N, H)."""
    return y.is_contiguous() or y.transpose(1, 2).is_contiguous()


DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", everywhere(CASES), ids=str)
def test_forward(case: OpCase, dtype: torch.dtype) -> None:
    inputs = case.inputs(dtype)
    exact = outputs(case.reference(*(x.double() for x in inputs)))
    plain = outputs(case.reference(*(x.to(compute(dtype)) for x in inputs)))
    for y, e, p in zip(outputs(case.function(*inputs)), exact, plain, strict=True):
        assert is_dense(y)
        # Twice the error of plain torch at the arithmetic type, plus roundings to the stored type:
        # one, but in float64, where the reference is no more exact than what it judges.
        units = 64 if dtype == torch.float64 else 1
        error = (y.double() - e).abs().max()
        allowed = (
            2 * (p.double() - e).abs().max() + units * torch.finfo(y.dtype).eps * e.abs().max()
        )
        assert error <= allowed, f"{error:.2e} > {allowed:.2e}"


@pytest.mark.parametrize("case", everywhere(CASES), ids=str)
def test_inputs_are_not_changed_nor_shared(case: OpCase) -> None:
    inputs = case.inputs(torch.float32)
    before = [x.clone() for x in inputs]
    results = outputs(case.function(*inputs))
    for x, b in zip(inputs, before, strict=True):
        assert torch.equal(x, b)
        storage = x.untyped_storage().data_ptr()
        assert all(y.untyped_storage().data_ptr() != storage for y in results)


@pytest.mark.parametrize("case", everywhere(KERNELS), ids=str)
def test_repeats_bitwise_on_any_number_of_threads(case: OpCase) -> None:
    inputs = [x.requires_grad_() for x in case.inputs(torch.float32)]

    def run() -> list[torch.Tensor]:
        results = outputs(case.function(*inputs))
        weights = [torch.arange(y.numel(), device=y.device).view(y.shape).sin() for y in results]
        total = sum((w * y).sum() for w, y in zip(weights, results, strict=True))
        return [*results, *torch.autograd.grad(total, inputs)]

    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = run()
        torch.set_num_threads(3)
        assert all(torch.equal(a, b) for a, b in zip(alone, run(), strict=True))
    finally:
        torch.set_num_threads(threads)
