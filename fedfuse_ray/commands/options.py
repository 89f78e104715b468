"""Options that several commands take, each written once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from fedfuse_ray.errors import InputError

Source = Annotated[
    str, typer.Argument(metavar="[PRESET|FILE]", help="A preset, a YAML file, or a manifest.")
]
Manifest = Annotated[
    Path | None, typer.Option("--data", metavar="MANIFEST", help="Your images, not the preset's.")
]
ParadigmName = Annotated[str | None, typer.Option(help="What is trained.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="a.b=c", help="Override a setting.")
]
Seed = Annotated[int | None, typer.Option(help="Root of every random stream.")]
Out = Annotated[Path | None, typer.Option(metavar="DIR", help="Result folder.")]
NoProgress = Annotated[bool, typer.Option("--no-progress", help="Print the result only.")]
Account = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Privacy account; default: in the results' parent folder."),
]
Budget = Annotated[
    float | None,
    typer.Option(metavar="EPSILON", help="Most that all runs on the same records may come to."),
]
ExecutorKind = Annotated[
    Literal["ray", "serial"] | None, typer.Option(help="Actors, or all in this process.")
]


def check_resumed_alone(folder: Path, what: str, *given: object) -> None:
    """Refuse every other option beside `--resume`.

    Raises:
        InputError: One was given.
    """
    if any(value not in (None, [], False) for value in given):
        raise InputError("--resume", folder, f"{what} goes on as it began; give nothing else")
