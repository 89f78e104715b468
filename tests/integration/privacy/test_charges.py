"""Ledgers that charge other than their configuration asks for, signed all the same."""

from __future__ import annotations

import dataclasses
import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fedfuse_ray import cli
from fedfuse_ray.errors import SurvivorsChangedError
from fedfuse_ray.federation.modes.outcome import EVERYONE
from fedfuse_ray.federation.plan.terms import PrivacyTerms
from fedfuse_ray.federation.rounds.serial import SerialExecutor
from fedfuse_ray.privacy.accounting.budget import Account
from fedfuse_ray.privacy.accounting.chain import follow
from fedfuse_ray.privacy.accounting.ledger import Ledger, read_ledger
from fedfuse_ray.privacy.accounting.signing import make_private
from fedfuse_ray.runs import running
from fedfuse_ray.runs.sealing import KEY, LEDGER, LedgerSeal, read_seal, sha256_of
from fedfuse_ray.runs.verifying import verify_run
from tests.support.federations import tiny

EXPERIMENT = tiny("training.rounds=4", paradigm="fedfuse")


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "private"
    running.run(EXPERIMENT, folder)
    return folder


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "local"
    running.run(tiny("training.rounds=2", paradigm="federated_dp"), folder)
    return folder


def failed(folder, *keys):
    return {c.name: c.detail for c in verify_run(folder, keys) if c.passed is False}


def detail(folder, name, *keys):
    return next(c.detail for c in verify_run(folder, keys) if c.name == name)


def forge(source, target, change, *, rounds=None):
    """Copy a run, change its ledger, mend every epsilon, and sign all of it with a key of ours.

    Args:
        source: The run.
        target: The copy.
        change: From an event to another one, or None to drop it.
        rounds: Cut the run after so many rounds.
    """
    folder = shutil.copytree(source, target)
    events = [change(e) for e in read_ledger(folder / LEDGER)]
    kept = [e for e in events if e is not None and (rounds is None or e.round <= rounds)]
    Ledger(tuple(kept)).write(folder / LEDGER)
    mend(folder, kept, rounds)
    return sign(folder)


def mend(folder, events, rounds):
    summary = json.loads((folder / "summary.json").read_text())
    account = Account.open(summary["privacy"]["delta"], None, Ledger(tuple(events)))
    summary["privacy"]["epsilon"] = account.epsilon
    summary["privacy"]["epsilon_by_institution"] = dict(account.epsilons)
    summary["rounds"] = rounds or summary["rounds"]
    (folder / "summary.json").write_text(json.dumps(summary))
    rows = pq.read_table(folder / "rounds.parquet").slice(0, summary["rounds"])
    until = [Ledger(tuple(e for e in events if e.round <= n)) for n in rows["round"].to_pylist()]
    epsilons = [Account.open(account.delta, None, ledger).epsilon for ledger in until]
    column = rows.column_names.index("epsilon")
    rows = rows.set_column(column, rows.schema.field(column), pa.array(epsilons, pa.float64()))
    pq.write_table(rows, folder / "rounds.parquet")


def sign(folder):
    weights = read_seal(folder).weights_sha256
    links = tuple(follow((folder / LEDGER).read_bytes()))
    config = sha256_of(folder / "config.yaml")
    LedgerSeal(folder, make_private(folder / KEY), config, links).finish("finished", weights)
    return folder


def of(whose="med-02", round=None, **fields):
    """Return a change of one institution's events; without fields they are dropped."""

    def change(event):
        if event.institution != whose or round not in (None, event.round):
            return event
        scaled = {k: v(getattr(event, k)) for k, v in fields.items()}
        return dataclasses.replace(event, **scaled) if fields else None

    return change


FORGED = {
    "an institution is dropped": (of(), "med-02, round 1: nothing is charged, a gaussian release"),
    "a round of one is dropped": (of(round=3), "med-02, round 3: nothing is charged"),
    "more noise is claimed": (
        of(noise_multiplier=lambda s: 2 * s),
        "med-02, round 1: noise_multiplier is ",
    ),
    "a rate is lowered": (
        of(round=2, sampling_rate=lambda q: 0.25),
        "med-02, round 2: sampling_rate is 0.25, expected 1",
    ),
    "blocks are left out": (of(blocks=lambda b: b[:1]), "med-02, round 1: blocks is ("),
    "another unit is claimed": (
        of(unit=lambda u: "institution"),
        "med-02, round 1: unit is institution, expected record",
    ),
    "one observer alone is charged": (
        of(observer=lambda o: "downlink"),
        "med-02, round 1: nothing is charged",
    ),
    "somebody else is charged": (of(institution=lambda n: "med-03"), "med-02, round 1: nothing"),
}


@pytest.fixture(scope="module")
def of_patients(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "patients"
    settings = ("data.specimens_per_patient=4", "privacy.unit=patient", "training.rounds=2")
    running.run(tiny(*settings, "privacy.institutions_per_unit=2", paradigm="fedfuse"), folder)
    return folder


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"unit": lambda u: "record"}, "unit is record, expected patient"),
        ({"noise_multiplier": lambda s: 2 * s}, "noise_multiplier is "),
    ],
    ids=["for records", "for one institution"],
)
def test_patients_that_were_charged_as_less_are_found(fields, said, of_patients, tmp_path):
    assert not failed(of_patients)
    folder = forge(of_patients, tmp_path / "forged", of(**fields))
    assert said in failed(folder)["charges"]


@pytest.mark.parametrize("kind", FORGED)
def test_a_ledger_that_charges_otherwise_fails_with_and_without_the_key(kind, original, tmp_path):
    change, said = FORGED[kind]
    folder = forge(original, tmp_path / "forged", change)
    ours = read_seal(folder).fingerprint
    for keys in ((), (ours,)):
        found = failed(folder, *keys)
        assert list(found) == ["charges"]
        assert found["charges"].startswith(said)
        assert "expected" in found["charges"]


def test_the_same_forgery_that_changes_nothing_passes(original, tmp_path):
    folder = forge(original, tmp_path / "forged", lambda event: event)
    assert failed(folder) == {}
    assert failed(folder, read_seal(folder).fingerprint) == {}
    assert failed(folder, read_seal(original).fingerprint).keys() == {"key"}


def test_the_command_fails_and_names_the_institution(original, tmp_path, capsys):
    folder = forge(original, tmp_path / "forged", of())
    assert cli.main(["verify", str(folder)]) == 1
    assert "charges: med-02, round 1: nothing is charged" in capsys.readouterr().err


def test_a_round_that_everything_keeps_quiet_about_was_within_the_budget(original, tmp_path):
    folder = forge(original, tmp_path / "forged", lambda event: event, rounds=3)
    found = failed(folder)
    assert "med-02" in found["charges"]
    assert "round 4: not run at epsilon 0." in found["charges"]
    assert "expected: 1.0 was granted" in found["charges"]


def test_fewer_steps_and_lower_rates_of_each_institution_fail(local, tmp_path):
    folder = forge(local, tmp_path / "steps", of(count=lambda n: n - 1))
    assert failed(folder)["charges"].startswith("med-02, round 1: count is ")
    folder = forge(local, tmp_path / "rates", of(sampling_rate=lambda q: q / 2))
    assert failed(folder)["charges"].startswith("med-02, round 1: sampling_rate is ")


def test_other_public_sizes_do_not_fit_the_configuration(local, tmp_path):
    folder = shutil.copytree(local, tmp_path / "forged")
    table = pq.read_table(folder / "institutions.parquet")
    column = table.column_names.index("specimens")
    more = pa.array([2 * n for n in table["specimens"].to_pylist()], table.schema.types[column])
    table = table.set_column(column, table.schema.field(column), more)
    pq.write_table(table, folder / "institutions.parquet")
    assert "specimens of medical" in failed(sign(folder))["charges"]


def test_a_run_that_charges_too_little_is_found_out_though_it_signed_itself(tmp_path, monkeypatch):
    honest = PrivacyTerms.events

    def forgetful(terms, institution, blocks, round, factor=1.0):
        return [] if institution == "mat-01" else honest(terms, institution, blocks, round, factor)

    with monkeypatch.context() as patched:
        patched.setattr(PrivacyTerms, "events", forgetful)
        running.run(tiny("training.rounds=2", paradigm="fedfuse"), tmp_path / "run")
    found = failed(tmp_path / "run", read_seal(tmp_path / "run").fingerprint)
    assert found.keys() == {"charges"}
    assert found["charges"].startswith("mat-01, round 1: nothing is charged")


def test_a_run_with_too_little_noise_is_found_out(tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(PrivacyTerms, "event", _with_less_noise(PrivacyTerms.event))
        running.run(tiny("training.rounds=2", paradigm="fedfuse"), tmp_path / "run")
    assert failed(tmp_path / "run")["charges"].startswith("med-01, round 1: noise_multiplier is ")


def _with_less_noise(event):
    def weak(*arguments):
        charged = event(*arguments)
        return dataclasses.replace(charged, noise_multiplier=charged.noise_multiplier * 1.1)

    return weak


class Redrawn(SerialExecutor):
    """Meets other survivors than were confirmed, once."""

    at = 2

    def train(self, round, attendance=EVERYONE, epoch=0):
        if round == self.at and not epoch:
            raise SurvivorsChangedError("others survived")
        return super().train(round, attendance, epoch)


class RedrawnAtTheEnd(Redrawn):
    at = 4


def test_noise_drawn_anew_is_charged_again_and_ends_the_run_early(tmp_path):
    summary = running.run(EXPERIMENT, tmp_path / "run", executor=Redrawn())
    assert summary.rounds == 3
    assert failed(tmp_path / "run") == {}
    assert "round 2 2 times, its noise drawn anew" in detail(tmp_path / "run", "charges")
    once = forge(tmp_path / "run", tmp_path / "once", _once())
    assert "round 4: not run at epsilon" in failed(once)["charges"]


def _once():
    seen = set()

    def change(event):
        key = event.round, event.institution
        if key in seen:
            return None
        seen.add(key)
        return event

    return change


def test_a_round_that_was_charged_and_never_run_counts(tmp_path):
    summary = running.run(EXPERIMENT, tmp_path / "run", executor=RedrawnAtTheEnd())
    assert summary.rounds == 3
    assert len(read_ledger(tmp_path / "run" / LEDGER)) == 12
    assert failed(tmp_path / "run") == {}


SOUND = [
    ("fedfuse",),
    ("fedfuse", "compression.codec=modint"),
    ("fedfuse", "privacy.mechanism=skellam"),
    ("fedfuse", "privacy.mechanism=discrete-gaussian", "privacy.sampling_rate=0.5"),
    ("fedfuse", "privacy.adaptive_clipping.enabled=true"),
    ("fedfuse", "privacy.noise_schedule=adaptive"),
    ("fedfuse", "privacy.noise_schedule=[2.0, 1.0, 1.0]"),
    ("fedfuse", "privacy.groups={ct: {clip_norm: 0.3}, rest: {clip_norm: 0.5}}"),
    ("fedfuse", "privacy.target_epsilon=null", "privacy.noise_multiplier=3.0"),
    ("fedfuse", "privacy.mode=client", "privacy.sampling_rate=0.5"),
    ("fedfuse", "privacy.mode=local-update"),
    ("fedfuse", "privacy.mode=local-update", "privacy.uplink_exposures=2"),
    ("fedfuse", "privacy.randomness=secret"),
    ("federated_dp",),
    ("centralized_dp",),
]


@pytest.mark.parametrize("settings", SOUND, ids=lambda s: " ".join(s))
def test_a_sound_run_of_every_mode_passes(settings, tmp_path):
    paradigm, *rest = settings
    folder = tmp_path / "run"
    running.run(tiny("training.rounds=3", *rest, paradigm=paradigm), folder)
    assert failed(folder, read_seal(folder).fingerprint) == {}
    assert "3 rounds: charged as config.yaml" in detail(folder, "charges")
    secret = "privacy.randomness=secret" in settings
    assert ("forgotten" in detail(folder, "noise")) is secret
    assert (
        "do not have the seed, which config.yaml holds" in detail(folder, "noise")
    ) is not secret


def test_who_signed_is_said_and_nobody_is_told_without_a_key(original):
    key = read_seal(original).fingerprint
    for name in ("key", "epsilon"):
        assert "unauthenticated" in detail(original, name)
        assert detail(original, name, key).endswith(f"authenticated by {key}")
        assert "unauthenticated" not in detail(original, name, key)
        assert "unauthenticated" in detail(original, name, "0" * 64)
    assert "as is claimed" not in detail(original, "epsilon")


def test_a_secret_that_was_left_behind_is_told(original, tmp_path):
    folder = shutil.copytree(original, tmp_path / "copy")
    (folder / "privacy_secret").write_bytes(b"0" * 32)
    assert "privacy_secret" in failed(folder)["noise"]


def test_refusals_and_an_audit_are_signed_where_they_are_there(original, tmp_path):
    folder = shutil.copytree(original, tmp_path / "copy")
    for name in ("refused.jsonl", "audit.json"):
        (folder / name).write_text("{}\n")
    assert failed(folder) == {}  # as of a folder that was sealed before these were
    assert detail(folder, "files").endswith("not signed: refused.jsonl, audit.json")
    sign(folder)
    assert "not signed" not in detail(folder, "files")
    assert failed(folder) == {}
    (folder / "audit.json").write_text("{ }\n")
    assert "audit.json was altered" in failed(folder)["files"]
    sign(folder)
    (folder / "refused.jsonl").unlink()
    assert failed(folder)["files"] == "refused.jsonl is missing"


def test_a_manifest_that_is_gone_leaves_what_its_tables_say(tmp_path):
    from fedfuse_ray.data.exporting import write_manifest
    from fedfuse_ray.data.phantoms import generate

    experiment = tiny(paradigm="fedfuse")
    header, parts = generate(experiment.data, experiment.institutions, seed=experiment.seed)
    manifest = tmp_path / "images.parquet"
    write_manifest(manifest, header, parts)
    data = f"data={{kind: manifest, path: '{manifest}', image_size: 16}}"
    for name, more in (("plain", ()), ("proved", ("privacy.mechanism=skellam",))):
        running.run(tiny(data, "training.rounds=2", *more, paradigm="fedfuse"), tmp_path / name)
        assert failed(tmp_path / name) == {}
    assert "not compared" not in detail(tmp_path / "proved", "charges")
    manifest.unlink()
    assert failed(tmp_path / "plain") == {}
    assert failed(tmp_path / "proved") == {}
    assert "xi not compared" in detail(tmp_path / "proved", "charges")
    gone = forge(tmp_path / "proved", tmp_path / "gone", of())
    assert failed(gone)["charges"].startswith("med-02, round 1: nothing is charged")


def test_no_code_that_a_folder_names_is_run(original, tmp_path):
    folder = shutil.copytree(original, tmp_path / "copy")
    trap = tmp_path / "trap.py"
    trap.write_text(f"open({str(tmp_path / 'sprung')!r}, 'w')\n")
    config = folder / "config.yaml"
    text = config.read_text().replace("forward_models: []", f"forward_models: ['{trap}']")
    assert str(trap) in text
    config.write_text(text)
    assert failed(sign(folder)) == {}
    assert "sizes are those of institutions.parquet" in detail(folder, "charges")
    assert not (tmp_path / "sprung").exists()
