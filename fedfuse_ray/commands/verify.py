"""`python -m fedfuse_ray verify DIR`: is a result folder as its run left it?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from fedfuse_ray.errors import FedfuseError
from fedfuse_ray.terminal import output

if TYPE_CHECKING:
    from fedfuse_ray.runs.verifying import Check

_VERDICTS = {True: "pass", False: "FAIL", None: "-"}


def verify_command(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="A run's, a comparison's or a sweep's folder.")
    ],
    key: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FINGERPRINT|FILE", help="Who must have signed, as `run` printed; repeatable."
        ),
    ] = None,
) -> None:
    """Check that a run's ledger and results are what was signed, and that they agree.

    Exit status 1 and the first bad entry if not.
    """
    from fedfuse_ray.privacy.accounting.signing import read_fingerprint
    from fedfuse_ray.runs.verifying import runs_in, verify_run

    keys = [read_fingerprint(text, "--key") for text in key or ()]
    console = output()
    failures: list[str] = []
    for name, path in runs_in(folder).items():
        checks = verify_run(path, keys)
        console.print(_table(name, checks))
        failures += [f"{path}: {c.name}: {c.detail}" for c in checks if c.passed is False][:1]
    if failures:
        more = f" (and {len(failures) - 1} more runs)" if len(failures) > 1 else ""
        raise FedfuseError(f"verification failed: {failures[0]}{more}")


def _table(name: str, checks: list[Check]) -> Table:
    table = Table("check", "", "found", title=Text(name), title_justify="left")
    for check in checks:
        style = "bold" if check.passed is False else ""
        verdict = _VERDICTS[check.passed]
        table.add_row(check.name, verdict, Text(check.detail), style=style)
    return table
