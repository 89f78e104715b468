"""An account's file: only ever longer, kept by one process at a time, tampering found."""

from __future__ import annotations

import json
import multiprocessing
import os
import stat

import pytest

from fedfuse_ray.accounts.store import read, writing
from fedfuse_ray.errors import FedfuseError, InputError, StorageError
from tests.support.privacy.accounts import charges, coming, units

HELD = units(["x"], ["y"])


def enter(path, id, held=HELD):
    with writing(path) as writer:
        run = coming(id, {"a": (held, charges())})
        writer.add(run.lines(writer.book))


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "new folder" / "account.jsonl"
    enter(path, "1")
    enter(path, "2")
    return path


def test_an_account_is_read_as_it_was_written(path):
    book = read(path)
    assert list(book.runs) == ["1", "2"]
    assert book.runs["2"].groups["a"].charges == charges()
    kinds = [json.loads(line)["entry"] for line in path.read_text().splitlines()]
    assert kinds == ["account", "units", "run", "run"]  # equal units stand once
    assert read(path.parent / "none.jsonl").runs == {}


def test_only_its_owner_reads_it(path):
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_what_is_there_is_never_changed(path):
    before = path.read_bytes()
    enter(path, "3", units(["z"]))
    assert path.read_bytes().startswith(before)


@pytest.mark.parametrize("tamper", ["change", "drop", "swap", "add", "blank"])
def test_a_broken_chain_is_refused_on_one_line(path, tamper):
    lines = path.read_text().splitlines(keepends=True)
    changed = {
        "change": [*lines[:2], lines[2].replace('"count": 1', '"count": 0'), lines[3]],
        "drop": [*lines[:2], lines[3]],
        "swap": [*lines[:2], lines[3], lines[2]],
        "add": [*lines, lines[3]],
        "blank": [*lines, "\n"],
    }[tamper]
    path.write_text("".join(changed))
    for act in (lambda: read(path), lambda: enter(path, "4")):
        with pytest.raises(InputError, match="was altered: entry") as error:
            act()
        assert "\n" not in str(error.value)
    assert path.read_text() == "".join(changed)


def test_another_file_is_no_account_and_is_left_alone(tmp_path):
    for text in ("patient,label", "patient,label\n", '{"entry": "run"}\n', '{"entry": "x'):
        path = tmp_path / "mine.csv"
        path.write_text(text)
        with pytest.raises(InputError, match=r"--account"):
            enter(path, "1")
        assert path.read_text() == text


def test_a_line_that_a_crash_cut_off_is_taken_out_and_an_entry_says_so(path):
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"entry": "run", "id": "3", "what"')
    assert list(read(path).runs) == ["1", "2"]
    assert path.read_bytes() != whole  # reading repairs nothing
    enter(path, "4")
    assert path.read_bytes().startswith(whole)
    told = json.loads(path.read_bytes()[len(whole) :].splitlines()[0])
    assert (told["entry"], told["bytes"]) == ("repaired", 34)
    assert list(read(path).runs) == ["1", "2", "4"]


@pytest.mark.parametrize("size", [1, 8, 19, 40])
def test_an_account_whose_first_line_was_cut_off_begins_anew(path, size):
    path.write_bytes(path.read_bytes()[:size])
    enter(path, "1")
    kinds = [json.loads(line)["entry"] for line in path.read_text().splitlines()]
    assert kinds == ["account", "repaired", "units", "run"]


def test_an_entry_that_does_not_fit_on_the_disk_leaves_nothing(path, monkeypatch):
    before, write = path.read_bytes(), os.write

    def full(handle, data):
        if len(data) < 200:
            raise OSError(28, "No space left on device")
        return write(handle, bytes(data)[:100])

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(StorageError, match="No space left"):
        enter(path, "3")
    monkeypatch.undo()
    assert path.read_bytes() == before
    enter(path, "3")
    assert list(read(path).runs) == ["1", "2", "3"]


def test_an_entry_that_makes_no_sense_is_not_written(path):
    before = path.read_bytes()
    with writing(path) as writer, pytest.raises(FedfuseError):
        writer.add(['{"entry": "settled", "id": "unknown", "charges": [], "charged": {}}'])
    assert path.read_bytes() == before


def _enter_many(path, name):
    for number in range(20):
        enter(path, f"{name}-{number}", units([f"{name}-{number}"]))


def test_processes_that_enter_at_once_lose_no_entry(path):
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_enter_many, args=(path, name)) for name in "pqr"]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert len(read(path).runs) == 2 + 60
