"""`lierope study` from arguments to table, verdict, pictures and JSON."""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

from benchmarks.markers import write_between
from benchmarks.speed.record import RecordError
from benchmarks.studies.harness import record as records
from benchmarks.studies.harness import tables
from benchmarks.studies.harness.progress import Progress
from benchmarks.studies.harness.record import Record
from benchmarks.studies.harness.registry import NAMES, load
from benchmarks.studies.harness.runner import Machine, run_missing
from benchmarks.studies.harness.study import Settings, Study, Unit
from benchmarks.studies.harness.summary import Summary
from lierope.train import distributed
from lierope.train.atomic import make_folder
from lierope.train.errors import InputError, check, check_name
from lierope.train.extras import extra
from lierope.train.launch import cores

ROOT = Path(__file__).resolve().parents[3]
RESULTS = ROOT / "benchmarks" / "results" / "studies"
PAGE = ROOT / "docs" / "studies.md"
README = ROOT / "README.md"
FEATURED = ("arrows", "pointcloud", "pose")  # the most telling, shown in the README


def study(args: argparse.Namespace) -> int:
    """Runs what is missing of a study and reports it; `list` shows all studies."""
    if args.name == "list":
        return _list(args.output or RESULTS)
    found = load(args.name)
    settings = _settings(found, args)
    if args.show_settings:
        print(json.dumps(settings, indent=2))
        return 0
    units = found.units(settings, _arms(found, args), _seeds(found, args))
    for name in ("rich", "matplotlib", "scipy"):
        extra(name)
    output = args.output or (Path("runs/studies/quick") if args.quick else RESULTS)
    world = distributed.join(distributed.choose_device(args.device))
    try:
        machine = _machine(args, world, units, make_folder(output) / f".{found.name}-work")
        path = output / f"{found.name}.json"
        if args.overwrite and world.leads:
            records.remove(path)
        world.wait()
        record = Record.open(found, path, world.rank)
        with Progress(found.name, world.leads) as progress:
            run_missing(found, units, record, machine, progress)
        world.wait()
        if world.leads:
            _conclude(found, record, output, args)
    finally:
        distributed.leave()
    return 0


def _settings(found: Study, args: argparse.Namespace) -> Settings:
    settings = dict(found.settings)
    if args.preset:
        settings |= found.presets[check_name("preset", args.preset, found.presets)]
    if args.quick:
        settings |= found.quick
    changes = dict(_assignment(text) for text in args.set or ())
    if args.root is not None:
        check("root" in settings, f"root: {found.name} reads no data from disk")
        changes["root"] = str(args.root)
    return found.changed(settings, changes)


def _assignment(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    check(bool(equals), f"set: must be NAME=VALUE, got {text}")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value  # a word without quotes


def _arms(found: Study, args: argparse.Namespace) -> list[str]:
    quick = found.quick_arms if args.quick else ()
    names = args.arms or quick or [arm.name for arm in found.arms]
    return [found.arm(name).name for name in dict.fromkeys(names)]


def _seeds(found: Study, args: argparse.Namespace) -> range:
    count = args.seeds if args.seeds is not None else 2 if args.quick else found.seeds
    check(count >= 1, f"seeds: must be at least 1, got {count}")
    return range(count)


def _machine(
    args: argparse.Namespace, world: distributed.World, units: list[Unit], scratch: Path
) -> Machine:
    for name in ("jobs", "threads"):
        given = getattr(args, name)
        check(given is None or given >= 1, f"{name}: must be at least 1, got {given}")
    threads, alone = args.threads or 1, world.size > 1 or world.device.type == "cuda"
    check(not alone or (args.jobs or 1) == 1, "jobs: must be 1 under torchrun and on a GPU")
    jobs = 1 if alone else args.jobs or max(1, cores() // threads)
    return Machine(world, min(jobs, len(units)), threads, scratch)


def _conclude(found: Study, record: Record, output: Path, args: argparse.Namespace) -> None:
    whole = Record.open(found, record.path)
    summary = Summary(found, whole.rows)
    said = found.verdict(summary)
    if args.quick:
        said = f"(Quick form: it shows that the study runs, no more.) {said}"
    answer, verdict = (" ".join(text.split()) for text in (said.partition("\n")[0], said))
    pictures = found.draw(summary, output)
    head = {
        "command": f"lierope study {' '.join(sys.argv[2:])}".strip(),
        "question": found.question,
        "minutes": round(sum(row["seconds"] for row in whole.rows) / 60, 1),
        "answer": answer,
        "verdict": verdict,
        "summary": _finite(summary.to_json()),
        "pictures": [picture.name for picture in pictures],
    }
    record.finish(head)
    scratch = output / f".{found.name}-work"
    if scratch.exists() and not any(scratch.iterdir()):
        scratch.rmdir()
    console = extra("rich.console").Console()
    table, width = tables.terminal(summary)
    console.width = max(console.width, width)
    console.print(table)
    print(f"\nFound: {verdict}\n")
    print("numbers and pictures:", ", ".join(str(p) for p in (record.path, *pictures)))
    if args.publish:
        _publish(found, summary, head, pictures)


def _publish(found: Study, summary: Summary, head: dict[str, Any], pictures: list[Path]) -> None:
    body = tables.markdown(summary, head, pictures, PAGE.parent)
    try:
        write_between(PAGE, f"study-{found.name}", body)
        if found.name in FEATURED:
            write_between(
                README, f"study-{found.name}", tables.short(head, pictures, README.parent)
            )
    except RecordError as error:
        raise InputError(f"publish: {error}") from None


def _list(output: Path) -> int:
    found = {name: load(name) for name in NAMES}
    heads = {}
    for name, each in found.items():
        path = output / f"{name}.json"
        if path.exists():
            content = records.read(each, path)
            if "verdict" in content:
                heads[name] = content
    extra("rich.console").Console().print(tables.listing(found, heads))
    return 0


def _finite(value: Any) -> Any:
    """The same without NaN, which JSON does not know."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
