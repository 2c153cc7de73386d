"""Exponentials against an eigenvalue oracle: values, gradients, orthogonality, exact laws."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from lierope import ops, reference

SIZES = [1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 31, 33, 64, 128]
NORMS = [0.0, 1e-8, 1e-3, 0.1, 0.5, 1.0, 3.0, 10.0, 30.0, 100.0, 1000.0]
DTYPES = [torch.float32, torch.float64]
# Mean over Gaussian directions of |R - exp A|_2 and of |R^T R - I|_2 in float32, by spectral norm.
TABLE = {
    8: {0.1: (2.8e-8, 5.4e-8), 1: (8.8e-8, 1.5e-7), 3: (3.4e-7, 4.7e-7), 10: (5.7e-7, 8.1e-7),
        30: (1.5e-6, 1.6e-6), 100: (8.8e-6, 1.2e-5), 1000: (6.0e-5, 4.5e-5)},
    64: {0.1: (3.4e-8, 6.4e-8), 1: (1.7e-7, 2.8e-7), 3: (5.3e-7, 8.0e-7), 10: (1.1e-6, 1.8e-6),
         30: (2.2e-6, 3.3e-6), 100: (5.9e-6, 8.0e-6), 1000: (5.6e-5, 5.3e-5)},
}  # fmt: skip


def skew(a: Tensor) -> Tensor:
    """The skew matrix with a's strict upper triangle."""
    upper = a.triu(1)
    return upper - upper.mT


def directions(n: int, norm: float, dtype: torch.dtype, count: int | None = None) -> Tensor:
    """Gaussian directions of one spectral norm; below the diagonal noise that nothing may read."""
    count = count or (67 if n <= 8 else 19 if n <= 16 else 5)
    generator = torch.Generator().manual_seed(n)
    a, noise = torch.randn(2, count, n, n, generator=generator, dtype=torch.float64)
    size = torch.linalg.matrix_norm(skew(a), 2).clamp_min(1e-300)[:, None, None]
    return (a.triu(1) / size * norm + noise.tril()).to(dtype)


def gradients_like(a: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    return torch.randn(a.shape, generator=generator, dtype=torch.float64).to(a.dtype)


def gradient_oracle(a: Tensor, grad: Tensor) -> Tensor:
    """2 psi(ad_A) skew(R^T G) above the diagonal, in the eigenbasis of i A: ad_A is diagonal."""
    values, vectors = torch.linalg.eigh(1j * skew(a.double()))
    product = reference.expm_skew_oracle(a).mT @ grad.double()
    z = values[:, None, :] - values[:, :, None]  # ad_A acts as 1j z
    # (e^(iz) - 1) / (iz) = e^(iz/2) sinc(z/2), which does not cancel.
    psi = torch.polar(torch.sinc(z / (2 * torch.pi)), z / 2)
    inner = vectors.mH @ (product - product.mT).to(vectors.dtype) @ vectors
    return (vectors @ (psi * inner) @ vectors.mH).real.triu(1)


def value_and_gradient(
    function: Callable[[Tensor], Tensor], a: Tensor, grad: Tensor
) -> tuple[Tensor, Tensor]:
    a = a.clone().requires_grad_()
    value = function(a)
    (gradient,) = torch.autograd.grad(value, a, grad)
    return value.detach(), gradient


def on(device: str, function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The function computed on a device; what goes in and comes out lies on the CPU."""
    return lambda x: function(x.to(device)).cpu()


def mean_norm(x: Tensor) -> float:
    return float(torch.linalg.matrix_norm(x.double(), 2).mean())


def defect(r: Tensor) -> float:
    """Mean distance from orthogonality."""
    r = r.double()
    return mean_norm(r.mT @ r - torch.eye(r.shape[-1], dtype=r.dtype))


def relative(x: Tensor, exact: Tensor) -> float:
    """Mean relative error; 0 where there is nothing to differ from."""
    norm = torch.linalg.matrix_norm
    return float((norm(x.double() - exact) / norm(exact).clamp_min(1e-300)).mean())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("n", SIZES)
def test_never_worse_than_matrix_exp(n: int, dtype: torch.dtype, device: str) -> None:
    eps = torch.finfo(dtype).eps
    for norm in NORMS:
        a = directions(n, norm, dtype)
        grad = gradients_like(a)
        exact, exact_gradient = reference.expm_skew_oracle(a), gradient_oracle(a, grad)
        r, g = value_and_gradient(on(device, ops.expm_skew), a, grad)
        # torch's batches only: its single matrices have wrong coefficients (pytorch#196592).
        r_torch, g_torch = value_and_gradient(lambda x: torch.matrix_exp(skew(x)), a, grad)
        # In double the oracle is no better than either; in float, a result rounded once is perfect.
        floor = eps * (8 + n + norm) if dtype == torch.float64 else eps / 2
        assert mean_norm(r - exact) <= max(mean_norm(r_torch - exact), floor), norm
        assert defect(r) <= max(defect(r_torch), floor), norm
        error, error_torch = relative(g, exact_gradient), relative(g_torch, exact_gradient)
        assert error <= max(error_torch, 2 * floor), norm
        if dtype == torch.float32 and norm in TABLE.get(n, {}):
            error, orthogonality = TABLE[n][norm]
            assert mean_norm(r - exact) <= 2 * error, norm
            assert defect(r) <= 2 * orthogonality, norm


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("n", SIZES)
def test_holds_to_the_bit(n: int, dtype: torch.dtype, device: str) -> None:
    expm_skew = on(device, ops.expm_skew)
    zero = directions(n, 0.0, dtype)
    assert torch.equal(expm_skew(zero), torch.eye(n, dtype=dtype).expand_as(zero))
    for norm in (1e-8, 0.5, 5.0, 50.0, 1000.0):
        a = directions(n, norm, dtype)
        assert torch.equal(expm_skew(-a), expm_skew(a).mT), norm
        # A matrix does not depend on those beside it: on their number, place or norm.
        mixed = torch.cat([directions(n, 30.0, dtype, 3), a])
        assert torch.equal(expm_skew(mixed)[3:], expm_skew(a)), norm
        assert torch.equal(expm_skew(a[:1]), expm_skew(a)[:1]), norm


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("n", SIZES[1:])
def test_a_bad_matrix_spoils_nothing_but_itself(
    n: int, dtype: torch.dtype, bad: float, device: str
) -> None:
    expm_skew = on(device, ops.expm_skew)
    a = directions(n, 2.0, dtype)
    grad = gradients_like(a)
    r, g = value_and_gradient(expm_skew, a, grad)
    spoiled = a.clone()
    spoiled[2, 0, n - 1] = bad
    r_bad, g_bad = value_and_gradient(expm_skew, spoiled, grad)
    assert r_bad[2].isnan().all()
    assert g_bad[2][torch.ones(n, n).triu(1).bool()].isnan().all()
    others = [i for i in range(len(a)) if i != 2]
    assert torch.equal(r_bad[others], r[others])
    assert torch.equal(g_bad[others], g[others])


@pytest.mark.parametrize("block", [2, 3, 4, 5, 8, 16, 64])
def test_gradients_do_not_depend_on_threads(block: int) -> None:
    torch.manual_seed(0)
    heads, blocks, tokens = 2, max(1, 16 // block), 75
    q, k = torch.randn(2, 3, heads, tokens, blocks * block)
    generators = torch.randn(2, heads, blocks, block * (block - 1) // 2)
    inputs = [x.requires_grad_() for x in (q, k, generators, torch.randn(tokens - 1, 2))]

    def gradients() -> list[Tensor]:
        y, z = ops.lie_rotate(*inputs, num_prefix_tokens=1)
        formed = ops.lie_rotations(*inputs[2:])
        return list(torch.autograd.grad((y.sin() + z.cos()).sum() + formed.sin().sum(), inputs))

    threads = torch.get_num_threads()
    try:
        results = []
        for count in (1, 2):
            torch.set_num_threads(count)
            results.append(gradients())
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(x, y) for x, y in zip(*results, strict=True))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_sine_and_cosine(dtype: torch.dtype, device: str) -> None:
    """Side 2 is [[cos, sin], [-sin, cos]]: exact to a bound, whatever the angle.

    1.6 units in the last place; CUDA's own functions, which its kernels call, promise 2.
    """
    bound = 1.6 if device == "cpu" else 2.0
    generator = torch.Generator().manual_seed(0)
    for largest in (0.01, 1.0, 10.0, 1e4, 9e5):
        angles = torch.rand(5000, generator=generator, dtype=torch.float64) * largest
        turns = torch.arange(0, largest, torch.pi / 4, dtype=torch.float64)[:500]
        angles = torch.cat([angles, turns]).to(dtype)
        a = torch.zeros(len(angles), 2, 2, dtype=dtype)
        a[:, 0, 1] = angles
        r = on(device, ops.expm_skew)(a)
        wide = angles.numpy().astype(np.longdouble)
        # numpy's long double is no wider than double on some processors, hence the half unit.
        for ours, exact in ((r[:, 0, 0].numpy(), np.cos(wide)), (r[:, 0, 1].numpy(), np.sin(wide))):
            unit = np.spacing(np.abs(exact).astype(ours.dtype)).astype(np.longdouble)
            near_zero = np.abs(exact) < 2.0**-40  # there the absolute error counts
            error = np.abs(ours.astype(np.longdouble) - exact) / unit
            assert np.max(error, initial=0, where=~near_zero) <= bound
            assert np.max(np.abs(ours - exact), initial=0, where=near_zero) <= 2.0**-70


def test_far_angles(device: str) -> None:
    for dtype, angle in ((torch.float32, 3e8), (torch.float32, 1e30), (torch.float64, 1e22)):
        a = torch.tensor([[[0.0, angle], [0, 0]], [[0.0, 0.5], [0, 0]]], dtype=dtype)
        expected = torch.stack([a[:, 0, 1].double().cos(), a[:, 0, 1].double().sin()], -1)
        found = on(device, ops.expm_skew)(a)[:, 0]
        torch.testing.assert_close(found, expected.to(dtype), rtol=2e-7, atol=0)
