"""Runs, comparisons and trials that are verified, interrupted and tampered with."""

from __future__ import annotations

import json
import shutil

import pytest

from fedfuse_ray import cli
from fedfuse_ray.errors import InputError
from fedfuse_ray.federation.modes.outcome import EVERYONE
from fedfuse_ray.federation.rounds.serial import SerialExecutor
from fedfuse_ray.privacy.accounting.chain import Chain
from fedfuse_ray.runs import running, verifying
from fedfuse_ray.runs.sealing import KEY, LEDGER, SEAL, LedgerSeal, read_seal
from tests.support.federations import tiny

EXPERIMENT = tiny("training.rounds=4", paradigm="fedfuse")


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "private"
    running.run(EXPERIMENT, folder)
    return folder


@pytest.fixture
def folder(original, tmp_path):
    return shutil.copytree(original, tmp_path / "copy")


class Dying(SerialExecutor):
    """Dies after a round was charged and before it is aggregated."""

    def train(self, round, attendance=EVERYONE, epoch=0):
        if round == 3:
            raise KeyboardInterrupt
        return super().train(round, attendance, epoch)


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "interrupted"
    with pytest.raises(KeyboardInterrupt):
        running.run(EXPERIMENT, folder, executor=Dying())
    return folder


@pytest.fixture
def broken(interrupted, tmp_path):
    return shutil.copytree(interrupted, tmp_path / "broken")


def failed(folder, *keys):
    """Return the checks that fail, by name."""
    return {c.name: c.detail for c in verifying.verify_run(folder, keys) if c.passed is False}


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_a_run_that_nobody_touched_passes(original):
    key = read_seal(original).fingerprint
    checks = {c.name: c.passed for c in verifying.verify_run(original, [key])}
    assert checks.pop("noise") is None  # derived from the seed, which says for whom it holds
    assert set(checks.values()) == {True}
    assert not (original / KEY).exists()


def test_one_altered_byte_ends_the_command_with_the_entry_named(folder, capsys):
    edit(
        folder / LEDGER,
        '"round": 2, "institution": "med-02"',
        '"round": 3, "institution": "med-02"',
    )
    assert cli.main(["verify", str(folder)]) == 1
    assert "entry 5 (institution med-02, round 3, as it now reads)" in capsys.readouterr().err


def test_without_its_tail_the_ledger_is_too_short(folder):
    lines = (folder / LEDGER).read_text().splitlines(keepends=True)
    (folder / LEDGER).write_text("".join(lines[:-3]))
    assert "entry 10 and those after it are missing" in failed(folder)["end"]


@pytest.mark.parametrize(
    ("name", "old", "new", "check"),
    [
        ("summary.json", '"epsilon": 0.9', '"epsilon": 0.4', "epsilon"),
        ("summary.json", '"med-01": 0.9', '"med-01": 0.4', "epsilon"),
        ("summary.json", '"rounds": 4', '"rounds": 3', "rounds"),
        ("config.yaml", "seed: 0", "seed: 1", "files"),
        ("environment.json", "{", "{ ", "files"),
        (SEAL, '"entries": 12', '"entries": 11', "seal"),
    ],
)
def test_what_stands_beside_the_ledger_can_not_be_changed(folder, name, old, new, check):
    edit(folder / name, old, new)
    assert check in failed(folder)


def test_the_model_is_the_one_that_was_signed(folder):
    newest = max((folder / "checkpoints").glob("round-*.npz"))
    shutil.copy(min((folder / "checkpoints").glob("round-*.npz")), newest)
    assert list(failed(folder)) == ["weights"]
    newest.unlink()
    assert failed(folder) == {}


def test_who_signs_anew_is_given_away_by_the_key_alone(folder, original):
    expected = read_seal(original).fingerprint
    milder = (folder / LEDGER).read_text().replace('"gaussian"', '"gaussian"')
    contents = [line.partition(', "chain"')[0] + "}" for line in milder.splitlines()]
    lines, _ = Chain().extend(contents)
    (folder / LEDGER).write_text("".join(lines))
    forged = LedgerSeal.reopen(folder, None)
    forged.finish("finished", read_seal(original).weights_sha256)
    assert failed(folder) == {}
    assert list(failed(folder, expected)) == ["key"]


def test_a_folder_of_an_earlier_version_is_not_chained(folder, capsys):
    (folder / SEAL).unlink()
    assert cli.main(["verify", str(folder)]) == 1
    assert "not chained" in capsys.readouterr().err
    with pytest.raises(InputError, match="not chained"):
        running.resume(folder)


def test_an_interrupted_run_is_told_as_such_and_its_key_lies_there(broken):
    found = failed(broken)
    assert "finish it with --resume" in found["seal"]
    assert KEY in found["private key"]
    assert (broken / KEY).stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("tail", ["", '{"round": 4, "institu', '{"round": 4}'])
def test_a_resumed_run_has_the_ledger_of_an_undisturbed_one(broken, original, tail):
    with (broken / LEDGER).open("a") as file:
        file.write(tail)  # as a crash in the middle of a write leaves it
    (broken / f".{SEAL}.x1y2.tmp").write_text("{")
    running.resume(broken)
    assert not list(broken.glob(".*"))
    assert failed(broken) == {}
    assert (broken / LEDGER).read_bytes() == (original / LEDGER).read_bytes()


def test_a_crash_between_the_seal_and_the_ledgers_cut_does_not_matter(broken, original):
    LedgerSeal.reopen(broken, None).rewind(2)
    assert len((broken / LEDGER).read_text().splitlines()) == 9
    running.resume(broken)
    assert failed(broken) == {}
    assert (broken / LEDGER).read_bytes() == (original / LEDGER).read_bytes()


def test_an_altered_run_is_not_continued(broken):
    kept = (broken / LEDGER).read_text()
    edit(broken / LEDGER, '"count": 1', '"count": 2')
    with pytest.raises(InputError, match="entry 1"):
        running.resume(broken)
    (broken / LEDGER).write_text("".join(kept.splitlines(keepends=True)[:-1]))
    with pytest.raises(InputError, match="missing"):
        running.resume(broken)
    (broken / LEDGER).write_text(kept)
    edit(broken / "config.yaml", "clip_norm: 0.5", "clip_norm: 0.7")
    with pytest.raises(InputError, match=r"config\.yaml"):
        running.resume(broken)


def test_a_comparison_is_verified_run_by_run(tmp_path, capsys):
    out = tmp_path / "both"
    arguments = ["--executor", "serial", "--set", "training.rounds=2", "--no-progress"]
    chosen = ["--paradigms", "isolated,fedfuse_nonprivate"]
    assert cli.main(["compare", "tiny", *chosen, *arguments, "--out", str(out)]) == 0
    printed = [line for line in capsys.readouterr().out.splitlines() if " signed by: " in line]
    keys = [word for line in printed for word in ("--key", line.split()[-1])]
    assert len(keys) == 4
    assert cli.main(["verify", str(out), *keys]) == 0
    shutil.rmtree(out / "isolated")
    assert cli.main(["verify", str(out), *keys]) == 1
    assert "isolated" in capsys.readouterr().err


class GivenUp(running.Silent):
    """Ends a run after its second round, as a search does."""

    def advanced(self, done, total, what, accuracy):
        if done == 2:
            raise KeyboardInterrupt


def test_a_trial_that_was_given_up_is_sealed(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        running.run(EXPERIMENT, tmp_path, progress=GivenUp())
    LedgerSeal.reopen(tmp_path, None).finish("stopped")
    assert failed(tmp_path) == {}
    assert not (tmp_path / KEY).exists()


def test_the_users_own_key_signs_and_is_recognised(tmp_path, capsys):
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    plain = serialization.NoEncryption()
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    (tmp_path / "mine.pem").write_bytes(key.private_bytes(pem, pkcs8, plain))
    public = serialization.PublicFormat.SubjectPublicKeyInfo
    (tmp_path / "mine.pub").write_bytes(key.public_key().public_bytes(pem, public))
    running.run(tiny(f"execution.signing_key={tmp_path / 'mine.pem'}"), tmp_path / "run")
    assert not (tmp_path / "run" / KEY).exists()
    assert cli.main(["verify", str(tmp_path / "run"), "--key", str(tmp_path / "mine.pub")]) == 0
    assert cli.main(["verify", str(tmp_path / "run"), "--key", "0" * 64]) == 1
    assert "another key signed" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["nothing.pem", "0" * 63])
def test_what_is_no_key_is_bad_input(original, tmp_path, text, capsys):
    assert cli.main(["verify", str(original), "--key", text]) == 2
    assert "--key" in capsys.readouterr().err
    (tmp_path / "no.pem").write_text("no key")
    for path in (tmp_path / "no.pem", tmp_path / "gone.pem"):
        with pytest.raises(InputError, match=r"execution\.signing_key"):
            running.run(tiny(f"execution.signing_key={path}"), tmp_path / "run")


def test_a_folder_without_a_run_is_bad_input(tmp_path, capsys):
    for path in (tmp_path, tmp_path / "gone"):
        assert cli.main(["verify", str(path)]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1


def test_the_seal_holds_no_secret(original):
    statement = json.loads((original / SEAL).read_text())
    assert set(statement) == {
        *("state", "entries", "head", "files", "weights_sha256", "public_key", "signature")
    }
