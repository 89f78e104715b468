"""The five columns of the paper's table 1, derived from what a run left in its folder.

Nothing here looks at what a system's file says of itself. A cell's evidence names the figures that
decide it; `DEFINITIONS` are the questions that they answer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from fedfuse_ray.config import Experiment, validate
from fedfuse_ray.config.settings.base import Config
from fedfuse_ray.config.sources.systems import Column
from fedfuse_ray.federation.plan.paradigms import is_pooled
from fedfuse_ray.models.spec import TIER, ModelSpec
from fedfuse_ray.report.schema import DomainEvaluation, ViewEvaluation
from fedfuse_ray.report.store import RunResult
from fedfuse_ray.report.units import human_bytes

DEFINITIONS: Mapping[Column, str] = {
    "fusion": "One model answered from several modalities of a specimen at once, and hiding any of "
    "them changed its answers.",
    "federated": "At least two institutions sent updates into the same block of a model, and no "
    "specimen left its institution.",
    "privacy": "The run's ledger holds releases, and the epsilon that they add up to is finite.",
    "domains": "Accuracy was measured on the test specimens of at least two domains.",
    "heterogeneity": "Institutions that own different sets of modalities trained a block together "
    "that belongs to no single modality: the fusion, or a domain's head.",
}
"""When a cell is yes."""


class Cell(Config):
    """A cell of the table: what was found, and by which figures."""

    yes: bool
    evidence: str


@dataclass(frozen=True)
class _Sender:
    modalities: frozenset[str]
    blocks: tuple[str, ...]


def derive(run: RunResult) -> dict[Column, Cell]:
    """Return the five cells of a finished run."""
    seen = _Seen(run)
    return {
        "fusion": _fusion(run),
        "federated": _federated(seen),
        "privacy": _privacy(run),
        "domains": _domains(run),
        "heterogeneity": _heterogeneity(seen),
    }


class _Seen:
    """Who sent what, as the institutions' table has it."""

    def __init__(self, run: RunResult) -> None:
        import yaml

        self.experiment: Experiment = validate(yaml.safe_load(run.config))
        columns = ("institution", "domain", "modalities", "status", "uplink_bytes")
        self._rows = run.institutions.select(columns).to_pylist()
        self.participants = tuple(dict.fromkeys(row["institution"] for row in self._rows))
        self.uplink_bytes = sum(row["uplink_bytes"] for row in self._rows)

    @cached_property
    def senders(self) -> dict[str, _Sender]:
        """Whose updates were summed, each with the blocks that it trains."""
        tiers = {i.name: i.hardware.tier for i in self.experiment.institutions}
        spec = ModelSpec(self.experiment.model, {}, {}, {}, self.experiment.seed)
        found = {}
        for row in self._rows:
            if row["status"] == "sent" and row["uplink_bytes"]:
                name, owned = row["institution"], tuple(row["modalities"].split(","))
                blocks = spec.block_names(row["domain"], owned, tiers.get(name, ""))
                found[name] = _Sender(frozenset(owned), blocks)
        return found

    @cached_property
    def shared(self) -> dict[str, tuple[str, ...]]:
        """Blocks that at least two of them trained, and who they are."""
        owners: dict[str, list[str]] = {}
        for name, sender in self.senders.items():
            for block in sender.blocks:
                owners.setdefault(block, []).append(name)
        return {block: tuple(names) for block, names in owners.items() if len(names) > 1}


def _fusion(run: RunResult) -> Cell:
    joint = {d: view for d, e in run.evaluation.domains.items() if (view := _joint(e)) is not None}
    if not joint:
        widest = max(
            (len(v.modalities) for e in run.evaluation.domains.values() for v in e.views), default=0
        )
        shown = "one modality at a time" if widest < 2 else "several, but did not heed each of them"
        return Cell(yes=False, evidence=f"the model was shown {shown}")
    told = [
        f"{domain} {view.accuracy:.3f} shown {', '.join(view.modalities)} "
        f"({_best_alone(run.evaluation.domains[domain]):.3f} by the best alone)"
        for domain, view in joint.items()
    ]
    return Cell(yes=True, evidence="; ".join(told))


def _joint(domain: DomainEvaluation) -> ViewEvaluation | None:
    """Return the widest view, if its answers change whichever of its modalities is hidden."""
    widest = domain.widest
    if widest is None or len(widest.modalities) < 2:
        return None
    for hidden in widest.modalities:
        without = [v for v in domain.views if hidden not in v.modalities]
        if not without or any(v.confusion == widest.confusion for v in without):
            return None
    return widest


def _best_alone(domain: DomainEvaluation) -> float:
    return max((v.accuracy for v in domain.views if len(v.modalities) == 1), default=0.0)


def _federated(seen: _Seen) -> Cell:
    if is_pooled(seen.experiment):
        who = ", ".join(seen.participants)
        return Cell(yes=False, evidence=f"the specimens lay in one place: {who}")
    if not seen.shared:
        return Cell(
            yes=False,
            evidence=f"{len(seen.senders)} of {len(seen.participants)} sent updates, "
            "none into a block of another's",
        )
    together = {name for names in seen.shared.values() for name in names}
    return Cell(
        yes=True,
        evidence=f"{len(together)} institutions sent {human_bytes(seen.uplink_bytes)} into "
        f"{len(seen.shared)} shared block{'s' if len(seen.shared) > 1 else ''}",
    )


def _privacy(run: RunResult) -> Cell:
    privacy, entries = run.summary.privacy, len(run.ledger)
    if not entries:
        return Cell(yes=False, evidence="the ledger is empty")
    if privacy.epsilon is None or not math.isfinite(privacy.epsilon):
        return Cell(yes=False, evidence=f"{entries} ledger entries give no finite epsilon")
    return Cell(
        yes=True,
        evidence=f"epsilon {privacy.epsilon:.3f} at delta {privacy.delta:g} from {entries} ledger "
        f"entries, hiding one {privacy.unit}",
    )


def _domains(run: RunResult) -> Cell:
    names = run.summary.domains
    told = ", ".join(f"{name} {run.summary.accuracy[name]:.3f}" for name in names)
    return Cell(yes=len(names) > 1, evidence=told)


def _heterogeneity(seen: _Seen) -> Cell:
    known = {m for sender in seen.senders.values() for m in sender.modalities}
    joint = [b for b in seen.shared if b.rpartition("/")[2].partition(TIER)[0] not in known]
    for block in joint:
        sets = {seen.senders[name].modalities for name in seen.shared[block]}
        if len(sets) > 1:
            return Cell(
                yes=True,
                evidence=f"{len(seen.shared[block])} institutions with {len(sets)} different sets "
                f"of modalities trained {block} together",
            )
    if not seen.shared:
        return Cell(yes=False, evidence="no block was trained together")
    if not joint:
        return Cell(yes=False, evidence="every shared block belongs to a single modality")
    return Cell(yes=False, evidence="all who trained a block together own the same modalities")
