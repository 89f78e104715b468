"""Parts of the privacy settings: clipping groups, what adapts, secure aggregation."""

from __future__ import annotations

from pydantic import Field

from fedfuse_ray.config.settings.base import Config


class ClippingGroupConfig(Config):
    """One group of blocks with a clipping norm and a noise scale of its own.

    Attributes:
        clip_norm: C_m, the largest L2 norm of a record's gradient over the group's blocks.
        noise_scale: s_m, the noise's standard deviation relative to the other groups; the common
            factor follows from the joint guarantee 1/sigma^2 = sum C_m^2 / s_m^2. Null takes
            `clip_norm`, the same noise multiplier for every group.
    """

    clip_norm: float = Field(ge=1e-6, le=1e6)
    noise_scale: float | None = Field(None, gt=0.0, le=1e6)


class AdaptiveClippingConfig(Config):
    """Quantile-adaptive clipping (Andrew et al., 2021, arXiv 1905.03871).

    Attributes:
        enabled: Move the clipping norm towards a quantile of the records' gradient norms.
        target_quantile: The fraction of records that should stay unclipped.
        learning_rate: Step of the geometric update, in the logarithm of the norm.
        count_noise: Noise on the count of unclipped records, as a multiple of the noise
            multiplier (sigma_b / sigma). Above 1/2; the closer to it, the more the gradients'
            noise has to grow to pay for the count: 5 costs 0.5%.
    """

    enabled: bool = False
    target_quantile: float = Field(0.5, ge=0.0, le=1.0)
    learning_rate: float = Field(0.2, gt=0.0, le=10.0)
    count_noise: float = Field(5.0, gt=0.5, le=1e6)


class AdaptiveBudgetConfig(Config):
    """How an adaptive schedule spends, and when an audit of an earlier run makes it spend less.

    Attributes:
        spread: How far a round's noise may lie from that of a constant schedule, either way, as a
            factor.
        audit_margin: How close an attack on the records of the audited run may come to its claim,
            as a fraction of the claimed epsilon; closer, and this run's budget is lowered. Canaries
            are nobody's records: they refute a claim, or change nothing.
    """

    spread: float = Field(1.5, gt=1.0, le=16.0)
    audit_margin: float = Field(0.8, gt=0.0, lt=1.0)


class SecureAggregationConfig(Config):
    """Secure aggregation (Bonawitz et al., 2017), which `record-distributed` runs under.

    Attributes:
        threshold: Fraction of the institutions that must stay to the end of a round, or nothing is
            revealed; above a half. More must stay where colluders could otherwise answer for two
            lists of survivors: more than half of institutions and colluders together.
        colluding: How many institutions may work together with the server; null takes
            `privacy.tolerated_dropouts`.
    """

    threshold: float = Field(2 / 3, gt=0.5, le=1.0)
    colluding: int | None = Field(None, ge=0, le=100_000)
