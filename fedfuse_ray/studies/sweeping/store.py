"""A sweep's folder: its file, the trials' folders, one table over all.

sweep.yaml          what was asked for; written when all trials are laid out
trials/NAME/        a run's folder each, beside
  trial.json        the point: its index and values
  experiment.yaml   what is run; the run's own config.yaml comes and goes with its start
  outcome.json      how it ended, and when
trials.parquet      a row a trial
summary.json        best, Pareto front, selection cost
report.html
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fedfuse_ray.config import Experiment, dump
from fedfuse_ray.errors import InputError
from fedfuse_ray.files import write_atomic, write_json, write_text
from fedfuse_ray.report.reading import read_json, read_model
from fedfuse_ray.report.rows import DOMAIN_PREFIX
from fedfuse_ray.report.schema import OVERALL, Summary
from fedfuse_ray.report.store import read_rounds
from fedfuse_ray.studies.sweeping import account
from fedfuse_ray.studies.sweeping.config import Sweep
from fedfuse_ray.studies.sweeping.loading import dump_sweep, validate_sweep
from fedfuse_ray.studies.sweeping.points import Point
from fedfuse_ray.yaml12 import parse

EXPERIMENT = "experiment.yaml"
DONE, STOPPED, FAILED, MISSING = "done", "stopped", "failed", "missing"
"""Status of a trial: ran to its end; given up by the search; broke; not run yet."""
REFUSED = "refused"
"""What a trial ends with that the budget does not allow; it is not written down: it may run yet."""

TIMES = ("seconds", "started", "ended")
"""Columns of `trials.parquet` that differ from one sweep to the same sweep again."""


@dataclass(frozen=True)
class Outcome:
    """How a trial ended: `done`, `stopped` or `failed`, with its traceback; in Unix seconds.

    It started when it was begun, or last continued.
    """

    status: str
    started: float
    ended: float
    error: str = ""


@dataclass(frozen=True)
class Row:
    """A trial in the table; what it did not come to is None.

    Attributes:
        index: Its place in the sweep.
        trial: Its name, and its folder's.
        values: Dotted setting to value.
        epsilon: At the end, the largest over institutions; None where nothing is private.
        uplink_bytes: Sent up by all institutions over all rounds.
        seconds: Wall time of the trial, of its last part where it was continued.
    """

    index: int
    trial: str
    values: Mapping[str, Any]
    status: str
    accuracy: float | None = None
    domains: Mapping[str, float | None] | None = None
    epsilon: float | None = None
    uplink_bytes: float | None = None
    rounds: int = 0
    weights_sha256: str | None = None
    started: float | None = None
    ended: float | None = None
    error: str = ""

    @property
    def seconds(self) -> float | None:
        """Wall time."""
        return None if self.started is None or self.ended is None else self.ended - self.started


class SweepStore:
    """The folder of one sweep."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()

    @property
    def trials(self) -> Path:
        """Where the trials' folders are."""
        return self.folder / "trials"

    def start(self, sweep: Sweep, points: Iterable[Point]) -> None:
        """Lay out a fresh sweep; an older one's results in the folder are removed.

        Raises:
            InputError: The folder holds something that is no sweep.
        """
        is_sweep = self.trials.is_dir() or (self.folder / "sweep.yaml").is_file()
        if self.folder.is_dir() and any(self.folder.iterdir()) and not is_sweep:
            raise InputError("--out", self.folder, "the folder holds other files; name another")
        for name in ("sweep.yaml", "trials.parquet", "summary.json", "report.html"):
            (self.folder / name).unlink(missing_ok=True)
        account.forget(self.folder)
        shutil.rmtree(self.trials, ignore_errors=True)
        self.trials.mkdir(parents=True)
        for point in points:
            lay_out(self.trials / point.name, point.index, point.values, point.experiment)
        write_text(self.folder / "sweep.yaml", dump_sweep(sweep))

    def read(self) -> Sweep:
        """Return the sweep that was begun here.

        Raises:
            InputError: None was.
        """
        path = self.folder / "sweep.yaml"
        if not path.is_file():
            raise InputError("--resume", self.folder, "no sweep was started there")
        try:
            return validate_sweep(parse(path.read_text()))
        except (OSError, ValueError) as error:
            raise InputError(str(path), error, "the file is broken; start a new sweep") from None

    def names(self) -> list[str]:
        """Return the trials' names, in the sweep's order."""
        told = [
            (read_json(path)["index"], path.parent.name)
            for path in self.trials.glob("*/trial.json")
        ]
        return [name for _, name in sorted(told)]

    def values(self, name: str) -> dict[str, object]:
        """Return a trial's point."""
        return dict(read_json(self.trials / name / "trial.json")["values"])

    def missing(self) -> list[str]:
        """Return the trials that are still to be run; those that failed among them."""
        outcomes = {name: read_outcome(self.trials / name) for name in self.names()}
        return [n for n, outcome in outcomes.items() if outcome is None or outcome.status == FAILED]

    def rows(self) -> list[Row]:
        """Return all trials as they are now."""
        return [read_row(self.trials / name) for name in self.names()]

    def write_table(self, rows: Sequence[Row]) -> None:
        """Write `trials.parquet`."""
        sink = pa.BufferOutputStream()
        pq.write_table(table_of(rows), sink)
        write_atomic(self.folder / "trials.parquet", lambda file: file.write(sink.getvalue()))


def lay_out(folder: Path, index: int, values: Mapping[str, object], experiment: Experiment) -> None:
    """Write a trial's point and experiment, from which its run begins, or begins again."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / EXPERIMENT, dump(experiment))
    write_json(folder / "trial.json", {"index": index, "values": dict(values)})


def read_outcome(folder: Path) -> Outcome | None:
    """Return how a trial ended; None where it has not."""
    path = folder / "outcome.json"
    return Outcome(**read_json(path)) if path.is_file() else None


def write_outcome(folder: Path, outcome: Outcome) -> None:
    """Write how a trial ended."""
    write_json(folder / "outcome.json", asdict(outcome))


def read_row(folder: Path) -> Row:
    """Return a trial's row, from the files of its folder."""
    row, outcome = _laid_out(folder), read_outcome(folder)
    if outcome is None:
        return row
    found: dict[str, Any] = asdict(outcome)
    if outcome.status == DONE:
        found |= _from_summary(folder)
    elif outcome.status == STOPPED:
        found |= _from_rounds(folder)
    return replace(row, **found)


def read_progress(folder: Path, number: int) -> Row:
    """Return a trial's row as it was after round `number`."""
    return replace(_laid_out(folder), **_from_rounds(folder, number))


def _laid_out(folder: Path) -> Row:
    told = read_json(folder / "trial.json")
    return Row(told["index"], folder.name, told["values"], MISSING)


def metrics_of(row: Row) -> dict[str, float]:
    """Return what is known of a trial's accuracy, overall and by domain, epsilon and bytes."""
    by_domain = {DOMAIN_PREFIX + name: score for name, score in (row.domains or {}).items()}
    values = {"accuracy": row.accuracy, **by_domain}
    values |= {"epsilon": row.epsilon, "uplink_bytes": row.uplink_bytes}
    return {name: float(value) for name, value in values.items() if value is not None}


def table_of(rows: Sequence[Row]) -> pa.Table:
    """Return rows as a table: the point's dotted columns, then the results."""
    settings = list(dict.fromkeys(name for row in rows for name in row.values))
    domains = list(dict.fromkeys(name for row in rows for name in row.domains or {}))
    scores = {name: [(row.domains or {}).get(name) for row in rows] for name in domains}
    text, number = pa.string(), pa.float64()

    def own(kind: pa.DataType, *names: str) -> dict[str, pa.Array]:
        return {name: pa.array([getattr(row, name) for row in rows], kind) for name in names}

    return pa.table(
        own(text, "trial")
        | {name: _column([row.values.get(name) for row in rows]) for name in settings}
        | own(text, "status")
        | own(number, "accuracy")
        | {DOMAIN_PREFIX + name: pa.array(values, number) for name, values in scores.items()}
        | own(number, "epsilon", "uplink_bytes")
        | own(pa.int64(), "rounds")
        | own(number, *TIMES)
        | own(text, "weights_sha256")
    )


def _column(values: Sequence[object]) -> pa.Array:
    """Return whole numbers, numbers or truths as such; anything else as text."""
    given = [value for value in values if value is not None]
    if all(isinstance(value, bool) for value in given):
        return pa.array(values, pa.bool_())
    if all(isinstance(v, int | float) and not isinstance(v, bool) for v in given):
        whole = all(isinstance(value, int) for value in given)
        return pa.array(values, pa.int64() if whole else pa.float64())
    texts = [v if isinstance(v, str) or v is None else json.dumps(v) for v in values]
    return pa.array(texts, pa.string())


def _from_summary(folder: Path) -> dict[str, Any]:
    summary = read_model(folder / "summary.json", Summary)
    return {
        "accuracy": summary.accuracy[OVERALL],
        "domains": {name: summary.accuracy[name] for name in summary.domains},
        "epsilon": summary.privacy.epsilon,
        "uplink_bytes": summary.communication.uplink_bytes_total,
        "rounds": summary.rounds,
        "weights_sha256": summary.weights_sha256,
    }


def _from_rounds(folder: Path, number: int | None = None) -> dict[str, Any]:
    """Return a trial's columns after round `number`, or after its last one."""
    if not (folder / "rounds.parquet").is_file():
        return {}
    rounds = read_rounds(folder).to_pylist()
    rounds = [row for row in rounds if number is None or row["round"] <= number]
    if not rounds:
        return {}
    last = rounds[-1]
    prefix = len(DOMAIN_PREFIX)
    return {
        "accuracy": last["accuracy"],
        "domains": {n[prefix:]: v for n, v in last.items() if n.startswith(DOMAIN_PREFIX)},
        "epsilon": last["epsilon"],
        "uplink_bytes": float(sum(row["uplink_bytes"] for row in rounds)),
        "rounds": last["round"],
    }
