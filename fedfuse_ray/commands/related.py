"""`python -m fedfuse_ray compare --systems`: the related work's systems, side by side."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from fedfuse_ray.errors import InputError
from fedfuse_ray.terminal import output


def check_alone(option: str, value: object, others: Mapping[str, object]) -> None:
    """Refuse options that don't go with another one.

    Raises:
        InputError: One was given.
    """
    for name, given in others.items():
        if given not in (None, []):
            raise InputError(name, given, f"does not go with {option} {value}; leave it out")


def begin_systems(listed: str, root: str, settings: tuple[str, ...], out: Path | None) -> Path:
    """Lay a table's folder out and return it.

    Raises:
        InputError: A system, a setting or the folder can't be used.
    """
    from fedfuse_ray.studies.related import running

    folder = out or Path("runs") / f"{Path(root).stem}-systems"
    running.begin(running.Asked(running.chosen(listed), root, settings), folder)
    return folder


def run_systems(folder: Path, *, quiet: bool) -> None:
    """Run a table's systems, or those that are left, and write its page.

    Raises:
        FedfuseError: A run failed.
    """
    from fedfuse_ray.report.grids import as_rich
    from fedfuse_ray.studies.related import running
    from fedfuse_ray.studies.related.output import write_pages
    from fedfuse_ray.studies.related.tables import columns, measures
    from fedfuse_ray.studies.sweeping.live import LiveTable

    with LiveTable([], quiet=quiet) as live:
        found = running.run(folder, live)
    report = write_pages(folder)
    for grid in (columns(found), measures(found)):
        output().print(as_rich(grid))
    for row in found.rows:
        if row.missing:
            output().print(f"{row.system}: {row.missing}", markup=False, highlight=False)
    output().print(f"Report: {report}", markup=False, highlight=False)
