"""The paper's claims and what was measured, as plain tables for the page and the document."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from fedfuse_ray.report.grids import Grid
from fedfuse_ray.report.schema import OVERALL
from fedfuse_ray.report.units import ABSENT, human_bytes
from fedfuse_ray.studies.reproducing import paper
from fedfuse_ray.studies.reproducing.cells import ENCODERS, FUSION, PARADIGMS, SCRATCH
from fedfuse_ray.studies.reproducing.results import Reproduction, Row, Spread, gains, pooled

SKEWS = {
    "label_alpha": "label skew, Dirichlet alpha",
    "feature": "feature skew, scanner effects",
    "temporal": "temporal skew, drift",
    "missing_rate": "modality skew, images missing",
}
NAMES = {
    "centralized": "centralized",
    "isolated": "isolated",
    "federated": "federated, no fusion",
    "federated_dp": "federated + DP, epsilon 8",
    "fedfuse_nonprivate": "fusion, no privacy",
    "fedfuse": "fusion, epsilon 1",
}


def spread_text(spread: Spread | None, digits: int = 3) -> str:
    """Return a mean, and the lowest and highest of several seeds."""
    if spread is None:
        return ABSENT
    return _told(spread, lambda value: f"{value:.{digits}f}", "-")


def points_text(spread: Spread) -> str:
    """Return a difference of accuracies in points, with its sign and spread."""
    return _told(spread, _points)


def range_text(spread: Spread) -> str:
    """Return the lowest and highest difference in points, in brackets."""
    return _range(spread, _points)


def level_text(level: object) -> str:
    """Return a skew's level; without one the data are alike everywhere."""
    return "none" if level is None else str(level)


def claims(found: Reproduction) -> Grid:
    """The paper's claims, each beside what this reproduction measured."""
    rows = tuple(row for row in _claims(found) if row[2] != ABSENT)
    return Grid(("claim of the paper", "paper", "measured", "seeds"), rows)


def table_3(found: Reproduction) -> Grid:
    """Accuracy by paradigm and domain, the paper's and ours."""
    head = ("paradigm", *paper.DOMAINS, "uplink a round", "epsilon", "seeds")
    rows = []
    for name in PARADIGMS:
        if (row := found.row("table3", paradigm=name)) is None:
            continue
        cells = [NAMES[name]]
        for i, domain in enumerate(paper.DOMAINS):
            theirs = paper.TABLE_3.get(name)
            beside = "" if theirs is None else f"; paper {theirs[i]:.3f}"
            cells.append(spread_text(row.accuracy.get(domain)) + beside)
        cells += [_bytes(row), _epsilon(row), str(len(row.seeds))]
        rows.append(tuple(cells))
    return Grid(head, tuple(rows))


def privacy(found: Reproduction) -> Grid:
    """Accuracy by epsilon and domain."""
    head = ("epsilon", OVERALL, *paper.DOMAINS, "seeds")
    rows = tuple(
        (
            f"{row.at['epsilon']:g}",
            *(spread_text(row.accuracy.get(name)) for name in (OVERALL, *paper.DOMAINS)),
            str(len(row.seeds)),
        )
        for row in found.studies.get("privacy", ())
    )
    return Grid(head, rows)


def skew(found: Reproduction) -> Grid:
    """Accuracy by kind and level of skew, without and with fusion."""
    head = ("skew", "level", NAMES["federated"], NAMES["fedfuse"], "seeds")
    rows = []
    for row in found.studies.get("skew", ()):
        if row.at["paradigm"] != "federated":
            continue
        ours = found.row("skew", **{**row.at, "paradigm": "fedfuse"})
        rows.append(
            (
                SKEWS[row.at["skew"]],
                level_text(row.at["level"]),
                spread_text(row.accuracy[OVERALL]),
                spread_text(ours.accuracy[OVERALL] if ours else None),
                str(len(row.seeds)),
            )
        )
    return Grid(head, tuple(rows))


def compression(found: Reproduction) -> Grid:
    """Bytes and accuracy with and without compression."""
    head = ("federation", "codec", "uplink a round", "below fp32", "overall accuracy", "seeds")
    rows = tuple(
        (
            NAMES[row.at["paradigm"]],
            row.at["codec"],
            _bytes(row),
            f"{100 * saving(row):.1f}%",
            spread_text(row.accuracy[OVERALL]),
            str(len(row.seeds)),
        )
        for row in found.studies.get("compression", ())
    )
    return Grid(head, rows)


def transfer(found: Reproduction) -> Grid:
    """Accuracy with few specimens, from scratch and after other domains."""
    head = ("target domain", "starts from", "accuracy", "gain, points", "seeds")
    rows = []
    for row in found.studies.get("transfer", ()):
        target, start = row.at["target"], row.at["start"]
        scratch = found.row("transfer", target=target, start=SCRATCH)
        gain = ABSENT
        if start != SCRATCH and scratch is not None:
            gain = points_text(gains(row, scratch))
        accuracy = spread_text(row.accuracy[OVERALL])
        rows.append((target, start, accuracy, gain, str(len(row.seeds))))
    return Grid(head, tuple(rows))


def ablation(found: Reproduction) -> Grid:
    """Accuracy with one part changed."""
    head = ("change", "overall accuracy", "against as it is, points", "seeds")
    base = found.row("ablation", change="as it is")
    rows = tuple(
        (
            row.at["change"],
            spread_text(row.accuracy[OVERALL]),
            ABSENT if base is None or row is base else points_text(gains(row, base)),
            str(len(row.seeds)),
        )
        for row in found.studies.get("ablation", ())
    )
    return Grid(head, rows)


def saving(row: Row) -> float:
    """Return by what fraction the uplink is below plain fp32."""
    if not row.fp32_uplink_bytes:
        return 0.0
    return 1.0 - row.uplink_bytes.mean / row.fp32_uplink_bytes


def transfer_gain(found: Reproduction, start: str) -> tuple[Spread, Spread] | None:
    """Return the gain over training from scratch, over targets and seeds.

    Returns:
        In points of accuracy, and relative to the accuracy from scratch; None if it wasn't run.
    """
    absolute, relative = [], []
    for row in found.studies.get("transfer", ()):
        scratch = found.row("transfer", target=row.at["target"], start=SCRATCH)
        if row.at["start"] == start and scratch is not None:
            gain = gains(row, scratch)
            absolute.append(gain)
            levels = scratch.accuracy[OVERALL].values
            pairs = zip(gain.values, levels, strict=True)
            relative.append(Spread(values=tuple(g / level for g, level in pairs)))
    return (pooled(absolute), pooled(relative)) if absolute else None


def of_centralized(found: Reproduction, row: Row | None) -> dict[str, Spread]:
    """Return a row's accuracy as a fraction of the centralized one's, where seeds agree."""
    reference = found.row("table3", paradigm="centralized")
    if reference is None or row is None:
        return {}
    shares = {}
    for name, spread in row.accuracy.items():
        theirs = dict(zip(reference.seeds, reference.accuracy[name].values, strict=True))
        own = zip(row.seeds, spread.values, strict=True)
        values = tuple(value / theirs[seed] for seed, value in own if theirs.get(seed))
        if values:
            shares[name] = Spread(values=values)
    return shares


def _claims(found: Reproduction) -> Iterator[tuple[str, str, str, str]]:
    ours = found.row("table3", paradigm="fedfuse")
    shares = of_centralized(found, ours)
    domains = pooled([s for n, s in shares.items() if n != OVERALL]) if shares else None
    yield (
        "accuracy at epsilon 1, of centralized",
        f"{100 * paper.OF_CENTRALIZED:.1f}%",
        _percent(shares.get(OVERALL))
        if domains is None
        else f"{_percent(shares[OVERALL])} overall; by domain {_percent(domains)}",
        _seeds(shares.get(OVERALL)),
    )
    at_2 = of_centralized(found, found.row("privacy", epsilon=2.0)).get(OVERALL)
    gap = Spread(values=tuple(1 - v for v in at_2.values)) if at_2 else None
    low, high = paper.GAP_AT_2
    yield (
        "gap to centralized at epsilon 2",
        f"{100 * low:.0f}-{100 * high:.0f}%",
        _percent(gap),
        _seeds(gap),
    )
    for name in ("fedfuse_nonprivate", "fedfuse"):
        row = found.row("compression", paradigm=name, codec="compressed")
        yield (
            f"bytes below uncompressed: {NAMES[name]}",
            f"{100 * paper.SAVING:.0f}%",
            ABSENT if row is None else f"{100 * saving(row):.1f}%",
            ABSENT if row is None else str(len(row.seeds)),
        )
    for start in (FUSION, ENCODERS):
        gain = transfer_gain(found, start)
        yield (
            f"gain by pre-training on other domains: {start}",
            f"+{100 * paper.TRANSFER_GAIN:.0f}%",
            ABSENT
            if gain is None
            else f"{points_text(gain[0])} points, {_signed(gain[1])} relative",
            ABSENT if gain is None else f"{len(gain[0].values)} (targets x seeds)",
        )
    yield _against(found, "isolated", "isolated training is below fusion at epsilon 1 by")
    yield _against(found, "federated", "federated training without fusion is below it by")


def _against(found: Reproduction, name: str, claim: str) -> tuple[str, str, str, str]:
    row, ours = (found.row("table3", paradigm=p) for p in (name, "fedfuse"))
    low, high = paper.TABLE_3[name], paper.TABLE_3["fedfuse"]
    theirs = sum(b - a for a, b in zip(low, high, strict=True)) / len(low)
    if row is None or ours is None:
        return claim, ABSENT, ABSENT, ABSENT
    gap = gains(ours, row)
    return claim, f"{100 * theirs:.1f} points", f"{points_text(gap)} points", _seeds(gap)


def _percent(spread: Spread | None) -> str:
    return ABSENT if spread is None else _told(spread, lambda value: f"{100 * value:.1f}%")


def _signed(spread: Spread) -> str:
    return _told(spread, lambda value: f"{100 * value:+.0f}%")


def _points(value: float) -> str:
    return f"{100 * value:+.1f}"


def _told(spread: Spread, form: Callable[[float], str], to: str = " to ") -> str:
    """Return the mean, and where there are several values their range."""
    mean = form(spread.mean)
    return mean if len(spread.values) == 1 else f"{mean} {_range(spread, form, to)}"


def _range(spread: Spread, form: Callable[[float], str], to: str = " to ") -> str:
    return f"({form(spread.low)}{to}{form(spread.high)})"


def _seeds(spread: Spread | None) -> str:
    return ABSENT if spread is None else str(len(spread.values))


def _bytes(row: Row) -> str:
    return human_bytes(row.uplink_bytes.mean) if row.uplink_bytes.mean else ABSENT


def _epsilon(row: Row) -> str:
    return "none" if row.epsilon is None else f"{row.epsilon.high:.2f}"


TABLES: Mapping[str, Callable[[Reproduction], Grid]] = {
    "claims": claims,
    "table3": table_3,
    "skew": skew,
    "privacy": privacy,
    "compression": compression,
    "transfer": transfer,
    "ablation": ablation,
}
"""Every section's table, in the order of the page."""
