"""Whole private runs: what the summary claims, what the ledger holds, and what a crash changes."""

from __future__ import annotations

import dataclasses
import json
import math
from statistics import NormalDist

import pytest

from fedfuse_ray.federation.modes.outcome import EVERYONE
from fedfuse_ray.federation.plan import terms as privacy_terms
from fedfuse_ray.federation.rounds.serial import SerialExecutor
from fedfuse_ray.runs import running
from fedfuse_ray.runs.verifying import verify_run
from tests.support.federations import rows_of, scores_of, tiny


def gaussian_epsilon(sigma: float, steps: int, delta: float) -> float:
    """Epsilon of composed full-batch Gaussians (Balle and Wang, 2018, arXiv 1805.06530, Eq. 6)."""
    mu = math.sqrt(steps) / sigma
    phi = NormalDist().cdf

    def spent(epsilon: float) -> float:
        return phi(mu / 2 - epsilon / mu) - math.exp(epsilon) * phi(-mu / 2 - epsilon / mu)

    low, high = 0.0, 100.0
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if spent(middle) > delta else (low, middle)
    return high


@pytest.fixture(scope="module")
def fedfuse(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "fedfuse"
    running.run(tiny("training.rounds=6", paradigm="fedfuse"), folder)
    return folder


def test_epsilon_follows_from_the_summarys_own_numbers(fedfuse):
    privacy = json.loads((fedfuse / "summary.json").read_text())["privacy"]
    assert privacy["sampling_rate"] == 1.0
    assert privacy["epsilon"] <= 1.0
    own = gaussian_epsilon(privacy["noise_multiplier"], privacy["steps"], privacy["delta"])
    assert privacy["epsilon"] == pytest.approx(own, rel=0.01)


def test_the_ledger_holds_a_release_for_each_round_and_institution(fedfuse):
    lines = (fedfuse / "privacy_ledger.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    assert [e["round"] for e in events] == [r for r in range(1, 7) for _ in range(3)]
    assert {e["institution"] for e in events} == {"med-01", "med-02", "mat-01"}
    epsilons = [row["epsilon"] for row in rows_of(fedfuse, "rounds.parquet")]
    assert epsilons == sorted(epsilons)
    assert epsilons[-1] <= 1.0


class Dying(SerialExecutor):
    """Dies before a round's update is aggregated."""

    def train(self, round, attendance=EVERYONE, epoch=0):
        if round == 4:
            raise KeyboardInterrupt
        return super().train(round, attendance, epoch)


def test_a_resumed_private_run_is_the_undisturbed_one(fedfuse, tmp_path):
    experiment = tiny("training.rounds=6", paradigm="fedfuse")
    with pytest.raises(KeyboardInterrupt):
        running.run(experiment, tmp_path / "run", executor=Dying())
    # Round 4 was charged, and died: its release is made again, and stands in the ledger once.
    assert '"round": 4' in (tmp_path / "run" / "privacy_ledger.jsonl").read_text()
    running.resume(tmp_path / "run")
    assert scores_of(tmp_path / "run") == scores_of(fedfuse)
    ledger = "privacy_ledger.jsonl"
    assert (tmp_path / "run" / ledger).read_text() == (fedfuse / ledger).read_text()


def test_few_exposures_are_charged_and_a_resumed_run_is_the_undisturbed_one(tmp_path):
    settings = ("privacy.mode=local-update", "privacy.uplink_exposures=2", "training.rounds=6")
    experiment = tiny(*settings, paradigm="fedfuse")
    summary = running.run(experiment, tmp_path / "whole")
    assert summary.privacy.steps == 2
    assert "at most 2 of an institution's uploads" in summary.privacy.adversary
    own = gaussian_epsilon(summary.privacy.noise_multiplier, 2, summary.privacy.delta)
    assert summary.privacy.epsilon == pytest.approx(own, rel=0.01)
    assert all(check.passed is not False for check in verify_run(tmp_path / "whole"))
    with pytest.raises(KeyboardInterrupt):
        running.run(experiment, tmp_path / "run", executor=Dying())
    running.resume(tmp_path / "run")
    assert scores_of(tmp_path / "run") == scores_of(tmp_path / "whole")


def test_a_spent_budget_ends_the_run_and_keeps_what_was_trained(tmp_path, monkeypatch):
    original = privacy_terms.make_terms

    def with_less_noise(*arguments):
        terms = original(*arguments)
        weak = {
            name: dataclasses.replace(r, noise_multiplier=r.noise_multiplier / 1.5)
            for name, r in terms.releases.items()
        }
        return dataclasses.replace(terms, releases=weak)

    monkeypatch.setattr("fedfuse_ray.federation.plan.plan.make_terms", with_less_noise)
    summary = running.run(tiny("training.rounds=6", paradigm="fedfuse"), tmp_path / "run")
    assert 0 < summary.rounds < 6
    assert summary.privacy.epsilon is not None
    assert summary.privacy.epsilon <= 1.0
    assert (tmp_path / "run" / "report.html").is_file()


@pytest.mark.parametrize(
    "settings",
    [
        ("privacy.mechanism=skellam",),
        ("privacy.mechanism=discrete-gaussian",),
        ("privacy.sampling_rate=0.5",),
        ("privacy.adaptive_clipping.enabled=true",),
        ("privacy.groups={ct: {clip_norm: 0.3}, rest: {clip_norm: 0.5}}",),
        ("privacy.noise_schedule=[2.0, 1.0, 1.0]",),
        ("privacy.mode=record-local",),
        ("privacy.mode=client", "privacy.sampling_rate=0.5"),
        ("privacy.mode=local-update",),
        ("privacy.mode=local-update", "privacy.uplink_exposures=1"),
        ("strategy.kind=fedadam",),
        ("model.fusion=early", "model.encoder.trainable=true"),
        ("model.fusion=late",),
        ("model.fusion=hybrid",),
        ("model.fusion=intermediate", "model.fusion_depth=1", "model.encoder.trainable=true"),
    ],
    ids=lambda settings: settings[0],
)
def test_every_private_mode_runs_within_its_budget(settings, tmp_path):
    summary = running.run(tiny(*settings, paradigm="fedfuse"), tmp_path / "run")
    assert summary.privacy.epsilon is not None
    assert 0.9 < summary.privacy.epsilon <= 1.0
    assert summary.rounds == 3


def test_federated_dp_trains_one_model_a_modality(tmp_path):
    summary = running.run(tiny(paradigm="federated_dp"), tmp_path / "run")
    assert summary.privacy.mode == "record-local"
    assert 7 < summary.privacy.epsilon <= 8
