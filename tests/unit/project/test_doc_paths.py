"""The files and rooms that the documentation names exist, and architecture.md draws every room."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.paths import DOCS, ROOT

PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS.glob("*.md")])
PRODUCT = ROOT / "fedfuse_ray"
BASES = (ROOT, PRODUCT, PRODUCT / "federation", DOCS)
"""From where a path may start: pages that say so leave the product's folder out."""

SOURCES = {".py", ".md", ".yaml", ".toml", ".svg", ".css", ".js"}
TREES = {"fedfuse_ray", "actors", "tests", "docs", "benchmarks", "examples", "tune_configs"}
ROOMS = {p.parent.name for base in (PRODUCT, PRODUCT / "federation") for p in base.glob("*/*.py")}
CODE = sorted(p for tree in TREES for p in (ROOT / tree).rglob("*.py"))

_FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"`([^`]+)`")
_PLACEHOLDER = re.compile(r"(?<![A-Za-z])[A-Z][A-Z_0-9]+(?![A-Za-z])")
_ROOM = re.compile(r"^(?P<indent> *)(?P<name>[a-z_]+)/ ", re.MULTILINE)


def named_paths(text):
    """Yield what a page names in backticks that is a path into the checkout."""
    for span in _SPAN.findall(_FENCE.sub("", text)):
        for word in span.split():
            path = word.strip(",;:()'\"").partition(":")[0]
            first, slash, _ = path.partition("/")
            if re.search(r"[^\w./*-]", path) or path.startswith(("/", ".")):
                continue
            folder = path.endswith("/") and first in ROOMS
            source = slash and Path(path).suffix in SOURCES
            if source or folder or path.endswith(".py") or (slash and first in TREES):
                yield path


def exists(path):
    """Whether there is such a file or folder; capitals and stars stand for any name."""
    pattern = _PLACEHOLDER.sub("*", path.rstrip("/"))
    if "/" not in path.rstrip("/") and path.endswith(".py"):
        return any(p.match(pattern) for p in CODE)
    return any(any(base.glob(pattern)) for base in BASES)


def missing(text):
    return [path for path in named_paths(text) if not exists(path)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_files_that_are_named_exist(page):
    assert missing(page.read_text()) == []


def test_a_file_that_is_gone_is_noticed():
    text = (
        "`federation/modes/plain.py` `config/presets/systems/NAME.yaml` `tests/unit/` `masked.py`\n"
        "`runs/demo` `encoder/MODALITY` `config.yaml` `/tmp/ray/a.py` `tests/unit/project/*.py`\n"
        "`pytest tests/unit/gone/test_a.py`, `federation/gone.py:12`, `old_name.py`\n"
        "`modes/gone.py` `compression/gone/` `docs/gone.md` `gone/presets/NAME.yaml`\n"
        "`benchmarks/results/gone`\n"
    )
    assert missing(text) == [
        "tests/unit/gone/test_a.py",
        "federation/gone.py",
        "old_name.py",
        "modes/gone.py",
        "compression/gone/",
        "docs/gone.md",
        "gone/presets/NAME.yaml",
        "benchmarks/results/gone",
    ]


def drawn_rooms(text):
    """Return the folders of the tree in a page's first fence, relative to the checkout."""
    path: list[str] = []
    rooms = []
    for match in _ROOM.finditer(_FENCE.search(text).group() + " "):
        depth = len(match["indent"]) // 2
        path = [*path[:depth], match["name"]]
        rooms.append(Path(*path))
    return rooms


def test_the_tree_draws_every_room_and_no_other():
    drawn = drawn_rooms((DOCS / "architecture.md").read_text().replace("/\n", "/ \n"))
    assert [str(room) for room in drawn if not (ROOT / room).is_dir()] == []
    inside = [PRODUCT, PRODUCT / "federation"]
    rooms = {p.parent.relative_to(ROOT) for base in inside for p in base.glob("*/*.py")}
    assert sorted(map(str, rooms - set(drawn))) == []


def test_a_room_that_is_not_there_is_drawn_with_its_path():
    tree = (
        "```\nfedfuse_ray/ \n  federation/   logic\n    attic/  what is old\n  data/  tables\n```\n"
    )
    assert [str(room) for room in drawn_rooms(tree)] == [
        "fedfuse_ray",
        "fedfuse_ray/federation",
        "fedfuse_ray/federation/attic",
        "fedfuse_ray/data",
    ]
