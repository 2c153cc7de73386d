"""Generators that have grown: what float32 still holds, the warning past it, and the correction."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import lierope
from lierope import ops
from lierope.diagnostics import ANGLE_LIMIT, inspect
from lierope.encodings import create
from lierope.large_angles import warn_of_large_angles

POINTS = lierope.grid_positions((4, 4), "unit")


def grown(b: int, norm: float, **options: Any) -> lierope.LieRE:
    """A LieRE whose largest angle over the unit square is `norm` radians."""
    torch.manual_seed(0)
    encoding = lierope.LieRE(64, 2, block_size=b, init="small", **options)
    with torch.no_grad():
        encoding.generators.mul_(norm / warn_of_large_angles(encoding)[""])
    return encoding


def orthogonality(rotations: Tensor) -> float:
    """Largest entry of RᵀR − I."""
    R = rotations.detach().double()
    return float((R.mT @ R - torch.eye(R.shape[-1], dtype=torch.float64)).abs().max())


def exact(encoding: lierope.LieRE) -> Tensor:
    """The rotations in float64, of the same generators."""
    double = lierope.LieRE(64, 2, block_size=encoding.block_size, dtype=torch.float64)
    double.load_state_dict(encoding.state_dict())
    return double.rotations(POINTS.double()).detach()


# What float32 holds.


@pytest.mark.parametrize("norm", [1e-3, 1.0, 1e2, 1e4, 1e6])
@pytest.mark.parametrize("b", [2, 4, 8, 16, 64])
def test_the_error_of_a_rotation_grows_as_its_angle(b: int, norm: float) -> None:
    encoding = grown(b, norm)
    rotations = encoding.rotations(POINTS)
    difference = (rotations.double() - exact(encoding)).abs().max()
    assert difference <= 3e-7 * (1 + norm)  # 2^-24 of the angle, and a few roundings
    assert orthogonality(rotations) <= 3e-7 * (1 + norm)


@pytest.mark.parametrize("norm", [1e-3, 1.0, 1e2, 1e4])
@pytest.mark.parametrize("n", [2, 5, 16, 64])
def test_cayley_is_orthogonal_however_large(n: int, norm: float) -> None:
    """Its elimination is done in float64: nothing to correct there."""
    torch.manual_seed(0)
    s = torch.randn(3, n, n).triu(1)
    s = s * (norm / torch.linalg.matrix_norm(s - s.mT, 2).view(-1, 1, 1))
    assert orthogonality(ops.cayley(s)) <= 3e-7


@pytest.mark.parametrize("n", [2, 5, 16, 33, 64])
def test_cayley_of_small_matrices_keeps_every_digit(n: int) -> None:
    """Rounded beside 1 in the elimination, the diagonal would be off by n roundings, not by one."""
    torch.manual_seed(0)
    upper = (1e-6 * torch.randn(3, n, n, dtype=torch.float64)).triu(1)
    s = upper - upper.mT
    p = ops.cayley(upper)
    square = s @ s  # P = I - 2 S + 2 S^2 - 2 S^3 + ...
    rest = 2 * (square - square @ s)
    eps = torch.finfo(torch.float64).eps
    diagonal = (p - 1 - rest).diagonal(dim1=1, dim2=2)
    assert diagonal.abs().max() <= eps / 2 * (1 + 1e-3)
    off = (p + 2 * s - rest).masked_fill(torch.eye(n, dtype=torch.bool), 0.0)
    assert off.abs().max() <= n * eps * s.abs().max()


# The warning.


def _large(name: str, factor: float, dtype: torch.dtype = torch.float32) -> lierope.Encoding:
    torch.manual_seed(0)
    encoding = create(name, 16, 2, dtype=dtype)
    with torch.no_grad():
        for parameter in encoding.parameters():
            parameter.mul_(factor)
    return encoding


LEARNED = ["mixed", "axial:learned=True", "liere:2", "liere:8", "circulant", "cayley", "comrope-ld"]


@pytest.mark.parametrize("name", LEARNED)
def test_a_model_whose_angles_float32_does_not_hold_warns_once(name: str) -> None:
    model = nn.ModuleList([_large(name, 1.0), nn.Linear(2, 2), _large(name, 1e4)])
    with pytest.warns(UserWarning, match=r"^\w+ 2: angles must stay below 168 .*got \S+;") as seen:
        angles = warn_of_large_angles(model)
    words = [str(one.message) for one in seen if "angles" in str(one.message)]
    assert len(words) == 1
    assert "\n" not in words[0]
    assert angles.keys() == {"0", "2"}
    assert angles["0"] <= ANGLE_LIMIT < angles["2"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert warn_of_large_angles(model) == angles
        warn_of_large_angles(_large(name, 1.0))
        warn_of_large_angles(_large(name, 1e4, torch.float64))
    with pytest.warns(UserWarning, match="angles must stay below"):  # another model, another word
        warn_of_large_angles(_large(name, 1e4))


@pytest.mark.parametrize("name", LEARNED)
def test_the_angle_is_the_largest_of_the_cube(name: str) -> None:
    encoding = _large(name, 1.0)
    (angle,) = warn_of_large_angles(encoding, 2.0).values()
    report = inspect(encoding, 2.0, samples=64)
    assert report.largest_angle <= angle * (1 + 1e-5)
    assert angle <= 2.5 * report.largest_angle  # random points of a square come that near


@pytest.mark.parametrize("name", ["liere:8", "mixed"])
def test_a_generator_of_nan_is_past_every_limit(name: str) -> None:
    encoding = _large(name, float("nan"))
    with pytest.warns(UserWarning, match="got nan"):
        warn_of_large_angles(encoding)


def test_what_learns_nothing_has_no_angle_to_watch() -> None:
    assert warn_of_large_angles(nn.ModuleList([create("none", 16, 2), nn.Linear(2, 2)])) == {}


def test_training_warns_once(tmp_path: Path) -> None:
    pytest.importorskip("lierope.timm", exc_type=ImportError)
    from lierope.train.distributed import World  # noqa: PLC0415
    from lierope.train.engine import Run  # noqa: PLC0415
    from test_train import tiny  # noqa: PLC0415

    def grow(model: nn.Module) -> None:
        for encoding in lierope.encodings_of(model).values():
            nn.init.constant_(encoding.get_parameter("generators"), 1e3)

    settings = tiny(encoding="liere:8", batch_size=256)
    with pytest.warns(UserWarning, match="angles must stay below 168 radians") as seen:
        Run(settings, tmp_path, World(), prepare=grow).train()
    assert len([w for w in seen if "angles" in str(w.message)]) == 1


# The correction.


@pytest.mark.parametrize("norm", [1.0, 1e3, 1e4, 1e5])
@pytest.mark.parametrize("b", [2, 8, 64])
def test_reorthogonalized_rotations_keep_lengths(b: int, norm: float) -> None:
    plain, corrected = grown(b, norm), grown(b, norm, reorthogonalize=True)
    assert torch.equal(plain.generators, corrected.generators)
    own, other = (encoding.rotations(POINTS) for encoding in (plain, corrected))
    assert orthogonality(other) <= 1e-6
    if b >= 8 and norm >= 1e3:
        assert orthogonality(own) > 10 * orthogonality(other)
    reference = exact(plain)  # no nearer to the truth, and no farther
    errors = [float((R.detach() - reference).abs().max()) for R in (own, other)]
    assert errors[1] <= 1.2 * errors[0] + 5e-7


@pytest.mark.parametrize("b", [2, 4, 8])
def test_the_correction_changes_nothing_that_was_right(b: int) -> None:
    plain, corrected = grown(b, 3.0), grown(b, 3.0, reorthogonalize=True)
    q = torch.randn(2, 2, 18, 64)
    results = []
    for encoding in (plain, corrected):
        x = q.clone().requires_grad_()
        points = POINTS.clone().requires_grad_()
        y, z = encoding(x, q, points, 2)
        (y.sin().sum() + z.cos().sum()).backward()
        results.append((y, z, x.grad, points.grad, encoding.generators.grad))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=2e-4, atol=2e-4)
    with torch.no_grad():  # kept for evaluation
        kept = corrected.eval()(q, q, POINTS, 2)
        torch.testing.assert_close(corrected(q, q, POINTS, 2), kept, rtol=0, atol=0)
    with torch.autocast("cpu", torch.bfloat16):
        half = corrected.train()(q, q, POINTS, 2)
    torch.testing.assert_close(half, kept, rtol=1e-5, atol=1e-5)
    assert "reorthogonalize=True" in repr(corrected)
    assert "reorthogonalize" not in repr(plain)


def test_the_correction_has_the_gradient_of_the_exponential() -> None:
    torch.manual_seed(0)
    encoding = lierope.LieRE(8, 1, block_size=4, reorthogonalize=True, dtype=torch.float64)
    q = torch.randn(1, 1, 3, 8, dtype=torch.float64)

    def rotated(generators: Tensor, points: Tensor) -> Tensor:
        parameters = {"generators": generators}
        y, _ = torch.func.functional_call(encoding, parameters, (q, q, points))
        return y

    generators = (encoding.generators.detach() / 6).requires_grad_()
    points = torch.rand(3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(rotated, (generators, points), fast_mode=True)


# Steps at the papers' settings.


def set_to_random_rotations(encoding: lierope.LieRE) -> None:
    """Generators whose exponentials are random orthogonal: angles of a turn in a random basis."""
    b, shape = encoding.block_size, encoding.generators.shape[:-1]
    basis = torch.linalg.qr(torch.randn(*shape, b, b, dtype=torch.float64))[0]
    angles = (torch.rand(*shape, b // 2, dtype=torch.float64) * 2 - 1) * math.pi
    plane = torch.zeros(*shape, b, b, dtype=torch.float64)
    plane[..., range(0, b, 2), range(1, b, 2)] = angles
    skew = basis @ (plane - plane.mT) @ basis.mT
    with torch.no_grad():
        i, j = torch.triu_indices(b, b, 1)
        encoding.generators.copy_(skew[..., i, j])


@pytest.mark.parametrize("init", ["uniform", "small", "rope", "random orthogonal"])
@pytest.mark.parametrize("b", [2, 8, 64])
def test_steps_stay_finite_at_every_resolution(b: int, init: str) -> None:
    torch.manual_seed(0)
    drawn = init == "random orthogonal"
    encoding = lierope.LieRE(64, 2, block_size=b, init="uniform" if drawn else init)
    if drawn:
        set_to_random_rotations(encoding)
    optimizer = torch.optim.AdamW(encoding.parameters(), lr=1e-2, weight_decay=0)
    for side in (3, 5, 8, 14):
        mode = "index" if init == "rope" else "unit"
        points = lierope.grid_positions((side, side), mode)
        q = torch.randn(1, 2, side * side, 64)
        y, z = encoding(q, q, points)
        score = (y @ z.mT / 8).softmax(-1)
        optimizer.zero_grad()
        (score @ y).square().mean().backward()
        grad = encoding.generators.grad
        assert grad is not None
        assert grad.isfinite().all()
        assert score.isfinite().all()
        optimizer.step()
        assert encoding.generators.isfinite().all()
