"""Specimens generated per second on one core, by domain, with every modality of the domain."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from benchmarks.results import Result, on_one_thread, parser, publish, yardstick
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


def measure(preset: str, specimens: int, repeats: int) -> Result:
    """Generate `repeats` times, domains interleaved; ratios are to the yardstick, by specimen."""
    experiment = load(preset)
    domains = list(experiment.data.domains) if isinstance(experiment.data, PhantomData) else []
    walls: dict[str, list[float]] = {domain: [] for domain in domains}
    ratios: dict[str, list[float]] = {f"{domain}/yardstick": [] for domain in domains}
    for repeat in range(repeats):
        for domain in domains:
            data, institutions = only(experiment, domain, specimens)
            stick = yardstick()
            wall, used = seconds(data, institutions, repeat)
            walls[domain].append(wall)
            ratios[f"{domain}/yardstick"].append(1000 * used / specimens / stick)
    rates = {domain: round(specimens / min(values)) for domain, values in walls.items()}
    return Result(
        benchmark="phantoms",
        config={"preset": preset, "specimens": specimens, "repeats": repeats},
        ratios=ratios,
        seconds=walls,
        details={"specimens_per_second_at_best": rates},
    )


def main(arguments: Sequence[str] | None = None) -> None:
    made = parser(__doc__)
    made.add_argument("--preset", default="demo")
    made.add_argument("--specimens", type=int, default=2000)
    made.add_argument("--repeats", type=int, default=5)
    options = made.parse_args(arguments)
    if options.quick:
        options.preset, options.specimens, options.repeats = "tiny", 60, 1
    on_one_thread()
    publish(measure(options.preset, options.specimens, options.repeats), options.out)


if __name__ == "__main__":
    main()
