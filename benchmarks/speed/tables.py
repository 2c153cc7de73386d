"""Results as tables: one a family, in the terminal and in Markdown; and the goals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.table import Table as RichTable

from benchmarks.speed.cases import Goal
from benchmarks.speed.measure import Result, Timing

_TITLES = {
    "expm_skew": "Exponential of skew matrices",
    "lie_layer": "LieRE layer by block size: generators and positions to rotated q and k, "
    "forward and backward",
    "blocks": "Rotations as matrices: formed, or given and multiplied by; forward and backward",
    "cloud": "LieRE-8 of a cloud with 3-D positions of its own, forward and backward",
    "rotate_pairs": "RoPE family: rotation of packed q and k",
    "string": "STRING: Cayley and circulant, forward and backward",
    "circulant_size": "Circulant rotation by block size, all of the same number of features",
    "vit_step": "Training step over the same without an encoding",
}


def title(family: str, results: Sequence[Result]) -> str:
    """What the family is, and its sizes where all of its cases have the same."""
    text = _TITLES.get(family, family)
    if family.startswith("vit_step"):
        return f"{_TITLES['vit_step']}: {results[0].case.name.partition('/')[2]}"
    shapes = {result.case.shape for result in results}
    return f"{text}, {list(*shapes)}" if len(shapes) == 1 else text


@dataclass(frozen=True)
class Table:
    """Text only; the first column is the row's name."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def rich(self) -> RichTable:
        """For the terminal."""
        table = RichTable(title=self.title, box=box.SIMPLE_HEAD, title_justify="left")
        for index, column in enumerate(self.columns):
            table.add_column(column, justify="right" if index else "left", no_wrap=not index)
        for row in self.rows:
            table.add_row(*row)
        return table

    def markdown(self) -> str:
        """For the README."""
        rule = ("---", *("---:" for _ in self.columns[1:]))
        lines = (self.columns, rule, *self.rows)
        body = "\n".join("| " + " | ".join(line) + " |" for line in lines)
        return f"**{self.title}**\n\n{body}\n"


def family_table(family: str, results: Sequence[Result]) -> Table:
    """The table of one family's results."""
    rows = _step_rows if family.startswith("vit_step") else _operator_rows
    columns, body = rows(results)
    return Table(title(family, results), columns, body)


def goals_table(results: Sequence[Result]) -> Table | None:
    """Every goal with what was measured; None when no case here has one."""
    rows = []
    for result in results:
        for goal in result.case.goals:
            measured = not goal.memory or result.threads == max(result.case.threads)
            if goal.threads in (None, result.threads) and measured:
                rows.append(_goal_row(result, goal))
    columns = ("goal", "threads", "beside", "wanted", "measured", "reached")
    return Table("Goals", columns, tuple(rows)) if rows else None


def goal_value(result: Result, goal: Goal) -> float | None:
    """What was measured for a goal; None when its form did not run."""
    base = result.forms.get(result.case.base)
    if goal.form == "limit":
        return result.limit / base.median if result.limit and base else None
    form = result.forms.get(goal.form)
    if form is None or base is None:
        return None
    if goal.memory:
        return form.allocated / base.allocated if form.allocated and base.allocated else None
    return form.ratio


def _goal_row(result: Result, goal: Goal) -> tuple[str, ...]:
    value = goal_value(result, goal)
    sign = "≤" if goal.most else "≥"
    if value is None:
        met = "not run"
    else:
        met = "yes" if (value <= goal.ratio if goal.most else value >= goal.ratio) else "NO"
    beside = f"{goal.form}, memory" if goal.memory else goal.form
    measured = "" if value is None else _number(value)
    name = result.case.name
    return (name, str(result.threads), beside, f"{sign} {_number(goal.ratio)}", measured, met)


Rows = tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]


def _operator_rows(results: Sequence[Result]) -> Rows:
    """A row for every case and number of threads; a column for every form."""
    peers = list(dict.fromkeys(peer for result in results for peer in result.case.peers))
    memory = any(t.allocated for result in results for t in result.forms.values())
    columns = ("case", "threads", "lierope, ms", *(f"{peer}, ms" for peer in peers), "limit, ms")
    rows = []
    for result in results:
        cells = [_time(result.forms.get(result.case.base), spread=True)]
        for peer in peers:
            timing = result.forms.get(peer)
            cells.append("" if timing is None else f"{_time(timing)} ({_number(timing.ratio)}×)")
        cells.append("" if result.limit is None else _number(1e3 * result.limit))
        if memory:
            forms = (result.case.base, *peers)
            cells.append(" / ".join(_megabytes(result.forms.get(form)) for form in forms))
        rows.append((result.case.name.partition("/")[2], str(result.threads), *cells))
    if memory:
        columns = (*columns, "extra MB: " + " / ".join(("lierope", *peers)))
    return columns, tuple(rows)


def _step_rows(results: Sequence[Result]) -> Rows:
    """A row for every encoding; ratios to the step without one."""
    columns = ["encoding"]
    for result in results:
        columns += [f"{_threads(result.threads)}, ms", "over none"]
    memory = results[-1]
    columns += ["extra MB", "over none"]
    rows = []
    base = memory.forms.get(memory.case.base)
    for name in (memory.case.base, *memory.case.peers):
        cells = []
        for result in results:
            timing = result.forms.get(name)
            cells += ["", ""] if timing is None else [_time(timing), _over(timing)]
        timing = memory.forms.get(name)
        cells.append(_megabytes(timing))
        held = timing.allocated if timing else None
        cells.append(f"{held / base.allocated:.3f}" if held and base and base.allocated else "")
        rows.append((name, *cells))
    return tuple(columns), tuple(rows)


def _over(timing: Timing) -> str:
    """The ratio and its quartiles over rounds: steps differ by less than a busy machine does."""
    spread = f" ({timing.ratio_low:.2f} to {timing.ratio_high:.2f})"
    return f"{timing.ratio:.3f}" + (spread if timing.ratio_low < timing.ratio_high else "")


def _time(timing: Timing | None, spread: bool = False) -> str:
    """Milliseconds, and half the distance of the quartiles."""
    if timing is None:
        return ""
    half = (timing.high - timing.low) / 2 / timing.median
    return _number(1e3 * timing.median) + (f" ± {half:.0%}" if spread else "")


def _megabytes(timing: Timing | None) -> str:
    return "–" if timing is None or timing.allocated is None else _number(timing.allocated / 1e6)


def _threads(count: int) -> str:
    return f"{count} thread{'s' if count > 1 else ''}"


def _number(value: float) -> str:
    """Three digits that count."""
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.3g}" if value >= 0.001 else f"{value:.1g}"
