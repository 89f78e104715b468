"""What the page and the document say around the tables, and in which order systems stand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from fedfuse_ray.config.sources.systems import Column
from fedfuse_ray.report.page import texts_of

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

SECTIONS = texts_of("fedfuse_ray.studies.related")


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Return systems as the paper's table has them, then others, this work last."""
    places = {name: place for place, name in enumerate(_ORDER)}
    return tuple(sorted(names, key=lambda n: (n == OURS, places.get(n, len(places)), n)))
