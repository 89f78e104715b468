"""`python -m fedfuse_ray account`: what a recipe costs in privacy, before anyone trains."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.table import Table

from fedfuse_ray.errors import InputError
from fedfuse_ray.privacy import account
from fedfuse_ray.terminal import output

_PAPER_RECORDS = 1650


def account_command(
    sigma: Annotated[
        float | None,
        typer.Option("--sigma", "--noise-multiplier", help="Noise multiplier; gives epsilon."),
    ] = None,
    epsilon: Annotated[
        float | None,
        typer.Option("--epsilon", "--target-epsilon", help="Budget; gives the noise multiplier."),
    ] = None,
    records: Annotated[
        int | None,
        typer.Option(
            "--records",
            "-n",
            min=1,
            help="Units of one institution: records, or patients; 1650 by default.",
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(min=1, help="Expected batch; all records by default, as one joint step."),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Communication rounds.")] = 1,
    local_epochs: Annotated[
        int, typer.Option("--local-epochs", "--epochs", min=1, help="Epochs a round.")
    ] = 1,
    delta: Annotated[float, typer.Option(help="The guarantee's delta.")] = 1e-5,
    accountant: Annotated[
        Literal["pld", "rdp"], typer.Option(help="Loss distributions, or Renyi DP (moments).")
    ] = "pld",
    exposures: Annotated[
        int | None,
        typer.Option(min=1, help="Uploads of one institution that are seen, one a round."),
    ] = None,
    group: Annotated[
        int,
        typer.Option(min=1, help="Count so many units as one: records of a patient, institutions."),
    ] = 1,
    curve: Annotated[
        Path | None, typer.Option(metavar="FILE.html", help="Draw epsilon over rounds.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Turn noise into epsilon, or epsilon into noise; without either, account the paper's recipe.

    DP-SGD with Poisson sampling at batch-size / records.
    """
    _check_delta(delta, records)
    records = records or _PAPER_RECORDS
    if sigma is None and epsilon is None:
        recipe = account.paper_recipe()
        print(json.dumps(asdict(recipe), indent=2) if as_json else recipe)
        return
    batch_size = batch_size or records
    if exposures is not None:
        _check_exposures(exposures, rounds, whole=(batch_size, local_epochs) == (records, 1))
    plan = account.schedule(records, batch_size, exposures or rounds, local_epochs, delta)
    plan = replace(plan, accountant=accountant)
    result = account.answer(plan, sigma, epsilon)
    # With the noise of T / L uploads each, T broadcasts tell as much as L uploads.
    broadcast = result.noise_multiplier * math.sqrt(rounds / (exposures or rounds))
    together = account.group_after(plan, result.noise_multiplier, group) if group > 1 else None
    if as_json:
        more = {"broadcast_noise_multiplier": broadcast} if exposures else {}
        more |= {} if together is None else {"group": group, "group_epsilon": together}
        print(json.dumps(asdict(result) | more, indent=2))
    else:
        _print(result, plan, broadcast if exposures else None, group, together)
    if curve is not None:
        _draw(curve, plan, result)
        print(f"Curve: {curve}")


def _check_delta(delta: float, records: int | None) -> None:
    """Refuse what is no probability, and a delta that would allow to publish one of N records."""
    if not 0.0 < delta < 1.0:
        raise InputError("--delta", delta, "use a probability above 0 and below 1")
    if records is not None and delta * records >= 1.0:
        remedy = (
            f"with {records} records a delta of 1 / {records} or more allows to publish one of "
            f"them as it is; use one well below, such as {0.01 / records:.0e}"
        )
        raise InputError("--delta", delta, remedy)


def _check_exposures(exposures: int, rounds: int, *, whole: bool) -> None:
    if exposures > rounds or not whole:
        remedy = "each round has one upload, of a whole update: use --rounds or less, no batches"
        raise InputError("--exposures", exposures, remedy)


def _print(
    result: account.Answer,
    plan: account.Schedule,
    broadcast: float | None,
    group: int,
    together: float | None,
) -> None:
    table = Table(show_header=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_row("noise multiplier", f"{result.noise_multiplier:.4g}")
    if broadcast is not None:
        table.add_row("noise multiplier of a broadcast", f"{broadcast:.4g}")
    table.add_row("sampling rate", f"{result.sampling_rate:.4g}")
    within = f"{plan.rounds:,} rounds" if broadcast is None else "uploads seen"
    table.add_row("steps", f"{plan.steps:,} ({within})")
    table.add_row("delta", f"{result.delta:g}")
    table.add_row("epsilon", f"{result.epsilon:.4g}", style="bold")
    if together is not None:
        table.add_row(f"epsilon of {group} units together", f"{together:.4g}", style="bold")
    output().print(table)


def _draw(path: Path, plan: account.Schedule, result: account.Answer) -> None:
    import plotly.graph_objects as go

    from fedfuse_ray.report import write_figure

    name = f"sigma {result.noise_multiplier:.4g}"
    figure = go.Figure(
        account.curve_figure([(name, account.epsilon_curve(plan, result.noise_multiplier))])
    )
    figure.update_layout(showlegend=True, height=420, margin={"t": 48})
    caption = (
        f"Noise multiplier {result.noise_multiplier:.4g}, sampling rate {result.sampling_rate:.4g},"
        f" delta {result.delta:g}: epsilon {result.epsilon:.4g} after {plan.rounds} rounds."
    )
    write_figure(path, "Privacy spent over rounds", figure, caption)
