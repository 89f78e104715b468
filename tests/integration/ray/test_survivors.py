"""A secure round on Ray that is lost once survivors were confirmed, and begun anew."""

from __future__ import annotations

from collections import Counter

import pytest
import ray

from actors.calls import RayCalls
from fedfuse_ray.errors import NotReadyError
from fedfuse_ray.privacy.accounting.ledger import read_ledger
from fedfuse_ray.runs.running import run
from tests.support.federations import scores_of
from tests.support.privacy.restarting import LOST, altered, cut_off, experiment_of, is_update

pytestmark = pytest.mark.ray
RAY = "execution.executor=ray"


def rounds_charged(folder):
    events = read_ledger(folder / "privacy_ledger.jsonl")
    return Counter(e.round for e in events if e.institution == LOST)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "whole"
    run(experiment_of(), folder)
    return folder


def test_the_same_survivors_give_the_same_release_and_are_charged_once(
    ray_address, whole, tmp_path, monkeypatch
):
    cut_off(monkeypatch, RayCalls, NotReadyError("lost"))
    run(experiment_of(RAY), tmp_path)
    assert scores_of(tmp_path) == scores_of(whole)
    assert rounds_charged(tmp_path) == {1: 1, 2: 1, 3: 1}


def test_other_survivors_are_refused_and_the_round_is_charged_again(
    ray_address, whole, tmp_path, monkeypatch, caplog
):
    cut_off(monkeypatch, RayCalls, NotReadyError("lost"))
    close, updates = RayCalls.close, []

    def altering(calls, step, round, sent):
        if is_update(step, round):
            updates.append(round)
            if len(updates) == 2:  # of the second attempt
                sent = [(ray.put(altered(ray.get(refs))), names) for refs, names in sent]
        return close(calls, step, round, sent)

    monkeypatch.setattr(RayCalls, "close", altering)
    run(experiment_of(RAY), tmp_path)
    assert "drawn anew, and charged again" in caplog.text
    assert len(updates) == 3
    assert rounds_charged(tmp_path) == {1: 1, 2: 2, 3: 1}
    assert scores_of(tmp_path)["weights_sha256"] != scores_of(whole)["weights_sha256"]
