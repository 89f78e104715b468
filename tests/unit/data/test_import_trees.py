"""Trees as people have them: what lies about in them, and names that are no names."""

from __future__ import annotations

import os
import sys

import pytest

from fedfuse_ray.data.importers import import_to_manifest
from fedfuse_ray.errors import InputError
from tests.support.importer_files import png
from tests.support.processes.commands import done, refused


@pytest.fixture
def tree(tmp_path):
    for label in ("a", "b"):
        for i in range(8):
            path = tmp_path / "tree" / "med" / "xray" / label / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(png(10 * i + len(label)))
    return tmp_path / "tree"


def imported(tree, institutions=2):
    told = []
    out = tree.parent / "out"
    path = import_to_manifest(tree, out, institutions=institutions, tell=told.append)
    return path, told


@pytest.mark.parametrize(
    "strange", ["med/xray/.ipynb_checkpoints", "__MACOSX/xray/a", "med/.git/a", "med/xray/@eaDir"]
)
def test_what_machines_leave_behind_is_passed_over_and_told(strange, tree):
    extra = tree / strange
    extra.mkdir(parents=True)
    (extra / "x.png").write_bytes(png())
    path, told = imported(tree)
    assert ["Passed over 1 hidden and system files" in line for line in told] == [True]
    assert "a, b" in done("data", "describe", path)


def test_files_of_other_kinds_are_told(tree):
    (tree / "med" / "xray" / "a" / "notes.txt").write_text("x")
    (tree / "med" / "xray" / "b" / "scan.mrc").write_bytes(b"x")
    _, told = imported(tree)
    assert told == ["Passed over 2 files of other kinds: 1 .txt, 1 .mrc"]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_a_name_in_another_encoding_is_refused_by_the_command(tree):
    name = os.fsencode(tree / "med" / "xray" / "a") + b"/caf\xe9.png"
    with open(name, "wb") as file:
        file.write(png())
    line = refused("data", "import", tree, "--out", tree.parent / "out", "--institutions", 2)
    assert "caf" in line
    assert "not UTF-8" in line
    assert not (tree.parent / "out").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda tree: (tree / "med").rename(tree / "my med"), "'my med'"),
        (lambda tree: (tree / "med" / "xray").rename(tree / "med" / "röntgen"), "'röntgen'"),
        (lambda tree: (tree / "med" / "xray" / "b").rename(tree / "med" / "xray" / "A"), "'A'"),
        (lambda tree: (tree / "med" / "xray" / "b").rename(tree / "med" / "xray" / "nan"), "'nan'"),
        (lambda tree: (tree / "med" / "xray" / "a" / "0.png").write_bytes(b"no image"), "0.png"),
    ],
)
def test_no_manifest_is_written_that_a_run_would_refuse(change, said, tree):
    change(tree)
    with pytest.raises(InputError, match=said):
        imported(tree)
    assert not list(tree.parent.glob("out/*"))


def test_labels_that_look_like_markup_are_shown_as_they_are(tree):
    for old, new in (("a", "grade [b]"), ("b", "[red]x")):
        (tree / "med" / "xray" / old).rename(tree / "med" / "xray" / new)
    path, _ = imported(tree)
    assert "[red]x, grade [b]" in done("data", "describe", path)
