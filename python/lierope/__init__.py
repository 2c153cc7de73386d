"""Rotary position encodings from Lie groups: STRING, LieRE, RoPE, with kernels that train.

    model = timm.create_model("vit_base_patch16_224")
    lierope.swap(model, "liere", block_size=8)      # every attention layer now rotates q and k

`lierope.swap` and `lierope.fold` change a timm model in place; the encodings are modules of their
own; `lierope.ops` holds the operators beneath them; `lierope.reference` the same mathematics in
plain torch.
"""

__version__ = "0.1.0"

from lierope import conversion, export, ops
from lierope._library import BuildInfo, build_info
from lierope.compact import compact
from lierope.encodings import (
    Absolute,
    AxialRoPE,
    CayleySTRING,
    CirculantSTRING,
    ComRoPE,
    ComRoPEAP,
    ComRoPELD,
    DenseSTRING,
    Encoding,
    HARoPE,
    LieRE,
    MixedRoPE,
    SE3Pose,
    VisionLLaMA,
    pose_positions,
)
from lierope.param_groups import param_groups
from lierope.positions import LiftDepth, grid_positions, jitter_positions, lift_depth
from lierope.regularizers import GroupLasso, basis_penalty
from lierope.swap import Coordinates, encodings_of, fold, swap

__all__ = [
    "Absolute",
    "AxialRoPE",
    "BuildInfo",
    "CayleySTRING",
    "CirculantSTRING",
    "ComRoPE",
    "ComRoPEAP",
    "ComRoPELD",
    "Coordinates",
    "DenseSTRING",
    "Encoding",
    "GroupLasso",
    "HARoPE",
    "LieRE",
    "LiftDepth",
    "MixedRoPE",
    "SE3Pose",
    "VisionLLaMA",
    "basis_penalty",
    "build_info",
    "compact",
    "conversion",
    "encodings_of",
    "export",
    "fold",
    "grid_positions",
    "jitter_positions",
    "lift_depth",
    "ops",
    "param_groups",
    "pose_positions",
    "swap",
]
