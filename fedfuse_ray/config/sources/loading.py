"""From a preset's name or a YAML file, and dotted overrides, to a validated `Experiment`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from fedfuse_ray.config.settings.experiment import Experiment, Paradigm
from fedfuse_ray.config.sources.narrowing import narrowed
from fedfuse_ray.config.sources.trees import anchor, drop_unknown, preset_names, read
from fedfuse_ray.errors import InputError, did_you_mean
from fedfuse_ray.yaml12 import parse, write

_DEFAULT_KINDS = {"data": "phantoms", "selection": "all", "strategy": "fedavg"}


def load(
    source: str | Path,
    overrides: Iterable[str] = (),
    *,
    paradigm: str | None = None,
    manifest: Path | None = None,
    root: str | None = None,
) -> Experiment:
    """Read a preset or a YAML file and apply overrides.

    A file may hold a recipe for each paradigm, `paradigms: {fedfuse: {training: {...}}}`; the one
    of the paradigm that runs is merged over the rest, under the overrides. It may keep only some
    domains and modalities, `restrict: {domains: [...], modalities: [...]}`.

    Args:
        source: A preset's name, a system's, `systems/NAME` or `systems/NAME@VARIANT`, or the path
            of a YAML file, which may say `extends: PRESET`. Relative paths of files in it start at
            its own folder.
        overrides: `dotted.name=value`, the value in YAML; later ones win.
        paradigm: Overrides the file's paradigm.
        manifest: The user's images; they replace the source's specimens and institutions.
        root: The preset below a system, in place of `demo`.

    Raises:
        InputError: Unknown preset, unreadable YAML, unknown key, or a value out of bounds.

    >>> load("tiny", ["training.rounds=3"]).training.rounds
    3
    """
    overrides = list(overrides)
    named = [text.partition("=")[2] for text in overrides if text.startswith("paradigm=")]
    tree = read(str(source), paradigm=paradigm or next(reversed(named), None), root=root)
    if manifest is not None:
        sizes = {k: v for k, v in tree["data"].items() if k in ("image_size", "signal_length")}
        tree["data"] = {"kind": "manifest", "path": str(manifest), **sizes}
        tree["institutions"] = []
    for text in overrides:
        if not text.startswith("paradigm="):
            apply_override(tree, text)
    anchor(tree, Path.cwd())
    restriction = tree.pop("restrict", None)
    whole = validate(tree)
    return whole if restriction is None else validate(narrowed(whole, restriction))


def validate(tree: Mapping[str, Any]) -> Experiment:
    """Turn a plain tree into an `Experiment`; the first error becomes an `InputError`.

    A group that names no `kind` is of the default one.
    """
    filled = dict(tree)
    for group, kind in _DEFAULT_KINDS.items():
        if isinstance(filled.get(group), dict):
            filled[group] = {"kind": kind, **filled[group]}
    try:
        return Experiment.model_validate_json(json.dumps(filled), strict=True)
    except ValidationError as error:
        raise _one_line(error) from None


def apply_override(tree: dict[str, Any], text: str) -> None:
    """Set `a.b.c=value` in a plain tree, in place.

    Naming another `kind` drops what the tree said for the old kind and the new one does not know.
    A list of institutions is entered by an institution's name: `institutions.med-01.share=2`.

    Raises:
        InputError: The text has no `=`, or the path runs through a plain value.
    """
    name, equals, value = text.partition("=")
    name = name.strip()
    if not equals or not name:
        raise InputError("--set", text, "write it as dotted.name=value")
    keys = name.split(".")
    node: Any = tree
    for key in keys[:-1]:
        node = _enter(node, key, name)
    try:
        parsed = parse(value)
    except ValueError as error:
        raise InputError(name, value, f"is not YAML: {error}") from None
    if not isinstance(node, dict):
        raise InputError("--set", text, f"{'.'.join(keys[:-1])} is not a group of settings")
    node[keys[-1]] = parsed
    if keys[-1] == "kind" and len(keys) == 2:
        drop_unknown(keys[0], node)


def dump(experiment: Experiment) -> str:
    """Return the resolved experiment as YAML that `load` reads back to an equal one."""
    return write(experiment.model_dump(mode="json"))


def json_schema() -> str:
    """Return the JSON schema of a config file, for editors."""
    schema = Experiment.model_json_schema()
    schema["properties"]["extends"] = {
        "type": "string",
        "description": f"A preset to start from: {', '.join(preset_names())}, systems/NAME, or "
        "a file.",
    }
    schema["properties"]["paradigms"] = {
        "type": "object",
        "description": "Settings that differ by paradigm; those of the one that runs are merged.",
        "propertyNames": {"enum": list(get_args(Paradigm))},
        "additionalProperties": {"type": "object"},
    }
    by_name = {
        "type": "object",
        "description": "Settings over those of institutions that `extends` lists, by name.",
        "additionalProperties": {"type": "object"},
    }
    listed = schema["properties"]["institutions"]
    schema["properties"]["institutions"] = {"anyOf": [listed, by_name]}
    names = {"type": "array", "minItems": 1, "items": {"type": "string"}}
    schema["properties"]["restrict"] = {
        "type": "object",
        "description": "Keeps only these domains and modalities, and who owns any of them.",
        "properties": {"domains": names, "modalities": names},
        "additionalProperties": False,
    }
    schema["required"] = []
    return json.dumps(schema, indent=2) + "\n"


def _enter(node: Any, key: str, name: str) -> Any:
    if isinstance(node, dict):
        return node.setdefault(key, {})
    if isinstance(node, list):
        for entry in node:
            if isinstance(entry, dict) and entry.get("name") == key:
                return entry
        raise InputError(name, key, "no institution of that name is listed")
    raise InputError(name, node, f"{key!r} can't be set inside a plain value")


def _one_line(error: ValidationError) -> InputError:
    first = error.errors(include_url=False)[0]
    field = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "value_error" and ": " in message and not field:
        field, _, message = message.partition(": ")
        named = first["ctx"]["error"].args[0].split("'")[1] if "'" in message else ""
        return InputError(field, named, message)
    value = first["input"]
    if first["type"] == "extra_forbidden":
        value = first["loc"][-1]
        message = f"unknown key{_closest(first['loc'])}"
    return InputError(field or "config", value, message)


def _closest(location: tuple[int | str, ...]) -> str:
    names: set[str] = set()
    _collect(Experiment.model_json_schema(), names)
    return did_you_mean(location[-1], sorted(names), "; see docs/configuration.md")


def _collect(schema: Any, into: set[str]) -> None:
    if isinstance(schema, dict):
        into |= set(schema.get("properties", {}))
        for value in schema.values():
            _collect(value, into)
    elif isinstance(schema, list):
        for value in schema:
            _collect(value, into)
