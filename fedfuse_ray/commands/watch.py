"""`python -m fedfuse_ray watch`: how a run, a comparison, a sweep or a Ray job is going."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedfuse_ray.errors import InputError
from fedfuse_ray.terminal import output


def watch_command(
    target: Annotated[
        str | None,
        typer.Argument(metavar="[DIR|JOB]", help="A result folder; with --job, a job's id."),
    ] = None,
    job: Annotated[
        bool, typer.Option("--job", help="Watch a Ray job: the named one, or the newest.")
    ] = False,
    once: Annotated[bool, typer.Option("--once", help="Show how it is now, and leave.")] = False,
    interval: Annotated[float, typer.Option(min=0.1, help="Seconds between looks.")] = 1.0,
    timeout: Annotated[float, typer.Option(min=1.0, help="Seconds without news to wait.")] = 3600.0,
    address: Annotated[
        str | None, typer.Option(metavar="URL", help="The dashboard, for --job.")
    ] = None,
) -> None:
    """Watch a run, a comparison or a sweep until it ends, from its folder or as a Ray job."""
    if target is None and not job:
        raise InputError("DIR", "", "name a result folder, or a Ray job with --job")
    if address is not None and not job:
        raise InputError("--address", address, "goes with --job; a folder needs no cluster")
    from fedfuse_ray.studies.watching import Jobs, look_at_folder, look_at_job, watch

    look = look_at_job(Jobs(address), target) if job else look_at_folder(Path(target or ""))
    console = output()
    now = look()
    if once or now.ended:
        console.print(now.view)
    else:
        watch(look, console, interval=interval, timeout=timeout)
