"""From a preset's name or a YAML file to a plain tree of settings, with what it extends."""

from __future__ import annotations

import copy
import difflib
import os
from collections.abc import Sequence
from functools import lru_cache
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, get_args

from fedfuse_ray.config.settings.data import DataConfig
from fedfuse_ray.config.settings.experiment import Experiment, Paradigm
from fedfuse_ray.config.settings.selection import SelectionConfig
from fedfuse_ray.config.settings.training import StrategyConfig
from fedfuse_ray.errors import InputError, did_you_mean
from fedfuse_ray.yaml12 import parse

SYSTEMS = "systems/"
"""What the names of the related work's systems begin with."""

_UNIONS: dict[str, Any] = dict(data=DataConfig, selection=SelectionConfig, strategy=StrategyConfig)
_PATHS = (
    ("data", "path"),
    ("data", "forward_models"),
    ("execution", "signing_key"),
    ("privacy", "audit"),
)
"""Settings that name files."""
_ABOUT, _VARIANTS = "about", "variants"
_BASE = "base"


def preset_names() -> list[str]:
    """Return the names of the presets that ship with the package, without the systems."""
    return _names(_presets())


def system_names() -> list[str]:
    """Return the names of the related work's systems, each a preset `systems/NAME`."""
    return [name for name in _names(_presets() / SYSTEMS) if name != _BASE]


def read(source: str, *, paradigm: str | None = None, root: str | None = None) -> dict[str, Any]:
    """Read a source, and all that it extends, into one tree of settings.

    A file's `paradigms` hold a recipe for each paradigm; the one of the paradigm that runs is
    merged over the rest. A system's own settings go over the recipe of the preset below it.

    Args:
        source: A preset, a system `systems/NAME` or `systems/NAME@VARIANT`, or a file.
        paradigm: What is trained, where it is not what the source says.
        root: Stands in for the preset below a system, `demo`.

    Raises:
        InputError: There is no such source, it is unreadable, or it extends itself.
    """
    links = _chain(source, root)
    said = next((tree["paradigm"] for _, tree in links if "paradigm" in tree), None)
    chosen = paradigm or said or Experiment.model_fields["paradigm"].default
    tree: dict[str, Any] = {}
    for name, part in reversed(links):
        if name.startswith(SYSTEMS):
            tree = _with_recipe(tree, chosen)
        tree = merge(tree, part)
    tree = _with_recipe(tree, chosen) | {"paradigm": chosen}
    if len(links) > 1 or "preset" not in tree:
        system = source.startswith(SYSTEMS)
        tree["preset"] = source.removeprefix(SYSTEMS) if system else Path(source).stem
    return tree


def read_system(name: str) -> tuple[Any, dict[str, Any]]:
    """Return what a system's file says about it, and its variants' settings, unchecked.

    Raises:
        InputError: There is no such system, or its variants are no groups of settings.
    """
    tree = _parse(SYSTEMS + name)
    return tree.get(_ABOUT), _variants(name, tree)


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Return settings over others; another `kind` drops what it does not know.

    Settings of `institutions` by name go over those that are listed, as `--set` has it.

    Raises:
        InputError: No institution of such a name is listed.

    >>> merge({"training": {"rounds": 8, "seed": 1}}, {"training": {"rounds": 3}})
    {'training': {'rounds': 3, 'seed': 1}}
    """
    merged = copy.deepcopy(base)
    for key, value in over.items():
        old = merged.get(key)
        if key == "institutions" and isinstance(value, dict) and isinstance(old, list):
            merged[key] = _merge_named(old, value)
        elif isinstance(value, dict) and isinstance(old, dict):
            if "kind" in value:
                old["kind"] = value["kind"]
                drop_unknown(key, old)
            merged[key] = merge(old, value)
        else:
            merged[key] = copy.deepcopy(value)
    return merged


def _merge_named(listed: list[Any], over: dict[str, Any]) -> list[Any]:
    names = [str(entry.get("name")) for entry in listed]
    for name, settings in over.items():
        if name not in names:
            raise InputError("institutions", name, nearest(name, names))
        if not isinstance(settings, dict):
            raise InputError(f"institutions.{name}", settings, "give a group of settings")
    return [merge(entry, over.get(entry.get("name"), {})) for entry in listed]


def drop_unknown(group: str, node: dict[str, Any]) -> None:
    """Forget what was said for a group's former kind and the new one does not know."""
    union = get_args(_UNIONS[group])[0] if group in _UNIONS else None
    for model in get_args(union):
        if node["kind"] in get_args(model.model_fields["kind"].annotation):
            for key in [key for key in node if key not in model.model_fields]:
                del node[key]


def anchor(tree: dict[str, Any], folder: Path) -> None:
    """Make relative paths of files start at a folder."""
    for name, key in _PATHS:
        group = tree.get(name)
        named = group.get(key) if isinstance(group, dict) else None
        if isinstance(group, dict) and isinstance(named, str):
            group[key] = _anchored(folder, named)
        elif isinstance(group, dict) and isinstance(named, list):
            group[key] = [_anchored(folder, n) if isinstance(n, str) else n for n in named]


def nearest(name: object, allowed: Sequence[str]) -> str:
    """Return a remedy that lists what is known, and the closest to a misspelt name.

    >>> nearest("fedprx", ("fedavg", "fedprox"))
    "choose among fedavg, fedprox; did you mean 'fedprox'?"
    """
    return f"choose among {', '.join(allowed)}{did_you_mean(name, allowed)}"


def _anchored(folder: Path, path: str) -> str:
    return os.path.normpath(folder.absolute() / Path(path).expanduser())


def _chain(source: str, root: str | None) -> list[tuple[str, dict[str, Any]]]:
    """Return a source and what it extends, nearest first, each with its settings."""
    links: list[tuple[str, dict[str, Any]]] = []
    following: str | None = source
    while following is not None:
        seen = [name for name, _ in links]
        if following in seen:
            circle = " -> ".join((*seen, following))
            raise InputError("extends", following, f"extends itself: {circle}")
        tree = _settings(following)
        parent = tree.pop("extends", None)
        links.append((following, tree))
        following = _parent(following, parent, root)
    return links


def _parent(source: str, named: Any, root: str | None) -> str | None:
    if named is None:
        return None
    if not isinstance(named, str):
        raise InputError(f"{source}: extends", named, "name a preset or a file")
    if source.startswith(SYSTEMS):
        return named if root is None or named.startswith(SYSTEMS) else root
    return str(Path(source).parent / named) if named.endswith((".yaml", ".yml")) else named


def _settings(source: str) -> dict[str, Any]:
    """Return what one file says, a system's without what is about it, its variant merged."""
    if not source.startswith(SYSTEMS):
        tree = _parse(source)
        if source not in preset_names():
            anchor(tree, Path(source).parent)
        return tree
    name, at, variant = source.removeprefix(SYSTEMS).partition("@")
    tree = _parse(SYSTEMS + name)
    variants = _variants(name, tree)
    if at and variant not in variants:
        allowed = f"choose among {', '.join(variants)}" if variants else f"{name} has none"
        raise InputError("PRESET", source, f"no such variant: {allowed}")
    for key in (_ABOUT, _VARIANTS):
        tree.pop(key, None)
    return merge(tree, variants[variant]) if at else tree


def _variants(name: str, tree: dict[str, Any]) -> dict[str, Any]:
    variants = tree.get(_VARIANTS, {})
    if not isinstance(variants, dict) or not all(isinstance(v, dict) for v in variants.values()):
        raise InputError(f"{SYSTEMS}{name}: {_VARIANTS}", variants, "map names to settings")
    return variants


def _with_recipe(tree: dict[str, Any], paradigm: str) -> dict[str, Any]:
    """Return settings without their recipes, that of the paradigm merged over the rest."""
    rest = {key: value for key, value in tree.items() if key != "paradigms"}
    recipes = tree.get("paradigms", {})
    if not isinstance(recipes, dict):
        raise InputError("paradigms", recipes, "map a paradigm's name to settings")
    if strangers := sorted(set(recipes) - set(get_args(Paradigm))):
        raise InputError("paradigms", strangers[0], f"choose among {', '.join(get_args(Paradigm))}")
    recipe = recipes.get(paradigm) or {}
    if not isinstance(recipe, dict):
        raise InputError(f"paradigms.{paradigm}", recipe, "must hold settings")
    return merge(rest, recipe)


def _parse(source: str) -> dict[str, Any]:
    text = _text(source)
    try:
        tree = copy.deepcopy(_parsed(text))
    except ValueError as error:
        raise InputError("PRESET", source, f"is not YAML: {error}") from None
    if not isinstance(tree, dict):
        raise InputError("PRESET", source, "holds no settings; see docs/configuration.md")
    return tree


def _text(source: str) -> str:
    systems = [SYSTEMS + name for name in system_names()]
    if source in (*preset_names(), *systems, SYSTEMS + _BASE):
        return (_presets() / f"{source}.yaml").read_text()
    if source.startswith(SYSTEMS):
        raise InputError("PRESET", source, f"no such system: {nearest(source, systems)}")
    path = Path(source)
    if not path.is_file():
        close = difflib.get_close_matches(source, preset_names(), 1)
        close += [SYSTEMS + n for n in difflib.get_close_matches(source, system_names(), 1)]
        hint = f"; did you mean {close[0]!r}?" if close else ""
        names = ", ".join(preset_names())
        raise InputError("PRESET", source, f"no such file or preset ({names}, systems/NAME){hint}")
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError("PRESET", source, f"can't be read as text: {error}") from None


@lru_cache(maxsize=64)
def _parsed(text: str) -> Any:
    # Reading the YAML is nine tenths of loading a preset, and a sweep loads it for each trial.
    return parse(text)


def _presets() -> Traversable:
    return resources.files("fedfuse_ray.config") / "presets"


def _names(folder: Traversable) -> list[str]:
    entries = [entry.name for entry in folder.iterdir() if entry.name.endswith(".yaml")]
    return sorted(name.removesuffix(".yaml") for name in entries)
