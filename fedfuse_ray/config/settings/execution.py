"""Where the federation runs, and how long anything may take."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from fedfuse_ray.config.settings.base import Config


class ExecutionConfig(Config):
    """How institutions are laid out over processes.

    Attributes:
        executor: `ray` (actors) or `serial` (all in this process).
        institutions_per_actor: `auto` gives each institution an actor of its own where the
            cluster has room for all, else spreads them over as many host actors as it has cores;
            a number asks for that many.
        num_gpus_per_institution: Fraction of a GPU for each institution.
        placement: Ray's placement strategy for the actors.
        startup_seconds: Deadline for all actors to be up.
        round_seconds: Deadline of a round.
        dashboard: Start Ray's dashboard with a local Ray; a cluster has its own.
        evaluate_every: Rounds between evaluations on the test set; the last is always scored.
        signing_key: The file of your Ed25519 private key (PEM), which signs the privacy ledger;
            null makes a key for each run, and forgets it when the run ends.
    """

    executor: Literal["ray", "serial"] = "ray"
    institutions_per_actor: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"
    num_gpus_per_institution: float = Field(0.0, ge=0.0)
    placement: Literal["PACK", "SPREAD"] = "PACK"
    startup_seconds: float = Field(180.0, gt=0.0)
    round_seconds: float = Field(3600.0, gt=0.0)
    dashboard: bool = False
    evaluate_every: int = Field(1, ge=1)
    signing_key: str | None = None
