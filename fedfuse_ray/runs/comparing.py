"""Several paradigms on the same data, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fedfuse_ray.accounts.pending import check_experiments
from fedfuse_ray.accounts.terms import AccountTerms
from fedfuse_ray.config import Experiment
from fedfuse_ray.errors import InputError
from fedfuse_ray.report import Summary, write_comparison, write_comparison_report
from fedfuse_ray.runs.progress import Progress
from fedfuse_ray.runs.running import run


def compare(
    experiments: Sequence[Experiment],
    out: Path,
    *,
    progress: Progress | None = None,
    account: AccountTerms | None = None,
) -> dict[str, Summary]:
    """Run experiments that differ in their paradigm, and write one table over all.

    `out` gets a result folder for each, in the table's order, `comparison.json` and `report.html`.
    All enter one privacy account, beside `out` where `account` names no other.

    Raises:
        InputError: No experiment, or two of one paradigm.
        OverBudgetError: Together they would exceed the account's budget; nothing was written.
    """
    names = [experiment.paradigm for experiment in experiments]
    if not names or len(set(names)) < len(names):
        raise InputError(
            "--paradigms", ",".join(names), "name each paradigm once, and at least one"
        )
    given = account or AccountTerms()
    terms = replace(given, path=given.of(out))
    check_experiments([(e, out / e.paradigm) for e in experiments], terms)
    # An older comparison would tell whoever watches the folder that this one has ended.
    (out / "comparison.json").unlink(missing_ok=True)
    job = {
        "preset": experiments[0].preset,
        "paradigms": ",".join(names),
        "seed": str(experiments[0].seed),
        "results": str(out.absolute()),
    }
    comparison: dict[str, Summary] = {}
    for experiment in experiments:
        if progress is not None:
            progress.stage(f"Paradigm {experiment.paradigm}")
        folder = out / experiment.paradigm
        comparison[experiment.paradigm] = run(
            experiment, folder, progress=progress, job=job, account=terms
        )
    write_comparison(out, comparison)
    write_comparison_report(out, comparison)
    return comparison
