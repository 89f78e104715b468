"""From a sweep file and overrides to a `Sweep`, and back to a file."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from fedfuse_ray.errors import InputError
from fedfuse_ray.studies.sweeping.config import Sweep
from fedfuse_ray.yaml12 import parse, write

_HERE = (
    "base",
    "paradigm",
    "objectives",
    "executor",
    "concurrent",
    "cpus_per_trial",
    "gpus_per_trial",
)
_GROUPS = ("search", "space", "tracking")


def load_sweep(source: Path, overrides: Iterable[str] = ()) -> Sweep:
    """Read a sweep file.

    Args:
        source: The YAML file.
        overrides: `name=value`, the value in YAML. Names of the sweep itself (`search.trials`,
            `space.privacy.clip_norm`, `base`, ...) change it; all others are settings of every
            trial.

    Raises:
        InputError: Anything that can't be used.
    """
    if not source.is_file():
        raise InputError("FILE", source, "no such sweep file; see tune_configs/")
    try:
        tree = parse(source.read_text())
    except (OSError, ValueError) as error:
        raise InputError("FILE", source, f"can't be read as YAML: {error}") from None
    if not isinstance(tree, dict):
        raise InputError("FILE", source, "holds no sweep; it needs `base` and `space`")
    for text in overrides:
        _override(tree, text)
    base = tree.get("base")
    if isinstance(base, str) and base.endswith((".yaml", ".yml")):
        tree["base"] = str((source.parent / base).absolute())
    return validate_sweep(tree)


def validate_sweep(tree: Any) -> Sweep:
    """Turn a plain tree into a `Sweep`; the first error becomes an `InputError`."""
    try:
        return Sweep.model_validate_json(json.dumps(_explicit(tree)), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
    field = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    value = first["input"]
    if not field and ": " in message:
        field, _, message = message.partition(": ")
        value = ""
    if first["type"] == "extra_forbidden":
        close = difflib.get_close_matches(str(first["loc"][-1]), sorted(Sweep.model_fields), 1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        value, message = first["loc"][-1], f"unknown key{hint}"
    raise InputError(field or "FILE", value, message)


def _explicit(tree: Any) -> Any:
    """Return the sweep with a bare list as the grid that it stands for, and the default search."""
    if not isinstance(tree, dict):
        return tree
    filled = dict(tree)
    if isinstance(space := tree.get("space"), dict):
        filled["space"] = {n: {"grid": a} if isinstance(a, list) else a for n, a in space.items()}
    if isinstance(search := tree.get("search"), dict):
        filled["search"] = {"kind": "grid", **search}
    return filled


def dump_sweep(sweep: Sweep) -> str:
    """Return the sweep as YAML that `load_sweep` reads back to an equal one."""
    tree = sweep.model_dump(mode="json", exclude_none=True)
    tree["settings"] = dict(sweep.settings)
    return write(tree)


def _override(tree: dict[str, Any], text: str) -> None:
    name, equals, value = text.partition("=")
    name = name.strip()
    if not equals or not name:
        raise InputError("--set", text, "write it as dotted.name=value")
    try:
        parsed = parse(value)
    except ValueError as error:
        raise InputError(name, value, f"is not YAML: {error}") from None
    group, _, rest = name.partition(".")
    if name in _HERE or name in _GROUPS:
        tree[name] = parsed
        return
    where, keys = (group, [rest]) if group in _GROUPS and rest else ("settings", [name])
    if group == "tracking":
        keys = rest.split(".")  # the only group whose groups are not settings of an experiment
    node = tree
    for key in (where, *keys[:-1]):
        if node.get(key) is None:
            node[key] = {}
        if not isinstance(node[key], dict):
            raise InputError(key, node[key], "must be a group of settings")
        node = node[key]
    node[keys[-1]] = parsed
    if where == "space" and isinstance(tree.get("settings"), dict):
        tree["settings"].pop(rest, None)  # what was fixed in the file varies from now on
