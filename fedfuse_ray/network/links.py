"""Which link each institution has: its own, or its preset's.

The presets are round figures of the right order, chosen for this simulator. Before you decide by
them, measure your own sites and enter the figures under `network.links`.

| preset | up | down | one way | jitter | loss | reached | after |
|---|---|---|---|---|---|---|---|
| campus | 1000 | 1000 | 2 ms | 0.2 ms | 1e-5 | 99.9% | a gigabit port on a research network |
| metro | 20 | 100 | 10 ms | 2 ms | 1e-4 | 99.5% | the FCC's benchmark for broadband since 2024 |
| rural | 3 | 25 | 30 ms | 10 ms | 1e-3 | 97% | the FCC's benchmark from 2015 to 2024 |

Bandwidths are megabits a second. A loss of one packet in a thousand is the order of what ITU-T
recommends as the most for an ordinary path; delays, jitter and the share of rounds in which an
institution is reached are assumptions.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from fedfuse_ray.config.settings.network import LinkConfig, NetworkConfig
from fedfuse_ray.errors import InputError

CAMPUS = LinkConfig(
    up_mbps=1000.0, down_mbps=1000.0, latency_ms=2.0, jitter_ms=0.2, loss=1e-5, availability=0.999
)
METRO = LinkConfig(
    up_mbps=20.0, down_mbps=100.0, latency_ms=10.0, jitter_ms=2.0, loss=1e-4, availability=0.995
)
RURAL = LinkConfig(
    up_mbps=3.0, down_mbps=25.0, latency_ms=30.0, jitter_ms=10.0, loss=1e-3, availability=0.97
)

PRESETS: Mapping[str, tuple[LinkConfig | None, ...]] = MappingProxyType(
    {
        "ideal": (None,),
        "campus": (CAMPUS,),
        "metro": (METRO,),
        "rural": (RURAL,),
        "mixed": (CAMPUS, METRO, RURAL),
    }
)
"""Preset to the links that its institutions get in turn; None is a link without any delay."""


def resolve(config: NetworkConfig, names: Sequence[str]) -> dict[str, LinkConfig | None]:
    """Return every institution's link, in the order of `names`; None is the ideal link.

    Args:
        config: The preset, and the links of single institutions, which replace the preset's.
        names: The institutions, in the order in which `mixed` deals out its links. An own link
            leaves the others' turns as they were.

    Raises:
        InputError: `links` names an institution that does not take part.

    >>> links = resolve(NetworkConfig(preset="mixed"), ("med-01", "med-02"))
    >>> links["med-02"].up_mbps
    20.0
    """
    for name in config.links:
        if name not in names:
            raise InputError("network.links", name, _unknown(name, names))
    dealt = PRESETS[config.preset]
    return {
        name: config.links.get(name, dealt[index % len(dealt)]) for index, name in enumerate(names)
    }


def _unknown(name: str, names: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, names, 1)
    if close:
        return f"no institution has this name; did you mean {close[0]!r}?"
    shown = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
    return f"no institution has this name; there are {shown}"
