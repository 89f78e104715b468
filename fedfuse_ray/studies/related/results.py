"""What each system came to: `related.json`, read back from the runs' folders."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import Field

from fedfuse_ray.config.settings.base import Config
from fedfuse_ray.config.sources.systems import Column
from fedfuse_ray.report.convergence import rounds_to_reach
from fedfuse_ray.report.store import RunResult, read_run
from fedfuse_ray.studies.picked import Findings
from fedfuse_ray.studies.related.columns import Cell, derive


class Measured(Config):
    """One run of a system, or of a variant of it.

    Attributes:
        cells: The five columns.
        accuracy: `overall` and by domain.
        epsilon: The largest over institutions; null without privacy.
        uplink_bytes: Sent up by all institutions over all rounds.
        rounds: Rounds of training; epochs where nobody federates.
        rounds_to_95: From which on accuracy stays at 95% of the last; null where rounds are not
            scored.
        seconds: Wall time.
        weights: The fusion's mean weight of each modality, by domain, of a specimen that has all.
        run: The run's folder, below the table's.
    """

    cells: dict[Column, Cell]
    accuracy: dict[str, float]
    epsilon: float | None
    uplink_bytes: float
    rounds: int
    rounds_to_95: int | None
    seconds: float
    weights: dict[str, dict[str, float]] = Field({})
    run: str


class Row(Config):
    """A system.

    Attributes:
        system: Its name.
        measured: The system as its file has it; null where that could not run.
        variants: By name.
        missing: What has to be installed for what could not run; empty where all of it did.
    """

    system: str
    measured: Measured | None
    variants: dict[str, Measured]
    missing: str = ""


class Related(Findings):
    """`related.json`: all that was measured.

    Attributes:
        root: The preset below the systems.
        command: What makes the same table.
        wall_seconds: Of the last part, where it was continued.
        environment: Where it was measured.
        rows: In the table's order.
    """

    FILE = "related.json"

    root: str
    command: str
    wall_seconds: float
    environment: dict[str, object]
    rows: tuple[Row, ...]

    @property
    def domains(self) -> list[str]:
        """Every domain that some system was scored on."""
        scored = [name for row in self.rows if row.measured for name in row.measured.accuracy]
        return list(dict.fromkeys(name for name in scored if name != "overall"))


def measured(folder: Path) -> Measured:
    """Read a finished run.

    Raises:
        InputError: A file of the folder is missing or broken.
    """
    run = read_run(folder)
    summary = run.summary
    return Measured(
        cells=derive(run),
        accuracy=summary.accuracy,
        epsilon=summary.privacy.epsilon,
        uplink_bytes=summary.communication.uplink_bytes_total,
        rounds=summary.rounds,
        rounds_to_95=rounds_to_reach(run.rounds),
        seconds=summary.time.wall_seconds,
        weights=_weights(run),
        run=f"{folder.parent.name}/{folder.name}",
    )


def _weights(run: RunResult) -> Mapping[str, Mapping[str, float]]:
    widest = {d: evaluation.widest for d, evaluation in run.evaluation.domains.items()}
    return {d: view.attention for d, view in widest.items() if view and view.attention}
