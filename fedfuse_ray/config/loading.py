"""From a preset's name or a YAML file, and dotted overrides, to a validated `Experiment`."""

from __future__ import annotations

import copy
import difflib
import json
import os
from collections.abc import Iterable, Mapping
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import ValidationError

from fedfuse_ray.config.data import DataConfig
from fedfuse_ray.config.experiment import Experiment, Paradigm
from fedfuse_ray.config.training import StrategyConfig
from fedfuse_ray.errors import InputError

_UNIONS: dict[str, Any] = {"data": DataConfig, "strategy": StrategyConfig}
_DEFAULT_KINDS = {"data": "phantoms", "strategy": "fedavg"}
_PATHS = (("data", "path"), ("data", "forward_models"), ("execution", "signing_key"))
"""Settings that name files."""


def preset_names() -> list[str]:
    """Return the names of the presets that ship with the package."""
    folder = resources.files("fedfuse_ray.config") / "presets"
    return sorted(
        entry.name.removesuffix(".yaml")
        for entry in folder.iterdir()
        if entry.name.endswith(".yaml")
    )


def load(
    source: str | Path,
    overrides: Iterable[str] = (),
    *,
    paradigm: str | None = None,
    manifest: Path | None = None,
) -> Experiment:
    """Read a preset or a YAML file and apply overrides.

    A file may hold a recipe for each paradigm, `paradigms: {fedfuse: {training: {...}}}`; the one
    of the paradigm that runs is merged over the rest, under the overrides.

    Args:
        source: A preset's name, or the path of a YAML file, which may say `extends: PRESET`.
            Relative paths of files in it start at its own folder.
        overrides: `dotted.name=value`, the value in YAML; later ones win.
        paradigm: Overrides the file's paradigm.
        manifest: The user's images; they replace the source's specimens and institutions.

    Raises:
        InputError: Unknown preset, unreadable YAML, unknown key, or a value out of bounds.
    """
    tree = _read(str(source), ())
    if manifest is not None:
        sizes = {k: v for k, v in tree["data"].items() if k in ("image_size", "signal_length")}
        tree["data"] = {"kind": "manifest", "path": str(manifest), **sizes}
        tree["institutions"] = []
    overrides = list(overrides)
    _choose_recipe(tree, overrides, paradigm)
    for text in overrides:
        apply_override(tree, text)
    _anchor(tree, Path.cwd())
    return validate(tree)


def validate(tree: Mapping[str, Any]) -> Experiment:
    """Turn a plain tree into an `Experiment`; the first error becomes an `InputError`.

    A group that names no `kind` is of the default one.
    """
    filled = dict(tree)
    for group, kind in _DEFAULT_KINDS.items():
        if isinstance(filled.get(group), dict):
            filled[group] = {"kind": kind, **filled[group]}
    try:
        return Experiment.model_validate(filled)
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
        parsed = yaml.safe_load(value)
    except yaml.YAMLError:
        raise InputError(name, value, "the value is not readable as YAML") from None
    if not isinstance(node, dict):
        raise InputError("--set", text, f"{'.'.join(keys[:-1])} is not a group of settings")
    node[keys[-1]] = parsed
    if keys[-1] == "kind" and len(keys) == 2:
        _drop_unknown(keys[0], node)


def dump(experiment: Experiment) -> str:
    """Return the resolved experiment as YAML that `load` reads back to an equal one."""
    return yaml.safe_dump(experiment.model_dump(mode="json"), sort_keys=False)


def json_schema() -> str:
    """Return the JSON schema of a config file, for editors."""
    schema = Experiment.model_json_schema()
    schema["properties"]["extends"] = {
        "type": "string",
        "description": f"A preset to start from: {', '.join(preset_names())}, or a file.",
    }
    schema["properties"]["paradigms"] = {
        "type": "object",
        "description": "Settings that differ by paradigm; those of the one that runs are merged.",
        "propertyNames": {"enum": list(get_args(Paradigm))},
        "additionalProperties": {"type": "object"},
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


def _read(source: str, seen: tuple[str, ...]) -> dict[str, Any]:
    if source in seen:
        raise InputError("extends", source, f"extends itself: {' -> '.join((*seen, source))}")
    tree = _parse(source)
    if source not in preset_names():
        _anchor(tree, Path(source).parent)
    parent = tree.pop("extends", None)
    if parent is not None:
        if not isinstance(parent, str):
            raise InputError(f"{source}: extends", parent, "name a preset or a file")
        base = str(Path(source).parent / parent) if parent.endswith((".yaml", ".yml")) else parent
        tree = _merge(_read(base, (*seen, source)), tree)
    tree.setdefault("preset", Path(source).stem)
    if parent is not None:
        tree["preset"] = Path(source).stem
    return tree


def _choose_recipe(tree: dict[str, Any], overrides: list[str], paradigm: str | None) -> None:
    """Merge the recipe of the paradigm that will run, in place."""
    named = [text.partition("=")[2] for text in overrides if text.startswith("paradigm=")]
    if paradigm is not None:
        named.append(paradigm)
    if named:
        tree["paradigm"] = named[-1]
        overrides[:] = [text for text in overrides if not text.startswith("paradigm=")]
    recipes = tree.pop("paradigms", {})
    if not isinstance(recipes, dict):
        raise InputError("paradigms", recipes, "map a paradigm's name to settings")
    if strangers := sorted(set(recipes) - set(get_args(Paradigm))):
        raise InputError("paradigms", strangers[0], f"choose among {', '.join(get_args(Paradigm))}")
    chosen = tree.get("paradigm", Experiment.model_fields["paradigm"].default)
    recipe = recipes.get(chosen) or {}
    if not isinstance(recipe, dict):
        raise InputError(f"paradigms.{chosen}", recipe, "must hold settings")
    merged = _merge(tree, recipe)
    tree.clear()
    tree.update(merged)


def _anchor(tree: dict[str, Any], folder: Path) -> None:
    """Make relative paths of files start at a folder."""
    for name, key in _PATHS:
        group = tree.get(name)
        named = group.get(key) if isinstance(group, dict) else None
        if isinstance(group, dict) and isinstance(named, str):
            group[key] = _anchored(folder, named)
        elif isinstance(group, dict) and isinstance(named, list):
            group[key] = [_anchored(folder, n) if isinstance(n, str) else n for n in named]


def _anchored(folder: Path, path: str) -> str:
    return os.path.normpath(folder.absolute() / Path(path).expanduser())


def _parse(source: str) -> dict[str, Any]:
    if source in preset_names():
        text = (resources.files("fedfuse_ray.config") / "presets" / f"{source}.yaml").read_text()
    else:
        path = Path(source)
        if not path.is_file():
            close = difflib.get_close_matches(source, preset_names(), 1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            names = ", ".join(preset_names())
            raise InputError("PRESET", source, f"no such file or preset ({names}){hint}")
        try:
            text = path.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError("PRESET", source, f"can't be read as text: {error}") from None
    try:
        tree = copy.deepcopy(_parsed(text))
    except yaml.YAMLError as error:
        raise InputError("PRESET", source, f"is not YAML: {error}") from None
    if not isinstance(tree, dict):
        raise InputError("PRESET", source, "holds no settings; see docs/configuration.md")
    return tree


@lru_cache(maxsize=32)
def _parsed(text: str) -> Any:
    # Reading the YAML is nine tenths of loading a preset, and a sweep loads it for each trial.
    return yaml.safe_load(text)


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = copy.deepcopy(base)
    for key, value in over.items():
        old = merged.get(key)
        if not (isinstance(value, dict) and isinstance(old, dict)):
            merged[key] = copy.deepcopy(value)
            continue
        if "kind" in value:
            old["kind"] = value["kind"]
            _drop_unknown(key, old)
        merged[key] = _merge(old, value)
    return merged


def _drop_unknown(group: str, node: dict[str, Any]) -> None:
    """Forget what was said for a group's former kind and the new one does not know."""
    union = get_args(_UNIONS[group])[0] if group in _UNIONS else None
    for model in get_args(union):
        if node["kind"] in get_args(model.model_fields["kind"].annotation):
            for key in [key for key in node if key not in model.model_fields]:
                del node[key]


def _one_line(error: ValidationError) -> InputError:
    first = error.errors(include_url=False)[0]
    field = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "value_error" and ": " in message and not field:
        field, _, message = message.partition(": ")
        return (
            InputError(field, first["ctx"]["error"].args[0].split("'")[1], message)
            if ("'" in message)
            else InputError(field, "", message)
        )
    value = first["input"]
    if first["type"] == "extra_forbidden":
        value = first["loc"][-1]
        message = f"unknown key{_closest(first['loc'])}"
    return InputError(field or "config", value, message)


def _closest(location: tuple[int | str, ...]) -> str:
    known: set[str] = set()
    _collect(Experiment.model_json_schema(), known)
    close = difflib.get_close_matches(str(location[-1]), sorted(known), 1)
    return f"; did you mean {close[0]!r}?" if close else "; see docs/configuration.md"


def _collect(schema: Any, into: set[str]) -> None:
    if isinstance(schema, dict):
        into |= set(schema.get("properties", {}))
        for value in schema.values():
            _collect(value, into)
    elif isinstance(schema, list):
        for value in schema:
            _collect(value, into)
