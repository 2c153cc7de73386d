"""Regularisers: the distance of bases from the identity, and proximal steps that leave zeros."""

import copy

import pytest
import torch
from torch import Tensor, nn

import lierope
from lierope.encodings import create
from lierope.swap import encodings_of, swap
from tiny_models import images, vit


def test_penalty_is_the_mean_distance_from_the_identity() -> None:
    torch.manual_seed(0)
    cayley = create("cayley", 8, 2, dtype=torch.float64)
    dense = create("dense-string", 8, 3, dtype=torch.float64)
    model = nn.ModuleList([cayley, dense, create("mixed", 8, 2), create("circulant", 8, 2), cayley])
    assert lierope.basis_penalty(model) == 0
    for encoding in (cayley, dense):
        nn.init.normal_(encoding.get_parameter("skew"))
    each = [
        torch.linalg.matrix_norm(p - torch.eye(8, dtype=torch.float64)).square() / 8
        for encoding in (cayley, dense)
        for p in encoding.basis()
    ]
    assert len(each) == 5
    torch.testing.assert_close(lierope.basis_penalty(model), torch.stack(each).mean())
    assert 0 < lierope.basis_penalty(cayley) <= 4


@pytest.mark.parametrize("name", ["cayley", "cayley:banded=2", "cayley:sparse=0.3", "dense-string"])
def test_penalty_pulls_a_basis_to_the_identity(name: str) -> None:
    torch.manual_seed(0)
    encoding = create(name, 8, 2, share="heads")
    skew = nn.init.normal_(encoding.get_parameter("skew"), std=0.3)
    optimizer = torch.optim.SGD([skew], lr=0.3)
    for _ in range(60):
        optimizer.zero_grad()
        lierope.basis_penalty(encoding).backward()
        optimizer.step()
    assert lierope.basis_penalty(encoding) < 1e-4
    nn.init.zeros_(skew)
    (gradient,) = torch.autograd.grad(lierope.basis_penalty(encoding), skew)
    assert torch.equal(gradient, torch.zeros_like(gradient))


def groups(encoding: lierope.Encoding) -> Tensor:
    return encoding.get_parameter("generators").detach().norm(dim=0)


@pytest.mark.parametrize("name", ["liere:4", "comrope-ap:4", "comrope-ld:4"])
def test_a_step_is_the_proximal_map(name: str) -> None:
    torch.manual_seed(0)
    encoding = create(name, 8, 2, 3 if name == "liere:4" else 2, dtype=torch.float64)
    generators = encoding.get_parameter("generators")
    nn.init.normal_(generators)
    before = generators.detach().clone()
    lierope.GroupLasso(encoding, 2.0).step(lr=0.5)
    size, kept = before.norm(dim=0), groups(encoding)
    assert (kept == 0).any()
    assert (kept > 0).any()
    torch.testing.assert_close(kept, (size - 1.0).clamp_min(0))
    assert torch.equal(generators[:, size <= 1.0], torch.zeros_like(before[:, size <= 1.0]))
    shrunk = before * (1 - 1 / size).clamp_min(0)
    torch.testing.assert_close(generators.detach(), shrunk)


def test_strength_follows_its_schedule() -> None:
    encoding = create("liere:4", 8, 1)
    lasso = lierope.GroupLasso(encoding, 4.0, start=2, ramp=4, stop=8)
    assert [lasso.strength_at(t) for t in range(10)] == [0, 0, 1, 2, 3, 4, 4, 4, 0, 0]
    assert lierope.GroupLasso(encoding, 4.0).strength_at(0) == 4
    before = encoding.get_parameter("generators").detach().clone()
    lasso.step(0.1)
    assert torch.equal(encoding.get_parameter("generators"), before)
    lasso.steps = 5
    lasso.step(0.0)
    assert torch.equal(encoding.get_parameter("generators"), before)
    assert lasso.steps == 7 - 1


def fit(lasso: lierope.GroupLasso, generators: Tensor, target: Tensor, steps: int) -> None:
    optimizer = torch.optim.SGD([generators], lr=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        (generators - target).square().sum().div(2).backward()
        optimizer.step()
        lasso.step(0.1)


def test_sparsity_is_dynamic_until_it_stops() -> None:
    """For a quadratic loss the minimiser is known: the target, shrunk by the strength."""
    torch.manual_seed(0)
    encoding = create("liere:8", 16, 2, dtype=torch.float64)
    generators = encoding.get_parameter("generators")
    target = torch.randn_like(generators)
    lasso = lierope.GroupLasso(encoding, 1.0, ramp=20, stop=400)
    fit(lasso, generators, target, 200)
    size = target.norm(dim=0)
    torch.testing.assert_close(groups(encoding), (size - 1).clamp_min(0), atol=1e-6, rtol=0)
    zero = groups(encoding) == 0
    assert torch.equal(zero, size <= 1)
    torch.testing.assert_close(lasso.sparsity(), zero.float().mean())
    torch.testing.assert_close(lasso.value(), (size - 1).clamp_min(0).sum(), atol=1e-4, rtol=0)
    fit(lasso, generators, 3 * target, 200)  # groups come back when the loss asks for them
    revived = groups(encoding) > 0
    assert (revived & zero).any()
    fit(lasso, generators, 9 * target, 200)  # no more: zeros stay, and nothing is shrunk
    assert torch.equal(groups(encoding) > 0, revived)
    torch.testing.assert_close(generators[:, revived], 9 * target[:, revived])


def test_zeros_of_the_start_stay_when_it_stops_at_once() -> None:
    encoding = create("liere:4", 8, 1)
    generators = encoding.get_parameter("generators")
    generators.data[:, :, 0, 0] = 0
    lasso = lierope.GroupLasso(encoding, 1.0, stop=0)
    before = generators.detach().clone()
    generators.data.add_(1)
    lasso.step(0.1)
    expected = before + 1
    expected[:, :, 0, 0] = 0
    assert torch.equal(generators, expected)


def test_state_goes_on_after_the_stop() -> None:
    torch.manual_seed(0)
    encoding = create("liere:4", 8, 1)
    generators = encoding.get_parameter("generators")
    generators.data[:, :, 0, 0] = 0
    lasso = lierope.GroupLasso(encoding, 1.0, stop=1)
    lasso.step(0.1)
    lasso.step(0.1)
    state = copy.deepcopy(lasso.state_dict())
    again = lierope.GroupLasso(encoding, 1.0, stop=1)
    again.load_state_dict(state)
    assert again.steps == 2
    generators.data[:, :, 0, 0] = 1
    again.step(0.1)
    assert (generators[:, :, 0, 0] == 0).all()
    with pytest.raises(ValueError, match=r"^GroupLasso: state must fit the model's generators, go"):
        lierope.GroupLasso(create("liere:2", 8, 1), 1.0).load_state_dict(state)


def test_training_a_model_leaves_zeros_and_what_is_frozen_alone() -> None:
    model = swap(vit(), "liere", block_size=4, share="layers").train()
    lasso = lierope.GroupLasso(model, 2.0)
    (encoding,) = {id(e): e for e in encodings_of(model).values()}.values()
    optimizer = torch.optim.Adam(lierope.param_groups(model, lr=0.05))
    for _ in range(60):
        optimizer.zero_grad()
        model(images()).square().mean().backward()
        optimizer.step()
        lasso.step(0.05)
    assert 0 < lasso.sparsity() <= 1
    encoding.requires_grad_(False)
    before = groups(encoding)
    lasso.step(10.0)
    assert torch.equal(groups(encoding), before)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"strength": 0.0}, "^GroupLasso: strength must be a positive number, got 0.0$"),
        ({"start": -1}, "^GroupLasso: start must be at least 0, got -1$"),
        ({"ramp": -2}, "^GroupLasso: ramp must be at least 0, got -2$"),
        (
            {"start": 3, "ramp": 4, "stop": 6},
            "^GroupLasso: stop must be at least start [+] ramp = 7",
        ),
    ],
)
def test_bad_numbers(words: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        lierope.GroupLasso(create("liere", 8, 1), **{"strength": 1.0, **words})  # type: ignore[arg-type]


def test_models_without_what_is_regularised() -> None:
    with pytest.raises(ValueError, match=r"^GroupLasso: model must have .* got MixedRoPE$"):
        lierope.GroupLasso(create("mixed", 8, 1), 1.0)
    with pytest.raises(ValueError, match=r"^GroupLasso: model must have .* got no encoding$"):
        lierope.GroupLasso(nn.Linear(2, 2), 1.0)
    with pytest.raises(
        ValueError, match=r"^basis_penalty: model must have .* got CirculantSTRING$"
    ):
        lierope.basis_penalty(create("circulant", 8, 1))
    lasso = lierope.GroupLasso(create("liere", 8, 1), 1.0)
    for lr in (-1.0, float("inf"), float("nan")):
        with pytest.raises(
            ValueError, match=r"^GroupLasso: lr must be a number of at least 0, got"
        ):
            lasso.step(lr)
