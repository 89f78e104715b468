"""`python -m fedfuse_ray reproduce`: the paper's experiments, claim beside measurement."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedfuse_ray.commands.options import Account, NoProgress, Out, check_resumed_alone
from fedfuse_ray.stopping import resumable
from fedfuse_ray.terminal import output, say


def reproduce_command(
    quick: Annotated[
        bool, typer.Option("--quick", help="On `demo`, a quarter of an hour on two cores.")
    ] = False,
    studies: Annotated[
        str | None, typer.Option(metavar="s1,s2", help="Which studies; default all.")
    ] = None,
    out: Out = None,
    resume: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Finish an interrupted reproduction.")
    ] = None,
    account: Account = None,
    no_progress: NoProgress = False,
) -> None:
    """Run the paper's experiments again, and put claim and measurement on one page."""
    from fedfuse_ray.accounts.terms import AccountTerms
    from fedfuse_ray.report.grids import as_rich
    from fedfuse_ray.studies.reproducing import running
    from fedfuse_ray.studies.reproducing.output import write_pages
    from fedfuse_ray.studies.reproducing.scale import FULL, QUICK
    from fedfuse_ray.studies.reproducing.tables import claims
    from fedfuse_ray.studies.sweeping.account import begin, total_line
    from fedfuse_ray.studies.sweeping.live import LiveTable

    if resume is not None:
        check_resumed_alone(resume, "it", quick, studies, out)
        folder = resume
    else:
        scale = QUICK if quick else FULL
        folder = out or Path("runs") / f"reproduce-{scale.name}"
        running.begin(scale, running.study_names(studies), folder)
    running.asked(folder)  # nothing is begun in a folder that holds no reproduction
    begin(folder, AccountTerms(account))
    resuming = resumable("python -m fedfuse_ray reproduce", folder, "sweep.yaml")
    with resuming, LiveTable([], quiet=no_progress) as live:
        found = running.run(folder, live, _typed(folder))
    page = write_pages(folder)
    output().print(as_rich(claims(found)))
    say(total_line(folder), on_one_line=True)
    say(f"Report: {page}")


def _typed(folder: Path) -> str:
    """Return the command that makes this reproduction from nothing."""
    from fedfuse_ray.studies.reproducing.cells import STUDIES
    from fedfuse_ray.studies.reproducing.running import asked

    scale, studies = asked(folder)
    words = ["python -m fedfuse_ray reproduce"]
    words += ["--quick"] if scale.name == "quick" else []
    words += [] if studies == tuple(STUDIES) else [f"--studies {','.join(studies)}"]
    return " ".join(words)
