"""Seconds of a steady round: the serial executor, the Ray executor, and the ideal.

    python -m benchmarks.rounds [--preset demo] [--repeats 8] [--out FILE] [--quick]

The ideal is a plain loop of the same arithmetic: as many processes as the Ray executor has hosts,
with the same institutions in each, weights and updates through pipes, and the same server step; no
scheduling, no faults, no names. All three run the same rounds, turn and turn about, and must end
with the same weights. Each ratio is of two measurements that followed each other. Repeats during
which other programs used the machine are left out where enough quiet ones remain; else the result
says that it is not quiet, and is not judged.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.machine import Noise, wait_for_quiet
from benchmarks.results import Result, on_one_thread, parser, publish

if TYPE_CHECKING:
    from fedfuse_ray.config import Experiment

WARMUP_ROUNDS = 2
QUIET = 0.15
"""Processors that others may use in a repeat which counts."""
ENOUGH = 3
TARGETS = {"ray/ideal training": 1.15, "ray/ideal training+evaluation": 1.15}


def plain(preset: str, rounds: int) -> Experiment:
    """Return a preset's federation as the ideal can run it: neither private nor compressed."""
    from fedfuse_ray.config import load

    settings = [f"training.rounds={rounds}", "compression.codec=fp32", "compression.feedback=none"]
    settings.append("compression.downlink.codec=fp32")
    return load(preset, settings, paradigm="fedfuse_nonprivate")


def measure(preset: str, repeats: int, patience: float) -> Result:
    """Run the three side by side and return their seconds and ratios."""
    from benchmarks.ideal import IdealExecutor
    from fedfuse_ray.data.dataset import prepare
    from fedfuse_ray.federation.plan.plan import make_plan
    from fedfuse_ray.federation.rounds.loop import round_views
    from fedfuse_ray.runs.running import make_executor

    total = WARMUP_ROUNDS + repeats
    experiment = plain(preset, total)
    dataset = prepare(experiment.data, experiment.institutions, seed=experiment.seed)
    plan = make_plan(experiment, dataset.index)
    serial = experiment.model_copy(
        update={"execution": experiment.execution.model_copy(update={"executor": "serial"})}
    )
    with ExitStack() as stack:
        runners: dict[str, Any] = {
            "ray": make_executor(experiment),
            "ideal": IdealExecutor(experiment.execution.institutions_per_actor),
            "serial": make_executor(serial),
        }
        for runner in runners.values():
            stack.enter_context(closing(runner))
            runner.start(plan, dataset.folder)
            runner.load(None)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        rows = list(_rounds(runners, round_views(plan), total, folder, patience))[WARMUP_ROUNDS:]
        digests = {name: runner.sha256() for name, runner in runners.items()}
    if len(set(digests.values())) != 1:
        raise SystemExit(f"the weights differ, so nothing measured here counts: {digests}")
    return _result(preset, repeats, rows)


def _rounds(
    runners: dict[str, Any], views: Any, total: int, folder: Path, patience: float
) -> Iterator[dict[str, float]]:
    """Run every round on each; the order rotates, so that nobody always follows the same one."""
    names = list(runners)
    for number in range(1, total + 1):
        row: dict[str, float] = {}
        patience -= wait_for_quiet(patience, QUIET)
        first = number % len(names)
        with Noise() as noise:
            for name in names[first:] + names[:first]:
                runner = runners[name]
                began = time.perf_counter()
                runner.train(number)
                trained = time.perf_counter()
                runner.evaluate(number, views)
                ended = time.perf_counter()
                row[f"{name} training"] = trained - began
                row[f"{name} training+evaluation"] = ended - began
                if name != "ideal":
                    runner.save(folder / name)
                    row[f"{name} checkpoint"] = time.perf_counter() - ended
        row["others"] = noise.others
        yield row


def _result(preset: str, repeats: int, rows: list[dict[str, float]]) -> Result:
    quiet = [row for row in rows if row["others"] <= QUIET]
    enough = len(quiet) >= min(ENOUGH, repeats)
    used = quiet if enough else rows
    seconds = {name: [row[name] for row in used] for name in rows[0] if name != "others"}
    ratios = {
        f"ray/{other} {what}": [row[f"ray {what}"] / row[f"{other} {what}"] for row in used]
        for what in ("training", "training+evaluation")
        for other in ("ideal", "serial")
    }
    details = {
        "quiet": enough,
        "repeats_used": f"{len(used)} of {len(rows)}",
        "processors_used_by_others": [round(row["others"], 2) for row in rows],
        "ratio_of_least": {
            name: round(min(seconds[a]) / min(seconds[b]), 4)
            for name, a, b in (
                (n, f"ray {n.partition(' ')[2]}", n.partition("/")[2]) for n in ratios
            )
        },
    }
    return Result(
        "rounds", {"preset": preset, "repeats": repeats}, ratios, seconds, TARGETS, details
    )


def main(arguments: Sequence[str] | None = None) -> None:
    made = parser(__doc__)
    made.add_argument("--preset", default="demo")
    made.add_argument("--repeats", type=int, default=8)
    made.add_argument(
        "--patience",
        type=float,
        default=60.0,
        metavar="SECONDS",
        help="how long to wait, in all, for others to leave the machine alone",
    )
    options = made.parse_args(arguments)
    if options.quick:
        options.preset, options.repeats, options.patience = "tiny", 1, 0.0
    on_one_thread()
    publish(measure(options.preset, options.repeats, options.patience), options.out)


if __name__ == "__main__":
    main()
