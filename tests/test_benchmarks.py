"""The speed benchmark: a quick run's JSON, losses against a reference, the README's markers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("rich")
pytest.importorskip("matplotlib")

from benchmarks.markers import markers
from benchmarks.speed.__main__ import main
from benchmarks.speed.cases import BenchCase, Goal, all_cases, chosen_cases
from benchmarks.speed.compare import compare
from benchmarks.speed.measure import Result, summarize, timed_rounds
from benchmarks.speed.memory import peak_memory
from benchmarks.speed.record import read_record
from benchmarks.speed.report import TABLES, by_family, write_tables
from benchmarks.speed.tables import goals_table
from benchmarks.speed.work import exponential_products, grid_products, work_of

CASE = "expm_skew/n8-init-fwd+bwd"
CPU = torch.device("cpu")
BEGIN, END = markers(TABLES)


@pytest.fixture(scope="module")
def quick_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("speed")
    readme = folder / "README.md"
    readme.write_text(f"before\n{BEGIN}\nold numbers\n{END}\nafter\n", encoding="utf-8")
    output = folder / "speed.json"
    words = ["--quick", "--only", CASE, "--threads", "1", "--output", str(output)]
    assert main([*words, "--readme", str(readme)]) == 0
    return output


def results_with(seconds: float, peer: float = 1.0) -> list[Result]:
    """A case without measuring it: ours took `seconds`, its peer `peer`."""
    case = next(case for case in all_cases() if case.name == CASE)
    times = {"lierope": [seconds * (1 + i / 1000) for i in range(9)]}
    times["torch.matrix_exp"] = [peer] * 9
    return [Result(case, 1, summarize(times, "lierope"))]


def as_record(results: list[Result]) -> dict[str, Any]:
    text = json.dumps({"results": [result.record() for result in results]})
    return dict(json.loads(text))


def test_a_quick_run_writes_a_record_that_says_what_ran(quick_run: Path) -> None:
    record = read_record(quick_run)
    assert {"date", "command", "commit", "machine", "versions", "build"} <= record.keys()
    assert record["versions"]["torch"] == torch.__version__
    (result,) = record["results"]
    assert (result["name"], result["threads"], result["skipped"]) == (CASE, 1, {})
    ours, torchs = result["forms"]["lierope"], result["forms"]["torch.matrix_exp"]
    assert ours["ratio"] == 1
    assert 0 < ours["low"] <= ours["median"] <= ours["high"]
    assert torchs["difference"] < 1e-4
    assert result["limit"] > 0
    assert record["rooflines"][0]["flops"] > 1e8


def test_a_quick_run_draws_and_fills_the_readme_between_its_markers(quick_run: Path) -> None:
    assert quick_run.with_name("speed-expm_skew.png").read_bytes()[:4] == b"\x89PNG"
    text = quick_run.with_name("README.md").read_text(encoding="utf-8")
    assert text.startswith(f"before\n{BEGIN}\n")
    assert text.endswith(f"{END}\nafter\n")
    assert "old numbers" not in text
    assert "n8-init-fwd+bwd" in text
    assert "](speed-expm_skew.png)" in text


@pytest.mark.parametrize("text", ["", f"{END}{BEGIN}", f"{BEGIN}{END}{BEGIN}", BEGIN])
def test_a_readme_without_its_markers_stays_as_it_is(
    tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(text, encoding="utf-8")
    words = ["--quick", "--only", CASE, "--output", str(tmp_path / "x.json")]
    assert main([*words, "--readme", str(readme)]) == 2
    assert f"readme: must have {BEGIN} and {END} once each" in capsys.readouterr().err
    assert readme.read_text(encoding="utf-8") == text
    assert not (tmp_path / "x.json").exists()


def test_markdown_replaces_nothing_else(tmp_path: Path, quick_run: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"é a\r\n{BEGIN}x{END}b", encoding="utf-8", newline="")
    for _ in range(2):  # writing again changes nothing
        write_tables(readme, results_with(0.1), {}, read_record(quick_run))
        text = readme.read_bytes().decode()
        assert text.startswith(f"é a\r\n{BEGIN}")
        assert text.endswith(f"{END}b")


@pytest.mark.parametrize(
    ("now", "peer", "lost"),
    [
        (0.100, 1.0, False),
        (0.104, 1.0, False),  # within the tolerance
        (0.110, 1.0, True),
        (0.110, 1.1, False),  # the whole machine is slower today
        (0.050, 0.4, True),  # it is faster, but we are not by as much
    ],
)
def test_a_loss_is_told_beside_the_peer(now: float, peer: float, lost: bool) -> None:
    (change,) = compare(results_with(now, peer), as_record(results_with(0.1)))
    assert change.lost == lost
    assert change.slower == pytest.approx(now / 0.1 / peer)


def test_without_a_peer_seconds_are_compared_and_noise_is_no_loss() -> None:
    then, now = results_with(0.1), results_with(0.12)
    for result in (*then, *now):
        del result.forms["torch.matrix_exp"]
    assert compare(now, as_record(then))[0].lost
    now[0].forms["lierope"].low = 0.1
    assert not compare(now, as_record(then))[0].lost


def test_other_sizes_are_not_compared() -> None:
    then = results_with(0.1)
    then[0].case = replace(then[0].case, shape=(4, 8, 8))
    assert compare(results_with(0.2), as_record(then)) == []


def test_reference_flags_a_slow_down_by_its_exit_code(quick_run: Path, tmp_path: Path) -> None:
    record = read_record(quick_run)
    for form in record["results"][0]["forms"].values():
        if form["ratio"] != 1:  # the peer was a hundred times as slow beside us once
            for name in ("ratio", "ratio_low", "ratio_high"):
                form[name] *= 100
    reference = tmp_path / "reference.json"
    reference.write_text(json.dumps(record), encoding="utf-8")
    words = ["--quick", "--only", CASE, "--output", str(tmp_path / "x.json"), "--no-plots"]
    assert main([*words, "--reference", str(reference)]) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--only", "no-such-case"], "only: must match a case"),
        (["--quick", "--reference", "nowhere.json"], "reference: must be a JSON file"),
    ],
)
def test_bad_input_is_one_line(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_cases_are_named_once_and_quick_ones_are_small() -> None:
    names = [case.name for case in all_cases()]
    assert len(names) == len(set(names))
    for case in all_cases():
        assert work_of(case) is not None
        assert json.dumps(Result(case, 1).record())
    assert not any(case.on_request for case in chosen_cases(["vit"], False, None))
    assert chosen_cases(["vit_step/plain-liere64"], False, None)
    families = {case.name.partition("/")[0] for case in chosen_cases([], False, None)}
    quick = chosen_cases([], True, None)
    assert families == {case.family for case in quick}
    assert not any("compiled" in peer for case in quick for peer in case.peers)


def test_forms_take_turns_and_short_ones_are_repeated() -> None:
    order: list[str] = []

    def run(name: str, work: int) -> None:
        order.append(name)
        torch.ones(work).cumsum(0)

    passes = {n: (lambda n=n, w=w: run(n, w)) for n, w in (("long", 4_000_000), ("short", 10))}
    times = timed_rounds(passes, 0.01, CPU)
    assert len(times["long"]) == len(times["short"]) >= 5
    assert order.count("short") > order.count("long")


def test_no_long_pass_goes_untimed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.speed.measure._WARMED", 1e-3)
    runs = {"long": 0, "short": 0}

    def run(name: str, work: int) -> None:
        runs[name] += 1
        torch.ones(work).cumsum(0)

    passes = {n: (lambda n=n, w=w: run(n, w)) for n, w in (("long", 4_000_000), ("short", 10))}
    times = timed_rounds(passes, 0.01, CPU)
    assert runs["long"] == len(times["long"]) == len(times["short"]) < runs["short"]


def test_goals_are_told_reached_or_not() -> None:
    (result,) = results_with(0.01)  # a hundred times
    goals = (Goal("torch.matrix_exp", 80), Goal("torch.matrix_exp", 200), Goal("timm", 1))
    result.case = replace(result.case, goals=goals)
    table = goals_table([result])
    assert table is not None
    assert [row[-1] for row in table.rows] == ["yes", "NO", "not run"]


def test_peak_memory_is_what_was_held_at_once() -> None:
    def run() -> None:
        a = torch.ones(1 << 20)  # 4 MiB each
        b = a + 1
        del a
        torch.cat((b, b))

    memory = peak_memory(run, CPU)
    assert memory.allocated == pytest.approx(3 * (4 << 20), rel=0.01)
    if memory.resident is not None:
        assert memory.resident > 2 * (4 << 20)


def test_least_work_counts_what_the_method_does() -> None:
    assert exponential_products(8, 3.0, backward=False) == 3
    assert exponential_products(8, 18.0, backward=False) == 6
    assert exponential_products(64, 129.0, backward=False) == 9
    assert exponential_products(64, 0.5, backward=True) == 3 + 2.5 + 8
    assert exponential_products(64, 3.0, backward=True) == 3 + 2.5 + 2 * 2.5 + 8
    case = BenchCase("x/y", "expm_skew", (10, 8, 8), norm=3.0)
    work = work_of(case)
    assert work is not None
    assert (work.flops, work.bytes) == (10 * 3 * 2 * 512, 2 * 10 * 64 * 4)
    work = work_of(replace(case, backward=True))
    assert work is not None
    assert work.flops == 10 * (exponential_products(8, 3.0, backward=True) + 1) * 2 * 512


def test_grids_share_exponentials_and_commutators() -> None:
    assert grid_products(8, 18.0, 196, backward=True) == exponential_products(8, 18.0, True)
    roots = 118 / 196
    forward = roots * exponential_products(64, 129.0, False) + (1 - roots)
    assert grid_products(64, 129.0, 196, backward=False) == pytest.approx(forward)
    alone, each = exponential_products(64, 129.0, True), 54 * 0.5 / 64
    backward = roots * (alone - 8 + each) + 88 / 196 + (1 - roots) * 3.5
    assert grid_products(64, 129.0, 196, backward=True) == pytest.approx(backward)
    # The cells of a small grid keep their own.
    assert grid_products(64, 0.5, 4, backward=True) == exponential_products(64, 0.5, True)


def test_families_keep_their_order() -> None:
    cases = chosen_cases(["rotate_pairs", "expm_skew/n2-"], False, [2, 1])
    results = [Result(case, threads) for case in cases for threads in case.threads]
    families = by_family(results)
    assert list(families) == ["expm_skew", "rotate_pairs"]
    assert [r.threads for r in families["rotate_pairs"][:2]] == [1, 2]
