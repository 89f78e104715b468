"""From the systems' files to a table's folder: every run once, side by side, resumable.

The runs are a sweep's trials, with the sweep's folder: `trials/NAME/` is a run's folder each.
"""

from __future__ import annotations

import shlex
import time
from dataclasses import dataclass
from pathlib import Path

from fedfuse_ray.config import Experiment, load, load_system, system_names
from fedfuse_ray.errors import InputError
from fedfuse_ray.report.provenance import environment
from fedfuse_ray.runs.reading import listed_names
from fedfuse_ray.studies.picked import Picked, lay_out, run_missing
from fedfuse_ray.studies.related import results
from fedfuse_ray.studies.related.results import Measured, Related, measured
from fedfuse_ray.studies.related.texts import in_order
from fedfuse_ray.studies.sweeping.driving import check_complete
from fedfuse_ray.studies.sweeping.live import LiveTable
from fedfuse_ray.studies.sweeping.points import Point
from fedfuse_ray.studies.sweeping.store import FAILED, Row, SweepStore

TABLE = "table1"
"""What asks for every system."""
_SYSTEMS, _SET = "systems", "set"
_INSTALL = "pip install"


@dataclass(frozen=True)
class Asked:
    """What a table was asked for.

    Attributes:
        systems: Their names, in the table's order.
        root: The preset below them.
        settings: Dotted settings over every system.
    """

    systems: tuple[str, ...]
    root: str
    settings: tuple[str, ...] = ()

    @property
    def command(self) -> str:
        """What makes this table from nothing."""
        every = self.systems == in_order(system_names())
        listed = TABLE if every else ",".join(self.systems)
        words = ["python", "-m", "fedfuse_ray", "compare", self.root, "--systems", listed]
        return shlex.join([*words, *(w for s in self.settings for w in ("--set", s))])


@dataclass(frozen=True)
class Planned:
    """All that a table runs.

    Attributes:
        runs: The run of each system and variant; a system itself is the variant "".
        points: Every run once.
        missing: What has to be installed for those that have no run.
    """

    runs: dict[tuple[str, str], str]
    points: tuple[Point, ...]
    missing: dict[tuple[str, str], str]


def chosen(listed: str) -> tuple[str, ...]:
    """Return the systems of `--systems table1`, or of `--systems a,b`.

    Raises:
        InputError: An unknown one, or none.
    """
    names = listed_names("--systems", None if listed == TABLE else listed, system_names())
    return in_order(names)


def begin(asked: Asked, folder: Path) -> None:
    """Validate every run and lay the folder out; nothing has been started yet.

    Raises:
        InputError: A run that can't be, or a folder that holds other files.
    """
    settings = {_SYSTEMS: ",".join(asked.systems), _SET: list(asked.settings)}
    lay_out(folder, asked.root, settings, {"system": asked.systems}, plan(asked).points)
    for name in (Related.FILE, "related-work.md"):
        (folder / name).unlink(missing_ok=True)


def begun(folder: Path) -> Asked:
    """Return what was asked for when a table was begun in a folder.

    Raises:
        InputError: None was.
    """
    sweep = SweepStore(folder).read()
    if set(sweep.settings) != {_SYSTEMS, _SET}:
        raise InputError("--resume", folder, "no table of systems was started there")
    return Asked(chosen(sweep.settings[_SYSTEMS]), sweep.base, tuple(sweep.settings[_SET]))


def plan(asked: Asked) -> Planned:
    """Return what is run: variants that are the same federation share a run."""
    picked, runs, missing = Picked(), {}, {}
    for system in map(load_system, asked.systems):
        for variant in ("", *system.variants):
            try:
                whole = _experiment(system.preset(variant), asked)
            except InputError as error:
                if _INSTALL not in error.remedy:
                    raise
                missing[system.name, variant] = error.remedy
                continue
            values = {"system": system.name} | ({"variant": variant} if variant else {})
            runs[system.name, variant] = picked.add(values, whole)
    return Planned(runs, picked.points, missing)


def run(folder: Path, live: LiveTable) -> Related:
    """Run what is missing, and write `related.json`.

    Args:
        folder: Laid out by `begin`.
        live: Shows how it goes.

    Raises:
        FedfuseError: A run failed for another reason than that something is not installed.
        InputError: The systems' files have changed since.
    """
    started = time.perf_counter()
    asked, store = begun(folder), SweepStore(folder)
    planned = plan(asked)
    if set(store.names()) != {point.name for point in planned.points}:
        raise InputError("--resume", folder, "the systems have changed since; begin a new table")
    live.begin(store.rows())
    live.say(f"{len(planned.points)} runs")
    run_missing(store, live, store.names())
    ended = {row.trial: row for row in store.rows()}
    check_complete([row for row in ended.values() if not _not_installed(row)], folder, "runs")
    related = Related(
        root=asked.root,
        command=asked.command,
        wall_seconds=time.perf_counter() - started,
        environment=environment(),
        rows=tuple(_row(name, planned, ended, store) for name in asked.systems),
    )
    related.write(folder)
    return related


def _experiment(preset: str, asked: Asked) -> Experiment:
    settings = [*asked.settings, "execution.executor=serial"]
    try:
        return load(preset, settings, root=asked.root)
    except InputError as error:
        remedy = f"{error.remedy} (in {preset} on {asked.root})"
        raise InputError(error.field, error.value, remedy) from None


def _not_installed(row: Row) -> str:
    """Return how to install what a run failed for; empty where it did not."""
    last = (row.error.strip().splitlines() or [""])[-1]
    return last.partition(": ")[2] if row.status == FAILED and _INSTALL in last else ""


def _row(system: str, planned: Planned, ended: dict[str, Row], store: SweepStore) -> results.Row:
    found: dict[str, Measured] = {}
    missing = [text for (name, _), text in planned.missing.items() if name == system]
    for (name, variant), trial in planned.runs.items():
        if name == system and (why := _not_installed(ended[trial])):
            missing.append(why)
        elif name == system:
            found[variant] = measured(store.trials / trial)
    return results.Row(
        system=system,
        measured=found.pop("", None),
        variants=found,
        missing=missing[0] if missing else "",
    )
