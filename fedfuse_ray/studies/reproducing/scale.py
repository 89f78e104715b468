"""How much is run: a quarter of an hour on two cores, or the paper's size on a cluster."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fedfuse_ray.errors import InputError


@dataclass(frozen=True)
class Scale:
    """What a reproduction runs.

    Attributes:
        name: `quick` or `full`.
        base: The preset of every experiment.
        seeds: Of experiments over frozen encoders, which take seconds.
        slow_seeds: Of those that train encoders end to end.
        epsilons: Of the privacy-utility curve.
        skews: Setting to its levels, mildest first.
        early_fusion: Whether early fusion is among the ablations: its encoder is never frozen.
        pretraining_rounds: Rounds over the donor domains before a transfer.
        few: The target domain's split: how little of it is trained on, how much is tested.
    """

    name: str
    base: str
    seeds: tuple[int, ...]
    slow_seeds: tuple[int, ...]
    epsilons: tuple[float, ...]
    skews: Mapping[str, tuple[Any, ...]]
    early_fusion: bool
    pretraining_rounds: int
    few: Mapping[str, float]


QUICK = Scale(
    name="quick",
    base="demo",
    seeds=(0, 1),
    slow_seeds=(0,),
    epsilons=(0.25, 0.5, 1.0, 2.0, 4.0, 8.0),
    skews={
        "data.skew.label_alpha": (None, 0.5, 0.1),
        "data.skew.feature": (0.0, 0.3, 1.0),
        "data.skew.temporal": (0.0, 0.5, 1.0),
        "data.skew.missing_rate": (0.0, 0.3, 0.6),
    },
    early_fusion=False,
    pretraining_rounds=10,
    few={"train": 0.06, "validation": 0.04, "test": 0.9},
)

FULL = Scale(
    name="full",
    base="paper",
    seeds=(0, 1, 2, 3, 4),
    slow_seeds=(0, 1, 2),
    epsilons=(0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0),
    skews={
        "data.skew.label_alpha": (None, 1.0, 0.5, 0.2, 0.1, 0.05),
        "data.skew.feature": (0.0, 0.3, 0.6, 1.0),
        "data.skew.temporal": (0.0, 0.25, 0.5, 1.0),
        "data.skew.missing_rate": (0.0, 0.2, 0.4, 0.6),
    },
    early_fusion=True,
    pretraining_rounds=20,
    few={"train": 0.006, "validation": 0.004, "test": 0.99},
)


def scale_of(name: str) -> Scale:
    """Return a scale by its name.

    Raises:
        InputError: There is none of that name.
    """
    for scale in (QUICK, FULL):
        if scale.name == name:
            return scale
    raise InputError("scale", name, "choose quick or full")
