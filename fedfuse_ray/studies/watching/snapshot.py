"""A run's folder at one moment; the run may be going on, so any of its files may be missing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from fedfuse_ray.errors import InputError
from fedfuse_ray.report.reading import read_model, read_parquet, read_text
from fedfuse_ray.report.rows import AS_PLANNED, DOMAIN_PREFIX, INSTITUTIONS, LATER, ROUNDS
from fedfuse_ray.report.schema import Summary
from fedfuse_ray.report.store import read_rounds
from fedfuse_ray.yaml12 import parse

_SHOWN = ("paradigm", "preset", "seed", "training", "privacy")


@dataclass(frozen=True)
class Site:
    """An institution so far: epsilon if private, all bytes sent up, its status in the last round.

    `missed` counts rounds whose sum its update is not in.
    """

    name: str
    domain: str
    epsilon: float | None
    uplink_bytes: int
    status: str
    missed: int


@dataclass(frozen=True)
class Snapshot:
    """A run so far; its summary is None while it goes on.

    `total` is 0 for participants that train apart, who have no rounds; `target` is the epsilon that
    was granted, if one was; institutions are in their order in the last round.
    """

    title: str
    total: int
    target: float | None
    rounds: tuple[Mapping[str, Any], ...]
    sites: tuple[Site, ...]
    summary: Summary | None

    @property
    def done(self) -> int:
        """The last round that ended."""
        return int(self.rounds[-1]["round"]) if self.rounds else 0

    @property
    def ended(self) -> bool:
        """Whether the run has ended."""
        return self.summary is not None

    def scores(self) -> dict[str, list[float]]:
        """Return the accuracies of the rounds that were scored: overall, then by domain."""
        names = [n for n in (self.rounds[-1] if self.rounds else {}) if n.startswith(DOMAIN_PREFIX)]
        columns = {"overall": "accuracy"} | {n.removeprefix(DOMAIN_PREFIX): n for n in names}
        return {
            shown: [r[column] for r in self.rounds if r.get(column) is not None]
            for shown, column in columns.items()
        }


def read_snapshot(folder: Path) -> Snapshot:
    """Read what a run's folder holds by now.

    Raises:
        InputError: A file is broken.
    """
    # Read first: whoever sees the summary finds every round in the tables.
    path = folder / "summary.json"
    summary = read_model(path, Summary) if path.is_file() else None
    config = _config(folder)
    alone = config["paradigm"] in ("centralized", "isolated")
    rounds = read_rounds(folder) if (folder / "rounds.parquet").is_file() else ROUNDS.empty_table()
    return Snapshot(
        title=f"{config['paradigm']} on {config['preset']}, seed {config['seed']}",
        total=0 if alone else config["training"]["rounds"],
        target=config["privacy"].get("target_epsilon"),
        rounds=tuple(rounds.to_pylist()),
        sites=_sites(folder) if rounds.num_rows else (),
        summary=summary,
    )


def _config(folder: Path) -> Any:
    """Return the settings as they stand in the file, without asking for the images they name."""
    path = folder / "config.yaml"
    config = parse(read_text(path))
    try:
        settings = {name: config[name] for name in _SHOWN}
        settings["training"]["rounds"] += 0
    except (TypeError, KeyError) as error:
        raise InputError(str(path), error, "is no run's config.yaml") from None
    return settings


def _sites(folder: Path) -> tuple[Site, ...]:
    table = read_parquet(folder / "institutions.parquet", INSTITUTIONS, LATER)
    sums = _by_institution(table, "uplink_bytes", "sum")
    spent = _by_institution(table, "epsilon", "max")
    lost = pc.invert(pc.is_in(table["status"], pa.array(AS_PLANNED)))
    away = _by_institution(table.filter(lost), "round", "count")
    last = table.filter(pc.equal(table["round"], pc.max(table["round"])))
    status = dict(zip(last["institution"].to_pylist(), last["status"].to_pylist(), strict=True))
    domains = dict(zip(table["institution"].to_pylist(), table["domain"].to_pylist(), strict=True))
    return tuple(
        Site(name, domain, spent[name], sums[name], status.get(name, ""), away.get(name, 0))
        for name, domain in domains.items()
    )


def _by_institution(table: pa.Table, column: str, how: str) -> dict[str, Any]:
    grouped = table.group_by("institution").aggregate([(column, how)])
    names, values = grouped["institution"], grouped[f"{column}_{how}"]
    return dict(zip(names.to_pylist(), values.to_pylist(), strict=True))
