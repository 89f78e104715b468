"""`python -m fedfuse_ray.sweep FILE.yaml`: federations over a space of settings."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedfuse_ray.errors import InputError
from fedfuse_ray.studies.sweeping.config import Sweep, load_sweep
from fedfuse_ray.terminal import exit_status, output, results_line

if TYPE_CHECKING:
    from fedfuse_ray.studies.sweeping.store import Row, SweepStore

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)

_ADAPTIVE = ("asha", "optuna")


@app.command()
def sweep_command(
    source: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="A sweep file; see tune_configs/.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="a.b=c", help="Override a setting of the sweep or its base."),
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Result folder.")] = None,
    resume: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Finish an interrupted sweep.")
    ] = None,
    no_progress: Annotated[
        bool, typer.Option("--no-progress", help="Print the result only.")
    ] = False,
) -> None:
    """Run a sweep, and write its table of trials, its Pareto front and what choosing costs."""
    from fedfuse_ray.studies.sweeping.store import SweepStore
    from fedfuse_ray.studies.sweeping.tracking import check_extras

    if resume is not None:
        if source is not None or settings or out is not None:
            raise InputError("--resume", resume, "a sweep goes on as it began; give nothing else")
        store = SweepStore(resume)
        sweep = store.read()
        check_extras(sweep)
    else:
        if source is None:
            raise InputError("FILE", "", "name a sweep file, as tune_configs/smoke.yaml")
        sweep = load_sweep(source, settings or ())
        check_extras(sweep)
        store = SweepStore(out or Path("runs") / f"sweep-{source.stem}")
        _begin(sweep, store)
    _run(sweep, store, quiet=no_progress)


def _begin(sweep: Sweep, store: SweepStore) -> None:
    """Validate every point, then lay the folder out; Ray has not been started yet."""
    from fedfuse_ray.studies.sweeping.points import expand

    store.start(sweep, expand(sweep))


def _run(sweep: Sweep, store: SweepStore, *, quiet: bool) -> None:
    from fedfuse_ray.studies.sweeping.driving import drive
    from fedfuse_ray.studies.sweeping.live import LiveTable
    from fedfuse_ray.studies.sweeping.output import write_folder

    began = time.perf_counter()
    # A search that learns is told of ended trials too; they end again at once.
    names = store.names() if sweep.search.kind in _ADAPTIVE else store.missing()
    count = sweep.search.trials if sweep.search.kind == "optuna" else len(names)
    with LiveTable(store.rows(), total=count, quiet=quiet) as live:
        if count:
            live.say(results_line(store.folder))
            live.say(f"{count} trials to run")
            drive(sweep, store, names, live)
    rows, selection = write_folder(sweep, store.folder, time.perf_counter() - began)
    _conclude(sweep, store, rows, selection.text)


def _conclude(sweep: Sweep, store: SweepStore, rows: list[Row], selection: str) -> None:
    from fedfuse_ray.studies.sweeping.driving import check_complete
    from fedfuse_ray.studies.sweeping.live import point_text, result_table
    from fedfuse_ray.studies.sweeping.summary import best, pareto

    console = output()
    console.print(result_table(rows, pareto(rows, sweep.objectives)))
    if (chosen := best(rows, sweep.objectives)) is not None:
        console.print(f"Best: {point_text(chosen)}", markup=False, highlight=False)
    console.print(selection, markup=False, highlight=False, soft_wrap=True)
    console.print(f"Report: {store.folder / 'report.html'}", markup=False, highlight=False)
    check_complete(rows, store.folder, "trials")


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return the exit status."""
    return exit_status(lambda: app(arguments, standalone_mode=False))


if __name__ == "__main__":
    sys.exit(main())
