"""What an installed lierope must do on a machine with nothing but Python and torch; prints JSON.

It imports nothing of the repository: `tools/try_wheel.py` runs it in environments of their own.
"""

import json
import shutil
import sys
from collections.abc import Callable
from importlib import import_module, metadata
from importlib.util import find_spec
from typing import Any

import torch

import lierope
from lierope import ops, reference


def operators() -> float:
    """Largest error, forward and backward in float64, against the reference in plain torch."""
    torch.manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, dtype=torch.float64, requires_grad=True)

    q, k = random(2, 3, 5, 16), random(2, 3, 5, 16)
    calls: list[tuple[str, tuple[Any, ...]]] = [
        ("expm_skew", (random(7, 8, 8),)),
        ("cayley", (random(3, 16, 16),)),
        ("rotate_pairs", (q, k, random(3, 5, 8))),
        ("lie_rotate", (q, k, random(2, 3, 2, 28), random(5, 2))),
        ("rotate_circulant", (q, k, random(3, 5, 7), 16)),
    ]
    worst = 0.0
    for name, arguments in calls:
        leaves = [a for a in arguments if isinstance(a, torch.Tensor)]
        found, expected = (
            _with_gradients(getattr(module, name), arguments, leaves) for module in (ops, reference)
        )
        errors = [(f - e).abs().max().item() for f, e in zip(found, expected, strict=True)]
        assert max(errors) < 1e-9, f"{name}: {errors}"
        worst = max(worst, *errors)
    return worst


def _with_gradients(function: Callable[..., Any], arguments: Any, leaves: Any) -> list[Any]:
    result = function(*arguments)
    outputs = result if isinstance(result, tuple) else (result,)
    loss = sum((y * torch.linspace(-1, 1, y.numel()).view_as(y)).sum() for y in outputs)
    return [*outputs, *torch.autograd.grad(loss, leaves)]


def encodings() -> list[str]:
    """Each encoding turns q and k, keeps their norms where it is orthogonal, and learns."""
    names = ["MixedRoPE", "LieRE", "CayleySTRING", "CirculantSTRING", "ComRoPELD"]
    positions = lierope.grid_positions((3, 4))
    for name in names:
        module = getattr(lierope, name)(head_dim=16, num_heads=2, ndim=2)
        q, k = torch.randn(2, 2, 12, 16), torch.randn(2, 2, 12, 16)
        turned, _ = module(q, k, positions)
        assert not torch.equal(turned, q), name
        torch.testing.assert_close(turned.norm(dim=-1), q.norm(dim=-1), rtol=1e-4, atol=1e-4)
        turned.pow(3).sum().backward()
        assert all(p.grad.isfinite().all() for p in module.parameters() if p.grad is not None)
    return names


def vision() -> str:
    """A timm model with a swapped encoding trains, and computes the same once folded."""
    if find_spec("timm") is None:
        return _refusal()
    timm = import_module("lierope.timm").timm
    model = timm.create_model("vit_tiny_patch16_224", img_size=64, depth=2, num_classes=5)
    lierope.swap(model, "cayley")
    images = torch.randn(2, 3, 64, 64)
    model(images).square().sum().backward()
    encodings = lierope.encodings_of(model).values()
    assert all(p.grad is not None for encoding in encodings for p in encoding.parameters())
    with torch.no_grad():
        expected = model.eval()(images)
        torch.testing.assert_close(lierope.fold(model)(images), expected, rtol=1e-4, atol=1e-4)
    return f"timm {timm.__version__}"


def _refusal() -> str:
    try:
        import_module("lierope.timm")
    except ImportError as error:
        if "pip install 'lierope[train]'" in str(error):
            return f"refused: {error}"
        raise
    raise AssertionError("lierope.timm must not import without timm")


def smoke() -> dict[str, Any]:
    """Everything above, and what the library says of itself."""
    info = lierope.build_info()
    assert "site-packages" in info.library, info.library
    has = torch._C._dispatch_has_kernel_for_dispatch_key
    return {
        "python": sys.version.split()[0],
        "torch": metadata.version("torch"),
        "torch_cuda": torch.version.cuda,
        "compilers": [name for name in ("cc", "gcc", "g++", "c++", "clang") if shutil.which(name)],
        "version": metadata.version("lierope"),
        "instruction_set": info.instruction_set,
        "cuda_library": info.cuda is not None,
        "cuda_kernels": has("lierope::expm_skew", "CUDA"),
        "largest_error": operators(),
        "encodings": encodings(),
        "vision": vision(),
    }


if __name__ == "__main__":
    print(json.dumps(smoke()))
