"""From a command's arguments to the experiment that they describe."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fedfuse_ray.config import Experiment, load
from fedfuse_ray.errors import InputError

_MANIFESTS = (".csv", ".parquet", ".pq")


def read_experiment(
    source: str,
    *,
    data: Path | None = None,
    settings: Sequence[str] | None = None,
    seed: int | None = None,
    paradigm: str | None = None,
    executor: str | None = None,
) -> Experiment:
    """Return the experiment of a command line.

    Args:
        source: A preset, a YAML file, or a manifest, which the preset `real` then reads.
        data: A manifest that replaces the source's specimens.
        settings: Dotted overrides, `a.b=c`.
        seed: Overrides `seed`.
        paradigm: Overrides `paradigm`.
        executor: Overrides `execution.executor`.

    Raises:
        InputError: Anything that can't be used.
    """
    if Path(source).suffix in _MANIFESTS:
        if data is not None:
            raise InputError("--data", data, f"{source} is a manifest already; name one of them")
        source, data = "real", Path(source)
    named = {"seed": seed, "paradigm": paradigm, "execution.executor": executor}
    options = [f"{name}={value}" for name, value in named.items() if value is not None]
    return load(source, [*(settings or ()), *options], manifest=data)
