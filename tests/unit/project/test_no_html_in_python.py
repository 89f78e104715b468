"""HTML is in templates and assets, where the library escapes what users wrote."""

from __future__ import annotations

import ast
import re

import pytest

from tests.support.paths import ROOT

SOURCES = sorted(p for d in ("fedfuse_ray", "actors") for p in (ROOT / d).rglob("*.py"))
TAG = re.compile(r"</?[a-zA-Z][a-zA-Z0-9-]*(\s[^<>]*)?/?>|<(img|svg|a|div|span|td)\s")


def docstrings(tree):
    """Yield strings that stand alone: docstrings name folders as `<domain>/`, for readers."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            yield node.value


def tags(code):
    """Return the lines of a module whose strings hold a tag, docstrings aside."""
    tree = ast.parse(code)
    told = {id(node) for node in docstrings(tree)}
    found = {
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and id(node) not in told
        and TAG.search(node.value)
    }
    return sorted(found)


@pytest.mark.parametrize(
    "code",
    [
        "x = '<b>'",
        "x = f'<p>{y}</p>'",
        "x = f'{y}</td>'",
        "x = f'<a href={y}>z'",
        "x = 'a' 'b<br>c'",
        "x = '%{y}<extra></extra>'",
        "def f(x='<br/>'): ...",
        'x = [\'<img src="a" alt="b">\']',
    ],
)
def test_each_way_to_write_a_tag_is_found(code):
    assert tags(code) == [1]


@pytest.mark.parametrize(
    "code", ["x = a < b > c", "x = '1 <2 and 3> 2'", "x = 'a <- b'", "def f():\n    '<domain>'"]
)
def test_what_is_no_tag_is_left_alone(code):
    assert tags(code) == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_string_holds_a_tag(path):
    assert tags(path.read_text()) == []
