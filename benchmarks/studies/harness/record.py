"""The JSON of a study: every run done, written after each, so that none is ever computed twice."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from benchmarks.studies.harness.study import Outcome, Settings, Study, Unit
from lierope.train.atomic import write_json
from lierope.train.errors import InputError, check

FORMAT = 1
Row = dict[str, Any]  # arm, seed, settings, seconds, machine, and outcome or failed


class Record:
    """The rows of a study in `path` and in the parts that other processes wrote beside it."""

    def __init__(self, study: Study, path: Path, rank: int = 0) -> None:
        self.study, self.path, self.rank = study, path, rank
        self.rows: list[Row] = []
        self.head: dict[str, Any] = {}

    @classmethod
    def open(cls, study: Study, path: Path, rank: int = 0) -> Record:
        """Reads what is there; raises InputError where it is of something else."""
        record = cls(study, path, rank)
        for file in (path, *sorted(path.parent.glob(f"{path.stem}.part-*.json"))):
            if file.exists():
                record.rows += _read(study, file)["runs"]
        record.rows = list({(row["arm"], row["seed"]): row for row in record.rows}.values())
        return record

    def row(self, unit: Unit) -> Row | None:
        """What was measured of a run, or None."""
        for row in self.rows:
            if (row["arm"], row["seed"]) == (unit.arm, unit.seed):
                differences = _differences(unit.settings, row["settings"])
                check(
                    not differences,
                    f"output: {self.path} holds {unit.name} with other settings "
                    f"({'; '.join(differences)}); choose another --output, or --overwrite it",
                )
                return row
        return None

    def add(self, unit: Unit, result: Outcome | str, seconds: float, machine: Row) -> None:
        """Keeps a run's outcome, or why it failed, and writes the file."""
        row: Row = {"arm": unit.arm, "seed": unit.seed, "settings": unit.settings}
        row |= {"seconds": round(seconds, 1), "machine": machine}
        row |= {"failed": result} if isinstance(result, str) else {"outcome": asdict(result)}
        self.rows.append(row)
        self.write()

    def write(self) -> None:
        """Writes the file; under torchrun, each process but the first has a part of its own."""
        part = self.path.with_name(f"{self.path.stem}.part-{self.rank}.json")
        write_json(part if self.rank else self.path, self._content())

    def finish(self, head: dict[str, Any]) -> None:
        """Takes over the other processes' parts, and writes everything with what was concluded."""
        self.rows = Record.open(self.study, self.path).rows
        arms = [arm.name for arm in self.study.arms]
        self.rows.sort(key=lambda row: (arms.index(row["arm"]), row["seed"]))
        self.head = head
        self.write()
        for part in self.path.parent.glob(f"{self.path.stem}.part-*.json"):
            part.unlink()

    def _content(self) -> dict[str, Any]:
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        head = {"format": FORMAT, "study": self.study.name, "version": self.study.version}
        return head | {"date": now} | self.head | {"runs": self.rows}


def read(study: Study, path: Path) -> dict[str, Any]:
    """The whole content of a study's JSON; raises InputError where it is of something else."""
    return _read(study, path)


def remove(path: Path) -> None:
    """Removes a study's JSON and its parts."""
    for file in (path, *path.parent.glob(f"{path.stem}.part-*.json")):
        file.unlink(missing_ok=True)


def _read(study: Study, file: Path) -> dict[str, Any]:
    again = "--overwrite starts it again"
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        kind = (content["format"], content["study"], content["version"])
        rows = content["runs"]
        damaged = _damage(content)
    except (OSError, ValueError, KeyError, TypeError) as error:
        damaged = str(error)
    if damaged:
        raise InputError(f"output: {file} is not a study's JSON ({damaged}); {again}")
    check(kind[1] == study.name, f"output: {file} is of the study {kind[1]}, not {study.name}")
    check(
        (kind[0], kind[2]) == (FORMAT, study.version),
        f"output: {file} is of version {kind[0]}.{kind[2]}, this {study.name} is "
        f"{FORMAT}.{study.version}; {again}",
    )
    known = {arm.name for arm in study.arms}
    gone = sorted({row["arm"] for row in rows} - known)
    check(not gone, f"output: {file} has arms that {study.name} lacks: {', '.join(gone)}; {again}")
    return dict(content)


def _damage(content: dict[str, Any]) -> str:
    """What is wrong with a file that has all keys; nothing where it is whole."""
    for name, kinds in (
        ("runs", list),
        ("verdict", str),
        ("answer", str),
        ("minutes", int | float),
    ):
        if name in content and not isinstance(content[name], kinds):
            return f"{name} is {type(content[name]).__name__}"
    return next(
        (f"run {i} is damaged" for i, r in enumerate(content["runs"]) if not _is_row(r)), ""
    )


def _is_row(row: Any) -> bool:
    kinds = {"arm": str, "seed": int, "settings": dict, "seconds": int | float, "machine": dict}
    if not isinstance(row, dict) or not all(isinstance(row.get(n), k) for n, k in kinds.items()):
        return False
    outcome = row.get("outcome")
    if outcome is None:
        return isinstance(row.get("failed"), str)
    names = {field.name for field in fields(Outcome)}
    return (
        isinstance(outcome, dict)
        and names <= outcome.keys()
        and isinstance(outcome["metrics"], dict)
        and all(isinstance(v, int | float | None) for v in outcome["metrics"].values())
    )


def _differences(mine: Settings, theirs: Settings) -> list[str]:
    missing = "nothing"
    return [
        f"{name} {theirs.get(name, missing)!r} there, {mine.get(name, missing)!r} here"
        for name in sorted(mine.keys() | theirs.keys())
        if mine.get(name, missing) != theirs.get(name, missing)
    ]
