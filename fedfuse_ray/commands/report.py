"""`python -m fedfuse_ray report`: a result folder's page, written again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report_command(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A result folder.")],
) -> None:
    """Write the report of a run, comparison, table, sweep or reproduction again."""
    print(f"Report: {_write(folder)}")


def _write(folder: Path) -> Path:
    from fedfuse_ray.report import write_report
    from fedfuse_ray.studies.related.results import Related
    from fedfuse_ray.studies.reproducing.results import Reproduction
    from fedfuse_ray.studies.sweeping.output import rewrite_report
    from fedfuse_ray.studies.sweeping.summary import is_sweep

    # A table and a reproduction are laid out as sweeps, so they are looked for first.
    if (folder / Related.FILE).is_file():
        from fedfuse_ray.studies.related.output import write_pages as write_table

        return write_table(folder)
    if (folder / Reproduction.FILE).is_file():
        from fedfuse_ray.studies.reproducing.output import write_pages as write_reproduction

        return write_reproduction(folder)
    return rewrite_report(folder) if is_sweep(folder) else write_report(folder)
