"""The related work's systems: a text about each, and its variants.

A system is one file, `config/presets/systems/NAME.yaml`. Beside settings, as in any file, it holds
`about` (the text) and `variants` (a name to settings over the file's own).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from pydantic import Field, ValidationError, model_validator

from fedfuse_ray.config.settings.base import Config
from fedfuse_ray.config.sources.trees import SYSTEMS, read_system
from fedfuse_ray.errors import InputError

Column = Literal["fusion", "federated", "privacy", "domains", "heterogeneity"]
COLUMNS: tuple[Column, ...] = get_args(Column)
"""The paper's five columns, in its order."""


class About(Config):
    """The text about a system.

    Attributes:
        title: Its name, or what it does.
        citation: Authors, year, where it appeared.
        table1: The paper's cells; empty where its table has no such row.
        kept: What of the system is run here.
        simplified: What is not, or is simpler.
        differences: Why a cell that was derived here differs from the paper's, by column.
    """

    title: str = Field(min_length=1)
    citation: str = Field(min_length=1)
    table1: dict[Column, bool] = Field({})
    kept: str = Field(min_length=1)
    simplified: str = Field(min_length=1)
    differences: dict[Column, str] = Field({})

    @model_validator(mode="after")
    def _whole_rows(self) -> About:
        if self.table1 and set(self.table1) != set(COLUMNS):
            raise ValueError(f"table1: give all of {', '.join(COLUMNS)}, or leave it out")
        return self


@dataclass(frozen=True)
class System:
    """A system of the related work.

    Attributes:
        name: `systems/NAME` is its preset.
        about: What is said of it.
        variants: Their names; `systems/NAME@VARIANT` is the preset of one.
    """

    name: str
    about: About
    variants: tuple[str, ...]

    def preset(self, variant: str = "") -> str:
        """Return the name to load it by, or one of its variants."""
        return f"{SYSTEMS}{self.name}" + (f"@{variant}" if variant else "")


def load_system(name: str) -> System:
    """Read a system's file, but for its settings.

    Raises:
        InputError: There is none of that name, or what it says of itself is incomplete.
    """
    about, variants = read_system(name)
    try:
        return System(name, About.model_validate(about), tuple(variants))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(("about", *map(str, first["loc"])))
        raise InputError(f"{SYSTEMS}{name}: {field}", first["input"], first["msg"]) from None
