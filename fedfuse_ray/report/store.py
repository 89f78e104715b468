"""A run's folder: written round by round, truncated for a resume, read back validated."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import BaseModel

from fedfuse_ray.errors import InputError
from fedfuse_ray.files import remove_unfinished, write_atomic, write_json, write_text
from fedfuse_ray.report import reading, rows
from fedfuse_ray.report.schema import Evaluation, Summary

_RESULTS = ("summary.json", "evaluation.json", "report.html")
_CONFIG = "config.yaml"
_LEDGER = "privacy_ledger.jsonl"
_REFUSED = "refused.jsonl"


class RunStore:
    """The writer of one run's folder. Each file is replaced whole, so a reader sees no part."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self._rounds: pa.Table | None = None
        self._institutions: pa.Table | None = None

    def path(self, name: str) -> Path:
        """Return the path of one of the folder's files."""
        return self.folder / name

    def start(self, config: str, environment: Mapping[str, Any]) -> None:
        """Begin a fresh run: write its settings and empty tables, remove an older run's results.

        The settings go first and come last: a folder that has them holds one run, not parts of two.
        """
        remove_unfinished(self.folder)
        for stale in (_CONFIG, *_RESULTS, _REFUSED):
            self.path(stale).unlink(missing_ok=True)
        write_json(self.path("environment.json"), dict(environment))
        write_text(self.path(_LEDGER), "")
        self._write_tables(rows.ROUNDS.empty_table(), rows.INSTITUTIONS.empty_table())
        write_text(self.path(_CONFIG), config)

    def append_round(
        self,
        row: rows.RoundRow,
        institutions: Sequence[rows.InstitutionRow],
        refused: Sequence[tuple[str, str]] = (),
    ) -> None:
        """Add one round, and the sender and reason of each message that the server turned away.

        Institutions are written first: whoever sees a round in `rounds.parquet` finds its
        institutions too. What was refused is kept in `refused.jsonl`, which a run without any has
        not.

        Raises:
            ValueError: The round does not follow the last one, or an institution's row is of
                another round.
        """
        rounds, known = self.tables()
        last = pc.max(rounds["round"]).as_py()
        if last is not None and row.round <= last:
            raise ValueError(f"round {row.round} does not follow {last}; truncate before a resume")
        if strays := [entry.institution for entry in institutions if entry.round != row.round]:
            raise ValueError(f"{strays[0]}'s row is of another round than {row.round}")
        if refused:
            told = [{"round": row.round, "institution": w, "reason": why} for w, why in refused]
            self._write_lines(_REFUSED, [*read_refused(self.folder), *told])
        self._write_tables(
            _stack(rounds, rows.rounds_table(row)),
            _stack(known, rows.institutions_table(list(institutions))),
        )

    def truncate(self, after_round: int) -> None:
        """Forget what came after a round, to resume from its checkpoint.

        Rows and ledger lines of later rounds go, and so do the finished run's results, and what a
        process that was killed while writing left behind; ledger lines without a `round` stay.
        """
        remove_unfinished(self.folder)
        rounds, institutions = self.tables()
        self._write_tables(
            rounds.filter(pc.less_equal(rounds["round"], after_round)),
            institutions.filter(pc.less_equal(institutions["round"], after_round)),
        )
        for name, lines in ((_LEDGER, read_ledger), (_REFUSED, read_refused)):
            if self.path(name).is_file():
                known = lines(self.folder)
                kept = [e for e in known if e.get("round", after_round) <= after_round]
                self._write_lines(name, kept)
        for stale in _RESULTS:
            self.path(stale).unlink(missing_ok=True)

    @property
    def last_round(self) -> int:
        """The last round in the tables; 0 before the first."""
        return pc.max(self.tables()[0]["round"]).as_py() or 0

    def write_ledger(self, events: Iterable[Mapping[str, Any]]) -> None:
        """Replace the privacy ledger: one JSON object a line, in the order charged."""
        self._write_lines(_LEDGER, events)

    def write_evaluation(self, evaluation: Evaluation | Mapping[str, Any]) -> Evaluation:
        """Validate and write the final scores.

        Raises:
            pydantic.ValidationError: A key is missing, unknown or out of bounds.
        """
        checked = Evaluation.model_validate(_plain(evaluation))
        write_json(self.path("evaluation.json"), checked.model_dump(mode="json"))
        return checked

    def write_summary(self, summary: Summary | Mapping[str, Any]) -> Summary:
        """Validate and write the summary; the last file of a run.

        Raises:
            pydantic.ValidationError: A key is missing, unknown or out of bounds.
        """
        checked = Summary.model_validate(_plain(summary))
        write_json(self.path("summary.json"), checked.model_dump(mode="json"))
        return checked

    def tables(self) -> tuple[pa.Table, pa.Table]:
        """Return the rounds and the institutions table so far; empty before the first round."""
        if self._rounds is None or self._institutions is None:
            self._rounds = _parquet_or_empty(self.path("rounds.parquet"), rows.ROUNDS)
            self._institutions = _parquet_or_empty(
                self.path("institutions.parquet"), rows.INSTITUTIONS
            )
        return self._rounds, self._institutions

    def _write_lines(self, name: str, values: Iterable[Mapping[str, Any]]) -> None:
        lines = [json.dumps(dict(value), allow_nan=False) + "\n" for value in values]
        write_text(self.path(name), "".join(lines))

    def _write_tables(self, rounds: pa.Table, institutions: pa.Table) -> None:
        _write_parquet(self.path("institutions.parquet"), institutions)
        _write_parquet(self.path("rounds.parquet"), rounds)
        self._rounds, self._institutions = rounds, institutions
        # Arrow's allocator would keep the pages of the copies: tens of megabytes in a long run.
        pa.default_memory_pool().release_unused()


@dataclass(frozen=True)
class RunResult:
    """A finished run, read back; its tables have no rows where a paradigm has no rounds."""

    folder: Path
    summary: Summary
    evaluation: Evaluation
    rounds: pa.Table
    institutions: pa.Table
    config: str
    environment: Mapping[str, Any]
    ledger: tuple[Mapping[str, Any], ...]


def read_run(folder: Path) -> RunResult:
    """Read a finished run's folder.

    Raises:
        InputError: The folder or a file of it is missing or broken.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(str(folder), "missing", "name the folder of a finished run")
    return RunResult(
        folder=folder,
        summary=reading.read_model(folder / "summary.json", Summary),
        evaluation=reading.read_model(folder / "evaluation.json", Evaluation),
        rounds=read_rounds(folder),
        institutions=reading.read_parquet(
            folder / "institutions.parquet", rows.INSTITUTIONS, rows.LATER
        ),
        config=reading.read_text(folder / _CONFIG),
        environment=reading.read_json(folder / "environment.json"),
        ledger=read_ledger(folder),
    )


def read_rounds(folder: Path) -> pa.Table:
    """Read the rounds so far, of a run that may still be going on.

    Raises:
        InputError: The file is missing or broken.
    """
    return reading.read_parquet(Path(folder) / "rounds.parquet", rows.ROUNDS, rows.LATER)


def read_ledger(folder: Path) -> tuple[Mapping[str, Any], ...]:
    """Read the privacy ledger; a run without one has charged nothing.

    Raises:
        InputError: A line is not a JSON object.
    """
    return _read_lines(Path(folder) / _LEDGER)


def read_refused(folder: Path) -> tuple[Mapping[str, Any], ...]:
    """Read which messages the server turned away: round, institution and reason of each.

    Raises:
        InputError: A line is not a JSON object.
    """
    return _read_lines(Path(folder) / _REFUSED)


def _read_lines(path: Path) -> tuple[Mapping[str, Any], ...]:
    lines = reading.read_text(path).splitlines() if path.exists() else []
    return tuple(
        reading.parse(f"{path}: line {n}", line) for n, line in enumerate(lines, 1) if line
    )


def write_comparison(
    folder: Path, comparison: Mapping[str, Summary | Mapping[str, Any]]
) -> dict[str, Summary]:
    """Validate and write `comparison.json`: a summary by paradigm.

    Raises:
        pydantic.ValidationError: A summary breaks the contract.
    """
    checked = {name: Summary.model_validate(_plain(value)) for name, value in comparison.items()}
    plain = {name: summary.model_dump(mode="json") for name, summary in checked.items()}
    write_json(Path(folder) / "comparison.json", plain)
    return checked


def read_comparison(folder: Path) -> dict[str, Summary]:
    """Read `comparison.json`.

    Raises:
        InputError: The file is missing or broken.
    """
    path = Path(folder) / "comparison.json"
    return {
        name: reading.validate(f"{path}: {name}", value, Summary)
        for name, value in reading.read_json(path).items()
    }


def _plain(value: BaseModel | Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a model as a plain tree: pydantic does not check again what `model_copy` changed."""
    return value.model_dump() if isinstance(value, BaseModel) else value


def _stack(above: pa.Table, below: pa.Table) -> pa.Table:
    return pa.concat_tables([above, below], promote_options="default").combine_chunks()


def _write_parquet(path: Path, table: pa.Table) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    write_atomic(path, lambda file: file.write(sink.getvalue()))


def _parquet_or_empty(path: Path, schema: pa.Schema) -> pa.Table:
    return reading.read_parquet(path, schema, rows.LATER) if path.exists() else schema.empty_table()
