"""Cameras with poses in a world, each of which sees one object: which of them sees mine?"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from lierope import ops

COLOURS = 4
_NEAR, _FAR = 2.0, 3.0  # of objects from the world's origin
_CENTRES = 0.7  # of cameras
_CONE = 1.6  # radians a camera is turned by at most
_NOISE = 0.03
_GOLDEN = (1 + 5**0.5) / 2


@dataclass(frozen=True)
class Views:
    """Scenes of N cameras.

    Attributes:
        rotations, translations: (B, N, 3, 3) and (B, N, 3); x = R X + t takes a point X of the
            world into a camera's frame.
        seen: where each camera sees its object, in its own frame, (B, N, 3).
        colours: of each camera's lamp, (B, N), in 0 .. COLOURS - 1; camera 0 has none, COLOURS.
        labels: (B,), the colour of the one other camera that sees camera 0's object.
    """

    rotations: Tensor
    translations: Tensor
    seen: Tensor
    colours: Tensor
    labels: Tensor


def draw(count: int, cameras: int, random: torch.Generator) -> Views:
    """Scenes of a world whose cameras stand near the origin, turned by 1.6 radians at most.

    Objects lie in directions at least 63 degrees apart, so `cameras` is at most 13.
    """
    turns = _CONE * (2 * torch.rand(count, cameras, 3, generator=random) - 1) / 3**0.5
    rotations = turning(turns)
    centres = _CENTRES * (2 * torch.rand(count, cameras, 3, generator=random) - 1)
    translations = -(rotations @ centres[..., None])[..., 0]
    objects = _objects(count, cameras, random)
    seen = (rotations @ objects[..., None])[..., 0] + translations
    seen = seen + _NOISE * torch.randn(seen.shape, generator=random)
    colours = torch.randint(COLOURS, (count, cameras), generator=random)
    colours[:, 0] = COLOURS
    # The camera that sees camera 0's object is number 1; the others change places.
    labels = colours[:, 1].clone()
    order = 1 + torch.rand(count, cameras - 1, generator=random).argsort(1)
    order = torch.cat((torch.zeros(count, 1, dtype=torch.long), order), 1)
    rows = torch.arange(count)[:, None]
    return Views(
        rotations[rows, order], translations[rows, order], seen[rows, order], colours[rows, order],
        labels,
    )  # fmt: skip


def moved(views: Views, turn: Tensor, shift: Tensor) -> Views:
    """The same scenes in worlds of other axes: X' = turn X + shift, by scene (B, 3, 3), (B, 3).

    What cameras see does not change, nor do the labels; g becomes g h^-1.
    """
    rotations = views.rotations @ turn.mT[:, None]
    translations = views.translations - (rotations @ shift[:, None, :, None])[..., 0]
    return Views(rotations, translations, views.seen, views.colours, views.labels)


def turning(vectors: Tensor) -> Tensor:
    """Rotations (..., 3, 3) about vectors (..., 3) by their lengths in radians."""
    x, y, z = vectors.unbind(-1)
    zero = torch.zeros_like(x)
    rows = torch.stack((zero, -z, y, z, zero, -x, -y, x, zero), -1)
    return ops.expm_skew(rows.unflatten(-1, (3, 3)))


def any_rotations(count: int, random: torch.Generator) -> Tensor:
    """Uniform in SO(3), from unit quaternions: turns about their vector by twice their angle."""
    quaternion = functional.normalize(torch.randn(count, 4, generator=random), dim=1)
    half = quaternion[:, :1].clamp(-1, 1).acos()
    return turning(2 * half * functional.normalize(quaternion[:, 1:], dim=1))


def _objects(count: int, cameras: int, random: torch.Generator) -> Tensor:
    """(B, cameras, 3): one direction of an icosahedron each, the first two cameras' the same."""
    signs = itertools.product((1.0, -1.0), repeat=2)
    corners = torch.tensor([[0.0, a, b * _GOLDEN] for a, b in signs])
    corners = torch.cat([corners.roll(k, 1) for k in range(3)])
    corners = functional.normalize(corners, dim=1) @ any_rotations(count, random).mT
    chosen = torch.rand(count, corners.shape[1], generator=random).argsort(1)[:, : cameras - 1]
    directions = corners[torch.arange(count)[:, None], chosen]
    away = _NEAR + (_FAR - _NEAR) * torch.rand(count, cameras - 1, 1, generator=random)
    objects = away * directions
    return torch.cat((objects[:, :1], objects), 1)
