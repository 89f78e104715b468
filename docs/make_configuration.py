"""Write docs/configuration.md and docs/experiment.schema.json from the config models.

    python docs/make_configuration.py

Names, types, defaults and bounds are read off the pydantic fields, meanings off the "Attributes:"
sections of their docstrings. `tests/unit/project/test_docs.py` fails when either file is out of
date.
"""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic.fields import FieldInfo

from fedfuse_ray.config import Experiment, json_schema, preset_names
from fedfuse_ray.config.settings.base import Config

FOLDER = Path(__file__).parent

_KEYS = {
    "domains": "DOMAIN",
    "encoders": "MODALITY",
    "groups": "GROUP",
    "institutions": "NAME",
    "links": "NAME",
    "tiers": "TIER",
}
"""What stands for the key of a mapping in a setting's dotted name."""

_MEANINGS = {
    "ManifestData.kind": "The user's own images.",
    "PhantomData.kind": "Generated specimens.",
    "PhantomData.image_size": "Height and width of images, in pixels.",
    "PhantomData.signal_length": "Bins of one-dimensional signals.",
    "SplitConfig.train": "Fraction of a domain's specimens to train on.",
    "SplitConfig.validation": "Fraction that institutions keep to validate on.",
    "SplitConfig.test": "Fraction in the test set; the three add up to 1.",
    "FedAvgConfig.server_momentum": "Heavy-ball momentum on the averaged update.",
    "FedProxConfig.proximal_mu": "Weight of the pull towards the global weights.",
    "_Adaptive.beta1": "Decay of the running mean of updates.",
    "_Adaptive.beta2": "Decay of the running mean of squared updates.",
    "_Adaptive.adaptivity": "Added to the root of the squares; larger adapts less.",
}
"""Meanings of fields whose docstrings leave them to their names."""

_HEAD = """\
# Configuration
<!-- Written by docs/make_configuration.py; `make schema` or that script brings it up to date. -->

A configuration is one YAML file, or the name of a preset ({presets}). A file may say
`extends: PRESET` (or another file) and then holds only what differs; of institutions that are
listed there, by name: `institutions: {{med-01: {{share: 2}}}}`. Every setting below can also be set
on the command line by its dotted name:

```
python -m fedfuse_ray run demo --set training.rounds=10 --set model.fusion=mean
python -m fedfuse_ray run demo --set institutions.med-01.share=2
```

The value is read as YAML. The later `--set` wins. An unknown name, or a value out of bounds, ends
the command with status 2 and one line that names it. A file may hold a recipe for each paradigm,
`paradigms: {{fedfuse: {{training: {{rounds: 40}}}}}}`: the one of the paradigm that runs is merged
over the rest, and `--set` is applied after it.

`restrict: {{domains: [medical], modalities: [mri]}}` keeps only these domains, these modalities,
and the institutions that own any of them; their specimens stay as they are in the whole
federation. `systems/NAME` is a system of the related work as a preset, and `systems/NAME@VARIANT`
one of its variants ([related-work.md](related-work.md)).

`docs/experiment.schema.json` is the JSON schema of the same settings, for editors. With the YAML
language server, this first line of a file gives completion and checks:

```
# yaml-language-server: $schema=docs/experiment.schema.json
```
"""


def configuration() -> str:
    """Return the text of configuration.md."""
    parts = [_HEAD.format(presets=", ".join(f"`{name}`" for name in preset_names()))]
    for title, prefix, model in sections("", Experiment):
        parts.append(_section(title, prefix, model))
    return "\n".join(parts)


def sections(prefix: str, model: type[Config]) -> Iterator[tuple[str, str, type[Config]]]:
    """Yield (title, dotted prefix, model) of a model, then of those inside it."""
    yield prefix.rstrip(".") or "Top level", prefix, model
    for name, field in model.model_fields.items():
        inner = _models(field.annotation)
        key = f"{_KEYS[name]}." if name in _KEYS and inner else ""
        for nested in inner:
            nested_prefix = f"{prefix}{name}.{key}"
            for title, deeper, found in sections(nested_prefix, nested):
                kind = _kind(nested) if len(inner) > 1 and found is nested else None
                yield f"{title}, kind `{kind}`" if kind else title, deeper, found


def settings(prefix: str, model: type[Config]) -> Iterator[tuple[str, ...]]:
    """Yield (name, type, default, bounds, meaning) of each setting of a model."""
    known = meanings(model)
    for name, field in model.model_fields.items():
        if _models(field.annotation):
            continue
        if name not in known:
            raise KeyError(f"{model.__name__}.{name} has no meaning: document it in its docstring")
        bounds = ", ".join(_bounds(field)) or "-"
        yield f"`{prefix}{name}`", _type(field.annotation), _default(field), bounds, known[name]


def meanings(model: type[Config]) -> dict[str, str]:
    """Return each field's meaning, from the docstrings of a model and of its bases."""
    found: dict[str, str] = {}
    for owner in reversed(model.__mro__):
        text = inspect.cleandoc(owner.__doc__ or "") if issubclass(owner, Config) else ""
        section = re.search(r"^Attributes:\n((?:    .*\n?|\n)*)", text, re.MULTILINE)
        for entry in re.split(r"^    (?=\w+: )", section[1] if section else "", flags=re.MULTILINE):
            name, _, meaning = entry.partition(": ")
            if meaning:
                found[name.strip()] = " ".join(meaning.split())
        for key, meaning in _MEANINGS.items():
            if key.startswith(f"{owner.__name__}."):
                found[key.partition(".")[2]] = meaning
        if "kind" in model.model_fields and _kind(model):
            found.setdefault("kind", f"Chooses this form: `{_kind(model)}`.")
    return found


def _section(title: str, prefix: str, model: type[Config]) -> str:
    rows = list(settings(prefix, model))
    summary = inspect.cleandoc(model.__doc__ or "").split("\n\n")[0].replace("\n", " ")
    lines = [f"## {title}" if prefix.count(".") < 2 else f"### {title}", summary, ""]
    if rows:
        lines += ["| setting | type | default | bounds | meaning |", "|---|---|---|---|---|"]
        lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in r) + " |" for r in rows]
    return "\n".join(lines).rstrip() + "\n"


def _models(annotation: Any) -> list[type[Config]]:
    """Return the config models inside an annotation."""
    if isinstance(annotation, type) and issubclass(annotation, Config):
        return [annotation]
    if get_origin(annotation) is Literal:
        return []
    return [model for part in get_args(annotation) for model in _models(part)]


def _kind(model: type[Config]) -> str | None:
    field = model.model_fields.get("kind")
    values = get_args(field.annotation) if field else ()
    return str(values[0]) if len(values) == 1 else None


def _type(annotation: Any) -> str:
    origin, inside = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in inside)
    if origin is Annotated:
        return _type(inside[0])
    if origin in (Union, types.UnionType):
        return " or ".join(_type(part) for part in inside)
    if origin is tuple:
        if inside[-1] is Ellipsis:
            return f"list of {_type(inside[0])}"
        return f"[{', '.join(_type(part) for part in inside)}]"
    if origin is dict:
        return f"mapping to {_type(inside[1])}"
    names = {float: "number", int: "integer", str: "text", bool: "true or false"}
    return "null" if annotation is type(None) else names[annotation]


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.default
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.4g}"
    if value in ("", ()):
        return "empty"
    if isinstance(value, dict):
        return ", ".join(f"{key}: {entry:g}" for key, entry in value.items())
    return f"`{value}`" if isinstance(value, str) else str(value)


_LIMITS = (
    (Ge, "ge", "at least"),
    (Gt, "gt", "above"),
    (Le, "le", "at most"),
    (Lt, "lt", "below"),
)


def _bounds(field: FieldInfo) -> list[str]:
    found = [*field.metadata, *_nested(field.annotation)]
    bounds = [
        f"{words} {getattr(limit, attribute):g}"
        for limit in found
        for kind, attribute, words in _LIMITS
        if isinstance(limit, kind)
    ]
    if any(isinstance(limit, MinLen) for limit in found):
        bounds.append("not empty")
    if any(getattr(limit, "pattern", None) for limit in found):
        bounds.append("letters, digits, `.`, `_`, `-`")
    return bounds


def _nested(annotation: Any) -> Iterator[Any]:
    """Yield the constraints inside an annotation, as FieldInfo keeps the outermost only."""
    if get_origin(annotation) is Annotated:
        for extra in get_args(annotation)[1:]:
            yield from extra.metadata if isinstance(extra, FieldInfo) else [extra]
    if get_origin(annotation) is not Literal:
        for part in get_args(annotation):
            yield from _nested(part)


def main() -> None:
    """Write both files."""
    (FOLDER / "configuration.md").write_text(configuration(), encoding="utf-8")
    (FOLDER / "experiment.schema.json").write_text(json_schema(), encoding="utf-8")


if __name__ == "__main__":
    main()
