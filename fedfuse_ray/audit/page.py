"""The audit's page: the verdict, the canaries, the pictures, the membership curves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from fedfuse_ray.audit import pictures
from fedfuse_ray.audit.attacks.canary.verdicts import CanaryAudit
from fedfuse_ray.audit.attacks.features import FeatureLeak
from fedfuse_ray.audit.attacks.image_attack import ImageAttack, ImageLeak
from fedfuse_ray.audit.charts import bounds_chart, membership_chart
from fedfuse_ray.audit.findings import Audit
from fedfuse_ray.files import write_json, write_text
from fedfuse_ray.report.page import (
    Card,
    Charts,
    Group,
    Page,
    Part,
    Section,
    Table,
    Text,
    document,
    section,
    texts_of,
)
from fedfuse_ray.report.units import human_seconds, percent

_TEXTS = texts_of("fedfuse_ray.audit")


def write_audit(found: Audit, folder: Path) -> Path:
    """Write `audit.json` and `audit.html`; returns the page's path."""
    write_json(folder / "audit.json", found.to_json())
    path = folder / "audit.html"
    write_text(path, audit_page(found))
    return path


def audit_page(found: Audit) -> str:
    """Return the page, self-contained."""
    charts = Charts()
    sections = []
    if found.canaries is not None:
        sections.append(_canaries(found.canaries, charts))
    if found.images is not None:
        sections.append(_inversion(found.images, found.features))
    if found.membership:
        sections.append(_membership(found, charts))
    if found.lower_bounds:
        sections.append(_proved(found.lower_bounds))
    sections.append(_record(found))
    experiment = found.subject.plan.experiment
    page = Page(
        title=f"Audit of {experiment.paradigm} on {experiment.preset}",
        sections=sections,
        kicker=f"fedfuse_ray audit of preset {experiment.preset}",
        heading=f"{experiment.paradigm}: {'passed' if found.passed else 'failed'}",
        lead=_lead(found),
        cards=tuple(_key_numbers(found)),
    )
    return document(page, charts)


def _lead(found: Audit) -> str:
    if found.canaries is None:
        verdict = "No guarantee was put to the test."
    elif found.passed:
        verdict = "The releases are compatible with the ledger."
    else:
        verdict = "The releases lose more privacy than the ledger says."
    effort = "quick" if found.quick else "full"
    return f"{verdict} {found.subject.rounds} rounds, {effort} effort, seed {found.seed}."


def _key_numbers(found: Audit) -> Iterator[Card]:
    epsilon, canaries = found.subject.epsilon, found.canaries
    if epsilon is None:
        yield Card("Privacy", "none", "nothing is promised")
    else:
        delta = found.subject.plan.experiment.privacy.delta
        yield Card("Ledger's epsilon", f"{epsilon:.2f}", f"at delta {delta:g}")
    if canaries is not None:
        yield Card("Epsilon is at least", f"{canaries.lower_bound:.2f}", "95% confidence")
    if found.images is not None:
        for leak in (found.images.leaks[0], _last_single(found.images)):
            note = f"SSIM {leak.ssim:.2f}, {percent(leak.identified, 0)} identified"
            yield Card(f"Inversion, {leak.view}", f"{leak.psnr:.1f} dB", note)
    if found.membership:
        released = found.membership[0].target
        worst = max((m for m in found.membership if m.target == released), key=lambda m: m.auc)
        note = f"{worst.attack}; TPR {percent(worst.tpr)} at 1% FPR"
        yield Card("Membership, AUC", f"{worst.auc:.3f}", note)


def _last_single(images: ImageAttack) -> ImageLeak:
    return [leak for leak in images.leaks if leak.batch == 1][-1]


def _canaries(audit: CanaryAudit, charts: Charts) -> Section:
    rows = [
        (
            test.group,
            f"{test.total.canaries:,}",
            f"{test.total.guessed:,}",
            percent(test.total.correct / max(1, test.total.guessed)),
            f"{test.lower_bound:.2f}",
            f"{test.claim:.2f}",
        )
        for test in audit.tests
    ]
    head = ("canaries in", "canaries", "guesses", "correct", "epsilon at least", "claimed")
    drawn = charts.add(bounds_chart(audit), _TEXTS["canaries"]["caption"], wide=True)
    tests = Group([Table(head, rows)], "All tests", "details")
    method = _TEXTS["canaries"]["f-DP" if audit.bound == "f-DP" else "sampled"]
    return section(_TEXTS, "canaries", [drawn, Text(method), tests], unit=audit.unit)


def _proved(bounds: Mapping[str, float]) -> Section:
    rows = [(attack, f"{bound:.2f}" if bound else "nothing") for attack, bound in bounds.items()]
    return section(_TEXTS, "proved", [Group([Table(("attack", "epsilon at least"), rows)])])


def _inversion(images: ImageAttack, features: list[FeatureLeak]) -> Section:
    rows = [
        (
            leak.view,
            str(leak.batch),
            f"{leak.psnr:.1f} dB",
            f"{leak.ssim:.2f}",
            f"{percent(leak.identified, 0)} of {leak.images}, {leak.decoys} decoys each",
        )
        for leak in images.leaks
    ]
    shown = [
        (
            leak.view,
            percent(leak.relative_error, 0 if leak.relative_error > 0.01 else 6),
            f"{percent(leak.identified, 0)} of {leak.records}, {leak.decoys} decoys each",
        )
        for leak in features
    ]
    head = ("gradient seen", "records", "PSNR", "SSIM", "told from decoys")
    parts: list[Part] = [
        Group([pictures.gallery(images.pictures)]),
        Group([Table(head, rows)]),
        Text("Features of the audited network", kind="heading"),
        Text(_TEXTS["inversion"]["features"]),
        Group([Table(("gradient seen", "error of the features", "told from decoys"), shown)]),
    ]
    return section(_TEXTS, "inversion", parts, institution=images.institution)


def _membership(found: Audit, charts: Charts) -> Section:
    rows = [(m.target, m.attack, f"{m.auc:.3f}", percent(m.tpr)) for m in found.membership]
    if found.membership_limit is not None:
        rows.append(
            ("limit under the ledger's epsilon", "any", "", percent(found.membership_limit))
        )
    head = ("model", "attack", "AUC", "members found at 1% false alarms")
    drawn = charts.add(membership_chart(found), _TEXTS["membership"]["caption"], wide=True)
    parts: list[Part] = [drawn, Group([Table(head, rows, numbers=2)])]
    first = found.membership[0]
    return section(_TEXTS, "membership", parts, members=first.members, others=first.others)


def _record(found: Audit) -> Section:
    rows = [(name, human_seconds(value)) for name, value in found.seconds.items()]
    return section(_TEXTS, "record", [Group([Table(("step", "time"), rows)])])
