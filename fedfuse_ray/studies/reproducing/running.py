"""From studies to a reproduction's folder: every federation once, side by side, resumable.

The federations run as a sweep's trials do, with the sweep's folder: `trials/NAME/` is a run's
folder each. Those that start from others' weights come in a second wave.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from fedfuse_ray.config import Experiment
from fedfuse_ray.config.settings.model import TransferConfig
from fedfuse_ray.errors import InputError
from fedfuse_ray.report.provenance import environment
from fedfuse_ray.runs.reading import listed_names
from fedfuse_ray.studies.picked import Picked, lay_out, run_missing
from fedfuse_ray.studies.reproducing.cells import STUDIES, Cell, cells_of, experiment
from fedfuse_ray.studies.reproducing.results import Reproduction, rows_of
from fedfuse_ray.studies.reproducing.scale import Scale, scale_of
from fedfuse_ray.studies.sweeping.driving import check_complete
from fedfuse_ray.studies.sweeping.live import LiveTable
from fedfuse_ray.studies.sweeping.points import Point
from fedfuse_ray.studies.sweeping.store import SweepStore, read_row

_ASKED = "studies"


@dataclass(frozen=True)
class Planned:
    """All that a reproduction runs.

    Attributes:
        cells: Every cell of every study.
        runs: Each cell's run, by name.
        points: Every run once.
        second: The names of those that wait for others' weights.
    """

    cells: tuple[Cell, ...]
    runs: tuple[str, ...]
    points: tuple[Point, ...]
    second: frozenset[str]


def study_names(listed: str | None) -> tuple[str, ...]:
    """Return the studies of `--studies a,b`; all when it was not given.

    Raises:
        InputError: An unknown one, or none.
    """
    return tuple(listed_names("--studies", listed, tuple(STUDIES)))


def begin(scale: Scale, studies: tuple[str, ...], folder: Path) -> None:
    """Validate every federation and lay the folder out; nothing has been started yet.

    Raises:
        InputError: A federation that can't be, or a folder that holds other files.
    """
    planned = plan(scale, studies, SweepStore(folder).trials)
    settings = {"scale": scale.name, _ASKED: ",".join(studies)}
    lay_out(folder, scale.base, settings, {"study": studies}, planned.points)


def asked(folder: Path) -> tuple[Scale, tuple[str, ...]]:
    """Return the scale and the studies of a reproduction that was begun in a folder.

    Raises:
        InputError: None was.
    """
    settings = SweepStore(folder).read().settings
    if _ASKED not in settings:
        raise InputError("--resume", folder, "a sweep was started there, not a reproduction")
    return scale_of(settings["scale"]), study_names(settings[_ASKED])


def plan(scale: Scale, studies: tuple[str, ...], trials: Path) -> Planned:
    """Return what is run: cells that are the same federation share a run."""
    cells = tuple(cells_of(scale, studies))
    picked = Picked()
    by_cell: list[tuple[Cell, str]] = []
    second = set()
    for cell in cells:
        whole = experiment(cell, scale.base)
        if cell.after is not None:
            donor = next(run for other, run in by_cell if other == cell.after)
            whole = _starting_from(whole, trials / donor, cell)
        name = picked.add({"study": cell.study, **cell.at, "seed": cell.seed}, whole)
        by_cell.append((cell, name))
        if cell.after is not None:
            second.add(name)
    runs = tuple(name for _, name in by_cell)
    return Planned(cells, runs, picked.points, frozenset(second))


def run(folder: Path, live: LiveTable, command: str) -> Reproduction:
    """Run what is missing, and write the reproduction.

    Args:
        folder: Laid out by `begin`.
        live: Shows how it goes.
        command: What the user typed, to stand beside the figures.

    Raises:
        FedfuseError: A federation failed.
    """
    began = time.perf_counter()
    scale, studies = asked(folder)
    store = SweepStore(folder)
    planned = plan(scale, studies, store.trials)
    live.begin(store.rows())
    live.say(f"{len(planned.points)} federations")
    for wave in (set(planned.runs) - planned.second, planned.second):
        names = run_missing(store, live, wave)
        check_complete([read_row(store.trials / name) for name in names], folder, "federations")
    reproduction = Reproduction(
        scale=scale.name,
        base=scale.base,
        command=command,
        wall_seconds=time.perf_counter() - began,
        environment=environment(),
        studies=rows_of(planned.cells, planned.runs, store.trials),
    )
    reproduction.write(folder)
    return reproduction


def _starting_from(whole: Experiment, donor: Path, cell: Cell) -> Experiment:
    transfer = TransferConfig(run=str(donor), blocks=dict(cell.blocks))
    model = whole.model.model_copy(update={"transfer": transfer})
    return whole.model_copy(update={"model": model})
