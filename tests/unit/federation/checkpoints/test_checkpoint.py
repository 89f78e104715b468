from __future__ import annotations

import io

import numpy as np
import pytest

from fedfuse_ray.compression.codec import Setting
from fedfuse_ray.errors import FedfuseError, InputError
from fedfuse_ray.federation.checkpoints import archive
from fedfuse_ray.federation.checkpoints import checkpoint as checkpoints
from fedfuse_ray.federation.checkpoints.checkpoint import Checkpoint
from fedfuse_ray.federation.checkpoints.state import NoiseHistory, ServerState
from fedfuse_ray.federation.messages.released import Released
from fedfuse_ray.federation.messages.updates import Kept, Update
from fedfuse_ray.privacy.accounting.adaptive_budget import Signal
from tests.support.federations import random_blocks

SIZES = {"encoder/ct": 4, "fusion": 3, "head/x/ct": 1}
FULL = Checkpoint(
    round=7,
    weights=random_blocks(SIZES, 1),
    server=ServerState(
        strategy=random_blocks(SIZES, 2),
        average=random_blocks(SIZES, 4),
        held=random_blocks(SIZES, 5),
        tracked=Update(random_blocks(SIZES, 6), random_blocks({"fusion": 3}, 7)),
        used={"a": 6, "b-2": 3},
        released=Released(
            clip_norm=0.1,
            noise_factor=1.25,
            settings={"fusion": Setting(bits=5, fraction=0.3)},
        ),
        noise_history=NoiseHistory(spent=(1.0, 1.25), signals=(Signal(0.1, 0.2),)),
    ),
    institutions={
        "a": Kept(controls=random_blocks(SIZES, 3)),
        "b-2": Kept(
            controls={"fusion": np.float32([1, 2, 3])},
            memory={"control/fusion": np.float32([4, 5, 6]), "head/x/ct": np.float32([7])},
        ),
    },
)


def same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name])
        assert a[name].dtype == b[name].dtype


def same_update(a, b):
    same(a.weights, b.weights)
    same(a.controls, b.controls)


def equal(a, b):
    assert a.round == b.round
    same(a.weights, b.weights)
    assert (a.server is None) == (b.server is None)
    if a.server is not None:
        for part in ("strategy", "average", "held"):
            same(getattr(a.server, part), getattr(b.server, part))
        same_update(a.server.tracked, b.server.tracked)
        for part in ("used", "released", "noise_history"):
            assert getattr(a.server, part) == getattr(b.server, part)
    assert a.institutions.keys() == b.institutions.keys()
    for who, kept in a.institutions.items():
        same(kept.controls, b.institutions[who].controls)
        same(kept.memory, b.institutions[who].memory)


def test_a_checkpoint_comes_back_as_it_was(tmp_path):
    path = checkpoints.save(tmp_path, FULL)
    assert path == checkpoints.path_of(tmp_path, 7)
    assert checkpoints.round_of(path) == 7
    equal(checkpoints.read(path), FULL)


def test_a_checkpoint_without_states_comes_back_too(tmp_path):
    bare = Checkpoint(0, random_blocks(SIZES))
    equal(checkpoints.read(checkpoints.save(tmp_path, bare)), bare)


def test_only_the_newest_two_are_kept(tmp_path):
    for round in range(1, 13):
        checkpoints.save(tmp_path, Checkpoint(round, FULL.weights))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["round-000011.npz", "round-000012.npz"]


def test_a_checkpoint_cut_off_anywhere_is_refused(tmp_path):
    data = checkpoints.save(tmp_path, FULL).read_bytes()
    path = tmp_path / "cut.npz"
    for length in range(0, len(data), 7):
        path.write_bytes(data[:length])
        with pytest.raises(FedfuseError, match=r"cut\.npz can't be read"):
            checkpoints.read(path)


def test_an_altered_byte_is_refused_or_changes_nothing(tmp_path):
    data = checkpoints.save(tmp_path, FULL).read_bytes()
    path = tmp_path / "altered.npz"
    refused = 0
    for position in range(len(data)):
        altered = bytearray(data)
        altered[position] ^= 0xFF
        path.write_bytes(altered)
        try:
            equal(checkpoints.read(path), FULL)
        except FedfuseError:
            refused += 1
    # What may be altered unnoticed are time stamps and permissions inside the archive.
    assert refused > len(data) / 2


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "other.npz"
    with pytest.raises(FedfuseError, match=r"other\.npz"):
        checkpoints.read(path)
    buffer = io.BytesIO()
    np.savez(buffer, x=np.zeros(2))
    for content in (b"", b"text", buffer.getvalue()):
        path.write_bytes(content)
        with pytest.raises(FedfuseError, match=r"other\.npz"):
            checkpoints.read(path)


def test_the_latest_is_the_newest_that_can_be_read(tmp_path):
    assert checkpoints.latest(tmp_path / "nowhere", 99) is None
    assert checkpoints.latest(tmp_path, 99) is None
    for round in (9, 10):
        checkpoints.save(tmp_path, Checkpoint(round, FULL.weights))
    old, new = (checkpoints.path_of(tmp_path, round) for round in (9, 10))
    assert checkpoints.latest(tmp_path, 99) == new
    assert checkpoints.latest(tmp_path, 10) == new
    assert checkpoints.latest(tmp_path, 9) == old
    assert checkpoints.latest(tmp_path, 8) is None
    new.write_bytes(new.read_bytes()[:-9])
    assert checkpoints.latest(tmp_path, 99) == old
    old.write_bytes(b"")
    assert checkpoints.latest(tmp_path, 99) is None


def older(folder, round, **facts):
    """Write a checkpoint as an older version did, with the server's state in one dict."""
    path = checkpoints.path_of(folder, round)
    arrays = {f"weights|{name}": vector for name, vector in FULL.weights.items()}
    arrays |= {"strategy|average/fusion": np.zeros(3, np.float32)}
    archive.write(path, {"round": round, "carried": {}, **facts}, arrays)
    return path


@pytest.mark.parametrize("facts", [{}, {"format": 1}, {"format": 99}])
def test_a_checkpoint_of_another_format_is_refused_and_not_begun_anew(tmp_path, facts, caplog):
    path = older(tmp_path, 3, **facts)
    for look in (lambda: checkpoints.read(path), lambda: checkpoints.latest(tmp_path, 99)):
        with pytest.raises(InputError, match="another version of fedfuse_ray") as told:
            look()
        assert (told.value.field, told.value.value) == ("checkpoint", path)
    assert not caplog.records
    # A newer one that is broken does not hide it, and one of today's that is newer does.
    newer = checkpoints.path_of(tmp_path, 4)
    newer.write_bytes(b"")
    with pytest.raises(InputError, match="another version"):
        checkpoints.latest(tmp_path, 99)
    newer.unlink()
    assert checkpoints.latest(tmp_path, 2) is None
    checkpoints.save(tmp_path, Checkpoint(4, FULL.weights))
    assert checkpoints.latest(tmp_path, 99) == newer


def test_what_a_killed_process_left_half_written_is_not_a_checkpoint(tmp_path):
    path = checkpoints.save(tmp_path, Checkpoint(1, FULL.weights))
    (tmp_path / ".round-000002.npz.x7f_k").write_bytes(path.read_bytes()[:50])
    assert checkpoints.latest(tmp_path, 99) == path
    checkpoints.save(tmp_path, Checkpoint(2, FULL.weights))
    assert checkpoints.latest(tmp_path, 99) == checkpoints.path_of(tmp_path, 2)


def test_clearing_leaves_nothing_to_resume_from(tmp_path):
    checkpoints.clear(tmp_path / "nowhere")
    checkpoints.save(tmp_path, FULL)
    (tmp_path / "alone-a.npz").write_bytes(b"x")
    (tmp_path / "notes.txt").write_text("mine")
    checkpoints.clear(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]
