"""DP-SGD by the holder of pooled records: what `record-local` runs, with one pool a domain."""

from __future__ import annotations

import json

import pytest

from fedfuse_ray.errors import InputError
from fedfuse_ray.federation.modes.outcome import EVERYONE
from fedfuse_ray.federation.rounds.serial import SerialExecutor
from fedfuse_ray.privacy.accounting.epsilon import epsilon
from fedfuse_ray.privacy.accounting.ledger import read_ledger
from fedfuse_ray.runs import running
from fedfuse_ray.runs.reading import paradigm_names
from fedfuse_ray.runs.verifying import verify_run
from tests.support.federations import plan_of, scores_of, tiny

PRIVATE = ("privacy.target_epsilon=2", "privacy.accountant=rdp", "compression.codec=topk")


def pooled(*settings):
    return tiny(*PRIVATE, *settings, paradigm="centralized_dp")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "pooled"
    running.run(pooled(), folder)
    return folder


def test_each_domains_pool_is_one_participant_that_trusts_itself_alone(folder):
    plan = plan_of(pooled())
    assert [p.name for p in plan.participants] == ["medical", "materials"]
    assert plan.by_name["medical"].members == ("med-01", "med-02")
    privacy = json.loads((folder / "summary.json").read_text())["privacy"]
    assert set(privacy["epsilon_by_institution"]) == {"medical", "materials"}
    assert "pooled records is trusted" in privacy["adversary"]
    assert privacy["unit"] == "record"


def test_every_step_is_charged_by_the_accountant_that_was_asked_for(folder):
    plan, ledger = plan_of(pooled()), read_ledger(folder / "privacy_ledger.jsonl")
    for name, pool in plan.by_name.items():
        events = ledger.of(name)
        assert sum(e.count for e in events) == 3 * -(-pool.specimens // pool.batch_size)
        assert 1.98 < epsilon(events, 1e-5, "rdp") <= 2.0
        assert epsilon(events, 1e-5) < 1.95
    summary = json.loads((folder / "summary.json").read_text())
    assert 1.98 < summary["privacy"]["epsilon"] <= 2.0
    assert all(check.passed is not False for check in verify_run(folder))


def test_nothing_crosses_a_network(folder):
    told = json.loads((folder / "summary.json").read_text())["communication"]
    assert told.pop("codec") == "none"
    assert not any(told.values())


class Dying(SerialExecutor):
    """Dies before the second round."""

    def train(self, round, attendance=EVERYONE, epoch=0):
        if round == 2:
            raise KeyboardInterrupt
        return super().train(round, attendance, epoch)


def test_a_resumed_run_is_the_undisturbed_one(folder, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        running.run(pooled(), tmp_path / "run", executor=Dying())
    running.resume(tmp_path / "run")
    assert scores_of(tmp_path / "run") == scores_of(folder)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (("privacy.mode=record-distributed",), "adds the noise"),
        (("privacy.mode=client",), "adds the noise"),
        (("privacy.mode=none", "privacy.target_epsilon=null"), "choose a mode"),
        (("privacy.accountant=moments",), "privacy.accountant"),
    ],
)
def test_what_the_holder_of_a_pool_can_not_run_is_refused(settings, said):
    with pytest.raises(InputError, match=said):
        pooled(*settings)


def test_a_comparison_leaves_it_out_unless_it_is_named():
    assert "centralized_dp" not in paradigm_names(None)
    assert paradigm_names("centralized,centralized_dp") == ["centralized", "centralized_dp"]
