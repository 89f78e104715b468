"""Specimens generated per second on one core, by domain, with every modality of the domain."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from fedfuse_ray.config import DomainConfig, Experiment, PhantomData, load
from fedfuse_ray.data.phantoms import generate


def only(experiment: Experiment, domain: str, specimens: int) -> tuple[PhantomData, Any]:
    """Return the data and institutions of one domain, each institution owning every modality."""
    data = experiment.data
    if not isinstance(data, PhantomData):
        raise SystemExit("the preset has no phantoms")
    old = data.domains[domain]
    config = DomainConfig(modalities=old.modalities, classes=old.classes, specimens=specimens)
    members = tuple(
        i.model_copy(update={"modalities": old.modalities})
        for i in experiment.institutions
        if i.domain == domain
    )
    return data.model_copy(update={"domains": {domain: config}}), members


def seconds(data: PhantomData, institutions: Any, seed: int) -> tuple[float, float]:
    """Return the wall time and the processor time that generating everything takes."""
    start, used = time.perf_counter(), time.process_time()
    _, parts = generate(data, institutions, seed=seed)
    for _ in parts:
        pass
    return time.perf_counter() - start, time.process_time() - used


def measure(preset: str, specimens: int, repeats: int) -> dict[str, Any]:
    """Return specimens per second by domain: the median and all repeats, domains interleaved."""
    experiment = load(preset)
    domains = list(experiment.data.domains) if isinstance(experiment.data, PhantomData) else []
    walls: dict[str, list[float]] = {domain: [] for domain in domains}
    processor: dict[str, list[float]] = {domain: [] for domain in domains}
    for repeat in range(repeats):
        for domain in domains:
            data, institutions = only(experiment, domain, specimens)
            wall, used = seconds(data, institutions, repeat)
            walls[domain].append(specimens / wall)
            processor[domain].append(specimens / used)
    return {
        domain: {
            "specimens_per_second": round(statistics.median(values), 1),
            "specimens_per_processor_second": round(statistics.median(processor[domain]), 1),
            "repeats": [round(value, 1) for value in values],
        }
        for domain, values in walls.items()
    }


def on_one_thread() -> None:
    """Start this script again with one thread, which numpy reads when it is loaded."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    if any(os.environ.get(name) != "1" for name in names):
        os.execve(sys.executable, sys.orig_argv, os.environ | dict.fromkeys(names, "1"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="demo")
    parser.add_argument("--specimens", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    on_one_thread()
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    result = {
        "benchmark": "phantoms",
        "preset": arguments.preset,
        "specimens": arguments.specimens,
        "commit": commit,
        "hardware": {"machine": platform.machine(), "cpus": os.cpu_count(), "threads": 1},
        "domains": measure(arguments.preset, arguments.specimens, arguments.repeats),
    }
    text = json.dumps(result, indent=2)
    if arguments.out:
        arguments.out.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
