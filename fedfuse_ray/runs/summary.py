"""What a run came to, on one page of numbers: accuracy, privacy, bytes, seconds."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from fedfuse_ray.accounts.totals import Total
from fedfuse_ray.federation.plan import paradigms
from fedfuse_ray.federation.plan.plan import Plan
from fedfuse_ray.federation.rounds.scoring import FinalScores
from fedfuse_ray.report.schema import CommunicationSummary, PrivacySummary, Summary, TimeSummary

_NO_PRIVACY = PrivacySummary(
    mode="none",
    epsilon=None,
    delta=None,
    epsilon_by_institution={},
    noise_multiplier=None,
    clip_norm=None,
    sampling_rate=None,
    steps=0,
    unit=None,
    adversary=None,
)


def summarise(
    plan: Plan,
    scores: FinalScores,
    tables: tuple[pa.Table, pa.Table],
    digest: str,
    fp32_uplink_bytes: int,
) -> Summary:
    """Return the summary, but for the wall and start-up times.

    Tables are those of rounds and of institutions; `fp32_uplink_bytes` is 0 where nothing was sent.
    """
    experiment = plan.experiment
    rounds, institutions = tables
    count = rounds.num_rows
    payload = sum(institutions["payload_bytes"].to_pylist())
    uplink = sum(rounds["uplink_bytes"].to_pylist())
    downlink = sum(rounds["downlink_bytes"].to_pylist())
    seconds = rounds["seconds"].to_pylist()
    return Summary(
        paradigm=experiment.paradigm,
        preset=experiment.preset,
        seed=experiment.seed,
        executor=experiment.execution.executor,
        rounds=count,
        accuracy=scores.accuracy,
        accuracy_by_modality=scores.by_modality,
        macro_f1=scores.macro_f1,
        privacy=_NO_PRIVACY,
        communication=CommunicationSummary(
            uplink_bytes_per_round=uplink / max(1, count),
            downlink_bytes_per_round=downlink / max(1, count),
            uplink_bytes_total=uplink,
            fp32_uplink_bytes_per_round=fp32_uplink_bytes,
            codec=plan.coding.name if uplink else "none",
            payload_bytes_per_round=payload / max(1, count),
        ),
        time=TimeSummary(
            wall_seconds=0.0,
            startup_seconds=0.0,
            seconds_per_round=float(np.median(seconds[1:] or seconds)) if seconds else 0.0,
            simulated_seconds=sum(rounds["simulated_seconds"].to_pylist()),
        ),
        weights_sha256=digest,
    )


def privacy_summary(
    plan: Plan,
    epsilon: float | None,
    epsilons: Mapping[str, float],
    rounds: int,
    warning: str | None = None,
) -> PrivacySummary:
    """Return the guarantee as the ledger gives it.

    Where institutions differ, the noise multiplier, rate and steps are those of the one with the
    largest epsilon, so that these three numbers give that epsilon back. The multiplier is that of
    all that one unit adds, at however many institutions it may stand. `warning` says what is left
    of a patient with several records.
    """
    terms = plan.privacy
    if terms is None or epsilon is None:
        return _NO_PRIVACY
    worst = max(epsilons, key=lambda name: epsilons[name])
    release, apart = terms.releases[worst], terms.config.institutions_per_unit
    return PrivacySummary(
        mode=terms.config.mode,
        epsilon=epsilon,
        delta=terms.config.delta,
        epsilon_by_institution=dict(epsilons),
        noise_multiplier=release.noise_multiplier / apart,
        clip_norm=apart * math.hypot(*terms.clip_norms.values()),
        sampling_rate=release.sampling_rate,
        steps=release.steps * min(rounds, terms.config.uplink_exposures or rounds),
        unit=terms.config.protected_unit,
        adversary=paradigms.adversary(plan.experiment),
        audit=terms.audit,
        scores=terms.config.scores,
        noised=tuple(name for name in plan.spec.domains if name in plan.scores.noised),
        warning=warning,
    )


def with_total(summary: Summary, total: Total) -> Summary:
    """Return a summary with what all runs that the account knows tell of the same records."""
    told = {
        "total_epsilon": total.epsilon if summary.privacy.private else None,
        "total_runs": total.runs,
        "unprotected_runs": total.unprotected,
    }
    return summary.model_copy(update={"privacy": summary.privacy.model_copy(update=told)})


def fp32_uplink_bytes(plan: Plan, sizes: Mapping[str, int]) -> int:
    """Return the bytes of a round's blocks as plain fp32, without headers; 0 for pooled data."""
    if paradigms.is_pooled(plan.experiment):
        return 0
    return sum(4 * sizes[block] for p in plan.participants for block in plan.blocks_of(p))
