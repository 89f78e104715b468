"""`python -m fedfuse_ray report`: a result folder's page, written again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

_TABLE, _REPRODUCTION = "related.json", "reproduction.json"


def report_command(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A result folder.")],
) -> None:
    """Write the report of a run, comparison, table, sweep or reproduction again."""
    print(f"Report: {_write(folder)}")


def _write(folder: Path) -> Path:
    # A table and a reproduction are laid out as sweeps, so they are looked for first.
    if (folder / _TABLE).is_file():
        from fedfuse_ray.related import output as related

        return related.write_pages(folder)
    if (folder / _REPRODUCTION).is_file():
        from fedfuse_ray.reproducing import output as reproducing

        return reproducing.write_pages(folder)
    from fedfuse_ray.sweeping.summary import is_sweep, rewrite_report

    if is_sweep(folder):
        return rewrite_report(folder)
    from fedfuse_ray.report import write_report

    return write_report(folder)
