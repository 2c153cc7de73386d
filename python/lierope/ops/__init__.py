"""The operators: batched exponentials, Cayley transforms and rotations of queries and keys.

Each is differentiable in every floating input to second order, under eager autograd, `torch.func`,
forward mode, `torch.compile` and `torch.export`.
"""

from lierope.ops.cayley import cayley, cayley_rotate
from lierope.ops.circulant import circulant_angles, circulant_rotate, rotate_circulant
from lierope.ops.expm_skew import expm_skew
from lierope.ops.lie_rotate import lie_rotate
from lierope.ops.lie_rotations import lie_rotations
from lierope.ops.rotate_blocks import rotate_blocks
from lierope.ops.rotate_pairs import rotate_pairs

__all__ = [
    "cayley",
    "cayley_rotate",
    "circulant_angles",
    "circulant_rotate",
    "expm_skew",
    "lie_rotate",
    "lie_rotations",
    "rotate_blocks",
    "rotate_circulant",
    "rotate_pairs",
]
