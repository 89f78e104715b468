"""Whole secure runs that are cut off once survivors were confirmed, and then go on."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from fedfuse_ray.errors import BudgetSpentError, FedfuseError, InstitutionError
from fedfuse_ray.federation.rounds.serial import SerialCalls
from fedfuse_ray.privacy.accounting.epsilon import epsilon_by_institution, largest
from fedfuse_ray.privacy.accounting.ledger import read_ledger
from fedfuse_ray.runs import running
from tests.support.federations import scores_of, tiny
from tests.support.privacy.restarting import LOST, ROUND, altered, cut_off, experiment_of, is_update
from tests.support.processes.interruptions import CutAfter, PowerCut

LEDGER = "privacy_ledger.jsonl"


def rounds_charged(folder):
    """Return how often each round is charged to each institution."""
    counts = Counter((e.round, e.institution) for e in read_ledger(folder / LEDGER))
    assert len({who for _, who in counts}) == 3
    return {round: counts[round, LOST] for round, who in counts if who == LOST}


def broken_off(folder, experiment):
    with pytest.MonkeyPatch.context() as patch:
        cut_off(patch, SerialCalls, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            running.run(experiment, folder)
    return folder / "checkpoints" / "survivors.json"


def lose_an_update(patch, times=1):
    """Alter what one institution sends in the second round, the next times that it does."""
    close, left = SerialCalls.close, [None] * times

    def altering(calls, step, round, sent):
        if is_update(step, round) and left:
            left.pop()
            sent = [(altered(messages), names) for messages, names in sent]
        return close(calls, step, round, sent)

    patch.setattr(SerialCalls, "close", altering)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "whole"
    running.run(experiment_of(), folder)
    return folder


def test_with_the_same_survivors_a_round_is_the_same_release_and_charged_once(whole, tmp_path):
    file = broken_off(tmp_path, experiment_of())
    everyone = ["med-01", "med-02", "mat-01"]
    assert json.loads(file.read_text()) == {
        "promises": [{"round": r, "epoch": 0, "survivors": everyone} for r in range(1, ROUND + 1)],
        "epochs": {},
    }
    running.resume(tmp_path)
    assert scores_of(tmp_path) == scores_of(whole)
    assert (tmp_path / LEDGER).read_text() == (whole / LEDGER).read_text()
    assert set(rounds_charged(tmp_path).values()) == {1}


def test_with_other_survivors_it_is_another_release_and_charged_again(
    whole, tmp_path, monkeypatch, caplog
):
    file = broken_off(tmp_path, experiment_of())
    lose_an_update(monkeypatch)
    summary = running.resume(tmp_path)
    assert summary.rounds == 3
    assert "round 2" in caplog.text
    assert "drawn anew, and charged again" in caplog.text
    assert rounds_charged(tmp_path) == {1: 1, 2: 2, 3: 1}
    # All were there again when the noise had been drawn anew.
    assert [each["round"] for each in json.loads(file.read_text())["promises"]] == [1, 2, 3]
    assert scores_of(tmp_path)["weights_sha256"] != scores_of(whole)["weights_sha256"]
    # What is printed is what the whole ledger gives, and more than of a round that was made once.
    ledger = read_ledger(tmp_path / LEDGER)
    assert summary.privacy.epsilon == pytest.approx(
        largest(epsilon_by_institution(ledger, summary.privacy.delta, "pld"))
    )
    told = json.loads((whole / "summary.json").read_text())["privacy"]["epsilon"]
    assert summary.privacy.epsilon > told


def test_a_run_remembers_how_often_a_round_was_charged(tmp_path, monkeypatch):
    """Broken off a second time, after its noise was drawn anew."""
    file = broken_off(tmp_path, experiment_of())
    lose_an_update(monkeypatch)
    with pytest.MonkeyPatch.context() as patch:
        cut_off(patch, SerialCalls, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            running.resume(tmp_path)
    assert json.loads(file.read_text())["epochs"] == {str(ROUND): 1}
    running.resume(tmp_path)
    assert rounds_charged(tmp_path) == {1: 1, 2: 2, 3: 1}


def test_without_a_promise_two_sums_would_share_one_noise(tmp_path, monkeypatch):
    """Negative control: a run that lost its journal is charged once, for two releases."""
    broken_off(tmp_path, experiment_of()).unlink()
    lose_an_update(monkeypatch)
    running.resume(tmp_path)
    assert set(rounds_charged(tmp_path).values()) == {1}


def test_a_round_that_does_not_fit_the_budget_twice_ends_the_run(tmp_path, monkeypatch):
    """What is charged again counts against the target like everything else."""
    experiment = tiny("privacy.secure_aggregation.colluding=0", paradigm="fedfuse")
    broken_off(tmp_path, experiment)
    lose_an_update(monkeypatch)
    summary = running.resume(tmp_path)
    assert summary.rounds < 3
    assert summary.privacy.epsilon <= 1.0


def test_a_journal_that_can_not_be_read_ends_the_resume(tmp_path):
    broken_off(tmp_path, experiment_of()).write_text("{")
    with pytest.raises(FedfuseError, match=r"survivors\.json can't be read"):
        running.resume(tmp_path)


@pytest.mark.parametrize("damaged", [(2,), (1, 2)])
def test_a_run_that_goes_back_behind_what_was_confirmed_makes_it_again(whole, tmp_path, damaged):
    """Of the third round survivors were confirmed, and checkpoints before it can't be read."""
    with pytest.raises(PowerCut):
        running.run(experiment_of(), tmp_path, progress=CutAfter(3))
    for number in damaged:
        path = tmp_path / "checkpoints" / f"round-{number:06d}.npz"
        path.write_bytes(path.read_bytes()[:100])
    running.resume(tmp_path)
    assert scores_of(tmp_path) == scores_of(whole)
    assert set(rounds_charged(tmp_path).values()) == {1}


def test_a_run_that_goes_back_with_other_survivors_ends_since_later_rounds_rest_on_it(
    tmp_path, monkeypatch
):
    with pytest.raises(PowerCut):
        running.run(experiment_of(), tmp_path, progress=CutAfter(3))
    path = tmp_path / "checkpoints" / "round-000002.npz"
    path.write_bytes(path.read_bytes()[:100])
    lose_an_update(monkeypatch)
    with pytest.raises(InstitutionError, match="round 3 rests on them"):
        running.resume(tmp_path)


def test_a_fresh_run_in_the_same_folder_promises_anew(whole, tmp_path):
    broken_off(tmp_path, experiment_of())
    running.run(experiment_of(), tmp_path)
    assert scores_of(tmp_path) == scores_of(whole)
    assert issubclass(BudgetSpentError, FedfuseError)
