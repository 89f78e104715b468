"""The command line: `python -m fedfuse_ray COMMAND`."""

from __future__ import annotations

from collections.abc import Callable

import typer

from fedfuse_ray.commands import data
from fedfuse_ray.commands.account import account_command
from fedfuse_ray.commands.audit import audit_command
from fedfuse_ray.commands.compare import compare_command
from fedfuse_ray.commands.preflight import preflight_command
from fedfuse_ray.commands.report import report_command
from fedfuse_ray.commands.reproduce import reproduce_command
from fedfuse_ray.commands.run import run_command
from fedfuse_ray.commands.schema import schema_command
from fedfuse_ray.commands.verify import verify_command
from fedfuse_ray.commands.watch import watch_command
from fedfuse_ray.stopping import ending
from fedfuse_ray.terminal import exit_status

COMMANDS: dict[str, Callable[..., None]] = {
    "account": account_command,
    "reproduce": reproduce_command,
    "audit": audit_command,
    "preflight": preflight_command,
    "report": report_command,
    "verify": verify_command,
    "watch": watch_command,
    "run": run_command,
    "compare": compare_command,
    "schema": schema_command,
}

app = typer.Typer(
    help="Simulate privacy-preserving federated cross-modal fusion in scientific imaging.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.add_typer(data.app, name="data")
for _name, _command in COMMANDS.items():
    app.command(_name)(ending(_command))


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    return exit_status(lambda: app(arguments, standalone_mode=False))
