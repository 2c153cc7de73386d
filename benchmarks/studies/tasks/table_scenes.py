"""Small rendered scenes over a table, with depth: which way from the red ball is the blue box?

The camera is orthographic and looks down at 45 degrees: a step back and a step up move an object
alike in the image, and in depth the opposite way. Without depth nobody can tell the two apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

SIDE = 24  # pixels; world units are pixels too
WAYS = torch.tensor([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]])
CEILING_WITHOUT_DEPTH = 2 / 3  # right and left are seen; of the other four, back or up is a guess
_TILT = 0.5**0.5
_DOWN = torch.tensor([0.0, _TILT, -_TILT])  # the way the camera looks: back and down
_RED, _BLUE = torch.tensor([0.9, 0.2, 0.2]), torch.tensor([0.2, 0.3, 0.9])
_OTHERS = torch.tensor([[0.2, 0.8, 0.3], [0.8, 0.8, 0.2], [0.5, 0.5, 0.5], [0.7, 0.3, 0.7]])
_TABLE = torch.tensor([0.55, 0.45, 0.35])
_RADIUS = 2.3
_FAR = 40.0  # from the camera to the image's middle on the table


@dataclass(frozen=True)
class Objects:
    """Centres (B, K, 3), colours (B, K, 3), and whether each is a ball or a box (B, K)."""

    centres: Tensor
    colours: Tensor
    ball: Tensor


@dataclass(frozen=True)
class Scenes:
    """Images (B, 3, SIDE, SIDE), depths and normals (B, 1 or 3, SIDE, SIDE), labels (B,)."""

    images: Tensor
    depths: Tensor
    normals: Tensor
    labels: Tensor


def draw(
    count: int,
    random: torch.Generator,
    *,
    distractors: int = 1,
    light: float = 1.0,
    camera: float = 0.0,
    noise: float = 0.05,
) -> Scenes:
    """Scenes with labels into `WAYS`.

    Args:
        count: B.
        random: of everything.
        distractors: objects of other colours in each scene.
        light: brightness; training's is 1, with a spread of 0.2.
        camera: how much farther than usual the camera stands, in pixels.
        noise: deviation of pixels, and ten times that of depths.
    """
    labels = torch.randint(len(WAYS), (count,), generator=random)
    objects = place(labels, distractors, random)
    bright = light * (1 + 0.2 * (2 * torch.rand(count, 1, 1, generator=random) - 1))
    images, depths, normals = render(objects, bright)
    away = camera + 2 * (2 * torch.rand(count, 1, 1, 1, generator=random) - 1)
    images = images + noise * torch.randn(images.shape, generator=random)
    depths = depths + away + 10 * noise * torch.randn(depths.shape, generator=random)
    return Scenes(images, depths, normals, labels)


def place(labels: Tensor, distractors: int, random: torch.Generator) -> Objects:
    """Ball, box, then distractors; the box stands the label's way from the ball."""
    B, K = len(labels), 2 + distractors
    length = 6 + 3 * torch.rand(B, 1, generator=random)
    apart = length * WAYS[labels] + (2 * torch.rand(B, 3, generator=random) - 1)
    # The pair's middle in the image, with room for both; then how high it floats.
    half = torch.stack((apart[:, 0], _TILT * apart[:, 1:].sum(1)), 1).abs() / 2
    room = SIDE / 2 - _RADIUS - half
    middle = room * (2 * torch.rand(B, 2, generator=random) - 1)
    height = 8 + 2 * torch.rand(B, generator=random)
    centre = torch.stack((middle[:, 0], middle[:, 1] / _TILT - height, height), 1)
    others = torch.rand(B, distractors, 3, generator=random)
    others = others * torch.tensor([18.0, 18.0, 12.0]) - torch.tensor([9.0, 18.0, -2.0])
    centres = torch.cat(((centre - apart / 2)[:, None], (centre + apart / 2)[:, None], others), 1)
    colours = torch.empty(B, K, 3)
    colours[:, 0], colours[:, 1] = _RED, _BLUE
    chosen = torch.randint(len(_OTHERS), (B, distractors), generator=random)
    colours[:, 2:] = _OTHERS[chosen]
    ball = torch.rand(B, K, generator=random) < 0.5
    ball[:, 0], ball[:, 1] = True, False
    return Objects(centres, colours, ball)


def render(objects: Objects, light: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Lambert-shaded images (B, 3, SIDE, SIDE), depths (B, 1, ...) and unit normals (B, 3, ...)."""
    axis = torch.arange(SIDE) - (SIDE - 1) / 2
    up, right = torch.meshgrid(axis.flip(0), axis, indexing="ij")
    # Rays start in the image's plane, _FAR from its middle on the table.
    start = torch.stack((right, _TILT * up, _TILT * up), -1) - _FAR * _DOWN
    start = start.view(1, -1, 3)
    table = -start[..., 2] / _DOWN[2]
    depth = table.expand(len(objects.centres), -1).clone()
    normal = torch.tensor([0.0, 0.0, 1.0]).expand(*depth.shape, 3).clone()
    colour = _TABLE.expand(*depth.shape, 3).clone()
    for k in range(objects.centres.shape[1]):
        away = start - objects.centres[:, k, None]
        is_ball = objects.ball[:, k, None]
        hits = [_hit_ball(away), _hit_box(away)]
        at = torch.where(is_ball, hits[0][0], hits[1][0])
        turned = torch.where(is_ball[..., None], hits[0][1], hits[1][1])
        nearer = at < depth
        depth = torch.where(nearer, at, depth)
        normal = torch.where(nearer[..., None], turned, normal)
        colour = torch.where(nearer[..., None], objects.colours[:, k, None], colour)
    lamp = functional.normalize(torch.tensor([0.4, -0.5, 1.0]), dim=0)
    shade = 0.4 + 0.6 * (normal @ lamp).clamp(min=0)
    images = (light * shade[..., None] * colour).mT.unflatten(-1, (SIDE, SIDE))
    return images, depth.view(-1, 1, SIDE, SIDE), normal.mT.unflatten(-1, (SIDE, SIDE))


def _hit_ball(away: Tensor) -> tuple[Tensor, Tensor]:
    along = away @ _DOWN
    inside = along.square() - away.square().sum(-1) + _RADIUS**2
    at = torch.where(inside >= 0, -along - inside.clamp(min=0).sqrt(), torch.inf)
    point = away + at.nan_to_num(posinf=0.0)[..., None] * _DOWN
    return at, functional.normalize(point, dim=-1)


def _hit_box(away: Tensor) -> tuple[Tensor, Tensor]:
    half = 0.85 * _RADIUS
    # Rays look back and down: they enter by the front or the top, and leave by the back or bottom.
    front, top = (-half - away[..., 1]) / _DOWN[1], (half - away[..., 2]) / _DOWN[2]
    back, bottom = (half - away[..., 1]) / _DOWN[1], (-half - away[..., 2]) / _DOWN[2]
    enter, leave = torch.maximum(front, top), torch.minimum(back, bottom)
    hit = (enter < leave) & (away[..., 0].abs() <= half)
    faces = torch.tensor([[0.0, -1.0, 0.0], [0.0, 0.0, 1.0]])
    return torch.where(hit, enter, torch.inf), faces[(top > front).long()]
