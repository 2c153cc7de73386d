"""The forms of a training step: a vision transformer with each encoding, and with none."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

import lierope
from benchmarks.speed.cases import BenchCase
from benchmarks.speed.forms import Maker, Pass, compile_model, optional
from benchmarks.speed.peers import plain_lie_rotate


class PlainLieRE(lierope.LieRE):
    """LieRE with the same parameters, rotating as its authors' code does."""

    short_name = "plain-liere"

    def rotate(
        self, q: Tensor, k: Tensor, positions: Tensor, num_prefix_tokens: int = 0
    ) -> tuple[Tensor, Tensor]:
        """The plain form: triu, einsum, matrix_exp, matmul."""
        b = self.block_size
        row, column = torch.triu_indices(b, b, 1, device=q.device)
        flat = self.generators.new_zeros(*self.generators.shape[:-1], b * b)
        flat = flat.index_copy(-1, row * b + column, self.generators)
        raw = flat.view(*flat.shape[:-1], b, b)
        return plain_lie_rotate(q, k, raw, positions, num_prefix_tokens)


def vit_step(case: BenchCase, device: torch.device) -> dict[str, Maker]:
    """A step of AdamW on random images for each encoding; `none` rotates nothing."""
    names = (case.base, *case.peers)
    return {name: partial(_step, case, device, name) for name in names}


def _step(case: BenchCase, device: torch.device, encoding: str) -> Pass:
    batch, side = case.shape
    name = encoding.removesuffix(" compiled")
    model = _model(case, name, side).to(device).train()
    if name != encoding:
        compile_model(model)
    seed = torch.Generator().manual_seed(0)
    images = torch.randn(batch, 3, side, side, generator=seed).to(device)
    labels = torch.randint(1000, (batch,), generator=seed).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    criterion = nn.CrossEntropyLoss()
    low = dict(case.options).get("autocast")
    dtype = getattr(torch, low) if low else None

    def step() -> None:
        with torch.autocast(device.type, dtype, enabled=low is not None):
            loss = criterion(model(images), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def _model(case: BenchCase, encoding: str, side: int) -> nn.Module:
    optional("lierope.timm")
    create: Any = optional("timm").create_model
    torch.manual_seed(0)
    name = case.option("model")
    if encoding == "timm rope mixed":
        return create(name.replace("_224", "_rope_mixed_224"), img_size=side)  # type: ignore[no-any-return]
    model: nn.Module = create(name, img_size=side)
    if encoding == "absolute":
        return model  # as timm makes it
    kind, _, size = encoding.rpartition(" ")[2].partition(":")
    options: dict[str, Any] = {"block_size": int(size)} if size else {}
    if encoding.startswith("plain"):
        return lierope.swap(model, PlainLieRE, **options)
    return lierope.swap(model, kind, **options)
