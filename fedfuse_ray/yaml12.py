"""Text in YAML 1.2 to plain values and back: what looks like a word is a word.

YAML 1.1 reads `yes` as a truth value, `010` as eight and `1:30` as ninety. Here the core schema of
YAML 1.2.2 (section 10.3) holds: `true` and `false` alone are truth values, integers are decimal, or
`0o` and `0x`. A date is text.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

_TAG = "tag:yaml.org,2002:"
_CORE = (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?"
        r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
    ("merge", r"<<", "<"),
)
"""The tag, the pattern of the whole scalar, and what it may begin with; earlier ones win."""

_LONGEST_INTEGER = 300
"""Digits; Python refuses to read far longer ones, and no setting has any such."""


class _Loader(yaml.SafeLoader):
    """Reads the core schema."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 (PyYAML's own way)


class _Dumper(yaml.SafeDumper):
    """Quotes text that either version of YAML would read as something else."""

    yaml_implicit_resolvers = {  # noqa: RUF012
        first: list(tags) for first, tags in yaml.SafeDumper.yaml_implicit_resolvers.items()
    }

    def ignore_aliases(self, data: object) -> bool:
        """Write what stands in two places twice."""
        return True


def parse(text: str) -> Any:
    """Return the value of one YAML document; an empty one is None.

    Raises:
        ValueError: It is not YAML, a key is not text or stands twice in its mapping; one line that
            names the place.

    >>> parse("[yes, 010, 1:30, 0o10, 1e3]")
    ['yes', 10, '1:30', 8, 1000.0]
    """
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _check_keys(node, set())
        return loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = "" if mark is None else f"line {mark.line + 1}, column {mark.column + 1}: "
        raise ValueError(f"{where}{error.problem}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(" ".join(str(error).split())) from None


def write(value: Any, *, on_one_line: bool = False) -> str:
    """Return plain values as YAML that `parse` reads back to equal ones.

    >>> write({"name": "010", "share": 0.5}, on_one_line=True)
    "{name: '010', share: 0.5}"
    """
    width = float("inf") if on_one_line else 80
    text: str = yaml.dump(
        value, Dumper=_Dumper, sort_keys=False, default_flow_style=on_one_line, width=width
    )
    return text.removesuffix("\n").removesuffix("...").strip() if on_one_line else text


def _check_keys(node: yaml.Node, seen: set[int]) -> None:
    """Refuse keys that are no text or stand twice, before `<<` merges anything."""
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for entry in node.value:
            _check_keys(entry, seen)
    elif isinstance(node, yaml.MappingNode):
        names: set[str] = set()
        for key, value in node.value:
            if key.tag != f"{_TAG}merge" and key.tag != f"{_TAG}str":
                shown = key.value if isinstance(key, yaml.ScalarNode) else "a collection"
                raise _refusal(f"the key {shown!r} is not text; put it in quotes", key)
            if key.value in names:
                raise _refusal(f"the key {key.value!r} stands twice; keep one", key)
            names.add(key.value)
            _check_keys(value, seen)


def _refusal(problem: str, node: yaml.Node) -> yaml.MarkedYAMLError:
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


def _integer(loader: _Loader, node: yaml.ScalarNode) -> int:
    text = node.value
    if len(text) > _LONGEST_INTEGER:
        raise _refusal(f"an integer of {len(text)} digits is too long", node)
    base = {"0o": 8, "0x": 16}.get(text[:2], 10)
    return int(text, base)


for _name, _pattern, _first in _CORE:
    _compiled = re.compile(rf"^(?:{_pattern})$")
    _Loader.add_implicit_resolver(f"{_TAG}{_name}", _compiled, list(_first))
    _Dumper.add_implicit_resolver(f"{_TAG}{_name}", _compiled, list(_first))
_Loader.add_constructor(f"{_TAG}int", _integer)
