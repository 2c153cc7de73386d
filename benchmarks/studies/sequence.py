"""1-D sequences: LieRE beside RoPE. LieRE, open question 1; STRING, experiment 1.

Two equalities come first, measured in every run: Cayley-STRING with P = I gives RoPE's rotations to
the bit, and 1-D LieRE, whose one generator a block has a real Schur form, gives RoPE's scores in
that basis. Then a causal model of characters is trained on generated text.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

import lierope
from benchmarks.studies.harness import pictures, words
from benchmarks.studies.harness.loop import Recipe, fit, measured
from benchmarks.studies.harness.study import Arm, Context, Metric, Outcome, Study
from benchmarks.studies.harness.summary import Summary
from benchmarks.studies.harness.token_model import TokenTransformer, position_parameters
from benchmarks.studies.tasks import grammar
from lierope.diagnostics import rotation_matrices
from lierope.train import streams

_WIDTH, _HEADS = 64, 4


class CharacterModel(nn.Module):
    """Embedding, learned positions where the arm has them, causal transformer."""

    def __init__(self, encoding: str, length: int, characters: int, learned: bool) -> None:
        super().__init__()
        self.encoding = encoding
        self.embedding = nn.Embedding(characters, _WIDTH)
        nn.init.normal_(self.embedding.weight, std=0.5)
        self.table: nn.Parameter | None = None
        if encoding == "absolute":
            self.table = nn.Parameter(0.1 * torch.randn(length, _WIDTH))
        self.body = TokenTransformer(
            encoding, 1, characters, dim=_WIDTH, heads=_HEADS, pool="none", causal=True
        )
        if not learned:
            for name, parameter in self.body.named_parameters():
                if ".encoding." in name:
                    parameter.requires_grad_(False)

    def forward(self, text: Tensor) -> Tensor:
        """Logits (B, N, characters) of the next character of text (B, N)."""
        x = self.embedding(text)
        N = text.shape[1]
        if self.table is not None:
            x = x + self.table[:N]
        # 1-D LieRE draws its generators for positions in units of the training length
        scale = N if "liere" in self.encoding else 1
        positions = torch.arange(N, device=text.device, dtype=torch.float32)[:, None] / scale
        logits: Tensor = self.body(x, positions)
        return logits


def equalities() -> dict[str, float]:
    """Largest differences: Cayley at P = I from RoPE; 1-D LieRE from RoPE in LieRE's basis."""
    torch.manual_seed(streams.number("sequence", "equalities"))
    positions = torch.arange(40.0)[:, None]
    rope = lierope.MixedRoPE(16, 2, 1)
    cayley = lierope.CayleySTRING(16, 2, 1)
    cayley.load_state_dict(rope.state_dict(), strict=False)
    gap = rotation_matrices(cayley, positions) - rotation_matrices(rope, positions)
    return {"P = I": float(gap.detach().abs().max()), "liere": _liere_gap()}


def _liere_gap() -> float:
    """Scores of 1-D LieRE and of RoPE whose frequencies and basis are LieRE's own, in float64."""
    liere = lierope.LieRE(16, 1, 1, block_size=16, dtype=torch.float64)
    positions = torch.rand(30, 1, dtype=torch.float64)
    with torch.no_grad():
        R = rotation_matrices(liere, positions)[0]
        # R(p) = V diag(e^{i w p}) V^H with the frequencies w of the one generator
        generator = torch.zeros(16, 16, dtype=torch.float64)
        upper = torch.triu_indices(16, 16, 1)
        generator[upper[0], upper[1]] = liere.generators[0, 0, 0]
        values, vectors = torch.linalg.eig(generator - generator.mT)
        phases = torch.exp(values[None, :] * positions)
        rope = (vectors[None] * phases[:, None, :]) @ vectors.mH[None]
        return float((rope.real - R).abs().max())


def run(context: Context) -> Outcome:
    """Trains on the first 80 % of a text, stops nowhere, tests on the last 10 %."""
    settings, device = context.settings, context.device
    written = grammar.text(settings["characters"])
    alphabet = sorted(set(written))
    numbers = torch.tensor([alphabet.index(c) for c in written], device=device)
    split = [int(0.8 * len(numbers)), int(0.9 * len(numbers))]
    train, held, test = numbers[: split[0]], numbers[split[0] : split[1]], numbers[split[1] :]
    length = settings["length"]
    torch.manual_seed(streams.number(context.seed, "sequence", "weights"))
    model = CharacterModel(settings["encoding"], length, len(alphabet), settings["learned"])
    model.to(device)

    def loss(step: int) -> Tensor:
        random = streams.stream(context.seed, "sequence", step)
        starts = torch.randint(len(train) - length, (settings["batch_size"],), generator=random)
        at = starts[:, None].to(device) + torch.arange(length + 1, device=device)
        text = train[at]
        return _loss(model, text)

    def bits(part: Tensor) -> float:
        pieces = part[: (len(part) - 1) // length * length + 1]
        text = torch.stack((pieces[:-1], pieces[1:])).unflatten(1, (-1, length))
        logits = torch.cat([model(x) for x in text[0].split(64)])
        nats = functional.cross_entropy(logits.flatten(0, 1), text[1].flatten())
        return float(nats) / math.log(2)

    trained = fit(model, loss, lambda: {"bits": bits(held)}, Recipe.of(settings), context)
    metrics = measured(model, lambda: {"bits": bits(test)})
    table = model.table.numel() if model.table is not None else 0
    return Outcome(
        metrics=metrics,
        curves=trained.curves,
        parameters=sum(p.numel() for p in model.parameters()),
        position_parameters=position_parameters(model) + table,
        seconds_per_step=trained.seconds_per_step,
        details={"text": grammar.digest(written), "equalities": equalities()},
    )


def _loss(model: CharacterModel, text: Tensor) -> Tensor:
    logits = model(text[:, :-1])
    return functional.cross_entropy(logits.flatten(0, 1), text[:, 1:].flatten())


_BITS = Metric("bits", "test bits a character", scale=1, digits=4, higher_is_better=False)


def verdict(summary: Summary) -> str:
    """The equalities, then who predicts better."""
    gaps = [o["details"]["equalities"] for a in summary.arms for o in summary.outcomes(a).values()]
    identity, liere = (max(gap[name] for gap in gaps) for name in ("P = I", "liere"))
    same = "to the bit" if identity == 0 else f"to {identity:.1e}"
    return (
        f"Cayley-STRING at P = I has RoPE's rotations {same}; 1-D LieRE is RoPE in its own basis "
        f"to {liere:.1e} (float64). {words.brief(summary, _BITS)}\n"
        f"{words.against(summary, _BITS)} {words.spread(summary, _BITS)}"
    )


def draw(summary: Summary, folder: Path) -> list[Path]:
    """Curves; dots."""
    return [
        pictures.curves(
            summary, "bits", folder / "sequence.png",
            xlabel="steps", ylabel="validation bits a character",
        ),
        pictures.dots(summary, [_BITS], folder / "sequence-dots.png"),
    ]  # fmt: skip


STUDY = Study(
    name="sequence",
    question="Is 1-D LieRE or STRING more than RoPE on sequences?",
    source="LieRE, open question 1; STRING, experiment 1",
    version=1,
    arms=[
        Arm("none", {"encoding": "none"}),
        Arm("absolute", {"encoding": "absolute"}),
        Arm("rope", {"encoding": "mixed:theta=1000", "learned": False}),
        Arm("rope, learned", {"encoding": "mixed:theta=1000"}),
        Arm("liere:2", {"encoding": "liere:2"}),
        Arm("liere:8", {"encoding": "liere:8"}),
        Arm("cayley", {"encoding": "cayley:theta=1000"}),
        Arm("circulant", {"encoding": "circulant"}),
        Arm("dense-string", {"encoding": "dense-string:theta=1000"}),
    ],
    settings={
        "encoding": "mixed",
        "learned": True,
        "characters": 400_000,
        "length": 96,
        "steps": 1000,
        "batch_size": 32,
        "lr": 2e-3,
        "evaluate_every": 100,
    },
    quick={"characters": 20_000, "length": 32, "steps": 20, "evaluate_every": 10},
    quick_arms=("rope", "liere:8"),
    run=run,
    metrics=[_BITS],
    reference="rope",
    verdict=verdict,
    draw=draw,
    papers="LieRE leaves 1-D open; STRING shows that RoPE is the case P = I. No figures for text.",
)
