"""Studies: runs kept and never repeated, honest statistics, errors of one line, all quick forms."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rich")
pytest.importorskip("matplotlib")
pytest.importorskip("lierope.timm")

from benchmarks.markers import around_markers
from benchmarks.studies.harness import command, pictures, registry, tables, words
from benchmarks.studies.harness.record import Record
from benchmarks.studies.harness.runner import compute
from benchmarks.studies.harness.study import (
    Arm,
    Context,
    Metric,
    Outcome,
    Study,
    Unit,
    check_study,
)
from benchmarks.studies.harness.summary import Summary, estimate, holm
from scipy import stats

from lierope.cli import main
from lierope.train.distributed import World
from lierope.train.errors import DivergenceError, InputError

ROOT = Path(__file__).resolve().parents[1]
WRITTEN = [n for n in registry.NAMES
           if (ROOT / f"benchmarks/studies/{n.replace('-', '_')}.py").exists()]  # fmt: skip
calls: list[str] = []


def _run(context: Context) -> Outcome:
    calls.append(context.unit.name)
    if context.settings["lr"] > 1:
        raise DivergenceError("the loss became nan by step 3")
    value = context.settings["level"] + 0.01 * context.seed
    return Outcome({"score": value}, {"score": [(1, 0.0), (2, value)]}, 10, 4, 0.002)


TOY = Study(
    name="toy",
    question="Does it work?",
    source="here",
    version=3,
    arms=[Arm("low", {"level": 0.1}), Arm("high", {"level": 0.5}), Arm("wild", {"lr": 9.0})],
    settings={"level": 0.0, "lr": 0.1, "steps": 5},
    quick={"steps": 1},
    run=_run,
    metrics=[Metric("score", "score, %")],
    reference="low",
    verdict=lambda s: f"high is {s.mean('high', 'score') - s.mean('low', 'score'):.1f} above low.",
    draw=lambda summary, folder: [],
    papers="none",
)


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    calls.clear()
    monkeypatch.setattr(command, "load", lambda name: TOY)


def _study(folder: Path, *words: str) -> int:
    return main(["study", "toy", "--jobs", "1", "--output", str(folder), *words])


@pytest.mark.usefixtures("toy")
def test_every_run_is_kept_and_none_is_computed_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _study(tmp_path, "--seeds", "2", "--arms", "low", "high") == 0
    assert calls == ["low, seed 0", "high, seed 0", "low, seed 1", "high, seed 1"]
    assert "Found: high is 0.4 above low." in capsys.readouterr().out
    calls.clear()
    assert _study(tmp_path, "--seeds", "3") == 0
    assert sorted(calls) == [
        "high, seed 2", "low, seed 2", "wild, seed 0", "wild, seed 1", "wild, seed 2"
    ]  # fmt: skip
    content = json.loads((tmp_path / "toy.json").read_text())
    assert content["summary"]["arms"]["high"]["score"]["mean"] == pytest.approx(0.51)
    assert content["summary"]["arms"]["high"]["score"]["count"] == 3
    assert sum("failed" in row for row in content["runs"]) == 3
    assert "wild (3 of 3 diverged)" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["toy.json"]


@pytest.mark.usefixtures("toy")
def test_an_interrupted_study_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(context: Context) -> Outcome:
        if len(calls) == 2:
            raise KeyboardInterrupt
        return _run(context)

    with monkeypatch.context() as patch:
        patch.setattr(command, "load", lambda name: replace(TOY, run=stop))
        assert _study(tmp_path, "--seeds", "2", "--arms", "low", "high") == 130
    assert len(json.loads((tmp_path / "toy.json").read_text())["runs"]) == 2
    calls.clear()
    assert _study(tmp_path, "--seeds", "2", "--arms", "low", "high") == 0
    assert len(calls) == 2


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--arms", "lwo"], "arms: must be one of low, high, wild, got lwo; did you mean low?"),
        (["--set", "lr=abc"], 'set: lr must be float, as 0.1 is, got "abc"'),
        (["--set", "rate=1"], "set: must be one of level, lr, steps, got rate"),
        (["--set", "lr"], "set: must be NAME=VALUE, got lr"),
        (["--seeds", "0"], "seeds: must be at least 1, got 0"),
        (["--jobs", "0"], "jobs: must be at least 1, got 0"),
        (["--root", "/data"], "root: toy reads no data from disk"),
        (["--preset", "big"], "preset: must be one of , got big"),
        (["--device", "tpu"], "device: must be one of cpu, cuda, got tpu"),
    ],
)
def test_bad_words_are_one_line(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _study(tmp_path, *words) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"lierope study: {message}")
    assert error.count("\n") == 1
    assert not calls


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "is of version 1.2, this toy is 1.3; --overwrite starts it again"),
        ({"study": "arrows"}, "is of the study arrows, not toy"),
        ({"format": None}, "is of version None.3"),
    ],
)
def test_a_json_of_something_else_is_refused(
    change: dict[str, Any], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _study(tmp_path, "--arms", "low") == 0
    path = tmp_path / "toy.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert _study(tmp_path, "--arms", "low") == 2
    assert message in capsys.readouterr().err
    assert _study(tmp_path, "--arms", "low", "--overwrite") == 0


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: content["runs"][0].pop("seed"), "run 0 is damaged"),
        (lambda content: content["runs"][0].update(outcome={}), "run 0 is damaged"),
        (lambda content: content["runs"][0]["outcome"].update(metrics={"score": "x"}), "run 0 is"),
        (lambda content: content.update(runs=7), "runs is int"),
        (lambda content: content.update(minutes="long"), "minutes is str"),
    ],
)
def test_a_damaged_json_is_refused(
    damage: Callable[[dict[str, Any]], Any],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert _study(tmp_path, "--arms", "low") == 0
    path = tmp_path / "toy.json"
    content = json.loads(path.read_text())
    damage(content)
    path.write_text(json.dumps(content))
    capsys.readouterr()
    assert _study(tmp_path, "--arms", "low") == 2
    error = capsys.readouterr().err
    assert f"is not a study's JSON ({message}" in error
    assert error.count("\n") == 1


@pytest.mark.usefixtures("toy")
def test_other_settings_are_refused_and_say_which(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _study(tmp_path, "--arms", "low") == 0
    assert _study(tmp_path, "--arms", "low", "--set", "steps=7") == 2
    assert "holds low, seed 0 with other settings (steps 5 there, 7 here)" in (
        capsys.readouterr().err
    )
    (tmp_path / "toy.json").write_text("{")
    assert _study(tmp_path, "--arms", "low") == 2
    assert "is not a study's JSON" in capsys.readouterr().err


def test_an_unknown_study_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study", "arows"]) == 2
    assert "got arows; did you mean arrows?" in capsys.readouterr().err


def test_parts_of_other_processes_are_taken_over(tmp_path: Path) -> None:
    units = TOY.units(TOY.settings, ["low"], range(2))
    for rank, unit in enumerate(units):
        Record.open(TOY, tmp_path / "toy.json", rank).add(unit, _run_of(unit), 1.0, {})
    whole = Record.open(TOY, tmp_path / "toy.json")
    assert [row["seed"] for row in whole.rows] == [0, 1]
    whole.finish({"verdict": "yes"})
    assert [path.name for path in tmp_path.iterdir()] == ["toy.json"]
    assert len(json.loads((tmp_path / "toy.json").read_text())["runs"]) == 2


def _run_of(unit: Unit) -> Outcome:
    return Outcome({"score": unit.seed / 10})


def test_a_key_tells_settings_and_seeds_apart() -> None:
    units = [
        *TOY.units(TOY.settings, ["low", "high"], range(2)),
        *TOY.units(TOY.settings | {"steps": 6}, ["low"], range(1)),
    ]
    assert len({unit.key for unit in units}) == 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"arms": [Arm("a"), Arm("a")]}, "two arms of one name"),
        ({"quick": {"stepz": 1}}, "unknown settings"),
        ({"reference": "nobody"}, "unknown reference"),
        ({"question": "It works."}, "question mark"),
    ],
)
def test_a_study_whose_parts_do_not_fit_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_study(Study(**(vars(TOY) | change)))


def test_intervals_are_students() -> None:
    values = [0.8, 0.9, 0.7, 0.85]
    found = estimate(values)
    low, high = stats.t.interval(0.95, 3, loc=found.mean, scale=stats.sem(values))
    assert (found.low, found.high) == pytest.approx((low, high))
    assert math.isnan(estimate([1.0]).low)


def test_holms_correction() -> None:
    # The textbook's example: ordered p times (m - i), kept from falling.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_paired_tests_use_seeds_in_common() -> None:
    rows = [
        {"arm": arm, "seed": seed, "outcome": {"metrics": {"score": value}, "curves": {}}}
        for arm, values in {"low": [0.1, 0.3, 0.2], "high": [0.21, 0.4, 0.31, 0.9]}.items()
        for seed, value in enumerate(values)
    ]
    difference = Summary(TOY, rows).differences("score")["high"]
    assert difference.estimate.count == 3
    assert difference.estimate.mean == pytest.approx(0.32 / 3)
    assert difference.p == pytest.approx(stats.ttest_rel([0.21, 0.4, 0.31], [0.1, 0.3, 0.2]).pvalue)
    assert difference.found


def _rows(values: dict[str, list[float]], metric: str = "score") -> list[dict[str, Any]]:
    return [
        {"arm": arm, "seed": seed, "outcome": {"metrics": {metric: value}, "curves": {}}}
        for arm, of_arm in values.items()
        for seed, value in enumerate(of_arm)
    ]


def test_words_tell_what_the_correction_takes_away() -> None:
    study = replace(TOY, arms=[*TOY.arms, Arm("same")])
    values = {"low": [0.1, 0.3, 0.2], "high": [0.18, 0.45, 0.33], "wild": [0.011, 0.2, 0.11]}
    few = words.against(Summary(study, _rows(values)), TOY.metrics[0])
    assert few.startswith("Score in points against `low`: better: `high` (+12.0 ± ")
    assert "; worse: `wild` (-9.3 ± 1.5)" in few
    more = Summary(study, _rows(values | {"same": [0.15, 0.28, 0.2]}))
    text = words.against(more, TOY.metrics[0])
    assert "worse: `wild`" in text
    assert "apart only without the correction: `high` (+12.0 ± " in text
    assert "not told apart: `same` (+1.0 ± 9.0)" in text
    high = more.differences("score")["high"]
    assert high.doubtful
    assert high.alone < 0.05 < high.p
    assert words.brief(more, TOY.metrics[0]) == (
        "Score against `low`: worse: `wild`; apart only without the correction: `high`; "
        "not told apart: `same`."
    )


def test_a_disturbance_is_judged_by_its_interval() -> None:
    before = {"low": [0.9, 0.8, 0.85], "high": [0.9, 0.9, 0.9], "wild": [0.9, 0.8, 0.7]}
    after = {"low": [0.9, 0.8, 0.85], "high": [0.5, 0.4, 0.45], "wild": [0.9, 0.7, 0.75]}
    rows = _rows(before)
    for row, other in zip(rows, _rows(after, "after"), strict=True):
        row["outcome"]["metrics"] |= other["outcome"]["metrics"]
    summary = Summary(TOY, rows)
    assert words.kept(summary, "score", "after", 2) == (["low"], ["high"], ["wild"])


def test_numbers_that_some_runs_lack_say_so() -> None:
    assert tables.number(estimate([0.5, 0.7]), TOY.metrics[0], 3) == "60.0 ± 127.1 (2 of 3)"
    assert tables.number(estimate([0.5, 0.7]), TOY.metrics[0], 2) == "60.0 ± 127.1"


def test_drawn_intervals_end_where_values_do() -> None:
    wide = estimate([0.5, 0.9])
    assert pictures.drawn_interval(wide, 100) == (0.0, 100.0)
    error = Metric("error", "left over, %", most=math.inf)
    assert pictures.drawn_interval(wide, 100, error.largest)[1] == pytest.approx(100 * wide.high)
    assert pictures.drawn_interval(wide, 1)[1] == pytest.approx(wide.high)


def test_a_diverged_run_is_an_outcome(tmp_path: Path) -> None:
    unit = TOY.units(TOY.settings, ["wild"], range(1))[0]
    done = compute(TOY, unit, World(), tmp_path, lambda fraction: None)
    assert done.result == "the loss became nan by step 3"
    with pytest.raises(InputError):
        TOY.arm("nobody")


def test_every_study_has_its_place_on_the_page() -> None:
    for name in registry.NAMES:
        around_markers(ROOT / "docs" / "studies.md", f"study-{name}")


@pytest.mark.parametrize("name", WRITTEN)
def test_the_quick_form_runs(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--quick", "--jobs", "1", "--output", str(tmp_path)]
    assert main(["study", name, *words]) == 0, capsys.readouterr().err
    content = json.loads((tmp_path / f"{name}.json").read_text())
    assert all("outcome" in row for row in content["runs"])
    assert content["verdict"].startswith("(Quick form")
    pictures = [tmp_path / picture for picture in content["pictures"]]
    assert pictures
    assert all(picture.read_bytes()[:4] == b"\x89PNG" for picture in pictures)
    said = capsys.readouterr().out
    assert re.search(r"Found: ", said)
