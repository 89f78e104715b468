"""Which figures of a private run are protected, and how: the badges beside them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from fedfuse_ray.report.schema import Evaluation, PrivacySummary, Source, Summary

PUBLIC = "public test set"
NOISED = "noised, charged"
SHOWN = "shown without noise"
LEFT_OUT = "private, left out"

_BADGES: Mapping[Source, str] = {"public": PUBLIC, "noised": NOISED, "all": SHOWN}
_WEAKEST = (SHOWN, NOISED, PUBLIC)


def domain_badge(summary: Summary, evaluation: Evaluation, domain: str) -> str:
    """Return what protects a domain's scores; nothing is said where no run is private."""
    scored = evaluation.domains.get(domain)
    if not summary.privacy.private or scored is None:
        return ""
    return _BADGES[scored.source]


def scores_badge(summary: Summary, evaluation: Evaluation) -> str:
    """Return what protects scores of all domains together: the least of them."""
    return _least(domain_badge(summary, evaluation, domain) for domain in evaluation.domains)


def curves_badge(summary: Summary, evaluation: Evaluation) -> str:
    """Return what protects scores of each round or institution, where none are with noise."""
    shown = (domain_badge(summary, evaluation, domain) for domain in evaluation.domains)
    return _least(badge for badge in shown if badge != NOISED)


def _least(badges: Iterable[str]) -> str:
    found = set(badges)
    return next((badge for badge in _WEAKEST if badge in found), "")


def own_badge(privacy: PrivacySummary) -> str:
    """Return what protects figures from institutions' own records, such as training losses."""
    if not privacy.private:
        return ""
    return LEFT_OUT if privacy.scores == "private" else SHOWN


def told(privacy: PrivacySummary) -> str:
    """Return in a few words what may be shown of a private run's scores."""
    if privacy.scores != "private":
        return SHOWN
    return f"{NOISED}: {', '.join(privacy.noised)}" if privacy.noised else PUBLIC


def facts(summary: Summary, evaluation: Evaluation) -> list[tuple[str, str]]:
    """Return each kind of figure on a private run's page, and what protects it."""
    own = own_badge(summary.privacy)
    scores = [
        (f"accuracy, F1 and confusions, {domain}", domain_badge(summary, evaluation, domain))
        for domain in evaluation.domains
    ]
    return [
        *scores,
        ("attention weights", _of_attention(summary, evaluation)),
        ("training losses, validation accuracies", own),
        ("epsilon", "follows from settings and public sizes"),
        ("steps, bytes and simulated seconds", _of_traffic(summary.privacy)),
        ("wall-clock seconds", SHOWN),
    ]


def _of_traffic(privacy: PrivacySummary) -> str:
    if privacy.mode == "client":
        return f"{SHOWN}: they tell who was sampled, and of updates before noise"
    return "follow from messages and public sizes"


def _of_attention(summary: Summary, evaluation: Evaluation) -> str:
    if not summary.privacy.noised:
        return scores_badge(summary, evaluation)
    public = [name for name in evaluation.domains if name not in summary.privacy.noised]
    return f"{PUBLIC}: {', '.join(public)}; else {LEFT_OUT}" if public else LEFT_OUT
