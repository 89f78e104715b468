"""What a sweep says in the end: the best trial, the Pareto front, and what choosing costs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fedfuse_ray.config import load
from fedfuse_ray.privacy.accounting.ledger import read_ledger
from fedfuse_ray.studies.sweeping.config import Objective, RandomSearch, Sweep
from fedfuse_ray.studies.sweeping.selection import SelectionCost, selection_cost, told
from fedfuse_ray.studies.sweeping.store import DONE, EXPERIMENT, STOPPED, Row, SweepStore


@dataclass(frozen=True)
class Selection:
    """What choosing costs, or why it is not charged."""

    cost: SelectionCost | None
    text: str


def pareto(rows: Sequence[Row], objectives: Sequence[Objective]) -> list[Row]:
    """Return the trials that no other beats: none is as good everywhere and better somewhere.

    Only trials that ran to their end count. Without privacy epsilon is infinite.
    """
    ended = [row for row in rows if row.status == DONE]
    losses = [[_loss(row, objective) for objective in objectives] for row in ended]
    return [
        row
        for row, own in zip(ended, losses, strict=True)
        if not any(_dominates(other, own) for other in losses)
    ]


def best(rows: Sequence[Row], objectives: Sequence[Objective]) -> Row | None:
    """Return the trial with the best first objective; the next ones, then the order break ties."""
    ended = [row for row in rows if row.status == DONE]
    return min(ended, key=lambda row: [_loss(row, o) for o in objectives], default=None)


def select(sweep: Sweep, store: SweepStore, rows: Sequence[Row]) -> Selection:
    """Return what choosing among the sweep's private trials costs.

    Trials that were stopped early looked at the data too, and are charged.
    """
    ran = [row for row in rows if row.status in (DONE, STOPPED)]
    configs = [load(store.trials / row.trial / EXPERIMENT).privacy for row in ran]
    private = [(row, c) for row, c in zip(ran, configs, strict=True) if c.enabled]
    if not private:
        return Selection(None, "Not charged: no trial is private.")
    if len(units := sorted({config.protected_unit for _, config in private})) > 1:
        return Selection(None, f"Not charged: trials protect different units ({units}).")
    ledgers = [read_ledger(store.trials / row.trial / "privacy_ledger.jsonl") for row, _ in private]
    number = sweep.search.number if isinstance(sweep.search, RandomSearch) else "fixed"
    mean = sweep.search.trials if isinstance(sweep.search, RandomSearch) else None
    delta = max(config.delta for _, config in private)
    cost = selection_cost(ledgers, delta, number, mean)
    text = told(cost)
    if len(private) < len(ran):
        text += " Trials without privacy are left out: nobody may choose them and claim epsilon."
    if sweep.search.kind in ("asha", "optuna"):
        text += (
            " Later trials depended on earlier ones, so this is the odometer's reading after the "
            "fact, not a bound that was fixed in advance."
        )
    return Selection(cost, text)


def summarise(
    sweep: Sweep, rows: Sequence[Row], selection: Selection, seconds: float
) -> dict[str, Any]:
    """Return the content of `summary.json`; seconds are of the command's last part, if resumed."""
    cost = selection.cost
    chosen = best(rows, sweep.objectives)
    return {
        "base": sweep.base,
        "paradigm": sweep.paradigm,
        "search": sweep.search.model_dump(mode="json"),
        "objectives": list(sweep.objectives),
        "trials": dict(Counter(row.status for row in rows)),
        "best": None if chosen is None else as_json(chosen),
        "pareto": [as_json(row) for row in pareto(rows, sweep.objectives)],
        "selection": {
            **({} if cost is None else {**asdict(cost), "charged": cost.charged}),
            "charged_at_all": cost is not None,
            "text": selection.text,
        },
        "time": {"wall_seconds": seconds},
    }


def as_json(row: Row) -> Mapping[str, Any]:
    """Return a trial as a plain object."""
    return {
        "trial": row.trial,
        "point": dict(row.values),
        "accuracy": {"overall": row.accuracy, **(row.domains or {})},
        "epsilon": row.epsilon,
        "uplink_bytes": row.uplink_bytes,
        "rounds": row.rounds,
        "weights_sha256": row.weights_sha256,
    }


def is_sweep(folder: Path) -> bool:
    """Whether a folder is a sweep's."""
    return (folder / "sweep.yaml").is_file()


def _loss(row: Row, objective: Objective) -> float:
    if objective == "accuracy":
        return -(row.accuracy or 0.0)
    value = row.epsilon if objective == "epsilon" else row.uplink_bytes
    return math.inf if value is None else value


def _dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    return all(a <= b for a, b in zip(one, other, strict=True)) and list(one) != list(other)
