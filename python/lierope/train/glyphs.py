"""The bitmaps of the arrow task, 12x12 pixels, drawn here: an arrow, a Y and the letters A to E."""

from __future__ import annotations

import torch

SIDE = 12

# Drawn in a 7x9 box; "#" is ink. The arrow and the Y point up: the Y's arms are up, its base down.
_UP_ARROW = """
...#...
..###..
.#####.
#..#..#
...#...
...#...
...#...
...#...
...#...
"""
_UPRIGHT_Y = """
#.....#
#.....#
.#...#.
..#.#..
...#...
...#...
...#...
...#...
...#...
"""
_LETTERS = """
..###..|######.|..####.|#####..|#######
.#...#.|#.....#|.#....#|#....#.|#......
#.....#|#.....#|#......|#.....#|#......
#.....#|#.....#|#......|#.....#|#......
#######|######.|#......|#.....#|#####..
#.....#|#.....#|#......|#.....#|#......
#.....#|#.....#|#......|#.....#|#......
#.....#|#.....#|.#....#|#....#.|#......
#.....#|######.|..####.|#####..|#######
"""

EMPTY = 0
ARROWS = 1  # the first of four, by direction: 0 up, 1 right, 2 down, 3 left
YS = 5  # the first of four, by the direction in which the base points
LETTERS = 9  # the first of five
COUNT = 14


def bitmaps() -> torch.Tensor:
    """All glyphs, (14, 12, 12) in {0, 1}: empty, 4 arrows, 4 Ys, 5 letters."""
    arrow, upright = _bitmap(_UP_ARROW.split()), _bitmap(_UPRIGHT_Y.split())
    rows = [row.split("|") for row in _LETTERS.split()]
    letters = [_bitmap([row[i] for row in rows]) for i in range(len(rows[0]))]
    # rot90 with k = -1 turns clockwise; an upright Y has its base down, direction 2.
    arrows = [torch.rot90(arrow, -k) for k in range(4)]
    ys = [torch.rot90(upright, -(k + 2)) for k in range(4)]
    return torch.stack([torch.zeros(SIDE, SIDE), *arrows, *ys, *letters])


def _bitmap(rows: list[str]) -> torch.Tensor:
    ink = torch.tensor([[float(c == "#") for c in row] for row in rows])
    top, left = (SIDE - ink.shape[0]) // 2, (SIDE - ink.shape[1]) // 2
    canvas = torch.zeros(SIDE, SIDE)
    canvas[top : top + ink.shape[0], left : left + ink.shape[1]] = ink
    return canvas
