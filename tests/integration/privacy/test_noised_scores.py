"""Scores on test specimens that institutions hold: noised, charged, verified, and repeated."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from fedfuse_ray import cli
from fedfuse_ray.config import load
from fedfuse_ray.errors import InputError
from fedfuse_ray.federation.plan import paradigms
from fedfuse_ray.federation.rounds.charging import Charging
from fedfuse_ray.privacy.accounting.budget import Account
from fedfuse_ray.privacy.accounting.calibration import calibrate_noise_multiplier
from fedfuse_ray.privacy.accounting.ledger import Ledger, read_ledger
from fedfuse_ray.report.store import read_run
from fedfuse_ray.runs import running
from fedfuse_ray.runs.sealing import LEDGER, LedgerSeal
from fedfuse_ray.runs.verifying import verify_run
from fedfuse_ray.sweep import main as sweep_main
from tests.support.federations import dataset_of, plan_of, rows_of, scores_of
from tests.support.private_manifests import SITES, Sizes, write

HELD = Sizes(held_test=10, shared_test=0)
SMALL = (
    "execution.executor=serial",
    "data.image_size=16",
    "training.rounds=2",
    "training.batch_size=4",
)


def experiment_of(manifest, *settings, paradigm="fedfuse"):
    return load("real", [*SMALL, *settings], paradigm=paradigm, manifest=manifest)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return write(tmp_path_factory.mktemp("held"), HELD)


@pytest.fixture(scope="module")
def original(manifest, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "held"
    running.run(experiment_of(manifest), folder)
    return folder


def scores_in(folder):
    return [event for event in read_ledger(folder / LEDGER) if event.records]


def test_each_holder_is_charged_once_and_no_record_more_than_the_target(original):
    events = scores_in(original)
    assert [(e.institution, e.round, e.records) for e in events] == [(s, 2, "test") for s in SITES]
    assert {e.noise_multiplier for e in events} == {calibrate_noise_multiplier(1.0, 1e-5, 1.0, 1)}
    summary = read_run(original).summary
    assert 0.99 < summary.privacy.epsilon <= 1.0
    alone = Account.open(1e-5, None, Ledger(tuple(events))).epsilon
    assert 0.99 < alone <= 1.0
    # One record in both parts would cost the composition of the two; none is.
    mixed = [replace(e, records=None) for e in read_ledger(original / LEDGER)]
    assert Account.open(1e-5, None, Ledger(tuple(mixed))).epsilon > 1.4


def test_the_training_pays_nothing_for_scores(original, manifest, tmp_path):
    shown = running.run(experiment_of(manifest, "privacy.scores=shown"), tmp_path / "shown")
    assert shown.weights_sha256 == read_run(original).summary.weights_sha256
    assert not scores_in(tmp_path / "shown")
    assert shown.privacy.scores == "shown"


def test_what_is_released_is_the_noised_headline_alone(original):
    run = read_run(original)
    (domain,) = run.evaluation.domains.values()
    assert (domain.source, domain.specimens) == ("noised", 30)
    assert [view.modalities for view in domain.views] == [("ct",)]
    assert domain.views[0].attention is None
    assert np.sum(domain.views[0].confusion) == 30
    assert domain.views[0].accuracy == run.summary.accuracy["overall"]
    held = {name: (i.accuracy, i.held) for name, i in run.evaluation.institutions.items()}
    assert held == dict.fromkeys(SITES, (None, 10))
    assert set(run.rounds["accuracy"].to_pylist()) == {None}
    for column in ("loss", "validation_accuracy"):
        assert set(run.rounds[column].to_pylist()) == {None}
        assert set(run.institutions[column].to_pylist()) == {None}
    assert run.summary.privacy.noised == ("medical",)
    page = (original / "report.html").read_text()
    assert "noised, charged" in page
    assert "shown without noise" in page  # the wall clock


def test_it_verifies_and_dropped_or_cheaper_scores_do_not(original, tmp_path):
    checks = {c.name: c for c in verify_run(original)}
    assert checks["charges"].passed, checks["charges"].detail
    assert checks["epsilon"].passed
    assert "held test sets" in checks["charges"].detail
    events = list(read_ledger(original / LEDGER))
    weaker = [replace(e, noise_multiplier=1.0) if e.records else e for e in events]
    as_training = [replace(e, records=None) for e in events]
    forged = {"dropped": events[:-1], "weaker": weaker, "as training": as_training}
    for name, kept in forged.items():
        folder = shutil.copytree(original, tmp_path / name)
        seal = LedgerSeal.reopen(folder, None)
        seal.rewind(0)
        (folder / LEDGER).write_text("")
        seal.append(kept)
        seal.finish("finished", read_run(folder).summary.weights_sha256)
        assert not {c.name: c.passed for c in verify_run(folder)}["charges"], name


def test_a_resumed_run_repeats_its_scores_and_is_charged_once(original, tmp_path):
    folder = shutil.copytree(original, tmp_path / "again")
    running.resume(folder)
    assert scores_of(folder) == scores_of(original)
    assert read_ledger(folder / LEDGER) == read_ledger(original / LEDGER)
    assert rows_of(folder, "rounds.parquet") == rows_of(original, "rounds.parquet")


def test_secret_noise_on_scores_can_not_be_drawn_twice(manifest, tmp_path):
    running.run(experiment_of(manifest, "privacy.randomness=secret"), tmp_path / "run")
    before = (tmp_path / "run" / "summary.json").read_bytes()
    with pytest.raises(InputError, match="can't be drawn again"):
        running.resume(tmp_path / "run")
    assert (tmp_path / "run" / "summary.json").read_bytes() == before


@pytest.mark.parametrize("paradigm", ["federated_dp", "centralized_dp"])
def test_other_private_paradigms_are_scored_with_noise_too(manifest, tmp_path, paradigm):
    summary = running.run(experiment_of(manifest, paradigm=paradigm), tmp_path / "run")
    assert summary.privacy.noised == ("medical",)
    assert summary.privacy.epsilon <= 8.0
    checks = {c.name: c for c in verify_run(tmp_path / "run")}
    assert checks["charges"].passed, checks["charges"].detail


def test_noise_of_a_given_size_prices_scores_like_the_training(manifest):
    settings = ("privacy.target_epsilon=null", "privacy.noise_multiplier=4.0")
    plan = plan_of(paradigms.resolve(experiment_of(manifest, *settings)))
    # Two rounds of full batches at 4 are one release at 4 / sqrt(2).
    assert plan.scores.sigma == pytest.approx(4 / np.sqrt(2), rel=1e-3)


def test_only_the_consortiums_specimens_are_scored_where_it_has_some(tmp_path):
    manifest = write(tmp_path / "data", Sizes(held_test=4, shared_test=6))
    index = dataset_of(experiment_of(manifest)).index
    assert (index.test, index.held) == ({"medical": 18}, dict.fromkeys(SITES, 4))
    summary = running.run(experiment_of(manifest), tmp_path / "run")
    run = read_run(tmp_path / "run")
    assert (run.evaluation.domains["medical"].source, summary.privacy.noised) == ("public", ())
    assert run.evaluation.domains["medical"].specimens == 6
    assert np.sum(run.evaluation.domains["medical"].views[-1].confusion) == 6
    assert None not in run.rounds["accuracy"].to_pylist()
    assert not scores_in(tmp_path / "run")
    dataset = dataset_of(experiment_of(manifest))
    assert dataset.public_test("medical").ids == tuple(f"test-{i}" for i in range(6))
    assert dataset.held_test(["south"]).ids == tuple(f"south-test-{i}" for i in range(4))
    ids = [name for part in range(3) for name in dataset.public_test("medical", part, 3).ids]
    assert tuple(ids) == dataset.public_test("medical").ids


@pytest.mark.parametrize("mode", ["client", "local-update"])
def test_no_noise_hides_an_institution_in_a_score(manifest, tmp_path, mode):
    experiment = experiment_of(manifest, f"privacy.mode={mode}", "privacy.delta=0.01")
    with pytest.raises(InputError, match=r"privacy\.scores=shown") as caught:
        running.run(experiment, tmp_path / "run")
    assert "institution" in caught.value.field
    assert not (tmp_path / "run").exists()
    shown = experiment_of(
        manifest, f"privacy.mode={mode}", "privacy.delta=0.01", "privacy.scores=shown"
    )
    running.run(shown, tmp_path / "run")


def test_a_test_specimen_at_two_institutions_is_refused(tmp_path):
    manifest = write(tmp_path / "data", HELD)
    text = manifest.read_text().replace("south-test-0,", "north-test-0,", 1)
    manifest.write_text(text)
    with pytest.raises(InputError, match="is a test specimen at north and south"):
        running.run(experiment_of(manifest), tmp_path / "run")


def test_a_search_that_stops_early_needs_scores_that_may_be_shown(manifest, tmp_path, capsys):
    sweep = tmp_path / "sweep.yaml"
    space = {"training.batch_size": [4, 8]}
    tree = {"base": "real", "paradigm": "fedfuse", "space": space}
    tree |= {"settings": {"data.path": str(manifest)}, "search": {"kind": "asha", "trials": 2}}
    sweep.write_text(json.dumps(tree))
    out = str(tmp_path / "out")
    assert sweep_main([str(sweep), "--out", out]) == 2
    error = capsys.readouterr().err
    assert "institution" in error
    assert "a search that stops no trial early" in error
    assert not (tmp_path / "out").exists()


def test_the_commands_say_what_is_noised(manifest, tmp_path, capsys):
    out = str(tmp_path / "run")
    settings = [word for text in SMALL for word in ("--set", text)]
    arguments = ["run", str(manifest), "--paradigm", "fedfuse", *settings, "--out", out]
    assert cli.main(arguments) == 0
    printed = capsys.readouterr().out
    assert "noised, charged: medical" in printed
    rounds = [line for line in printed.splitlines() if "round 2/2" in line]
    assert rounds
    assert not any("accuracy" in line for line in rounds)
    assert cli.main(["verify", out]) == 0
    assert cli.main(["data", "describe", str(manifest)]) == 0
    assert "30 test specimens at institutions" in capsys.readouterr().out


def test_scores_of_a_last_round_that_is_run_anew_are_charged_for_both_models(manifest):
    plan = plan_of(paradigms.resolve(experiment_of(manifest)))
    first = [e for p in plan.participants for e in plan.terms.events(p.name, (), 2)]
    for times, rescored, charged in ((1, True, 3), (2, False, 3), (2, True, 6)):
        charging = Charging(plan, Account(1e-5, None, Ledger(tuple(first * times))), rescored)
        assert len(charging.charge_scores(2)) == charged
        assert charging.charge_scores(2) == []
