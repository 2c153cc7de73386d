"""`lierope train` from arguments to report."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

from lierope.train import distributed, engine, launch, model, report
from lierope.train.atomic import make_folder
from lierope.train.config import Settings
from lierope.train.data import Source
from lierope.train.distributed import World
from lierope.train.errors import check
from lierope.train.extras import extra
from lierope.train.options import settings_of
from lierope.train.progress import progress
from lierope.train.sources import open_source


def train(args: argparse.Namespace) -> int:
    """Checks everything first, then trains every run and writes the report."""
    runs = settings_of(args)
    if args.eval_sizes is None:
        fitted = model.fit_eval_sizes(runs[0]).eval_sizes
        runs = [replace(run, eval_sizes=fitted) for run in runs]
    if args.show_settings:
        print(json.dumps(runs[0].to_json(), indent=2))
        return 0
    session = _session(args, runs)
    source = _check_runs(runs, session)
    world = distributed.join(session.device)
    try:
        if world.leads:
            make_folder(session.output)
        names, steps = [run.name for run in runs], source.steps
        with progress(names, runs[0].epochs, steps, world.leads) as watcher:
            results = launch.run_all(runs, session, world, watcher)
        if world.leads:
            _report(results, session)
    finally:
        distributed.leave()
    return 0


def _session(args: argparse.Namespace, runs: list[Settings]) -> launch.Session:
    for name in ("jobs", "threads"):
        given = getattr(args, name)
        check(given is None or given >= 1, f"{name}: must be at least 1, got {given}")
    check(args.workers >= 0, f"workers: must be at least 0, got {args.workers}")
    check(not (args.resume and args.overwrite), "resume: cannot go together with --overwrite")
    device = distributed.choose_device(args.device)
    jobs, threads = launch.choose_jobs(args.data, len(runs), args.jobs, args.threads)
    if distributed.launched_by_torchrun() or device.type == "cuda":
        check((args.jobs or 1) == 1, "jobs: must be 1 under torchrun and on a GPU")
        jobs = 1
    output = args.output or Path("runs") / args.data
    session = launch.Session(
        output, device, args.resume, args.overwrite, jobs, threads, args.workers
    )
    launch.check_output(runs, session)
    return session


def _check_runs(runs: list[Settings], session: launch.Session) -> Source:
    """Opens the data and builds every model once, so that no mistake shows after an hour."""
    for name in ("rich", "matplotlib", "safetensors"):
        extra(name)
    source = open_source(runs[0], World(device=session.device), session.workers)
    engine.check_optimizer(runs[0].optimizer)
    for run in {run.encoding: run for run in runs}.values():
        model.check_buildable(run, source.in_chans, source.num_classes)
    return source


def _report(results: list[launch.Result], session: launch.Session) -> None:
    command = ["lierope", *sys.argv[1:]]
    paths = report.write(results, session, command)
    settings = Settings.from_json(results[0]["settings"])
    console = extra("rich.console").Console()
    console.print()
    console.print(report.table(report.summarise(results), settings))
    print("pictures and numbers:", ", ".join(str(path) for path in paths))
    best = session.output / results[-1]["name"] / "best.safetensors"
    print(f"look inside a model: lierope inspect {best}")
