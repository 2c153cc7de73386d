"""What keeps learned rotations simple: bases near the identity, generators with exact zeros."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from lierope.encodings import Encoding


def basis_penalty(model: nn.Module) -> Tensor:
    """Mean of ||P - I||_F^2 / D over the learned bases P of a model, from 0 to 4; to be minimised.

    For example::

        loss = criterion(model(x), y) + 0.01 * lierope.basis_penalty(model)

    A basis that stays near the identity keeps CayleySTRING and DenseSTRING near the RoPE they
    started from (STRING, arXiv 2502.02562, section 3). The mean is over the heads of every encoding
    with a learned basis; one that layers share counts once. At P = I value and gradient are 0.

    Args:
        model: A module with encodings in it, or an encoding.

    Raises:
        ValueError: No encoding has a learned basis.

    Example:
        >>> encoding = lierope.CayleySTRING(head_dim=16, num_heads=2)
        >>> lierope.basis_penalty(encoding).item()  # it starts at P = I
        0.0
    """
    learned = [
        (encoding, basis)
        for encoding in _encodings(model)
        if "skew" in encoding._parameters and (basis := encoding.basis()) is not None
    ]
    if not learned:
        kinds = sorted({type(encoding).__name__ for encoding in _encodings(model)})
        raise ValueError(
            "basis_penalty: model must have encodings with a learned basis (cayley, dense-string), "
            f"got {', '.join(kinds) or 'no encoding'}"
        )
    sizes = [_distance(basis).expand(encoding.parameter_heads) for encoding, basis in learned]
    return torch.cat(sizes).mean()


def _distance(basis: Tensor) -> Tensor:
    """||P_h - I||_F^2 / D, (H',). Not 2 (D - tr P) / D, which is the same but cancels near I."""
    identity = torch.eye(basis.shape[-1], dtype=basis.dtype, device=basis.device)
    return (basis - identity).square().sum((-2, -1)) / basis.shape[-1]


class GroupLasso:
    """Group lasso on the generators of LieRE and ComRoPE, by proximal steps: zeros are exact.

    Adds lambda_t sum_g ||u_g|| to the loss, where group g holds the entries u_1ij .. u_Cij that
    turn features i and j of a block into each other, for all C axes at once. What makes zeros is
    not the gradient of that sum but, after each step of the optimiser, its proximal map::

        u_g <- max(0, 1 - lr lambda_t / ||u_g||) u_g.

    Where enough groups of a block are zero its features fall apart into sets that do not turn into
    each other, and `lierope.compact` makes smaller blocks of them, for LieRE::

        lasso = lierope.GroupLasso(model, 0.3, start=1000, ramp=4000, stop=20000)
        for x, y in data:
            ...; optimizer.step(); lasso.step(lr); optimizer.zero_grad()

    lambda_t is 0 up to step `start`, rises linearly for `ramp` steps to `strength`, and stays.
    Sparsity is dynamic until `stop`: a group at zero keeps its gradient and comes back when the
    optimiser moves it by more than lr lambda_t. From `stop` on, zeros stay zero and all else is
    shrunk no more. Under plain gradient descent a group is zero where its gradient is smaller than
    lambda_t; Adam moves each entry by up to lr whatever its gradient, so that there lambda_t must
    be of the order of 1, and below sqrt(C) for groups to come back at all.

    Args:
        model: A module with such encodings in it. They are looked up at each step, so that
            generators may be replaced; what does not require gradients is left alone.
        strength: lambda, above 0.
        start: Steps without shrinkage.
        ramp: Steps from nothing to full strength.
        stop: The step from which zeros stay zero, or None for never.

    Raises:
        ValueError: A number out of range, or a model without generators.

    Example:
        >>> import timm
        >>> model = timm.create_model("vit_tiny_patch16_224", depth=2, num_classes=10)
        >>> model = lierope.swap(model, "liere", block_size=8)
        >>> lasso = lierope.GroupLasso(model, strength=1e-3)
        >>> optimizer = torch.optim.AdamW(lierope.param_groups(model, lr=1e-3))
        >>> model(torch.randn(2, 3, 224, 224)).sum().backward()
        >>> optimizer.step()
        >>> lasso.step(lr=1e-3)
    """

    def __init__(
        self,
        model: nn.Module,
        strength: float,
        *,
        start: int = 0,
        ramp: int = 0,
        stop: int | None = None,
    ) -> None:
        if not 0 < strength < math.inf:
            raise ValueError(f"GroupLasso: strength must be a positive number, got {strength!r}")
        for name, steps in (("start", start), ("ramp", ramp)):
            if steps < 0:
                raise ValueError(f"GroupLasso: {name} must be at least 0, got {steps}")
        if stop is not None and stop < start + ramp:
            raise ValueError(
                f"GroupLasso: stop must be at least start + ramp = {start + ramp}, got {stop}"
            )
        self.model = model
        self.strength = strength
        self.start, self.ramp, self.stop = start, ramp, stop
        self.steps = 0
        self._kept: dict[str, Tensor] = {}
        if not self._generators():
            kinds = sorted({type(encoding).__name__ for encoding in _encodings(model)})
            raise ValueError(
                "GroupLasso: model must have encodings with generators (liere, comrope-ap, "
                f"comrope-ld), got {', '.join(kinds) or 'no encoding'}"
            )
        self._keep_at_stop()

    def strength_at(self, step: int) -> float:
        """The lambda of the step with that number, the first being 0."""
        if step < self.start or (self.stop is not None and step >= self.stop):
            return 0.0
        past = step - self.start + 1
        return self.strength * (1.0 if past >= self.ramp else past / self.ramp)

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """One proximal step; to be called after each step of the optimiser.

        Args:
            lr: The generators' learning rate at this step.

        Raises:
            ValueError: A negative or infinite rate.
        """
        if not 0 <= lr < math.inf:
            raise ValueError(f"GroupLasso: lr must be a number of at least 0, got {lr!r}")
        frozen = self.stop is not None and self.steps >= self.stop
        threshold = lr * self.strength_at(self.steps)
        for name, generators in self._generators().items():
            if not generators.requires_grad:
                continue
            if frozen:
                if name in self._kept:
                    generators.mul_(self._kept[name])
            elif threshold > 0:
                # a size of 0 gives -inf, and then 0
                generators.mul_((1 - threshold / _sizes(generators)).clamp_min(0))
        self.steps += 1
        self._keep_at_stop()

    @torch.no_grad()
    def value(self) -> Tensor:
        """sum_g ||u_g|| over all generators, to be logged."""
        return torch.stack([_sizes(g).sum() for g in self._generators().values()]).sum()

    @torch.no_grad()
    def sparsity(self) -> Tensor:
        """The fraction of groups that are zero, from 0 to 1."""
        zero = [(_sizes(g) == 0).flatten() for g in self._generators().values()]
        return torch.cat(zero).float().mean()

    def state_dict(self) -> dict[str, Any]:
        """Steps taken and, once zeros stay, which groups may live; tensors and numbers alone."""
        return {"steps": self.steps, "kept": dict(self._kept)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on where `state_dict` was taken.

        Raises:
            ValueError: Groups of generators that the model has not.
        """
        known = self._generators()
        for name, kept in state["kept"].items():
            if name not in known or kept.shape[1:] != known[name].shape[1:]:
                raise ValueError(f"GroupLasso: state must fit the model's generators, got {name!r}")
        self.steps = int(state["steps"])
        self._kept = {name: k.to(known[name].device) for name, k in state["kept"].items()}

    def _keep_at_stop(self) -> None:
        """Before the optimiser can move a zero again: which groups live from now on."""
        if self.steps == self.stop:
            found = self._generators().items()
            self._kept = {name: _sizes(generators) > 0 for name, generators in found}

    def _generators(self) -> dict[str, nn.Parameter]:
        """Generators (C or 1, H', G, m) by name; what layers share stands once."""
        found = {
            name: module._parameters.get("generators")
            for name, module in self.model.named_modules()
            if isinstance(module, Encoding)
        }
        return {name: generators for name, generators in found.items() if generators is not None}


def _sizes(generators: Tensor) -> Tensor:
    """||u_g||, (1, H', G, m): over the axes."""
    # not vector_norm: sums of its partial norms over shards come out wrong (DTensor, torch 2.13)
    return generators.detach().square().sum(0, keepdim=True).sqrt()


def _encodings(model: nn.Module) -> list[Encoding]:
    return [module for module in model.modules() if isinstance(module, Encoding)]
