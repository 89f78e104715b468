"""What was measured, by study and coordinates, with its spread over seeds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from fedfuse_ray.config.settings.base import Config
from fedfuse_ray.report.reading import read_model
from fedfuse_ray.report.schema import OVERALL, Summary
from fedfuse_ray.studies.picked import Findings
from fedfuse_ray.studies.reproducing.cells import Cell


class Spread(Config):
    """A quantity over seeds."""

    values: tuple[float, ...] = Field(min_length=1)

    @property
    def mean(self) -> float:
        """The mean over seeds."""
        return math.fsum(self.values) / len(self.values)

    @property
    def low(self) -> float:
        """The lowest."""
        return min(self.values)

    @property
    def high(self) -> float:
        """The highest."""
        return max(self.values)


class Row(Config):
    """A row of a study's table: the same federation with several seeds.

    Attributes:
        at: Coordinates in the study.
        seeds: In the order of every spread's values.
        accuracy: `overall` and by domain.
        epsilon: The largest over institutions; null without privacy.
        uplink_bytes: Sent up in a round, over all institutions.
        fp32_uplink_bytes: What the same blocks weigh as plain fp32; 0 where nothing is sent.
        rounds: Rounds of training.
        runs: The runs' folders, below the reproduction's.
    """

    at: dict[str, Any]
    seeds: tuple[int, ...]
    accuracy: dict[str, Spread]
    epsilon: Spread | None
    uplink_bytes: Spread
    fp32_uplink_bytes: float
    rounds: Spread
    runs: tuple[str, ...]


class Reproduction(Findings):
    """`reproduction.json`: all that the page and the document show."""

    FILE = "reproduction.json"

    scale: str
    base: str
    command: str
    wall_seconds: float
    environment: dict[str, Any]
    studies: dict[str, tuple[Row, ...]]

    def row(self, study: str, **at: Any) -> Row | None:
        """Return the row at some coordinates, if it was run."""
        rows = self.studies.get(study, ())
        return next((r for r in rows if r.at.items() >= at.items()), None)


def rows_of(cells: Sequence[Cell], runs: Sequence[str], folder: Path) -> dict[str, tuple[Row, ...]]:
    """Read the runs back.

    Args:
        cells: All cells.
        runs: Each cell's run.
        folder: Where the runs' folders are.
    """
    summaries = {name: read_model(folder / name / "summary.json", Summary) for name in set(runs)}
    groups: dict[tuple[str, str], list[tuple[Cell, str]]] = {}
    for cell, run in zip(cells, runs, strict=True):
        groups.setdefault((cell.study, repr(dict(cell.at))), []).append((cell, run))
    studies: dict[str, list[Row]] = {}
    for (study, _), members in groups.items():
        studies.setdefault(study, []).append(
            _row(members, [summaries[name] for _, name in members], folder.name)
        )
    return {study: tuple(rows) for study, rows in studies.items()}


def gains(one: Row, other: Row, what: str = OVERALL) -> Spread:
    """Return by how much `one` is more accurate than `other`, seed by seed."""
    theirs = dict(zip(other.seeds, other.accuracy[what].values, strict=True))
    ours = zip(one.seeds, one.accuracy[what].values, strict=True)
    return Spread(values=tuple(value - theirs[seed] for seed, value in ours if seed in theirs))


def pooled(spreads: Iterable[Spread]) -> Spread:
    """Return all values of several spreads as one."""
    return Spread(values=tuple(value for spread in spreads for value in spread.values))


def _row(members: Sequence[tuple[Cell, str]], summaries: Sequence[Summary], parent: str) -> Row:
    cell = members[0][0]
    names: Mapping[str, None] = dict.fromkeys(n for s in summaries for n in s.accuracy)
    epsilons = [s.privacy.epsilon for s in summaries]
    private = [value for value in epsilons if value is not None]
    return Row(
        at=dict(cell.at),
        seeds=tuple(c.seed for c, _ in members),
        accuracy={n: Spread(values=tuple(s.accuracy[n] for s in summaries)) for n in names},
        epsilon=Spread(values=tuple(private)) if private else None,
        uplink_bytes=Spread(
            values=tuple(s.communication.uplink_bytes_per_round for s in summaries)
        ),
        fp32_uplink_bytes=summaries[0].communication.fp32_uplink_bytes_per_round,
        rounds=Spread(values=tuple(float(s.rounds) for s in summaries)),
        runs=tuple(f"{parent}/{name}" for _, name in members),
    )
