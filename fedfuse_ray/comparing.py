"""Several paradigms on the same data, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from fedfuse_ray.config import Experiment, Paradigm
from fedfuse_ray.errors import InputError
from fedfuse_ray.report import Summary, write_comparison, write_comparison_report
from fedfuse_ray.running import Progress, run

PARADIGMS: tuple[str, ...] = get_args(Paradigm)


def compare(
    experiment: Experiment,
    out: Path,
    *,
    paradigms: Sequence[str] = PARADIGMS,
    progress: Progress | None = None,
) -> dict[str, Summary]:
    """Run an experiment under each paradigm, and write one table over all.

    Args:
        experiment: What to run; its own paradigm is ignored.
        out: Gets a result folder for each paradigm, `comparison.json` and `report.html`.
        paradigms: Which, in order.
        progress: Who is told.

    Raises:
        InputError: An unknown paradigm, or none.
    """
    for name in paradigms:
        if name not in PARADIGMS:
            raise InputError("--paradigms", name, f"choose among {', '.join(PARADIGMS)}")
    if not paradigms:
        raise InputError("--paradigms", "", f"name at least one of {', '.join(PARADIGMS)}")
    comparison: dict[str, Summary] = {}
    for name in paradigms:
        if progress is not None:
            progress.stage(f"Paradigm {name}")
        chosen = experiment.model_copy(update={"paradigm": name})
        comparison[name] = run(chosen, out / name, progress=progress)
    write_comparison(out, comparison)
    write_comparison_report(out, comparison)
    return comparison
