"""A run in Ray's metrics, which Prometheus scrapes: rounds, scores, epsilon, bytes, dropouts.

Ray exports a process's metrics every ten seconds and once more when the process leaves, so the
last round of a run that took a second is exported too. The node's agent then keeps gauges for
twenty seconds, and counters for as long as it lives; Prometheus has to scrape within that time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ray.util.metrics import Counter, Gauge

from fedfuse_ray.config import Experiment
from fedfuse_ray.report.rows import AS_PLANNED, InstitutionRow, RoundRow, RoundRows

PREFIX = "ray_"
"""What Ray puts before each name on its way to Prometheus."""

RUN = ("run", "trial", "preset", "paradigm")
"""Labels of every metric: the result folder's name, and of a sweep's trial its own."""

_SITE = ("institution", "domain")


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
        kind: A gauge is the last value; a counter adds up what this process has seen.
        labels: Those beyond `RUN`.
    """

    name: str
    kind: Literal["gauge", "counter"]
    description: str
    labels: tuple[str, ...] = ()


METRICS = (
    Metric("fedfuse_round", "gauge", "The last round that ended, or participants that did"),
    Metric("fedfuse_rounds", "gauge", "How many rounds, or participants, there will be"),
    Metric("fedfuse_accuracy", "gauge", "Test accuracy, 0 to 1; domain overall pools", ("domain",)),
    Metric("fedfuse_loss", "gauge", "Mean training loss"),
    Metric("fedfuse_epsilon", "gauge", "Epsilon spent so far, by the ledger", _SITE),
    Metric("fedfuse_epsilon_target", "gauge", "The budget that was granted"),
    Metric("fedfuse_participants", "gauge", "Institutions whose update is in the round"),
    Metric("fedfuse_round_seconds", "gauge", "Wall time of the round"),
    Metric("fedfuse_phase_seconds", "gauge", "Wall time of the round by phase", ("phase",)),
    Metric("fedfuse_simulated_seconds", "gauge", "The virtual clock at the round's end"),
    Metric("fedfuse_uplink_bytes_total", "counter", "Sent by institutions, as encoded", _SITE),
    Metric("fedfuse_downlink_bytes_total", "counter", "Sent to institutions, as encoded", _SITE),
    Metric(
        "fedfuse_dropouts_total", "counter", "Updates that are not in the sum", (*_SITE, "status")
    ),
)


class RayMetrics:
    """Sets the metrics as a run advances.

    Args:
        experiment: What runs.
        run: The result folder's name.
        trial: The trial's name, where `run` is a sweep.
    """

    def __init__(self, experiment: Experiment, run: str, trial: str = "") -> None:
        values = (run, trial, experiment.preset, experiment.paradigm)
        self._run = dict(zip(RUN, values, strict=True))
        self._target = experiment.privacy.target_epsilon if experiment.privacy.enabled else None
        self._gauges = {m.name: _gauge(m) for m in METRICS if m.kind == "gauge"}
        self._counters = {m.name: _counter(m) for m in METRICS if m.kind == "counter"}

    def stage(self, text: str) -> None:
        """Stages are no metric."""

    def advanced(self, done: int, total: int, what: str, rows: RoundRows | None) -> None:
        """A round, or a participant that trains alone, is done."""
        self._set("fedfuse_round", done)
        self._set("fedfuse_rounds", total)
        if rows is not None:
            self._set_round(rows[0])
            self._set_institutions(rows[1])

    def _set_round(self, row: RoundRow) -> None:
        for domain, value in {"overall": row.accuracy, **row.domain_accuracy}.items():
            self._set("fedfuse_accuracy", value, domain=domain)
        for phase in ("train", "aggregate", "evaluate"):
            self._set("fedfuse_phase_seconds", getattr(row, f"{phase}_seconds"), phase=phase)
        self._set("fedfuse_loss", row.loss)
        self._set("fedfuse_epsilon_target", self._target)
        self._set("fedfuse_participants", row.participants)
        self._set("fedfuse_round_seconds", row.seconds)
        self._set("fedfuse_simulated_seconds", row.simulated_start + row.simulated_seconds)

    def _set_institutions(self, rows: Sequence[InstitutionRow]) -> None:
        for row in rows:
            site = {"institution": row.institution, "domain": row.domain}
            self._set("fedfuse_epsilon", row.epsilon, **site)
            self._add("fedfuse_uplink_bytes_total", row.uplink_bytes, **site)
            self._add("fedfuse_downlink_bytes_total", row.downlink_bytes, **site)
            self._add(
                "fedfuse_dropouts_total", row.status not in AS_PLANNED, **site, status=row.status
            )

    def _set(self, name: str, value: float | None, **labels: str) -> None:
        if value is not None:
            self._gauges[name].set(float(value), self._run | labels)

    def _add(self, name: str, value: float, **labels: str) -> None:
        # Ray refuses to add nothing.
        if value > 0:
            self._counters[name].inc(float(value), self._run | labels)


def _gauge(metric: Metric) -> Gauge:
    return Gauge(metric.name, metric.description, (*RUN, *metric.labels))


def _counter(metric: Metric) -> Counter:
    return Counter(metric.name, metric.description, (*RUN, *metric.labels))
