"""Which of the institutions that can be reached take part in a round."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from fedfuse_ray.config.settings.base import Config


class SelectAllConfig(Config):
    """Everybody takes part in every round."""

    kind: Literal["all"] = "all"


class SelectRandomConfig(Config):
    """A part of the institutions, drawn in each round (McMahan et al., 2017, arXiv 1602.05629).

    Attributes:
        fraction: C, the part of all institutions that trains in a round, at least one of them.
    """

    kind: Literal["random"]
    fraction: float = Field(0.5, gt=0.0, le=1.0)


class SelectCyclicConfig(Config):
    """One institution of each domain a round, in turn, over and over (Sheller et al., 2020)."""

    kind: Literal["cyclic"]


class SelectIncrementalConfig(Config):
    """One institution of each domain at a time, each once, for its share of the rounds."""

    kind: Literal["incremental"]


class SelectResourcesConfig(Config):
    """Those that are fast enough, by an estimate of their round's seconds (FedCS, 1804.08333).

    Attributes:
        deadline_seconds: Takes all whose estimated round fits this. Give either this or `count`.
        count: Takes so many, the fastest.
        at_least_every: Each institution takes part at least once in so many rounds, however slow
            it is.
    """

    kind: Literal["resources"]
    deadline_seconds: float | None = Field(None, gt=0.0)
    count: int | None = Field(None, ge=1)
    at_least_every: int = Field(5, ge=1)

    @model_validator(mode="after")
    def _one_rule(self) -> SelectResourcesConfig:
        if (self.deadline_seconds is None) == (self.count is None):
            raise ValueError("deadline_seconds: give exactly one of it and selection.count")
        return self


SelectionConfig = Annotated[
    SelectAllConfig
    | SelectRandomConfig
    | SelectCyclicConfig
    | SelectIncrementalConfig
    | SelectResourcesConfig,
    Field(discriminator="kind"),
]
