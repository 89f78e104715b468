"""`python -m fedfuse_ray audit`: attack what a run releases, and test what its ledger claims."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from fedfuse_ray.commands.options import Account, NoProgress
from fedfuse_ray.errors import FedfuseError, InputError
from fedfuse_ray.runs.reading import read_experiment
from fedfuse_ray.terminal import TerminalProgress, output, say

if TYPE_CHECKING:
    from fedfuse_ray.audit import Audit

_DEFAULT_PARADIGM = "fedfuse"


def audit_command(
    source: Annotated[
        str,
        typer.Argument(
            metavar="DIR|PRESET", help="A run's folder, or a preset or file to train for it."
        ),
    ] = "demo",
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="a.b=c", help="Override a setting; not for a run's folder."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where audit.json and audit.html go.")
    ] = None,
    attacks: Annotated[
        str, typer.Option(metavar="a1,a2", help="Of inversion, membership, canaries.")
    ] = "inversion,membership,canaries",
    seed: Annotated[
        int | None, typer.Option(min=0, help="Root of the audit's random streams.")
    ] = None,
    account: Account = None,
    quick: Annotated[bool, typer.Option("--quick", help="Less effort: under a minute.")] = False,
    no_progress: NoProgress = False,
) -> None:
    """Attack what a run releases; fail if it loses more privacy than its ledger says.

    Gradient inversion, membership inference, and the canary audit. A preset is audited
    under the paradigm `fedfuse` unless `--set paradigm=...` names another.
    """
    from fedfuse_ray.accounts.terms import AccountTerms
    from fedfuse_ray.audit import ATTACKS, audit, of_experiment, of_run, write_audit
    from fedfuse_ray.audit.entering import enter

    chosen = tuple(dict.fromkeys(name.strip() for name in attacks.split(",") if name.strip()))
    for name in chosen or ("",):
        if name not in ATTACKS:
            raise InputError("--attacks", name, f"choose among {', '.join(ATTACKS)}")
    with TerminalProgress(quiet=no_progress) as progress:
        if Path(source).is_dir():
            if settings:
                raise InputError("--set", settings[0], "a finished run can't be changed")
            subject = of_run(Path(source), progress.stage)
        else:
            named = any(text.startswith("paradigm=") for text in settings or ())
            experiment = read_experiment(
                source, settings=settings, seed=seed, paradigm=None if named else _DEFAULT_PARADIGM
            )
            subject = of_experiment(experiment, progress.stage)
        experiment = subject.plan.experiment
        folder = out or subject.folder or Path("runs") / f"{experiment.preset}-audit"
        total = enter(subject, chosen, folder, AccountTerms(account))
        root = subject.plan.experiment.seed if seed is None else seed
        found = audit(subject, chosen, seed=root, quick=quick, tell=progress.stage)
    page = write_audit(found, folder)
    output().print(_table(found))
    say(f"Total for these records: {total.text}", on_one_line=True)
    say(f"Report: {page}")
    if found.canaries is not None and not found.passed:
        worst = found.canaries.worst
        raise FedfuseError(
            f"the audit failed: epsilon is at least {worst.lower_bound:.2f} (canaries in "
            f"{worst.group}; 95% confidence), where the ledger says {worst.claim:.2f}"
        )


def _table(found: Audit) -> Table:
    table = Table("attack", "result", "against")
    if found.canaries is not None:
        verdict = "passed" if found.passed else "FAILED"
        claim = f"{found.canaries.epsilon:.2f} per {found.subject.plan.terms.config.protected_unit}"
        bound = f"{verdict}: epsilon >= {found.canaries.lower_bound:.2f}"
        table.add_row("canaries", bound, f"a claim of {claim}")
    for m in found.membership:
        result = f"AUC {m.auc:.3f}, {m.tpr:.1%} at 1% FPR"
        table.add_row(m.attack, result, m.target)
    for leak in found.images.leaks if found.images else ():
        result = f"{leak.psnr:.1f} dB, SSIM {leak.ssim:.2f}, {leak.identified:.0%} found"
        images = "image" if leak.batch == 1 else f"images of {leak.batch}"
        table.add_row(f"inversion, {leak.view}", result, images)
    for feature in found.features:
        result = f"error {feature.relative_error:.2g}, {feature.identified:.0%} found"
        table.add_row(f"inversion, {feature.view}", result, "features")
    return table
