"""What a run's folder holds, as types: the summary and the evaluation; `rows` has the tables.

Every value is validated when it is written, so that a script which relies on `summary.json` never
meets a missing key.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from fedfuse_ray.config.settings.base import Config
from fedfuse_ray.report.rows import InstitutionRow as InstitutionRow
from fedfuse_ray.report.rows import RoundRow as RoundRow

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Count = Annotated[int, Field(ge=0)]
Source = Literal["all", "public", "noised"]
Seconds = Annotated[float, Field(ge=0.0)]

OVERALL = "overall"
"""The key of the score pooled over all domains."""


class PrivacySummary(Config):
    """The guarantee that the ledger gives; numbers are null where the mode has none.

    Attributes:
        mode: `none`, or the privacy mode.
        epsilon: The largest over institutions, at `delta`.
        epsilon_by_institution: Each institution's own.
        noise_multiplier: Noise standard deviation over `clip_norm`.
        clip_norm: L2 bound of one unit's contribution, at all institutions together.
        sampling_rate: Poisson rate of a step.
        steps: Releases charged.
        unit: Whose part one neighbouring data set lacks: a `record`'s, `patient`'s or
            `institution`'s.
        adversary: Whom the guarantee holds against.
        audit: What an audit of an earlier run changed for this one, and why; not written without
            one.
        total_epsilon: Of all private runs on the same records that the account knew when the run
            ended, this one among them; null where the run is not private, or there is no bound.
        total_runs: How many these are.
        unprotected_runs: How many runs showed something of the same records without noise, which no
            epsilon covers.
        scores: Whether figures from institutions' own records are `private` or `shown`; not written
            without a guarantee.
        noised: The domains whose scores are of institutions' own records, released with noise that
            is charged; not written without any.
        warning: What the guarantee leaves of a patient with several records; not written where
            there is none.
    """

    mode: str
    epsilon: Annotated[float, Field(ge=0.0)] | None
    delta: Fraction | None
    epsilon_by_institution: dict[str, Annotated[float, Field(ge=0.0)]]
    noise_multiplier: Annotated[float, Field(ge=0.0)] | None
    clip_norm: Annotated[float, Field(ge=0.0)] | None
    sampling_rate: Fraction | None
    steps: Count
    unit: str | None
    adversary: str | None
    audit: str | None = None
    total_epsilon: Annotated[float, Field(ge=0.0)] | None = None
    total_runs: Count = 0
    unprotected_runs: Count = 0
    scores: Literal["private", "shown"] | None = None
    noised: tuple[str, ...] = ()
    warning: str | None = None

    @property
    def private(self) -> bool:
        """Whether the run claims a guarantee."""
        return self.mode != "none"

    @model_serializer(mode="wrap")
    def _only_the_contracts_keys(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        tree: dict[str, Any] = write(self)
        for name in ("audit", "scores", "noised", "warning"):
            if not getattr(self, name):
                del tree[name]
        return tree

    @model_validator(mode="after")
    def _a_private_mode_has_its_epsilon(self) -> PrivacySummary:
        if self.private and self.epsilon is None:
            raise ValueError(
                f"epsilon: null under mode {self.mode!r}; a guarantee needs its number"
            )
        return self


class CommunicationSummary(Config):
    """Bytes as encoded, over all institutions; `fp32_...` is the same updates uncompressed.

    `payload_...` is the encoded updates alone, without the keys, shares and headers of a protocol;
    0 where it was not measured.
    """

    uplink_bytes_per_round: Annotated[float, Field(ge=0.0)]
    downlink_bytes_per_round: Annotated[float, Field(ge=0.0)]
    uplink_bytes_total: Annotated[float, Field(ge=0.0)]
    fp32_uplink_bytes_per_round: Annotated[float, Field(ge=0.0)]
    codec: str
    payload_bytes_per_round: Annotated[float, Field(ge=0.0)] = 0.0


class TimeSummary(Config):
    """Seconds: the whole command, the executor's start, a steady round, the virtual clock."""

    wall_seconds: Seconds
    startup_seconds: Seconds
    seconds_per_round: Seconds
    simulated_seconds: Seconds


class Summary(Config):
    """`summary.json`: the contract with scripts. `accuracy` and `macro_f1` hold `overall`."""

    paradigm: str = Field(min_length=1)
    preset: str
    seed: int
    executor: str
    rounds: Count
    accuracy: dict[str, Fraction]
    accuracy_by_modality: dict[str, Fraction]
    macro_f1: dict[str, Fraction]
    privacy: PrivacySummary
    communication: CommunicationSummary
    time: TimeSummary
    weights_sha256: str

    @model_validator(mode="after")
    def _pooled_scores_are_there(self) -> Summary:
        for name, scores in (("accuracy", self.accuracy), ("macro_f1", self.macro_f1)):
            if OVERALL not in scores:
                raise ValueError(f"{name}: the key {OVERALL!r} is missing")
        return self

    @property
    def domains(self) -> list[str]:
        """The domains scored, in the order of the file."""
        return [name for name in self.accuracy if name != OVERALL]


class ViewEvaluation(Config):
    """The score of a model that is shown only these modalities.

    Attributes:
        confusion: Counts [true class][predicted class] over the domain's test specimens.
        attention: Mean weight of each modality in the fusion; null where the fusion has none.
    """

    modalities: tuple[str, ...] = Field(min_length=1)
    accuracy: Fraction
    macro_f1: Fraction
    confusion: list[list[Count]]
    attention: dict[str, float] | None = None


class DomainEvaluation(Config):
    """One domain's test set: its classes, its size, the scores by modalities shown.

    `source` says what is scored: specimens that are `public`; `all`, of which institutions hold
    some; or what institutions hold, `noised`. Counts with noise are likely ones, not what was
    counted.
    """

    classes: list[str]
    specimens: Count
    views: list[ViewEvaluation]
    source: Source = "all"

    @model_validator(mode="after")
    def _confusions_are_square(self) -> DomainEvaluation:
        size = len(self.classes)
        for view in self.views:
            if any(len(row) != size for row in view.confusion) or len(view.confusion) != size:
                shown = "+".join(view.modalities)
                raise ValueError(f"views.{shown}.confusion: must be {size} x {size}, as classes")
        return self

    @property
    def widest(self) -> ViewEvaluation | None:
        """The view with the most modalities; of equals the first."""
        return max(self.views, key=lambda view: len(view.modalities), default=None)


class InstitutionEvaluation(Config):
    """An institution's score on its domain's test set with the modalities that it owns.

    The accuracy is null where that is private; `held` is how many of the specimens that are scored
    with noise it holds.
    """

    domain: str
    modalities: tuple[str, ...]
    accuracy: Fraction | None
    held: Count = 0


class Evaluation(Config):
    """`evaluation.json`: the final scores in detail."""

    domains: dict[str, DomainEvaluation] = Field({})
    institutions: dict[str, InstitutionEvaluation] = Field({})
