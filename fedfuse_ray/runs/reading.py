"""From a command's arguments to the experiment that they describe."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from fedfuse_ray.config import Experiment, Paradigm, load
from fedfuse_ray.errors import InputError

_ASKED_FOR = frozenset({"centralized_dp"})
"""Paradigms that are compared only where they are named."""

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

    A source is a preset, a YAML file, or a manifest, which the preset `manifest` reads; `data` is
    a manifest that replaces the source's specimens. All else overrides the setting of its name.

    Raises:
        InputError: Anything that can't be used.
    """
    if Path(source).suffix in _MANIFESTS:
        if data is not None:
            raise InputError("--data", data, f"{source} is a manifest already; name one of them")
        source, data = "manifest", Path(source)
    named = {"seed": seed, "execution.executor": executor}
    options = [f"{name}={value}" for name, value in named.items() if value is not None]
    return load(source, [*(settings or ()), *options], paradigm=paradigm, manifest=data)


def read_resumed(
    folder: Path,
    *,
    settings: Sequence[str] | None = None,
    seed: int | None = None,
    paradigm: str | None = None,
    executor: str | None = None,
) -> Experiment:
    """Return the experiment that an interrupted run in a folder began with.

    The executor may be another one, which changes no result; all else must be as it was.

    Raises:
        InputError: No run was started there, or it has other settings than those given.
    """
    config = folder / "config.yaml"
    if not config.is_file():
        raise InputError("--resume", folder, "no run was started there: config.yaml is missing")
    begun = load(config)
    named = {"seed": seed, "paradigm": paradigm}
    for name, value in named.items():
        if value is not None and value != getattr(begun, name):
            remedy = f"the run in {folder} has {getattr(begun, name)!r}; leave the option out"
            raise InputError(f"--{name}", value, remedy)
    for text in settings or ():
        if load(config, [text]) != begun:
            raise InputError("--set", text, f"the run in {folder} has another value; leave it out")
    return begun if executor is None else load(config, [f"execution.executor={executor}"])


def paradigm_names(listed: str | None) -> list[str]:
    """Return the paradigms of `--paradigms a,b`; the six that always compare when it is not given.

    Raises:
        InputError: An unknown one, or none.
    """
    if listed is None:
        return [name for name in get_args(Paradigm) if name not in _ASKED_FOR]
    return listed_names("--paradigms", listed, get_args(Paradigm))


def listed_names(option: str, listed: str | None, allowed: Sequence[str]) -> list[str]:
    """Return the names of an option's `a,b`; all known ones when it was not given.

    Raises:
        InputError: An unknown one, or none.

    >>> listed_names("--studies", "skew, table3", ("table3", "skew", "transfer"))
    ['skew', 'table3']
    """
    if listed is None:
        return list(allowed)
    names = [name.strip() for name in listed.split(",") if name.strip()]
    for name in names:
        if name not in allowed:
            raise InputError(option, name, f"choose among {', '.join(allowed)}")
    if not names:
        raise InputError(option, listed, f"name at least one of {', '.join(allowed)}")
    return names
