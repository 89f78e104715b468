from __future__ import annotations

import json
import math
import pickle
from pathlib import Path

import pytest

from fedfuse_ray import files
from fedfuse_ray.errors import StorageError


def test_a_write_creates_the_folder_and_replaces_the_whole_file(tmp_path):
    path = tmp_path / "new" / "deep" / "a.txt"
    files.write_text(path, "a longer first text: ä\n")
    files.write_text(path, "short")
    assert path.read_text(encoding="utf-8") == "short"
    assert [p.name for p in path.parent.iterdir()] == ["a.txt"]
    assert path.stat().st_mode & 0o777 == 0o644


def test_a_write_that_fails_leaves_what_was_there_and_nothing_else(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")

    def fail(file):
        file.write(b"half of the ne")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        files.write_atomic(path, fail)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_reader_never_sees_a_part(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")

    def write(file):
        file.write(b"n")
        file.flush()
        assert path.read_bytes() == b"old"
        file.write(b"ew")

    files.write_atomic(path, write)
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_json_holds_only_numbers_that_every_reader_knows(tmp_path, value):
    path = tmp_path / "a.json"
    files.write_json(path, {"x": 1})
    with pytest.raises(ValueError, match="JSON compliant"):
        files.write_json(path, {"x": value})
    assert json.loads(path.read_text()) == {"x": 1}


def test_where_the_cache_is(monkeypatch):
    monkeypatch.setenv("FEDFUSE_RAY_CACHE", "/here")
    monkeypatch.setenv("XDG_CACHE_HOME", "/there")
    assert files.cache_folder() == Path("/here")
    monkeypatch.setenv("FEDFUSE_RAY_CACHE", "")
    assert files.cache_folder() == Path("/there/fedfuse_ray")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert files.cache_folder() == Path.home() / ".cache" / "fedfuse_ray"


def test_a_file_that_can_not_be_written_is_named_with_what_to_do(tmp_path):
    (tmp_path / "a").write_text("a file, no folder")
    path = tmp_path / "a" / "b.txt"
    with pytest.raises(StorageError) as caught:
        files.write_text(path, "x")
    assert str(caught.value).startswith(f"{path} can't be written: ")
    assert "--resume" in str(caught.value)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), type(again)) == (str(caught.value), StorageError)


def test_what_a_killed_process_left_half_written_is_removed(tmp_path, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(files.os, "replace", killed)
    monkeypatch.setattr(files.Path, "unlink", lambda *_, **__: None)
    with pytest.raises(KeyboardInterrupt):
        files.write_text(tmp_path / "deep" / "a.txt", "x")
    monkeypatch.undo()
    mine = tmp_path / ".mine"
    mine.write_text("a user's")
    assert len(list(tmp_path.rglob(".a.txt.*"))) == 1
    files.remove_unfinished(tmp_path)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [mine]
