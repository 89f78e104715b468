"""The audit's page: the verdict, the canaries, the pictures, the membership curves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from fedfuse_ray.audit import pictures
from fedfuse_ray.audit.attacks.canary_audit import CanaryAudit
from fedfuse_ray.audit.attacks.features import FeatureLeak
from fedfuse_ray.audit.attacks.image_attack import ImageAttack, ImageLeak
from fedfuse_ray.audit.charts import bounds_chart, membership_chart
from fedfuse_ray.audit.findings import Audit
from fedfuse_ray.files import write_json, write_text
from fedfuse_ray.report.page import (
    Card,
    Charts,
    Details,
    Heading,
    Page,
    Panel,
    Section,
    Table,
    Text,
    document,
)
from fedfuse_ray.report.units import human_seconds, percent


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
    caption = (
        "What each test proves with its part of the 5% error probability. A bar beyond the dashed "
        "line contradicts the ledger. Bounds of a correct run stay well below its epsilon: one run "
        "and a few thousand canaries can't prove more."
    )
    rows = [
        (
            test.group,
            f"{test.guesses.canaries:,}",
            f"{test.guesses.guessed:,}",
            percent(test.guesses.correct / max(1, test.guesses.guessed)),
            f"{test.lower_bound:.2f}",
        )
        for test in audit.tests
    ]
    head = ("canaries in", "canaries", "guesses", "correct", "epsilon at least")
    return Section(
        "canaries",
        "One-run audit",
        "Records of the auditor's choice went through the run's own clipping, noise and sums, each "
        "with a coin's toss. The attack guesses from the releases which took part; too many right "
        "guesses refute the claimed epsilon (Steinke, Nasr and Jagielski, 2023).",
        [
            charts.add(bounds_chart(audit), caption, wide=True),
            Details("All tests", [Table(head, rows)]),
        ],
    )


def _proved(bounds: Mapping[str, float]) -> Section:
    rows = [(attack, f"{bound:.2f}" if bound else "nothing") for attack, bound in bounds.items()]
    return Section(
        "proved",
        "What each attack proves",
        "The least epsilon under which the attack could have done so well, but for a chance of 5%. "
        "A later run that is given this audit as privacy.audit is refused where a bound exceeds "
        "the claim, and gets a smaller budget where one comes close.",
        [Panel([Table(("attack", "epsilon at least"), rows)])],
    )


def _inversion(images: ImageAttack, features: list[FeatureLeak]) -> Section:
    head = ("gradient seen", "records", "PSNR", "SSIM", "told from decoys")
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
    found = Table(("gradient seen", "error of the features", "told from decoys"), shown)
    return Section(
        "inversion",
        "Gradient inversion",
        f"Images of {images.institution}, reconstructed from gradients of a network whose encoders "
        "are trained from scratch: the worst case, which frozen encoders avoid. About 7 dB is what "
        "a grey image with noise gives.",
        [
            Panel([pictures.gallery(images.pictures)]),
            Panel([Table(head, rows)]),
            Heading("Features of the audited network"),
            Text(
                "What an encoder feeds its projection can be read off the gradient of one record "
                "without any search; noise prevents it."
            ),
            Panel([found]),
        ],
    )


def _membership(found: Audit, charts: Charts) -> Section:
    caption = (
        "Both axes are logarithmic: what counts is how many members are found at very few false "
        "alarms. On average no attack lies above the limit that epsilon sets; far to the left a "
        "handful of specimens decide, and chance may lift a curve over it."
    )
    rows = [(m.target, m.attack, f"{m.auc:.3f}", percent(m.tpr)) for m in found.membership]
    if found.membership_limit is not None:
        rows.append(
            ("limit under the ledger's epsilon", "any", "", percent(found.membership_limit))
        )
    first = found.membership[0]
    head = ("model", "attack", "AUC", "members found at 1% false alarms")
    return Section(
        "membership",
        "Membership inference",
        f"Was a specimen trained on? {first.members:,} were, {first.others:,} of the same "
        "institutions were not. Guessing has an AUC of 0.5, and finds 1% of the members at 1% "
        "false alarms.",
        [
            charts.add(membership_chart(found), caption, wide=True),
            Panel([Table(head, rows, numbers=2)]),
        ],
    )


def _record(found: Audit) -> Section:
    rows = [(name, human_seconds(value)) for name, value in found.seconds.items()]
    return Section(
        "record",
        "Record",
        "What the audit took, on one core. All numbers are in audit.json.",
        [Panel([Table(("step", "time"), rows)])],
    )
