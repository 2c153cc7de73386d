"""`make gpu` goes on past failures, keeps to its time and says what came of every stage."""

import json
import os
import sys
from pathlib import Path

import pytest
from tools import gpu
from tools.gpu import Outcome, Stage, last_line, main, run, summary

SAYS = (sys.executable, "-c", "print('3 passed in 1 s'); print('and more')")
FAILS = (sys.executable, "-c", "import sys; print('1 failed, 2 passed'); sys.exit(1)")
SLEEPS = (sys.executable, "-c", "import time; time.sleep(60)")


def _run(stage: Stage, out: Path, left: float = 60, rehearse: bool = False) -> Outcome:
    return run(stage, rehearse, left, dict(os.environ), out)


def test_outcomes(tmp_path: Path) -> None:
    passed = _run(Stage("one", SAYS, 60), tmp_path)
    assert (passed.status, passed.note, passed.log) == ("passed", "3 passed in 1 s", "gpu-one.log")
    failed = _run(Stage("two", FAILS, 60), tmp_path)
    assert (failed.status, failed.note) == ("failed", "1 failed, 2 passed")
    assert _run(Stage("three", SLEEPS, 60), tmp_path, left=5.1).status == "stopped"
    late = _run(Stage("four", SAYS, 60), tmp_path, left=1)
    assert (late.status, late.note) == ("skipped", "no time left")


def test_a_tool_that_is_not_there(tmp_path: Path) -> None:
    stage = Stage("check", SAYS, 60, ("no-such-program", "--tool", "x"))
    missing = _run(stage, tmp_path)
    assert (missing.status, missing.note) == ("skipped", "no no-such-program here")
    rehearsed = _run(stage, tmp_path, rehearse=True)
    assert rehearsed.status == "passed"
    assert rehearsed.note == "without no-such-program; 3 passed in 1 s"


def test_the_line_that_says_most(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("a\n========= ERROR SUMMARY: 0 errors\nthe end\n")
    assert last_line(log) == "========= ERROR SUMMARY: 0 errors"
    log.write_text("")
    assert last_line(log) == ""


def test_summary_lists_what_did_not_pass() -> None:
    outcomes = [Outcome("a", "passed", 1, "", "gpu-a.log"), Outcome("b", "failed", 2, "", "b.log")]
    text = summary(outcomes, {"gpu": "H200", "torch": "2.11"}, 3.2)
    assert "H200, torch 2.11, 3 s" in text
    assert text.endswith("not passed: b (failed, see b.log)")
    assert summary(outcomes[:1], {}, 1).endswith("all passed")


def test_it_goes_on_past_failures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OUT", str(tmp_path))
    monkeypatch.setattr(gpu, "build_stages", lambda *_: [Stage("bad", FAILS, 60)])
    monkeypatch.setattr(gpu, "stages", lambda *_: [Stage("good", SAYS, 60)])
    monkeypatch.setattr(gpu, "environment", lambda _: dict(os.environ))
    assert main(["--rehearse"]) == 1
    assert "not passed: bad (failed, see gpu-bad.log)" in capsys.readouterr().out
    record = json.loads((tmp_path / "gpu.json").read_text())
    assert [s["status"] for s in record["stages"]] == ["failed", "passed"]
    assert record["rehearsed"]
    assert record["environment"]["lierope"]["version"]


def test_no_gpu_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("OUT", str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert main([]) == 2
    assert "gpu: torch must see a GPU; --rehearse runs on the emulation" in capsys.readouterr().err
