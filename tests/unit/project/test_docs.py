"""The documentation is complete, up to date, and points at things that exist."""

from __future__ import annotations

import importlib.util
import re
import shlex
from itertools import pairwise
from urllib.parse import unquote

import pytest
import typer

from fedfuse_ray import cli
from fedfuse_ray.config import json_schema, preset_names
from fedfuse_ray.config.settings.base import Config
from fedfuse_ray.runs.reading import paradigm_names, read_experiment
from tests.support.paths import DOCS, ROOT

PAGES = sorted([ROOT / "README.md", *DOCS.glob("*.md")])
OTHERS = [ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted(ROOT.glob("examples/*/*.md"))]
UNMEASURED = "to be measured"

_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ +(.*?) *$", re.MULTILINE)
_FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_COMMAND = re.compile(r"python -m fedfuse_ray +([a-z]+)")
_RUN = re.compile(
    r"(?:^|[`;]|: )(?:python -m fedfuse_ray )?((?:run|compare) [^`;\n]*)", re.MULTILINE
)
_SETTING = re.compile(r"--set[ =]([a-z_0-9.A-Z-]+)=([^\s`]+)")


def name(page):
    return str(page.relative_to(ROOT))


@pytest.fixture(scope="module")
def maker():
    spec = importlib.util.spec_from_file_location(
        "make_configuration", DOCS / "make_configuration.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def anchors(text):
    """Return the anchors that GitHub gives a page's headings."""
    headings = _HEADING.findall(_FENCE.sub("", text))
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


def broken_links(page):
    for target in _LINK.findall(_FENCE.sub("", page.read_text())):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = page.parent / unquote(path) if path else page
        if not file.exists():
            yield f"{target}: no such file"
        elif anchor and anchor not in anchors(file.read_text()):
            yield f"{target}: no such heading"


@pytest.mark.parametrize("page", [*PAGES, *OTHERS], ids=name)
def test_relative_links_lead_somewhere(page):
    assert list(broken_links(page)) == []


def test_a_broken_link_is_noticed(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# One two\n[a](#one-two) [b](#three) [c](gone.md) [d](https://example.org)\n")
    assert list(broken_links(page)) == ["#three: no such heading", "gone.md: no such file"]


def test_the_configuration_page_is_up_to_date(maker):
    assert (DOCS / "configuration.md").read_text() == maker.configuration(), (
        "run `python docs/make_configuration.py`"
    )


def test_the_schema_is_up_to_date():
    assert (DOCS / "experiment.schema.json").read_text() == json_schema(), "run `make schema`"


def test_a_setting_without_a_meaning_is_refused(maker):
    class Silent(Config):
        """Says nothing."""

        quiet: int = 0

    with pytest.raises(KeyError, match=r"Silent\.quiet"):
        list(maker.settings("", Silent))


def test_bounds_and_defaults_are_read_off_the_models(maker):
    text = maker.configuration()
    row = next(line for line in text.splitlines() if line.startswith("| `data.image_size`"))
    assert row.startswith("| `data.image_size` | integer | 32 | at least 16, at most 512 |")
    assert "| `strategy.server_momentum` | number | 0 | at least 0, below 1 |" in text


@pytest.mark.parametrize("page", [*PAGES, *OTHERS], ids=name)
def test_the_commands_that_are_shown_exist(page):
    known = set(typer.main.get_command(cli.app).commands)
    assert set(_COMMAND.findall(page.read_text())) <= known


@pytest.mark.parametrize("page", [*PAGES, *OTHERS], ids=name)
def test_the_settings_that_are_shown_exist(page, maker):
    shown = {setting for setting, _ in _SETTING.findall(page.read_text())} - {"a.b"}
    known = set(re.findall(r"^\| `([^`]+)`", maker.configuration(), re.MULTILINE))
    patterns = [re.compile(re.sub(r"[A-Z]{4,}", "[^.]+", re.escape(k)) + "$") for k in known]
    groups = {k.rpartition(".")[0] for k in known}
    assert [s for s in shown if s not in groups and not any(p.match(s) for p in patterns)] == []


def experiments(text):
    """Return the arguments of every `run` or `compare` of a preset that a page shows."""
    for line in _RUN.findall(text):
        words = shlex.split(line.partition("-->")[0], comments=True)
        if len(words) > 1 and words[1] in preset_names():
            yield words


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_the_experiments_that_are_shown_are_valid(page):
    for command, preset, *options in experiments(page.read_text()):
        pairs = dict.fromkeys(["--paradigm", "--paradigms", "--seed", "--executor"])
        pairs |= {o: v for o, v in pairwise(options) if o in pairs}
        settings = [v for o, v in pairwise(options) if o == "--set"]
        named = paradigm_names(pairs["--paradigms"]) if command == "compare" else [None]
        for paradigm in named:
            read_experiment(
                preset,
                settings=settings,
                paradigm=paradigm or pairs["--paradigm"],
                seed=pairs["--seed"],
                executor=pairs["--executor"],
            )


def test_experiments_are_found_in_code_in_comments_and_between_ticks():
    text = (
        "run demo --seed 3\n| `run tiny` | x <!-- measured: python -m fedfuse_ray run demo --> |\n"
    )
    assert list(experiments(text)) == [
        ["run", "demo", "--seed", "3"],
        ["run", "tiny"],
        ["run", "demo"],
    ]


def test_the_readme_names_every_preset():
    text = (ROOT / "README.md").read_text()
    assert [preset for preset in preset_names() if f"`{preset}`" not in text] == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_number_was_measured(page):
    lines = page.read_text().splitlines()
    assert [n for n, line in enumerate(lines, 1) if UNMEASURED in line] == []
