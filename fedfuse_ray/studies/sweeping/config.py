"""The settings of a sweep: what is held fixed, what varies, how points are chosen."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from fedfuse_ray.config import Paradigm
from fedfuse_ray.config.settings.base import Config

Objective = Literal["accuracy", "epsilon", "bytes"]
Interval = tuple[float, float]


class Axis(Config):
    """What one setting may be; exactly one of the four.

    Attributes:
        grid: Each of these values; a bare list in the file means the same.
        choice: One of these values, drawn evenly.
        uniform: Drawn evenly between two bounds.
        loguniform: Its logarithm is drawn evenly; both bounds are above 0.
    """

    grid: tuple[object, ...] | None = None
    choice: tuple[object, ...] | None = None
    uniform: Interval | None = None
    loguniform: Interval | None = None

    @property
    def kind(self) -> str:
        """Which of the four this is."""
        return next(name for name in type(self).model_fields if getattr(self, name) is not None)

    @property
    def values(self) -> tuple[object, ...]:
        """The values of `grid` or `choice`; empty for an interval."""
        return self.grid or self.choice or ()

    @property
    def bounds(self) -> Interval:
        """The bounds of `uniform` or `loguniform`."""
        return self.uniform or self.loguniform or (0.0, 0.0)

    @field_validator("grid", "choice")
    @classmethod
    def _distinct(cls, values: tuple[object, ...] | None) -> tuple[object, ...] | None:
        if values is None:
            return None
        if not values:
            raise ValueError("lists no value; name at least one")
        read = tuple(_number(value) for value in values)
        if twice := [v for i, v in enumerate(read) if any(_same(v, w) for w in read[:i])]:
            raise ValueError(f"lists {twice[0]!r} twice; name each value once")
        return read

    @model_validator(mode="after")
    def _one_kind(self) -> Axis:
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError("give one of grid, choice, uniform and loguniform")
        if not self.values:
            low, high = self.bounds
            if low >= high or (self.loguniform is not None and low <= 0.0):
                raise ValueError("give two rising bounds; those of loguniform are above 0")
        return self


class GridSearch(Config):
    """Every combination of the axes' values, each once; all axes list their values."""

    kind: Literal["grid"] = "grid"


class _Drawn(Config):
    """What searches that draw points share.

    Attributes:
        trials: How many trials.
        seed: Root of the draws; trials have the experiment's own seed.
    """

    trials: int = Field(ge=1, le=100_000)
    seed: int = Field(0, ge=0, lt=2**31)


class RandomSearch(_Drawn):
    """Points drawn independently of each other and of every result.

    Attributes:
        number: `fixed` runs `trials` trials; `geometric` and `logarithmic` draw their number, with
            mean `trials`, which makes choosing the best far cheaper in privacy (Papernot and
            Steinke, 2022, arXiv 2110.03620).
    """

    kind: Literal["random"]
    number: Literal["fixed", "geometric", "logarithmic"] = "fixed"


class AshaSearch(_Drawn):
    """Random points, of which the worse are stopped early (Li et al., 2020, arXiv 1810.05934).

    Attributes:
        grace_rounds: No trial is stopped before this round.
        reduction_factor: Of so many trials one goes on past each rung.
    """

    kind: Literal["asha"]
    grace_rounds: int = Field(2, ge=1)
    reduction_factor: float = Field(3.0, gt=1.0, le=100.0)


class OptunaSearch(_Drawn):
    """Points proposed from the results so far; for one objective or several. An extra."""

    kind: Literal["optuna"]


Search = Annotated[
    GridSearch | RandomSearch | AshaSearch | OptunaSearch, Field(discriminator="kind")
]


class MlflowTracking(Config):
    """A run in MLflow for each trial.

    Attributes:
        uri: Of a server or a store; null writes `mlflow.db` into the sweep's folder.
        experiment: Its name in MLflow; null takes the sweep folder's.
        tags: Put on every run.
    """

    uri: str | None = Field(None, min_length=1)
    experiment: str | None = Field(None, min_length=1)
    tags: dict[str, str] = Field({})

    def address(self, folder: Path) -> str:
        """Return where runs are written, for a sweep in `folder`."""
        return self.uri or f"sqlite:///{folder.absolute() / 'mlflow.db'}"


class WandbTracking(Config):
    """A run in Weights & Biases for each trial, kept below `wandb/` of the sweep's folder.

    Attributes:
        project: Its name there.
        entity: The user or team; null takes the account's own.
        group: What gathers the trials; null takes the sweep folder's name.
        mode: `offline` writes files alone; `online` also sends them.
    """

    project: str = Field("fedfuse_ray", min_length=1)
    entity: str | None = Field(None, min_length=1)
    group: str | None = Field(None, min_length=1)
    mode: Literal["offline", "online"] = "offline"


class Tracking(Config):
    """Who is told; null is not."""

    mlflow: MlflowTracking | None = None
    wandb: WandbTracking | None = None


class Sweep(Config):
    """A sweep.

    Attributes:
        base: A preset, or an experiment's YAML file, relative to the sweep file's folder.
        paradigm: What is trained; the base's own where it is null.
        settings: Dotted settings that hold for all trials.
        space: Dotted settings that vary.
        search: How points are chosen.
        objectives: What the Pareto front and `optuna` weigh; the first names the best trial.
            Accuracy is raised; epsilon and the bytes sent up are lowered.
        executor: Where a trial's federation runs: `serial` in the trial's own process, which hands
            specimens and frozen features to the next trial; `ray` as actors of its own, inside the
            trial's placement group, for federations that need several GPUs or nodes.
        concurrent: Most trials side by side; null takes what the cluster has room for.
        cpus_per_trial: Logical CPUs of a serial trial. Actors ask for what their institutions
            declare.
        gpus_per_trial: GPUs of a serial trial.
        tracking: Trackers that are told of trials; none by default.
    """

    base: str
    paradigm: Paradigm | None = None
    settings: dict[str, Any] = Field({})
    space: dict[str, Axis] = Field(min_length=1)
    search: Search = GridSearch()
    objectives: tuple[Objective, ...] = Field(("accuracy", "epsilon", "bytes"), min_length=1)
    executor: Literal["serial", "ray"] = "serial"
    concurrent: int | None = Field(None, ge=1)
    cpus_per_trial: float = Field(1.0, gt=0.0)
    gpus_per_trial: float = Field(0.0, ge=0.0)
    tracking: Tracking = Tracking()

    @model_validator(mode="after")
    def _agrees(self) -> Sweep:
        if both := sorted(set(self.space) & set(self.settings)):
            raise ValueError(f"settings.{both[0]}: it varies; set space.{both[0]} instead")
        if self.executor == "ray" and self.search.kind == "optuna":
            raise ValueError(
                "executor: optuna proposes points late, and the room for actors must "
                "be known early; choose grid, random or asha"
            )
        if len(set(self.objectives)) < len(self.objectives):
            raise ValueError("objectives: one is named twice; name each once")
        for name, axis in self.space.items():
            if self.search.kind == "grid" and not axis.values:
                raise ValueError(
                    f"space.{name}: {axis.kind} has no end of values; list them as a grid, or set "
                    "search.kind to random, asha or optuna"
                )
        return self


def _number(value: object) -> object:
    """Return `1e-5`, which YAML takes for text, as the number that is meant."""
    if isinstance(value, str) and value[:1] in "0123456789.+-":
        with contextlib.suppress(ValueError):
            return float(value)
    return value


def _same(one: object, other: object) -> bool:
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)
