"""`python -m fedfuse_ray.sweep FILE.yaml`: federations over a space of settings."""

from __future__ import annotations

import sys

import typer

from fedfuse_ray.commands.sweep import sweep_command
from fedfuse_ray.stopping import ending
from fedfuse_ray.terminal import exit_status

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
app.command()(ending(sweep_command))


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return the exit status."""
    return exit_status(lambda: app(arguments, standalone_mode=False))


if __name__ == "__main__":
    sys.exit(main())
