"""What is protected, against whom, and at which price."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from fedfuse_ray.config.settings.base import Config
from fedfuse_ray.config.settings.privacy_parts import (
    AdaptiveBudgetConfig,
    AdaptiveClippingConfig,
    ClippingGroupConfig,
    SecureAggregationConfig,
)
from fedfuse_ray.errors import InputError

PrivacyMode = Literal["none", "record-local", "record-distributed", "client", "local-update"]
Mechanism = Literal["gaussian", "skellam", "discrete-gaussian"]
Accountant = Literal["pld", "rdp"]

_OF_INSTITUTIONS = ("client", "local-update")
"""Modes that protect whole institutions."""


class PrivacyConfig(Config):
    """Differential privacy of a run.

    Attributes:
        mode: `none`; `record-local` (DP-SGD at each institution, full noise each);
            `record-distributed` (one joint step a round, noise shared out under secure
            aggregation); `client` (institutions are the unit, noise at the server: Geyer et al.,
            2017, arXiv 1712.07557); `local-update` (each institution clips and noises its whole
            update: Wei et al., 2020, arXiv 1911.00222).
        target_epsilon: The budget; the noise multiplier is calibrated to it.
        noise_multiplier: sigma, the noise's standard deviation over the clipping norm; give
            either this or `target_epsilon`.
        delta: The guarantee's delta, below 1 / (training specimens, or patients, of any
            institution); where an institution is the unit, below 1 / (number of institutions). Keep
            it well below.
        clip_norm: C, the joint L2 norm over all blocks of what one unit adds at an institution.
        unit: Whose part is hidden: one `record`, or all records of one `patient`, which need a
            column `patient_id`. A patient may be any group: a person, a sample, a location. Batches
            then are of patients. Under `client` and `local-update` the unit is the institution.
        records_per_patient: The most records of a patient that count in a step; which ones is drawn
            anew in each. A public constant, under `unit: patient`.
        patient_gradient: What is clipped of a patient: the `mean` of its records' gradients, or
            their `sum`.
        institutions_per_unit: At how many institutions one unit may stand; more are refused. Above
            1 every unit is charged as if it stood at that many, under `record-distributed`.
        sampling_rate: q, the probability that a unit takes part in a step; 1 is full batch.
            `record-local` derives q from batch sizes instead.
        tolerated_dropouts: t, how many of a block's owners may drop out or collude without
            weakening the guarantee. 1 covers any single owner, who knows its own noise.
        groups: Clipping groups by name (a block, a modality, or `rest`); empty clips jointly.
        adaptive_clipping: Quantile-adaptive clipping.
        noise_schedule: `constant`; factors on the noise multiplier fixed in advance, one per
            round; or `adaptive`, which chooses each round's from what was released before, under
            `record-distributed` with `gaussian` noise and full batches.
        adaptive_budget: How an adaptive schedule spends, and how it reacts to an audit.
        audit: An `audit.json` of an earlier run of the same recipe. It may refuse the run or lower
            its `target_epsilon`, never raise it.
        mechanism: `gaussian` (under secure aggregation sampled exactly and rounded to integers,
            with the proof of docs/proofs.md), or `skellam` and `discrete-gaussian`, with published
            proofs for a sum that is rounded before noise: they need twice the bits and more.
        accountant: What turns noise into epsilon: `pld` (privacy loss distributions, nearly
            tight), or `rdp` (Renyi DP, the form in which the moments accountant of Abadi et al.,
            2016, arXiv 1607.00133, is computed today: looser, so the same budget takes more noise).
        uplink_exposures: L, the number of an institution's uploads that an adversary on the uplink
            sees, by assumption; under `local-update`. Noise is then calibrated to L uploads. All
            broadcasts may be seen, so the server adds the noise that they lack. Null assumes that
            all uploads may be seen, by the server too.
        secure_aggregation: The protocol's terms, under `record-distributed`.
        randomness: Where noise, samples, keys and masks come from: `derived` from the seed, the
            configuration, the data and what each release protects, so that a run can be repeated
            by, and is protected only against those who do not have, its seed; or `secret`, from the
            operating system, kept beside the run until it ends and then forgotten.
        scores: Of figures that are computed from institutions' own records, such as training losses
            and validation accuracies: `private` leaves them out, or releases them with noise that
            the ledger is charged for; `shown` shows them as they are, which no epsilon covers.
    """

    mode: PrivacyMode = "none"
    target_epsilon: float | None = Field(None, gt=0.0, le=1e4)
    noise_multiplier: float | None = Field(None, gt=0.0, le=1e6)
    delta: float = Field(1e-5, ge=1e-12, lt=0.5)
    clip_norm: float = Field(0.5, ge=1e-6, le=1e6)
    unit: Literal["record", "patient"] = "record"
    records_per_patient: int = Field(8, ge=1, le=100_000)
    patient_gradient: Literal["mean", "sum"] = "mean"
    institutions_per_unit: int = Field(1, ge=1, le=1000)
    sampling_rate: float = Field(1.0, gt=0.0, le=1.0)
    tolerated_dropouts: int = Field(1, ge=0, le=100_000)
    groups: dict[str, ClippingGroupConfig] = Field({})
    adaptive_clipping: AdaptiveClippingConfig = AdaptiveClippingConfig()
    noise_schedule: (
        Literal["constant", "adaptive"] | tuple[Annotated[float, Field(gt=0.0, le=1e3)], ...]
    ) = "constant"
    adaptive_budget: AdaptiveBudgetConfig = AdaptiveBudgetConfig()
    audit: str | None = None
    mechanism: Mechanism = "gaussian"
    accountant: Accountant = "pld"
    uplink_exposures: int | None = Field(None, ge=1)
    secure_aggregation: SecureAggregationConfig = SecureAggregationConfig()
    randomness: Literal["derived", "secret"] = "derived"
    scores: Literal["private", "shown"] = "private"

    @property
    def enabled(self) -> bool:
        """Whether anything is protected."""
        return self.mode != "none"

    @property
    def protected_unit(self) -> str:
        """Whose part is hidden: that of a `record`, `patient` or `institution`, or `none`."""
        if not self.enabled:
            return "none"
        return "institution" if self.mode in _OF_INSTITUTIONS else self.unit

    @property
    def of_patients(self) -> bool:
        """Whether a patient's records are protected as one."""
        return self.protected_unit == "patient"

    @property
    def hides_scores(self) -> bool:
        """Whether figures computed from institutions' own records are left out, or noised."""
        return self.enabled and self.scores == "private"

    @property
    def colluding(self) -> int:
        """How many institutions may work together with the server under secure aggregation."""
        stated = self.secure_aggregation.colluding
        return self.tolerated_dropouts if stated is None else stated

    @property
    def neighbouring(self) -> str:
        """The relation between data sets that the guarantee can't tell apart."""
        if not self.enabled:
            return "none"
        if self.protected_unit == "record":
            return "one record's contribution replaced by zero; dataset sizes are public"
        if self.protected_unit == "patient":
            return (
                "all that one patient's records contribute replaced by zero; the numbers of "
                "patients and of records are public"
            )
        zeroed = "one institution's update replaced by zero"
        if self.mode == "local-update":
            return f"{zeroed}; replaced by another update it moves 2 C: as at half the noise"
        return zeroed

    @property
    def adversary(self) -> str:
        """Against whom the guarantee holds."""
        return self._adversary + self.without_seed

    @property
    def without_seed(self) -> str:
        """What the origin of the randomness adds to every statement of an adversary."""
        if not self.enabled or self.randomness == "secret":
            return ""
        return "; nobody of them has the run's seed, from which all noise can be computed"

    @property
    def _adversary(self) -> str:
        if self.uplink_exposures is not None:
            return (
                f"whoever sees at most {self.uplink_exposures} of an institution's uploads, or "
                "whoever sees all broadcasts and knows the noise of at most "
                f"{self.tolerated_dropouts} other owners of a block, not both at once; the server, "
                "which sees all uploads, is trusted"
            )
        return {
            "none": "none",
            "record-local": "the server and any number of other institutions, honest but curious",
            "record-distributed": (
                "a server that sees only securely aggregated sums, together with at most "
                f"{self.colluding} institutions, as long as at most {self.tolerated_dropouts} of a "
                "block's owners are missing or colluding"
            ),
            "client": "whoever sees the released models; the server itself is trusted",
            "local-update": "the server and any number of other institutions, honest but curious",
        }[self.mode]

    def noise_factors(self, rounds: int) -> tuple[float, ...]:
        """Return the factor on the noise multiplier of each round, as far as it is fixed before.

        An adaptive schedule's are 1: together they cost as much as those that it will choose.

        Raises:
            InputError: The schedule's length differs from `rounds`.
        """
        if isinstance(self.noise_schedule, str):
            return (1.0,) * rounds
        if len(self.noise_schedule) != rounds:
            raise InputError(
                "privacy.noise_schedule",
                f"{len(self.noise_schedule)} factors",
                f"give one factor for each of the {rounds} rounds, 'constant' or 'adaptive'",
            )
        return self.noise_schedule

    @model_validator(mode="after")
    def _settings_agree(self) -> PrivacyConfig:
        if not self.enabled:
            return self
        if (self.target_epsilon is None) == (self.noise_multiplier is None):
            raise ValueError(
                f"mode {self.mode!r} needs exactly one of target_epsilon and noise_multiplier; "
                "set the other one to null"
            )
        if self.mechanism != "gaussian" and self.mode != "record-distributed":
            raise ValueError(
                f"mechanism: {self.mechanism!r} adds integer noise to secure sums; use it with "
                "mode 'record-distributed', or take 'gaussian'"
            )
        if self.mode == "local-update" and self.sampling_rate < 1.0:
            raise ValueError(
                f"sampling_rate: {self.sampling_rate} amplifies nothing under 'local-update': the "
                "server sees who takes part; set it to 1"
            )
        self._check_unit()
        self._check_exposures()
        self._check_adaptive_budget()
        self._check_adaptive_clipping()
        self._check_groups()
        return self

    def _check_unit(self) -> None:
        if self.unit == "patient" and self.mode in _OF_INSTITUTIONS:
            raise ValueError(
                f"unit: 'patient' under mode {self.mode!r}, which protects all of an institution; "
                "leave it at record, or use mode record-distributed or record-local"
            )
        if self.institutions_per_unit == 1:
            return
        if self.mode != "record-distributed" or self.sampling_rate < 1.0:
            raise ValueError(
                f"institutions_per_unit: '{self.institutions_per_unit}' is charged for full "
                "batches of one joint sum only; set mode to record-distributed and sampling_rate "
                "to 1, or institutions_per_unit to 1"
            )

    def _check_exposures(self) -> None:
        if self.uplink_exposures is None:
            return
        if self.mode != "local-update":
            raise ValueError(
                f"uplink_exposures: '{self.uplink_exposures}' under mode {self.mode!r}, in which "
                "uploads carry no noise for it; use 'local-update', or set it to null"
            )
        if self.noise_schedule != "constant":
            raise ValueError(
                f"uplink_exposures: '{self.uplink_exposures}' uploads may be the ones with the "
                "least noise of a schedule; set noise_schedule to constant"
            )

    def _check_adaptive_budget(self) -> None:
        if self.audit is not None and self.target_epsilon is None:
            raise ValueError(
                f"audit: {self.audit!r} may lower target_epsilon, which is not given; set it in "
                "place of noise_multiplier"
            )
        if self.noise_schedule != "adaptive":
            return
        needed = {
            "mode": (self.mode, "record-distributed"),
            "mechanism": (self.mechanism, "gaussian"),
            "sampling_rate": (self.sampling_rate, 1.0),
        }
        for name, (found, wanted) in needed.items():
            if found != wanted:
                raise ValueError(
                    f"noise_schedule: 'adaptive' with {name} {found}: noise that depends on "
                    "earlier releases is only accounted for full-batch Gaussian ones; set "
                    f"{name} to {wanted}, or noise_schedule to constant"
                )

    def _check_adaptive_clipping(self) -> None:
        if self.adaptive_clipping.enabled and (
            self.mode != "record-distributed" or self.mechanism != "gaussian"
        ):
            raise ValueError(
                "adaptive_clipping: the count of unclipped records is summed securely; it needs "
                "mode 'record-distributed' and mechanism 'gaussian'"
            )

    def _check_groups(self) -> None:
        if not self.groups:
            return
        if self.adaptive_clipping.enabled:
            raise ValueError(
                "adaptive_clipping: one quantile is tracked, over the joint norm; drop `groups` "
                "or disable it"
            )
        if self.protected_unit == "institution":
            raise ValueError(f"groups: {self.mode!r} clips whole updates; drop `groups`")
        if self.mechanism != "gaussian":
            raise ValueError("groups: need mechanism 'gaussian'; discrete noise is joint")
