"""Every encoding, and `create` that makes one by its short name."""

from lierope.encodings.absolute import Absolute
from lierope.encodings.axial import AxialRoPE, VisionLLaMA
from lierope.encodings.base import Encoding
from lierope.encodings.cayley import CayleySTRING, DenseSTRING
from lierope.encodings.circulant import CirculantSTRING
from lierope.encodings.comrope import ComRoPE, ComRoPEAP, ComRoPELD
from lierope.encodings.harope import HARoPE
from lierope.encodings.liere import LieRE
from lierope.encodings.mixed import MixedRoPE
from lierope.encodings.registry import create, names
from lierope.encodings.se3 import SE3Pose, pose_positions

__all__ = [
    "Absolute",
    "AxialRoPE",
    "CayleySTRING",
    "CirculantSTRING",
    "ComRoPE",
    "ComRoPEAP",
    "ComRoPELD",
    "DenseSTRING",
    "Encoding",
    "HARoPE",
    "LieRE",
    "MixedRoPE",
    "SE3Pose",
    "VisionLLaMA",
    "create",
    "names",
    "pose_positions",
]
