"""How the house stays in order: what may stand in a room, and how long and how wide it is.

Each rule is first held against a made-up checkout that breaks it.
"""

from __future__ import annotations

import pytest

from tests.support import rooms
from tests.support.paths import ROOT

FILES, LINES, IMPORTS = 16, 300, 25
RAY = ("actors", "fedfuse_ray.studies.sweeping.on_ray")
ANY = {
    # Ray's references and handles have no types.
    "actors.cluster",
    "actors.hosts",
    "actors.server_handle",
    "actors.starting",
    "fedfuse_ray.studies.sweeping.on_ray",
    # Values of a setting, and trees of YAML and JSON before they are validated.
    "fedfuse_ray.accounts.book",
    "fedfuse_ray.accounts.charges",
    "fedfuse_ray.accounts.terms",
    "fedfuse_ray.config.sources",
    "fedfuse_ray.yaml12",
    "fedfuse_ray.report.schema",
    "fedfuse_ray.report.provenance",
    "fedfuse_ray.report.reading",
    "fedfuse_ray.report.store",
    "fedfuse_ray.runs.verifying",
    "fedfuse_ray.studies.reproducing.cells",
    "fedfuse_ray.studies.reproducing.results",
    "fedfuse_ray.studies.reproducing.scale",
    "fedfuse_ray.studies.sweeping.config",
    "fedfuse_ray.studies.sweeping.loading",
    "fedfuse_ray.studies.sweeping.store",
    "fedfuse_ray.studies.sweeping.summary",
    "fedfuse_ray.studies.watching.jobs",
    "fedfuse_ray.studies.watching.snapshot",
    # Figures are plotly's, which has no types.
    "fedfuse_ray.report.communication",
    "fedfuse_ray.report.comparison",
    "fedfuse_ray.report.convergence",
    "fedfuse_ray.report.figures",
    "fedfuse_ray.report.run_page",
    "fedfuse_ray.report.page",
    "fedfuse_ray.report.theme",
    "fedfuse_ray.report.units",
    "fedfuse_ray.audit.findings",
    "fedfuse_ray.audit.run",
    "fedfuse_ray.studies.sweeping.report",
    # numpy's width of a number, and what TenSEAL, torch and dp-accounting leave open.
    "fedfuse_ray.packing",
    "fedfuse_ray.compression.modint",
    "fedfuse_ray.data.importers.scaling",
    "fedfuse_ray.models.encoders.imagenet",
    "fedfuse_ray.privacy.accounting.epsilon",
    "fedfuse_ray.privacy.accounting.groups",
    "fedfuse_ray.privacy.mechanisms.homomorphic",
    "fedfuse_ray.federation.checkpoints.alone",
    "fedfuse_ray.federation.checkpoints.archive",
    "fedfuse_ray.federation.checkpoints.checkpoint",
    "fedfuse_ray.federation.institution.private_gradients",
    "fedfuse_ray.federation.modes.integers",
    "fedfuse_ray.federation.plan.selection",
    "fedfuse_ray.federation.strategies",
}


@pytest.fixture
def checkout(tmp_path):
    """Return what writes a file of a made-up checkout."""

    def write(path, text='"""A room."""\n'):
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return tmp_path

    write("fedfuse_ray/__init__.py")
    return write


def test_a_crowded_folder_is_found(checkout):
    for number in range(FILES):
        root = checkout(f"tests/unit/test_{number}.py")
    assert rooms.crowded(root, ("tests",), FILES) == []
    checkout("tests/unit/one_more.py")
    assert rooms.crowded(root, ("tests",), FILES) == ["tests/unit: 17 files"]


def test_no_folder_is_crowded():
    assert rooms.crowded(ROOT, (*rooms.PRODUCT, "tests"), FILES) == []


def test_a_long_file_is_found(checkout):
    root = checkout("fedfuse_ray/long.py", "x = 1\n" * LINES)
    assert rooms.too_long(root, LINES) == []
    checkout("fedfuse_ray/long.py", "x = 1\n" * (LINES + 1))
    assert rooms.too_long(root, LINES) == ["fedfuse_ray/long.py: 301 lines"]


def test_no_file_is_too_long():
    assert rooms.too_long(ROOT, LINES) == []


def test_a_module_that_imports_too_many_others_is_found(checkout):
    for number in range(3):
        checkout(f"fedfuse_ray/m{number}.py")
    text = (
        "import os\nfrom fedfuse_ray import m0, m1\nif x:\n    import fedfuse_ray.m0\n"
        "def late():\n    from fedfuse_ray.m2 import name, other\n"
    )
    root = checkout("fedfuse_ray/wide.py", text)
    assert rooms.too_many_imports(root, 3) == []
    assert rooms.too_many_imports(root, 2) == ["fedfuse_ray.wide: 3 modules"]


def test_no_module_imports_too_many_others():
    assert rooms.too_many_imports(ROOT, IMPORTS) == []


@pytest.mark.parametrize("text", ["", "import os\n", '"""Codecs, one a file"""\n'])
def test_a_room_that_says_nothing_is_found(checkout, text):
    checkout("fedfuse_ray/codecs/fp32.py")
    root = checkout("fedfuse_ray/codecs/__init__.py", text)
    assert rooms.rooms_without_a_sentence(root) == ["fedfuse_ray/codecs"]


def test_a_room_without_an_init_is_found(checkout):
    assert rooms.rooms_without_a_sentence(checkout("fedfuse_ray/runs/run.py")) == [
        "fedfuse_ray/runs"
    ]


def test_each_room_says_in_a_sentence_who_lives_there():
    assert rooms.rooms_without_a_sentence(ROOT) == []


def test_any_and_ray_are_found_wherever_they_are_imported(checkout):
    checkout("actors/hosts.py", "import ray\nfrom typing import Any\n")
    root = checkout(
        "fedfuse_ray/late.py", "def f():\n    from ray.util import x\n    import typing\n"
    )
    checkout("fedfuse_ray/tree.py", "from typing import Any, Literal\n")
    assert rooms.users_of_ray(root, ()) == ["actors.hosts", "fedfuse_ray.late"]
    assert rooms.users_of_ray(root, ("actors",)) == ["fedfuse_ray.late"]
    assert rooms.users_of_any(root, ("actors.hosts",)) == ["fedfuse_ray.tree"]


def test_any_stands_only_where_there_is_no_better_type():
    assert rooms.users_of_any(ROOT, ANY) == []


def test_only_the_rooms_of_ray_import_ray():
    assert rooms.users_of_ray(ROOT, RAY) == []


def test_an_import_from_a_test_module_is_found(checkout):
    checkout("tests/unit/test_a.py", "from tests.support.paths import test_data\n")
    root = checkout("tests/unit/test_b.py", "from tests.unit.test_a import helper\n")
    assert rooms.imports_from_tests(root) == ["tests/unit/test_b.py: tests.unit.test_a.helper"]


def test_no_test_imports_from_a_test_module():
    assert rooms.imports_from_tests(ROOT) == []


@pytest.mark.parametrize(
    ("call", "found"),
    [
        ('monkeypatch.setattr(module, "_name", 1)', True),
        ('monkeypatch.setattr("package.module._name", 1)', True),
        ('mock.patch("package.module._name")', True),
        ('mock.patch.object(module, "_name")', True),
        ('monkeypatch.setattr(module, "name", 1)', False),
        ('monkeypatch.setattr("package.module.name", 1)', False),
        ('monkeypatch.setattr(module, "__version__", "_1")', False),
    ],
)
def test_a_private_name_that_is_patched_is_found(checkout, call, found):
    root = checkout("tests/unit/test_a.py", f"def test_it(monkeypatch):\n    {call}\n")
    assert bool(rooms.private_patches(root)) is found


def test_no_test_patches_a_private_name():
    assert rooms.private_patches(ROOT) == []
