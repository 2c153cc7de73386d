"""Where absolute position matters: the price of translation invariance. STRING, next check 1.

Two tasks on the same kind of sequence: name the mark at place 9 (absolute), or the mark three
places after a key (relative). A model that sees only differences of positions can do the first by
something to count from: a begin token; a causal mask, which lets a token count its predecessors; or
the ends of the sequence, which are as far from place 9 in every sequence of one length. The
relative task is also tested on sequences that start 40 places later.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.studies.harness import pictures, words
from benchmarks.studies.harness.loop import Fit, Recipe, fit, measured
from benchmarks.studies.harness.study import Arm, Context, Metric, Outcome, Study
from benchmarks.studies.harness.summary import Summary
from benchmarks.studies.harness.token_model import TokenTransformer, position_parameters
from benchmarks.studies.tasks import places, text_folders
from lierope.train import streams
from lierope.train.errors import check

_WIDTH, _TESTED, _LATER = 64, 2048, 40
_ABLE = 0.9  # accuracy at which a task counts as done
_DIFFERENCES_ALONE = ("rope", "cayley", "circulant", "liere:8", "liere:16")  # no mark, no mask


class Classifier(nn.Module):
    """Embedding, learned places and a begin token where the arm has them, transformer."""

    def __init__(self, settings: dict[str, Any], vocabulary: int, classes: int) -> None:
        super().__init__()
        self.settings = settings
        self.embedding = nn.Embedding(vocabulary + 1, _WIDTH)
        nn.init.normal_(self.embedding.weight, std=0.5)
        longest = settings["length"] + _LATER + 1
        self.table: nn.Parameter | None = None
        if settings["table"]:
            self.table = nn.Parameter(0.1 * torch.randn(longest, _WIDTH))
        self.body = TokenTransformer(
            settings["encoding"], 1, classes, dim=_WIDTH, pool="max", causal=settings["causal"]
        )

    def forward(self, tokens: Tensor, later: int = 0) -> Tensor:
        """Logits of tokens (B, N) that start at place `later`."""
        if self.settings["begin"]:
            begin = torch.full_like(tokens[:, :1], self.embedding.num_embeddings - 1)
            tokens = torch.cat((begin, tokens), 1)
        x = self.embedding(tokens)
        place = later + torch.arange(tokens.shape[1], device=tokens.device)
        if self.table is not None:
            x = x + self.table[place]
        scale = self.settings["length"] if "liere" in self.settings["encoding"] else 1
        logits: Tensor = self.body(x, place[:, None].float() / scale)
        return logits

    def position_parameters(self) -> int:
        """What the encodings and the table of places learn."""
        return position_parameters(self) + (0 if self.table is None else self.table.numel())


def run(context: Context) -> Outcome:
    """Both tasks, one model each; or the texts of a folder."""
    settings = context.settings
    check(settings["length"] >= 16, f"set: length must be at least 16, got {settings['length']}")
    return _on_disk(context) if settings["root"] else _generated(context)


def _generated(context: Context) -> Outcome:
    settings, device = context.settings, context.device
    metrics: dict[str, float] = {}
    curves, seconds, model = {}, 0.0, None
    for task in ("absolute", "relative"):
        model = _model(context, places.VOCABULARY, places.MARKS, task)

        def loss(step: int, task: str = task, model: nn.Module = model) -> Tensor:
            random = streams.stream(context.seed, "documents", task, step)
            drawn = places.draw(task, settings["batch_size"], settings["length"], random)
            tokens, labels = (x.to(device) for x in drawn)
            return functional.cross_entropy(model(tokens), labels)

        def accuracy(later: int = 0, task: str = task, model: nn.Module = model) -> float:
            random = streams.stream("documents", "test", task)
            drawn = places.draw(task, _TESTED, settings["length"], random)
            tokens, labels = (x.to(device) for x in drawn)
            return float((model(tokens, later).argmax(1) == labels).double().mean())

        trained = fit(
            model,
            loss,
            lambda: {"accuracy": accuracy()},
            Recipe.of(settings),
            context,
        )
        metrics |= {task: trained.curves["accuracy"][-1][1]}
        if task == "relative":
            metrics |= measured(model, lambda: {"later": accuracy(_LATER)})
        curves[task] = trained.curves["accuracy"]
        seconds = trained.seconds_per_step
    assert model is not None
    return _outcome(model, metrics, curves, seconds)


def _on_disk(context: Context) -> Outcome:
    settings, device = context.settings, context.device
    classes, train, held, test = text_folders.load(settings["root"], settings["length"])
    model = _model(context, text_folders.BYTES, len(classes), "texts")

    def loss(step: int) -> Tensor:
        random = streams.stream(context.seed, "documents", "texts", step)
        at = torch.randint(len(train.labels), (settings["batch_size"],), generator=random)
        return functional.cross_entropy(
            model(train.tokens[at].to(device)), train.labels[at].to(device)
        )

    def accuracy(part: text_folders.Texts) -> float:
        pieces = zip(part.tokens.split(256), part.labels.split(256), strict=True)
        right = sum(int((model(x.to(device)).argmax(1).cpu() == y).sum()) for x, y in pieces)
        return right / len(part.labels)

    trained: Fit = fit(
        model, loss, lambda: {"accuracy": accuracy(held)}, Recipe.of(settings), context
    )
    metrics = measured(model, lambda: {"texts": accuracy(test)})
    return _outcome(model, metrics, trained.curves, trained.seconds_per_step)


def _model(context: Context, vocabulary: int, classes: int, task: str) -> Classifier:
    torch.manual_seed(streams.number(context.seed, "documents", task, "weights"))
    return Classifier(context.settings, vocabulary, classes).to(context.device)


def _outcome(
    model: Classifier, metrics: dict[str, float], curves: dict[str, Any], seconds: float
) -> Outcome:
    return Outcome(
        metrics=metrics,
        curves=curves,
        parameters=sum(p.numel() for p in model.parameters()),
        position_parameters=model.position_parameters(),
        seconds_per_step=seconds,
    )


_METRICS = (
    Metric("absolute", "absolute task, %"),
    Metric("relative", "relative task, %"),
    Metric("later", "relative, 40 later, %"),
    Metric("texts", "texts, %"),
)


def verdict(summary: Summary) -> str:
    """Who can do the absolute task, who the relative one, and where the sequence starts later."""
    found = []
    for metric in _METRICS[:3]:
        known = {a: summary.mean(a, metric.name) for a in summary.arms}
        known = {a: v for a, v in known.items() if not math.isnan(v)}
        if known:
            failed = [f"{words.name(a)} ({100 * v:.0f})" for a, v in known.items() if v < _ABLE]
            but = f" but {', '.join(failed)}" if failed else ""
            heading = words.plain(metric).removesuffix(", %")
            found.append(f"{heading}, at least 90 % on average: all arms{but}")
    texts = _METRICS[3]
    if any(summary.values(a, texts.name) for a in summary.arms):
        return f"{words.brief(summary, texts)}\n{words.against(summary, texts)}"
    text = "; ".join(found)
    return f"{_price(summary)}\n{text[0].upper()}{text[1:]}. {words.against(summary, _METRICS[0])}"


def _price(summary: Summary) -> str:
    """Whether arms that see only differences, with nothing to count from, fail the first task."""
    blind = [a for a in summary.arms if a in _DIFFERENCES_ALONE]
    able = [a for a in blind if min(summary.values(a, "absolute").values(), default=0) >= _ABLE]
    if able and len(able) == len(blind):
        return (
            f"No price was found: in every seed {words.listed(able)} name the mark at a place "
            "too, though they see differences of places alone. All sequences are of one length, "
            "so a place can be known by how far the ends are; what invariance costs where they "
            "cannot be seen is not shown."
        )
    return (
        f"Of arms that see differences of places alone {words.listed(able)} do the absolute task."
    )


def draw(summary: Summary, folder: Path) -> list[Path]:
    """Dots by arm."""
    known = [m for m in _METRICS if any(summary.values(a, m.name) for a in summary.arms)]
    return [
        pictures.dots(
            summary, known, folder / "documents.png", lines={"no positions": places.ceiling()}
        )
    ]


def _arm(name: str, encoding: str, **options: bool) -> Arm:
    return Arm(name, {"encoding": encoding, **options})


STUDY = Study(
    name="documents",
    question="What does translation invariance cost where absolute position matters?",
    source="STRING, next check 1",
    version=1,
    arms=[
        _arm("none", "none"),
        _arm("none, causal", "none", causal=True),
        _arm("absolute", "none", table=True),
        _arm("rope", "mixed:theta=1000"),
        _arm("cayley", "cayley:theta=1000"),
        _arm("circulant", "circulant"),
        _arm("liere:8", "liere:8"),
        _arm("liere:16", "liere:16"),
        _arm("absolute + rope", "mixed:theta=1000", table=True),
        _arm("rope, begin token", "mixed:theta=1000", begin=True),
        _arm("rope, causal", "mixed:theta=1000", causal=True),
    ],
    settings={
        "encoding": "mixed",
        "table": False,
        "begin": False,
        "causal": False,
        "length": 32,
        "steps": 1000,
        "batch_size": 64,
        "lr": 2e-3,
        "evaluate_every": 100,
        "root": "",
    },
    quick={"steps": 20, "evaluate_every": 20},
    quick_arms=("absolute", "rope"),
    run=run,
    metrics=_METRICS,
    reference="rope",
    verdict=verdict,
    draw=draw,
    presets={"texts": {"length": 512, "steps": 5000}},
    papers="STRING names the question; no figures.",
)
