"""Short names of encodings, as `swap` and the command line take them."""

from typing import Any

from lierope.choice import check_choice
from lierope.encodings.absolute import Absolute
from lierope.encodings.arguments import check_option
from lierope.encodings.axial import AxialRoPE, VisionLLaMA
from lierope.encodings.base import Encoding
from lierope.encodings.cayley import CayleySTRING, DenseSTRING
from lierope.encodings.circulant import CirculantSTRING
from lierope.encodings.comrope import ComRoPEAP, ComRoPELD
from lierope.encodings.harope import HARoPE
from lierope.encodings.liere import LieRE
from lierope.encodings.mixed import MixedRoPE
from lierope.encodings.se3 import SE3Pose

_CLASSES: tuple[type[Encoding], ...] = (
    Absolute,
    AxialRoPE,
    VisionLLaMA,
    MixedRoPE,
    LieRE,
    CayleySTRING,
    CirculantSTRING,
    DenseSTRING,
    ComRoPEAP,
    ComRoPELD,
    HARoPE,
    SE3Pose,
)
_BY_NAME: dict[str, tuple[type[Encoding], dict[str, Any]]] = {
    "none": (Absolute, {"keep": False}),
    **{cls.short_name: (cls, {}) for cls in _CLASSES},
}


def names() -> list[str]:
    """The short names that `create` takes, without options.

    Example:
        >>> "liere" in lierope.encodings.names()
        True
    """
    return list(_BY_NAME)


def parse(name: str) -> tuple[type[Encoding], dict[str, Any]]:
    """The class and the options that a name such as "liere:8" or "cayley:banded=4" stands for.

    Raises:
        ValueError: an unknown name (the nearest is suggested) or option.
    """
    word, colon, text = name.partition(":")
    cls, options = _BY_NAME[check_choice("create", "name", word, _BY_NAME)]
    return cls, options | (cls.parse_options(text) if colon else {})


def create(name: str, head_dim: int, num_heads: int, ndim: int = 2, **options: Any) -> Encoding:
    """Makes an encoding by its short name.

    Args:
        name: a name of `names()`, if need be with options after a colon: "liere:8" and
            "circulant:16" (block size), "cayley:banded=4", "cayley:sparse=0.1",
            "mixed:init=uniform,theta=100".
        head_dim: D.
        num_heads: heads of q.
        ndim: position dimensions.
        **options: other words of the class's constructor; they win over those in the name.

    Raises:
        ValueError: an unknown name or option (the nearest is suggested), or a value that the class
            refuses.

    Example:
        >>> lierope.encodings.create("circulant:16", head_dim=64, num_heads=3).block_size
        16
    """
    cls, named = parse(name)
    for option in options:
        check_option(cls, option)
    return cls(head_dim, num_heads, ndim, **(named | options))
