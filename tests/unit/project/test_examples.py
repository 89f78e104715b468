"""The examples in docstrings do what they say."""

from __future__ import annotations

import doctest
import importlib

import pytest

from tests.support.paths import ROOT
from tests.support.rooms import PRODUCT, sources

WITH_EXAMPLES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in sources(ROOT, *PRODUCT)
    if ">>> " in path.read_text()
]


def test_there_are_examples():
    assert len(WITH_EXAMPLES) >= 10


def test_an_example_that_does_something_else_is_found():
    def wrong():
        """Add.

        >>> 1 + 1
        3
        """

    (found,) = doctest.DocTestFinder().find(wrong, "wrong", module=False)
    assert doctest.DocTestRunner(verbose=False).run(found, out=lambda _: None).failed == 1


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples_do_what_they_say(name):
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted
    assert not result.failed
