"""Whole runs that choose their noise as they go, and runs that an earlier audit changes."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import dp_accounting
import numpy as np
import pytest
from dp_accounting import pld

from fedfuse_ray import rng
from fedfuse_ray.audit import audit, of_run, write_audit
from fedfuse_ray.errors import InputError
from fedfuse_ray.federation.institution import institution
from fedfuse_ray.federation.messages.updates import Update
from fedfuse_ray.federation.modes import masked
from fedfuse_ray.federation.modes.outcome import EVERYONE
from fedfuse_ray.federation.plan import plan
from fedfuse_ray.federation.rounds.serial import SerialExecutor
from fedfuse_ray.privacy.accounting.ledger import read_ledger, to_dp_event
from fedfuse_ray.privacy.secure_aggregation import from_modular
from fedfuse_ray.runs import running
from fedfuse_ray.runs.verifying import verify_run
from tests.support.federations import rows_of, scores_of, tiny

EPSILON = 200.0
"""Large, so that so small a federation releases a signal at all."""

ADAPTIVE = (
    "privacy.noise_schedule=adaptive",
    f"privacy.target_epsilon={EPSILON}",
    "training.rounds=6",
)
LEDGER = "privacy_ledger.jsonl"


def adaptive(*settings):
    return tiny(*ADAPTIVE, *settings, paradigm="fedfuse")


def sigmas(folder, name="med-01"):
    return [event.noise_multiplier for event in read_ledger(folder / LEDGER).of(name)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "adaptive"
    running.run(adaptive(), folder)
    return folder


def test_the_ledger_holds_each_rounds_own_noise_and_gives_the_target(whole):
    assert len(set(sigmas(whole))) > 2
    assert all(check.passed is not False for check in verify_run(whole))
    ledger = read_ledger(whole / LEDGER)
    for name in ledger.institutions():
        accountant = pld.PLDAccountant(dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE)
        accountant.compose(to_dp_event(ledger.of(name)))
        assert accountant.get_epsilon(1e-5) == pytest.approx(EPSILON, rel=0.01)


def test_institutions_add_the_noise_that_is_charged(tmp_path, monkeypatch):
    """Seen where they add it: the integers that stand for sums of zero."""
    original, added = masked.noisy_words, {}

    def noted(sums, name, grid, draws):
        zeros = {block: 0 * vector for block, vector in sums.items()}
        for block, words in original(zeros, name, grid, draws).items():
            noise = from_modular(words, grid.bits(block))
            whole = grid.terms.scales[grid.terms.groups((block,))[block]].l2
            share = whole / math.sqrt(grid.terms.shares(block))
            added.setdefault(grid.round, []).append(noise / share)
        return original(sums, name, grid, draws)

    monkeypatch.setattr(masked, "noisy_words", noted)
    running.run(adaptive(), tmp_path)
    charged = sigmas(tmp_path)
    squares = {r: np.mean(np.square(np.concatenate(n))) for r, n in added.items()}
    within = 5 * math.sqrt(2 / sum(len(noise) for noise in added[1]))
    for round, sigma in enumerate(charged, 1):
        assert squares[round] == pytest.approx(sigma**2, rel=within)
    # Negative control: one round's noise would not pass for another's.
    assert max(charged) ** 2 > min(charged) ** 2 * (1 + 2 * within)


class Dying(SerialExecutor):
    """Dies after a round was charged, before it is trained."""

    def train(self, round, attendance=EVERYONE, epoch=0):
        if round == 4:
            raise KeyboardInterrupt
        return super().train(round, attendance, epoch)


def test_a_resumed_run_chooses_and_charges_the_same(whole, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        running.run(adaptive(), tmp_path / "run", executor=Dying())
    running.resume(tmp_path / "run")
    assert scores_of(tmp_path / "run") == scores_of(whole)
    assert (tmp_path / "run" / LEDGER).read_text() == (whole / LEDGER).read_text()


@pytest.mark.ray
def test_ray_chooses_the_same(ray_address, whole, tmp_path):
    running.run(adaptive("execution.executor=ray"), tmp_path)
    assert scores_of(tmp_path) == scores_of(whole)
    for name in ("rounds.parquet", "institutions.parquet"):
        assert rows_of(tmp_path, name) == rows_of(whole, name)
    assert (tmp_path / LEDGER).read_text() == (whole / LEDGER).read_text()


def test_the_noise_follows_released_sums_and_nothing_else(tmp_path, monkeypatch):
    """Other images and other losses change nothing as long as the same sums are released."""
    original, scale = institution.joint_step, 1.0

    def made_up(training, round, terms, *rest):
        result = original(training, round, terms, *rest)
        generator = rng.generator(0, "made up", training.name, round)
        update = {
            name: np.float32(scale) * generator.standard_normal(v.size, dtype=np.float32)
            for name, v in result.update.weights.items()
        }
        return replace(result, update=Update(update))

    monkeypatch.setattr(institution, "joint_step", made_up)
    # Of other data the noise is another, and so is the sum that is released.
    monkeypatch.setattr(plan, "facts", lambda *_: ())
    found = []
    for name, skew, scale in (("one", 0.0, 1.0), ("other", 1.0, 1.0), ("sums", 0.0, 30.0)):  # noqa: B007
        settings = (f"data.skew.feature={skew}", "privacy.scores=shown")
        running.run(adaptive(*settings), tmp_path / name)
        found.append((sigmas(tmp_path / name), rows_of(tmp_path / name, "institutions.parquet")))
    one, other, sums = found
    assert [row["loss"] for row in one[1]] != [row["loss"] for row in other[1]]
    assert one[0] == other[0]
    assert one[0] != sums[0]


def test_an_audit_of_the_run_itself_sees_its_noise_and_changes_nothing(
    whole, tmp_path, monkeypatch
):
    subject = of_run(whole, lambda text: None)
    base = subject.plan.privacy.releases["med-01"].noise_multiplier
    assert [base * f for f in subject.plan.privacy.factors] == pytest.approx(sigmas(whole))
    found = audit(subject, ("canaries",), quick=True)
    write_audit(found, tmp_path)
    assert 0.0 < found.lower_bounds["canaries"] < 0.8 * EPSILON
    # A run that names an audit has noise of its own; here both have the same, to be compared.
    monkeypatch.setattr(plan, "facts", lambda *_: ())
    running.run(adaptive(), tmp_path / "without")
    summary = running.run(adaptive(f"privacy.audit={tmp_path}/audit.json"), tmp_path / "run")
    assert "changes nothing" in summary.privacy.audit
    assert sigmas(tmp_path / "run") == sigmas(tmp_path / "without")


def test_a_run_whose_audit_came_close_spends_less_and_says_why(whole, tmp_path):
    path = tmp_path / "audit.json"
    facts = {"paradigm": "fedfuse", "mode": "record-distributed", "delta": 1e-5, "epsilon": 2.0}
    path.write_text(json.dumps(facts | {"lower_bounds": {"membership": 1.8}}))
    experiment = adaptive(f"privacy.audit={path}", "privacy.scores=shown")
    with pytest.raises(KeyboardInterrupt):
        running.run(experiment, tmp_path / "run", executor=Dying())
    path.write_text(json.dumps(facts | {"lower_bounds": {"membership": 0.1}}))
    with pytest.raises(InputError, match="put the file back"):
        running.resume(tmp_path / "run")
    path.write_text(json.dumps(facts | {"lower_bounds": {"membership": 1.8}}))
    summary = running.resume(tmp_path / "run")
    assert summary.privacy.epsilon == pytest.approx(EPSILON * 0.8 / 0.9, rel=0.01)
    assert "the target is 177.8, not 200" in summary.privacy.audit
    assert summary.privacy.audit in (tmp_path / "run" / "report.html").read_text()
    assert sigmas(tmp_path / "run")[0] > sigmas(whole)[0]
