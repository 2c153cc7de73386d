"""The short table of a record: how many times longer the peers take, by threads."""

from collections.abc import Mapping
from typing import Any

from benchmarks.speed.tables import Table

# Cases of the short table, what they are for a reader, and the form they are set beside.
SHOWN = (
    ("expm_skew/n4-init-fwd+bwd", "`expm_skew` [37632, 4, 4]", "torch.matrix_exp"),
    ("expm_skew/n8-init-fwd+bwd", "`expm_skew` [18816, 8, 8]", "torch.matrix_exp"),
    ("expm_skew/n16-init-fwd+bwd", "`expm_skew` [9408, 16, 16]", "torch.matrix_exp"),
    ("expm_skew/n64-init-fwd+bwd", "`expm_skew` [2352, 64, 64]", "torch.matrix_exp"),
    ("lie_layer/b8", "LieRE-8 layer", "plain"),
    ("lie_layer/b64", "LieRE-64 layer", "plain"),
    ("rotate_pairs/fwd", "`rotate_pairs`, packed qkv, forward", "timm"),
    ("rotate_pairs/fwd", "`rotate_pairs`, packed qkv, forward", "timm compiled"),
    ("rotate_pairs/fwd", "`rotate_pairs`, packed qkv, forward", "copy"),
)
STEP = "vit_step/vit_small_patch16_224-batch8"
ENCODINGS = ("mixed", "cayley", "circulant", "liere:8", "liere:64")


def ratios(record: Mapping[str, Any]) -> dict[tuple[str, str, int], float]:
    """(case, form, threads) -> time of the form over that of the case's base."""
    return {
        (result["name"], form, result["threads"]): values["ratio"]
        for result in record["results"]
        for form, values in result["forms"].items()
    }


def summary(record: Mapping[str, Any]) -> tuple[Table, Table]:
    """Peers over ours, and a training step by encoding over the step without one."""
    measured = ratios(record)

    def row(case: str, text: tuple[str, ...], form: str) -> tuple[str, ...]:
        cells = [measured.get((case, form, threads)) for threads in (1, 2)]
        return (*text, *("" if c is None else f"{c:.3g}×" for c in cells))

    peers = tuple(row(case, (text, form), form) for case, text, form in SHOWN)
    steps = tuple(row(STEP, (f"`{name}`",), name) for name in ENCODINGS)
    return (
        Table(
            "Time of the other form over ours (forward + backward unless said)",
            ("work", "beside", "1 thread", "2 threads"),
            peers,
        ),
        Table(
            "Training step of ViT-S/16, batch 8, over the step without an encoding",
            ("encoding", "1 thread", "2 threads"),
            steps,
        ),
    )
