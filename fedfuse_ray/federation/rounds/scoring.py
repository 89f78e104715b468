"""From participants' counts to the scores that are reported."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedfuse_ray.federation.messages.metrics import (
    Counts,
    Scores,
    View,
    accuracy,
    macro_f1,
    mean_over_domains,
    plausible,
    sum_attention,
    sum_confusions,
)
from fedfuse_ray.federation.plan.plan import Plan

OVERALL = "overall"


@dataclass(frozen=True)
class ViewScore:
    """Final counts of one view of one domain.

    Attributes:
        view: The modalities shown.
        confusion: [true class, predicted class].
        attention: The fusion's mean weight of each of the domain's modalities, or None: the fusion
            has none, or they are private.
    """

    view: View
    confusion: Counts
    attention: npt.NDArray[np.float64] | None


@dataclass(frozen=True)
class FinalScores:
    """All final scores of a run.

    Attributes:
        accuracy: By domain, and `overall`.
        macro_f1: By domain, and `overall`.
        by_modality: Accuracy of each modality alone.
        views: By domain.
        institutions: Accuracy of each institution on its domain's test set, shown what it owns;
            None where that is private.
    """

    accuracy: dict[str, float]
    macro_f1: dict[str, float]
    by_modality: dict[str, float]
    views: dict[str, tuple[ViewScore, ...]]
    institutions: dict[str, float | None]


def round_scores(
    plan: Plan, scores: Sequence[Scores], metric: Callable[[Counts], float] = accuracy
) -> dict[str, float]:
    """Return a metric by domain and `overall`: on all modalities, or the mean of single ones.

    A domain that was not scored, since that is private before the end, has none; nor has `overall`
    then.
    """
    confusions = {d: views for d, views in _confusions(plan, scores).items() if views}
    values = {
        d: _headline(plan, d, confusions[d], metric) for d in plan.spec.domains if d in confusions
    }
    if len(values) < len(plan.spec.domains):
        return values
    return {OVERALL: mean_over_domains(values, plan.test), **values}


def _confusions(plan: Plan, scores: Iterable[Scores]) -> dict[str, dict[View, Counts]]:
    """Return summed counts by domain and view; those with noise in them as likely ones."""
    confusions = sum_confusions(scores)
    for domain in plan.scores.noised & confusions.keys():
        whole = plan.spec.domains[domain]  # no specimen is without all of them
        confusions[domain] = {
            view: plausible(counts, plan.test[domain] if view == whole else None)
            for view, counts in confusions[domain].items()
        }
    return confusions


def validation_accuracy(scores: Iterable[Scores]) -> float | None:
    """Return the pooled accuracy on the institutions' own validation specimens."""
    counted = [(s.correct, s.total) for s in scores]
    total = sum(t for _, t in counted)
    return sum(c for c, _ in counted) / total if total else None


def final_scores(plan: Plan, scores: Sequence[Scores]) -> FinalScores:
    """Score one global model, from the final views' counts."""
    confusions, attention = _confusions(plan, scores), sum_attention(scores)
    noised = plan.scores.noised
    views = {
        domain: tuple(
            ViewScore(
                view,
                counts,
                None if domain in noised else _attention(plan, attention[domain][view]),
            )
            for view, counts in confusions[domain].items()
        )
        for domain in plan.spec.domains
    }
    institutions = {
        p.name: None if p.domain in noised else _as_owner(plan, confusions[p.domain], p.modalities)
        for p in plan.participants
    }
    return FinalScores(
        accuracy=round_scores(plan, scores),
        macro_f1=round_scores(plan, scores, macro_f1),
        by_modality=_by_modality(confusions),
        views=views,
        institutions=institutions,
    )


def alone_scores(plan: Plan, scores: Sequence[Scores]) -> FinalScores:
    """Score models that trained apart: by domain, the mean of their owners' scores.

    Each is scored on its domain's whole test set, shown the modalities that it owns.
    """
    by_domain = {d: [s for s in scores if s.domain == d] for d in plan.spec.domains}
    owned = {p.name: p.modalities for p in plan.participants}

    def mean(metric: Callable[[Counts], float]) -> dict[str, float]:
        values = {
            domain: float(np.mean([metric(s.confusion[owned[s.name]]) for s in own]))
            for domain, own in by_domain.items()
        }
        return {OVERALL: mean_over_domains(values, plan.test), **values}

    confusions, attention = sum_confusions(scores), _attention_of_alone(plan, scores)
    views = {
        domain: tuple(
            ViewScore(view, counts, attention[domain].get(view))
            for view, counts in confusions[domain].items()
        )
        for domain in plan.spec.domains
    }
    return FinalScores(
        accuracy=mean(accuracy),
        macro_f1=mean(macro_f1),
        by_modality=_by_modality(confusions),
        views=views,
        institutions={s.name: accuracy(s.confusion[owned[s.name]]) for s in scores},
    )


def _headline(
    plan: Plan, domain: str, views: Mapping[View, Counts], metric: Callable[[Counts], float]
) -> float:
    modalities = plan.spec.domains[domain]
    if plan.spec.config.fusion == "none":
        return float(np.mean([metric(views[(m,)]) for m in modalities]))
    return metric(views[modalities])


def _as_owner(plan: Plan, views: Mapping[View, Counts], owned: View) -> float:
    if plan.spec.config.fusion == "none":
        return float(np.mean([accuracy(views[(m,)]) for m in owned]))
    return accuracy(views[owned])


def _by_modality(confusions: Mapping[str, Mapping[View, Counts]]) -> dict[str, float]:
    """Accuracy of single views; of a modality that several domains have, the pooled counts'."""
    hits: dict[str, list[int]] = {}
    for views in confusions.values():
        for view, counts in views.items():
            if len(view) == 1:
                pair = hits.setdefault(view[0], [0, 0])
                pair[0] += int(np.trace(counts))
                pair[1] += int(counts.sum())
    return {modality: right / max(1, total) for modality, (right, total) in hits.items()}


def _attention(plan: Plan, weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64] | None:
    return weights if plan.spec.config.fusion in ("attention", "hybrid") else None


def _attention_of_alone(
    plan: Plan, scores: Sequence[Scores]
) -> dict[str, dict[View, npt.NDArray[np.float64] | None]]:
    """Mean attention by view, spread from each owner's modalities to its domain's."""
    sums: dict[str, dict[View, npt.NDArray[np.float64]]] = {d: {} for d in plan.spec.domains}
    owned = {p.name: p.modalities for p in plan.participants}
    for score in scores:
        slots = plan.spec.domains[score.domain]
        for view, counted in score.attention.items():
            total = sums[score.domain].setdefault(view, np.zeros(len(slots) + 1))
            total[[slots.index(m) for m in owned[score.name]]] += counted[:-1]
            total[-1] += counted[-1]
    return {
        domain: {v: _attention(plan, s[:-1] / max(1.0, s[-1])) for v, s in views.items()}
        for domain, views in sums.items()
    }
