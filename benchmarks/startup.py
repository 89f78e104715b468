"""Seconds from the start of the process to the end of the first round, by stage.

    python -m benchmarks.startup [--preset demo] [--repeats 3] [--one-each] [--out FILE] [--quick]

Each repeat is a process of its own. The dataset is in the cache already. A bare Ray is started for
comparison, turn and turn about: import ray and torch, `ray.init`, and as many actors that import
torch and answer, which is the least that any program of this kind waits for. `--one-each` measures
one actor for each institution too, which is slow.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.machine import wait_for_quiet
from benchmarks.results import Result, on_one_thread, parser, publish

TARGETS = {"auto/bare": 1.6}
QUIET, PATIENCE_SECONDS = 0.15, 10.0
"""Others' processors, and how long each start waits for them to be so few."""


def measure(preset: str, repeats: int, one_each: bool, patience: float) -> Result:
    """Start everything `repeats` times and return seconds by stage, and ratios to the bare Ray."""
    layouts = ["auto", "1"] if one_each else ["auto"]
    _child("prepare", preset, "auto")
    seconds: dict[str, list[float]] = defaultdict(list)
    totals: dict[str, list[float]] = defaultdict(list)
    for _ in range(repeats):
        for name in ["bare", *layouts]:
            wait_for_quiet(patience, QUIET)
            stages = _child("bare" if name == "bare" else "federation", preset, name)
            for stage, took in stages.items():
                seconds[f"{name}: {stage}"].append(took)
            totals[name].append(sum(stages.values()))
            seconds[f"{name}: all"].append(totals[name][-1])
    ratios = {
        f"{name}/bare": [
            mine / bare for mine, bare in zip(totals[name], totals["bare"], strict=True)
        ]
        for name in layouts
    }
    config = {"preset": preset, "repeats": repeats, "one_each": one_each}
    return Result("startup", config, ratios, seconds, TARGETS)


class Stages:
    """Seconds of each stage, from the start of the process on.

    Args:
        began: When the process was started, on the clock of `time.monotonic`, which all processes
            of a machine share.
    """

    def __init__(self, began: float) -> None:
        self._last = began
        self.seconds: dict[str, float] = {}

    def done(self, stage: str) -> None:
        """End a stage."""
        now = time.monotonic()
        self.seconds[stage] = now - self._last
        self._last = now


def _child(kind: str, preset: str, per_actor: str) -> dict[str, float]:
    """Run one start in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.startup", "--child", kind]
    command += ["--preset", preset, "--per-actor", per_actor, "--began", str(time.monotonic())]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"the {kind} start failed:\n{done.stderr}")
    stages: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return stages


def _federation(stages: Stages, preset: str, per_actor: str) -> None:
    """Do what `run` does up to the end of the first round, and tell the stages apart."""
    importlib.import_module("fedfuse_ray.cli")  # Its imports are part of a user's wait.
    importlib.import_module("fedfuse_ray.runs.running")
    from actors.cluster import connect
    from actors.ray_executor import RayExecutor
    from actors.starting import layout_of, reserve
    from fedfuse_ray.config import load

    stages.done("imports")
    experiment = load(preset, [f"execution.institutions_per_actor={per_actor}"])
    plan, dataset = _prepared(experiment)
    stages.done("config, dataset, plan")
    connect(experiment.execution)
    stages.done("ray.init")
    group = reserve(layout_of(plan, experiment.execution), experiment.execution)
    stages.done("placement")
    executor = RayExecutor(experiment.execution, group)
    executor.start(plan, dataset)
    stages.done("actors ready")
    executor.load(None)
    executor.block_sizes()
    stages.done("initial weights at the server")
    executor.train(1)
    stages.done("first round")
    executor.close()


def _bare(stages: Stages) -> None:
    import ray

    importlib.import_module("torch")
    stages.done("imports")
    cores = len(os.sched_getaffinity(0))
    ray.init(num_cpus=cores, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    stages.done("ray.init")

    class Empty:
        """Imports torch, and answers."""

        def __init__(self) -> None:
            import torch

            self._threads = torch.get_num_threads()

        def ready(self) -> int:
            return self._threads

    actors = [ray.remote(Empty).options(num_cpus=1).remote() for _ in range(cores)]
    ray.get([actor.ready.remote() for actor in actors])
    stages.done("actors ready")


def _prepared(experiment: Any) -> tuple[Any, Path]:
    from fedfuse_ray.data.dataset import prepare
    from fedfuse_ray.federation.plan.plan import make_plan

    dataset = prepare(
        experiment.data,
        experiment.institutions,
        seed=experiment.seed,
        replicas=experiment.replicas,
    )
    return make_plan(experiment, dataset.index), dataset.folder


def main(arguments: Sequence[str] | None = None) -> None:
    made = parser(__doc__)
    made.add_argument("--preset", default="demo")
    made.add_argument("--repeats", type=int, default=3)
    made.add_argument("--one-each", action="store_true", help="one actor an institution too; slow")
    made.add_argument("--child", choices=["prepare", "bare", "federation"], help="for itself")
    made.add_argument("--per-actor", default="auto", help="for itself")
    made.add_argument("--began", type=float, help="for itself")
    options = made.parse_args(arguments)
    if options.child:
        _run_child(options.child, Stages(options.began), options.preset, options.per_actor)
        return
    patience = PATIENCE_SECONDS
    if options.quick:
        options.preset, options.repeats, options.one_each, patience = "tiny", 1, False, 0.0
    on_one_thread()
    publish(measure(options.preset, options.repeats, options.one_each, patience), options.out)


def _run_child(kind: str, stages: Stages, preset: str, per_actor: str) -> None:
    if kind == "prepare":
        from fedfuse_ray.config import load

        _prepared(load(preset))
    elif kind == "bare":
        _bare(stages)
    else:
        _federation(stages, preset, per_actor)
    print(json.dumps(stages.seconds))


if __name__ == "__main__":
    main()
