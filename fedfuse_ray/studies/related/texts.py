"""What the page and the document say around the tables, and in which order systems stand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from fedfuse_ray.config.sources.systems import Column

TITLE = "The related work, run"

NAMES: Mapping[Column, str] = {
    "fusion": "cross-modal fusion",
    "federated": "federated training",
    "privacy": "differential privacy",
    "domains": "multi-domain validation",
    "heterogeneity": "modality heterogeneity",
}
"""The paper's columns as it heads them."""

OURS = "fedfuse"
_TABLE_1 = "mcmahan kairouz rieke sheller li abadi geyer wei truex szymanski liu wang"
_OTHERS = "karimireddy baltrusaitis zhang ramachandram xu decost"
_ORDER = (*_TABLE_1.split(), *_OTHERS.split())

SECTIONS = {
    "columns": (
        "Table 1, derived from what ran",
        "Each cell follows from a run's folder: who sent what, what the model was scored on, what "
        "the ledger holds. No cell is typed in. Where the paper's differs, it stands beside ours.",
    ),
    "differences": (
        "Where a cell differs from the paper's",
        "The paper's cell, ours, and why.",
    ),
    "measured": (
        "What each came to",
        "All on the same generated specimens and, but where a system's point is to train them, the "
        "same frozen encoders. Accuracy is on the test specimens of the domains that a system was "
        "run on; without fusion it is the mean over modalities. Systems with different "
        "restrictions are not rivals: compare a system with its variants.",
    ),
    "variants": (
        "Variants",
        "Each system's point, with what it changes undone or varied.",
    ),
    "systems": (
        "System by system",
        "What of each system is run, what is simpler, and the evidence of its cells.",
    ),
}


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Return systems as the paper's table has them, then others, this work last."""
    places = {name: place for place, name in enumerate(_ORDER)}
    return tuple(sorted(names, key=lambda n: (n == OURS, places.get(n, len(places)), n)))
