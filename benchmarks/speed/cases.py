"""What is measured: every case as pure data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any


@dataclass(frozen=True)
class Goal:
    """A ratio of two forms' medians, form over base, that a case is to reach.

    Attributes:
        form: Which form; "limit" is the roofline's time.
        ratio: At least this, or at most.
        most: The ratio is to be at most, not at least, what is given.
        threads: Number of threads it holds for; any when None.
        memory: Of peak memory, not of time.
    """

    form: str
    ratio: float
    most: bool = False
    threads: int | None = None
    memory: bool = False


@dataclass(frozen=True)
class BenchCase:
    """One piece of work and the forms that are timed on it in turn.

    Attributes:
        name: "family/what", unique.
        work: Which builder in peers.py or training.py makes the forms.
        shape: Sizes, as the builder reads them.
        peers: Names of the other forms.
        base: The form that ratios are taken over.
        backward: Forward and backward, instead of forward alone.
        dtype: Storage type of what is rotated or exponentiated.
        norm: Spectral norm of each matrix, where the case has matrices of its own.
        options: What else the builder reads.
        threads: Measured with these numbers of threads, unless the command line says otherwise.
        goals: Ratios to reach.
        quick: Sizes for --quick; left out of it when None.
        seconds: Time to spend with one number of threads, about, warm-up apart.
        memory: Also measure the peak of extra memory.
        series: A plot joins neighbours of one series by a line.
        on_request: Takes too long for a whole run: left out unless --only gives its full name.
    """

    name: str
    work: str
    shape: tuple[int, ...]
    peers: tuple[str, ...] = ()
    base: str = "lierope"
    backward: bool = False
    dtype: str = "float32"
    norm: float | None = None
    options: tuple[tuple[str, Any], ...] = ()
    threads: tuple[int, ...] = (1, 2)
    goals: tuple[Goal, ...] = ()
    quick: tuple[int, ...] | None = None
    seconds: float = 2.5
    memory: bool = False
    series: str = ""
    on_request: bool = False

    @property
    def family(self) -> str:
        """Cases of one family share a table and a plot."""
        return self.name.partition("/")[0]

    def option(self, name: str) -> Any:
        """Value of an option."""
        return dict(self.options)[name]


def _expm_skew() -> list[BenchCase]:
    # Norm of LieRE's initial sum of generators at positions in [0, 1]^2, by block size.
    sizes = {2: (75264, 3.0), 4: (37632, 8.4), 8: (18816, 18.0)}
    sizes |= {16: (9408, 37.0), 32: (4704, 67.0), 64: (2352, 129.0)}
    goals: dict[int, tuple[Goal, ...]] = {}
    for n, least in ((2, 60), (4, 60), (8, 80)):
        goals[n] = (Goal("torch.matrix_exp", least),)
    for n, one, two in ((16, 50, 70), (32, 28, 45), (64, 17, 30)):
        goals[n] = tuple(
            Goal("torch.matrix_exp", least, threads=t) for t, least in ((1, one), (2, two))
        )
    goals[64] += (Goal("limit", 0.85),)
    cases = []
    for backward, label in ((False, "init"), (False, "norm5"), (True, "init"), (True, "norm5")):
        way = "fwd+bwd" if backward else "fwd"
        for n, (count, start) in sizes.items():
            cases.append(
                BenchCase(
                    name=f"expm_skew/n{n}-{label}-{way}",
                    work="expm_skew",
                    shape=(count, n, n),
                    peers=("torch.matrix_exp", *(("torch cos/sin",) if n == 2 else ())),
                    backward=backward,
                    norm=start if label == "init" else 5.0,
                    goals=goals[n] if backward and label == "init" else (),
                    quick=(max(4, count // 64), n, n) if label == "init" else None,
                    threads=(1, 2) if label == "init" else (1,),
                    series=f"{label} {way}",
                )
            )
    return cases


def _lie_layer() -> list[BenchCase]:
    goals = {8: 40.0, 64: 18.0}
    return [
        BenchCase(
            name=f"lie_layer/b{b}",
            work="lie_rotate",
            shape=(8, 12, 197, 64),
            peers=("plain", "plain compiled") if b == 8 else ("plain",),
            backward=True,
            options=(("block_size", b), ("ndim", 2), ("per_sample", False)),
            goals=(Goal("plain", goals[b]),) if b in goals else (),
            quick=(2, 2, 17, 64),
            seconds=5.0,
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
            # The plain form needs gigabytes at 10,000 tokens, ten times as many at 100,000.
            peers=("plain",) if tokens <= 1_000 else (),
            backward=True,
            options=(("block_size", 8), ("ndim", 3), ("per_sample", True)),
            quick=(1, 8, tokens // 50, 64) if tokens <= 10_000 else None,
            memory=True,
            series="tokens",
        )
        for tokens in (1_000, 10_000, 100_000)
    ]


def _blocks() -> list[BenchCase]:
    rotations = [
        BenchCase(
            name=f"blocks/lie_rotations-b{b}",
            work="lie_rotations",
            shape=(12, 64 // b, 196, b),
            peers=("plain",),
            backward=True,
            quick=(2, 64 // b, 16, b),
        )
        for b in (8, 32)
    ]
    turning = [
        BenchCase(
            name=f"blocks/rotate_blocks-b{b}",
            work="rotate_blocks",
            shape=(8, 12, 197, 64),
            peers=("plain", "plain compiled"),
            backward=True,
            options=(("block_size", b),),
            quick=(2, 2, 17, 64),
        )
        for b in (8, 64)
    ]
    return rotations + turning


def _rotate_pairs() -> list[BenchCase]:
    shape, quick = (32, 12, 197, 64), (2, 2, 17, 64)
    peers = ("timm", "timm compiled", "complex", "copy")
    goals = (Goal("timm", 15), Goal("timm compiled", 10), Goal("copy", 0.65))
    rows: Sequence[tuple[str, dict[str, Any]]] = (
        ("fwd", {"goals": goals}),
        ("fwd-bf16", {"dtype": "bfloat16", "peers": ("timm", "timm compiled", "copy")}),
        ("fwd+bwd", {"backward": True}),
        ("learned-fwd+bwd", {"backward": True, "options": (("learned", True),)}),
    )
    return [
        replace(
            BenchCase(f"rotate_pairs/{name}", "rotate_pairs", shape, peers, quick=quick),
            **({"options": (("learned", False),)} | changes),
        )
        for name, changes in rows
    ]


def _string() -> list[BenchCase]:
    tokens, quick = (8, 12, 197, 64), (1, 2, 17, 64)
    solves = ("torch solve", "parametrizations.orthogonal", "geotorch")
    ffts = ("torch.fft", "dense DFT")  # Inductor generates no code for complex numbers
    both: dict[str, Any] = {"backward": True, "quick": quick}
    dense, banded = (("bandwidth", None),), (("bandwidth", 4),)
    return [
        BenchCase("string/cayley", "cayley", (144, 64, 64), solves, backward=True, norm=1.0,
                  quick=(4, 64, 64)),
        BenchCase("string/cayley_rotate", "cayley_rotate", tokens, ("torch solve",), norm=1.0,
                  options=dense, **both),
        BenchCase("string/cayley_rotate-banded4", "cayley_rotate", tokens, ("torch solve",),
                  norm=1.0, options=banded, **both),
        BenchCase("string/circulant", "circulant", tokens, ffts, options=(("block_size", 64),),
                  **both),
        BenchCase("string/circulant-b16", "circulant", tokens, ffts,
                  options=(("block_size", 16),), **both),
    ]  # fmt: skip


def _circulant_size() -> list[BenchCase]:
    # The same number of features at every d, so that time is the cost of one feature.
    return [
        BenchCase(
            name=f"circulant_size/d{d}",
            work="circulant",
            shape=(1, 1, (1 << 20) // d, d),
            peers=("torch.fft", "dense DFT") if d <= 1024 else ("torch.fft",),
            options=(("block_size", d),),
            quick=(1, 1, (1 << 14) // d, d),
            seconds=1.0,
            series="d",
        )
        for d in (16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
    ]


def _vit_step() -> list[BenchCase]:
    at_most = {"mixed": 1.03, "cayley": 1.03, "circulant": 1.03, "liere:8": 1.06, "liere:64": 1.7}
    memory = dict.fromkeys(at_most, 1.03) | {"liere:64": 1.15}
    goals = [Goal(form, ratio, most=True) for form, ratio in at_most.items()]
    goals += [Goal(form, ratio, most=True, memory=True) for form, ratio in memory.items()]
    step = BenchCase(
        name="vit_step/vit_small_patch16_224-batch8",
        work="vit_step",
        shape=(8, 224),
        peers=("axial", *at_most, "plain liere:8", "timm rope mixed"),
        base="none",
        backward=True,
        options=(("model", "vit_small_patch16_224"),),
        goals=tuple(goals),
        seconds=80.0,
        memory=True,
    )
    tiny = replace(
        step,
        name="vit_step/vit_tiny_patch16_64-batch2",
        shape=(2, 64),
        peers=("mixed", "liere:8", "liere:64", "cayley", "circulant"),
        options=(("model", "vit_tiny_patch16_224"),),
        goals=(),
        threads=(),
        quick=(2, 64),
    )
    plain = replace(
        step,
        name="vit_step/plain-liere64",
        peers=("liere:64", "plain liere:64"),
        goals=(),
        threads=(2,),
        on_request=True,
    )
    return [step, tiny, plain]


def all_cases() -> list[BenchCase]:
    """Every case, family by family."""
    families = (_expm_skew, _lie_layer, _cloud, _blocks, _rotate_pairs, _string, _circulant_size)
    return [case for family in (*families, _vit_step) for case in family()]


def chosen_cases(
    only: Sequence[str],
    quick: bool,
    threads: Sequence[int] | None,
    every: Sequence[BenchCase] | None = None,
) -> list[BenchCase]:
    """Cases whose names match one of the patterns (all without one), sized for --quick or not.

    Of `every` case where that is given, else of all of a CPU's.

    A pattern may be a part of the name, "expm_skew/n8", or hold wildcards, "*/b8".
    """
    cases = []
    for case in all_cases() if every is None else every:
        wanted = not only or any(p in case.name or fnmatchcase(case.name, p) for p in only)
        runs = case.quick is not None if quick else bool(case.threads)
        if not (wanted and runs) or (case.on_request and case.name not in only):
            continue
        if quick:
            case = _shrunk(case)  # noqa: PLW2901
        cases.append(replace(case, threads=tuple(threads) if threads else case.threads or (1,)))
    return cases


def _shrunk(case: BenchCase) -> BenchCase:
    """Small sizes prove nothing about the goals, and compiling would take the whole minute."""
    peers = tuple(peer for peer in case.peers if "compiled" not in peer)
    shape = case.quick or case.shape
    return replace(case, shape=shape, peers=peers, goals=(), seconds=0.2, threads=(1,))
