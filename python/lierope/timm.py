"""timm, made importable beside any torchvision, with models of its registry that have encodings.

``import lierope.timm`` (``from lierope.timm import timm`` where imports are sorted) is all there is
to it: timm can then be imported where torchvision was built for another torch (see
`lierope.import_timm`), and ``timm.create_model`` knows `lierope.swap.registered.NAMES`, such as
``vit_base_patch16_liere8_224``.
"""

from __future__ import annotations

from lierope.import_timm import timm
from lierope.swap import registered

__all__ = ["timm"]

registered.register()
