"""Diagnostics: what is measured agrees with what is known."""

import json
import math

import pytest
import torch
from torch import nn

import lierope
from lierope import reference
from lierope.diagnostics import generator_matrices, inspect, inspect_model, rotation_matrices
from lierope.encodings import create, names

POINTS = torch.rand(3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", [name for name in names() if name != "se3"])  # poses
def test_reports_are_plain_and_leave_the_encoding_alone(name: str) -> None:
    encoding = create(name, 16, 2, num_kv_heads=1)
    before = {key: t.clone() for key, t in encoding.state_dict().items()}
    report = inspect(encoding)
    assert json.loads(json.dumps(report.as_dict()))["parameters"] == report.parameters
    assert report.parameters == sum(p.numel() for p in encoding.parameters())
    assert report.orthogonality_error < 5e-5
    assert name not in report.encoding or len(name) == 0 or report.encoding[0].isupper()
    after = encoding.state_dict()
    assert all(
        torch.equal(after[key], t) and after[key].dtype == t.dtype for key, t in before.items()
    )
    assert report == inspect(encoding)


@pytest.mark.parametrize("name", ["axial", "mixed", "liere:4", "circulant:8", "cayley"])
@torch.no_grad()
def test_rotations_are_exponentials_of_the_generators_measured(name: str) -> None:
    encoding = create(name, 16, 2, dtype=torch.float64)
    generators = generator_matrices(encoding)
    assert generators.shape == (2, 2, 16, 16)
    assert (generators + generators.mT).abs().max() < 1e-12
    skew = torch.einsum("chij,mc->hmij", generators, POINTS)
    expected = reference.expm_skew_oracle(skew)
    assert (rotation_matrices(encoding, POINTS) - expected).abs().max() < 1e-11


@torch.no_grad()
def test_frequencies_are_those_of_the_parameters() -> None:
    mixed = create("mixed", 16, 3)
    report = inspect(mixed)
    sizes = mixed.get_parameter("frequencies").abs()
    for axis in range(2):
        spread = report.frequencies[axis]
        assert math.isclose(spread.largest, sizes[axis].max(), rel_tol=1e-6)
        assert math.isclose(spread.least, sizes[axis].min(), rel_tol=1e-5)
        assert math.isclose(
            report.generator_norms[axis].least, sizes[axis].amax(-1).min(), rel_tol=1e-6
        )


@torch.no_grad()
def test_generators_are_seen_through_a_factor_that_is_not_orthogonal() -> None:
    torch.manual_seed(0)
    encoding = create("harope", 8, 2, dtype=torch.float64)
    for parameter in encoding.parameters():
        parameter.add_(torch.randn_like(parameter), alpha=0.3)
    report = inspect(encoding)
    sizes = encoding.get_parameter("frequencies").abs()
    assert math.isclose(report.frequencies[0].largest, sizes[0].max(), rel_tol=1e-9)
    assert report.commutator < 1e-9
    assert report.orthogonality_error > 0.1


def test_only_liere_with_blocks_above_two_breaks_the_relative_law() -> None:
    for name in (*(set(names()) - {"se3"}), "liere:2", "liere:4"):
        report = inspect(create(name, 16, 2), extent=1.0)
        commutes = name not in ("liere", "liere:4")
        assert (report.commutator < 1e-9) == commutes
        assert (report.relativity_violation.largest < 1e-9) == commutes
        assert report.commutator <= math.sqrt(0.5)


@torch.no_grad()
def test_angles_rounding_and_zeros_are_those_of_the_parameters() -> None:
    mixed = create("mixed", 8, 2)
    frequencies = mixed.get_parameter("frequencies")
    frequencies.zero_()
    frequencies[0, 1, 2] = 3.0
    report = inspect(mixed, extent=100.0, samples=512)
    assert 0.98 * 300 < report.largest_angle <= 300
    assert 1e-6 < report.rounding_error < 300 * 2**-23
    assert report.sparsity == {"frequencies": 15 / 16}
    assert inspect(mixed.double(), extent=100.0).rounding_error == 0
    assert inspect(create("none", 8, 2)).sparsity == {}
    liere = create("liere:4", 8, 1, dtype=torch.float64)
    corners = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], dtype=torch.float64)
    matrices = torch.einsum("mc,cij->mij", corners, generator_matrices(liere)[:, 0])
    largest = float(torch.linalg.matrix_norm(matrices, 2).max())  # a norm is convex
    assert 0.8 * largest < inspect(liere, extent=1.0, samples=512).largest_angle <= largest


def test_distance_of_the_basis_from_the_identity() -> None:
    cayley = lierope.CayleySTRING(16, 2)
    assert inspect(cayley).basis_distance == 0
    nn.init.normal_(cayley.skew, std=10)
    assert 1 < (inspect(cayley).basis_distance or 0) <= 2
    assert inspect(lierope.MixedRoPE(16, 2)).basis_distance is None


def test_every_encoding_of_a_model_is_found() -> None:
    model = nn.ModuleDict({"a": create("mixed", 8, 1), "b": nn.Sequential(create("liere", 8, 1))})
    reports = inspect_model(model)
    assert list(reports) == ["a", "b.0"]
    assert reports["b.0"].shapes == {"generators": (2, 1, 1, 28)}


def test_poses_are_no_points_of_a_cube() -> None:
    with pytest.raises(ValueError, match=r"^inspect: encoding must turn with coordinates, got SE3"):
        inspect(create("se3", 8, 1, 12))


def test_bad_extent() -> None:
    with pytest.raises(
        ValueError, match=r"inspect: extent and samples must be positive, got 0\.0 and 32"
    ):
        inspect(create("mixed", 8, 1), extent=0.0)
