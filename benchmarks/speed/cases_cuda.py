"""What is measured on a GPU: the same pieces of work at the sizes of ViT-B/16, as pure data."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from benchmarks.speed.cases import BenchCase, Goal

_TOKENS, _QUICK = (128, 12, 197, 64), (2, 2, 17, 64)


def _expm_skew() -> list[BenchCase]:
    # All layers of ViT-B/16: 12 layers, 12 heads, 196 patches, 64 / n blocks; LieRE's norms.
    norms = {2: 3.0, 4: 8.4, 8: 18.0, 16: 37.0, 32: 67.0, 64: 129.0}
    cases = []
    for backward in (False, True):
        for n, norm in norms.items():
            goals = (Goal("torch.matrix_exp", 15),) if backward and n in (8, 64) else ()
            cases.append(
                BenchCase(
                    name=f"expm_skew/n{n}-init-{'fwd+bwd' if backward else 'fwd'}",
                    work="expm_skew",
                    shape=(28224 * 64 // n, n, n),
                    peers=("torch.matrix_exp", *(("torch cos/sin",) if n == 2 else ())),
                    backward=backward,
                    norm=norm,
                    goals=goals,
                    quick=(32, n, n),
                    series=f"init {backward}",
                )
            )
    return cases


def _lie_layer() -> list[BenchCase]:
    return [
        BenchCase(
            name=f"lie_layer/b{b}",
            work="lie_rotate",
            shape=_TOKENS,
            peers=("plain", "plain compiled") if b == 8 else ("plain",),
            backward=True,
            options=(("block_size", b), ("ndim", 2), ("per_sample", False)),
            quick=_QUICK,
            memory=True,
            series="b",
        )
        for b in (2, 4, 8, 16, 32, 64)
    ]


def _cloud() -> list[BenchCase]:
    return [
        BenchCase(
            name=f"cloud/{tokens}-tokens",
            work="lie_rotate",
            shape=(1, 8, tokens, 64),
            peers=("plain",) if tokens <= 10_000 else (),
            backward=True,
            options=(("block_size", 8), ("ndim", 3), ("per_sample", True)),
            quick=(1, 8, 20, 64) if tokens == 1_000 else None,
            memory=True,
            series="tokens",
        )
        for tokens in (1_000, 10_000, 100_000)
    ]


def _rotate_pairs() -> list[BenchCase]:
    compiled = {"peers": ("timm", "timm compiled", "copy")}
    goals = (Goal("limit", 0.85), Goal("copy", 0.85), Goal("timm compiled", 1.0))
    rows: dict[str, dict[str, Any]] = {
        "fwd-bf16": {"dtype": "bfloat16", "goals": goals, **compiled},
        "fwd": {},
        "fwd+bwd-bf16": {"dtype": "bfloat16", "backward": True, **compiled},
        "learned-fwd+bwd": {"backward": True, "options": (("learned", True),)},
        "learned-fwd+bwd-bf16": {
            "dtype": "bfloat16", "backward": True, "options": (("learned", True),),
        },
    }  # fmt: skip
    plain = {"options": (("learned", False),), "quick": _QUICK}
    return [
        replace(
            BenchCase(f"rotate_pairs/{name}", "rotate_pairs", _TOKENS, ("timm", "complex", "copy")),
            **plain | row,
        )
        for name, row in rows.items()
    ]


def _blocks() -> list[BenchCase]:
    cases = []
    for b in (8, 64):
        options = (("block_size", b),)
        cases += [
            BenchCase(f"blocks/lie_rotations-b{b}", "lie_rotations", (12, 64 // b, 196, b),
                      ("plain",), backward=True, quick=(2, 64 // b, 16, b)),
            BenchCase(f"blocks/rotate_blocks-b{b}", "rotate_blocks", _TOKENS,
                      ("plain", "plain compiled") if b == 8 else ("plain",), backward=True,
                      options=options, quick=_QUICK),
        ]  # fmt: skip
    return cases


def _string() -> list[BenchCase]:
    solves = ("torch solve", "parametrizations.orthogonal", "geotorch")
    ffts = ("torch.fft", "dense DFT")
    both: dict[str, Any] = {"backward": True, "quick": _QUICK}
    dense, banded = (("bandwidth", None),), (("bandwidth", 4),)
    return [
        BenchCase("string/cayley", "cayley", (144, 64, 64), solves, backward=True, norm=1.0,
                  quick=(4, 64, 64)),
        BenchCase("string/cayley_rotate", "cayley_rotate", _TOKENS, ("torch solve",), norm=1.0,
                  options=dense, **both),
        BenchCase("string/cayley_rotate-banded4", "cayley_rotate", _TOKENS, ("torch solve",),
                  norm=1.0, options=banded, **both),
        BenchCase("string/circulant", "circulant", _TOKENS, ffts, options=(("block_size", 64),),
                  **both),
        BenchCase("string/circulant-b16", "circulant", _TOKENS, ffts,
                  options=(("block_size", 16),), **both),
    ]  # fmt: skip


def _circulant_size() -> list[BenchCase]:
    return [
        BenchCase(
            name=f"circulant_size/d{d}",
            work="circulant",
            shape=(1, 1, (1 << 25) // d, d),
            peers=("torch.fft", "dense DFT") if d <= 1024 else ("torch.fft",),
            options=(("block_size", d),),
            quick=(1, 1, (1 << 14) // d, d),
            seconds=1.0,
            series="d",
        )
        for d in (16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
    ]


def _vit_step() -> list[BenchCase]:
    at_most = {"mixed": 1.04, "cayley": 1.04, "circulant": 1.04, "liere:8": 1.06, "liere:64": 1.5}
    step = BenchCase(
        name="vit_step/vit_base_patch16_224-batch128-bf16",
        work="vit_step",
        shape=(128, 224),
        peers=("axial", *at_most, "plain liere:8", "plain liere:64", "timm rope mixed"),
        base="none",
        backward=True,
        options=(("model", "vit_base_patch16_224"), ("autocast", "bfloat16")),
        goals=tuple(Goal(form, ratio, most=True) for form, ratio in at_most.items()),
        seconds=15.0,
        memory=True,
    )
    large = replace(
        step,
        name="vit_step_512/vit_base_patch16_224-batch512-bf16",
        shape=(512, 224),
        peers=tuple(at_most),
        goals=(Goal("liere:64", 1.15, most=True),),
        seconds=10.0,
    )
    compiled = replace(
        step,
        name="vit_step_compiled/vit_base_patch16_224-batch128-bf16",
        peers=("mixed compiled", "liere:8 compiled", "timm rope mixed compiled"),
        base="none compiled",
        goals=(),
        seconds=5.0,
        memory=False,
    )
    tiny = replace(
        step,
        name="vit_step_tiny/vit_tiny_patch16_64-batch2-bf16",
        shape=(2, 64),
        peers=("mixed", "liere:8", "circulant", "plain liere:8"),
        options=(("model", "vit_tiny_patch16_224"), ("autocast", "bfloat16")),
        goals=(),
        threads=(),
        quick=(2, 64),
    )
    return [step, large, tiny, compiled]


def cuda_cases() -> list[BenchCase]:
    """Every case: those with goals first and those that compile last, should the run be cut off.

    A GPU has no number of threads to vary.
    """
    families = (_expm_skew, _lie_layer, _cloud, _blocks, _rotate_pairs, _string, _circulant_size)
    cases = [replace(case, seconds=1.0) for family in families for case in family()] + _vit_step()

    def order(case: BenchCase) -> int:
        return -1 if case.goals else sum("compiled" in form for form in (case.base, *case.peers))

    return [replace(case, threads=case.threads[:1]) for case in sorted(cases, key=order)]
