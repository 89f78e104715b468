"""Nothing that comes from an institution, or from a file, is ever unpickled."""

from __future__ import annotations

import ast

import pytest

from tests.support.paths import ROOT

SOURCES = sorted(p for d in ("fedfuse_ray", "actors") for p in (ROOT / d).rglob("*.py"))
PICKLERS = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}


def offences(code):
    """Return the lines of a module that could unpickle."""
    found = []
    for node in ast.walk(ast.parse(code)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            given = {k.arg: getattr(k.value, "value", None) for k in node.keywords}
            owner = getattr(node.func.value, "id", "")
            if owner in ("np", "numpy") and node.func.attr == "load":
                found += [node.lineno] if given.get("allow_pickle", True) is not False else []
            if owner == "torch" and node.func.attr == "load":
                found += [node.lineno] if given.get("weights_only") is not True else []
        found += [node.lineno for name in names if name.partition(".")[0] in PICKLERS]
    return found


def test_there_are_sources_to_look_at():
    assert len(SOURCES) > 100


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from cloudpickle import loads",
        "np.load(f)",
        "np.load(f, allow_pickle=True)",
        "torch.load(f)",
        "torch.load(f, weights_only=False)",
    ],
)
def test_each_way_to_unpickle_is_found(code):
    assert offences(code) == [1]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_module_unpickles(path):
    assert offences(path.read_text()) == []
