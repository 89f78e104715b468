"""Runs in their account: entered before a release, settled after, resumed, withdrawn, refused."""

from __future__ import annotations

import json
import shutil

import pytest

from fedfuse_ray.accounts.store import FILE, read
from fedfuse_ray.accounts.terms import NOTE, AccountTerms
from fedfuse_ray.audit import of_run
from fedfuse_ray.audit.entering import enter as enter_audit
from fedfuse_ray.errors import OverBudgetError
from fedfuse_ray.federation.rounds.serial import SerialExecutor
from fedfuse_ray.privacy.accounting.epsilon import epsilon
from fedfuse_ray.privacy.accounting.ledger import PrivacyEvent, read_ledger
from fedfuse_ray.runs.comparing import compare
from fedfuse_ray.runs.running import resume, run
from tests.support.federations import tiny


def private(*settings):
    return tiny(
        "privacy.noise_multiplier=8", "privacy.target_epsilon=null", *settings, paradigm="fedfuse"
    )


def composed(*folders):
    events = [event for folder in folders for event in read_ledger(folder / "privacy_ledger.jsonl")]
    return epsilon([event for event in events if event.institution == "med-01"], 1e-5)


def entry_of(folder):
    note = json.loads((folder / NOTE).read_text())
    return read(folder / note["account"]).runs[note["run"]]


class Crash(Exception):
    """Stands for a process that is killed."""


class Crashing(SerialExecutor):
    """Ends the run in a round, before or after the round has released anything."""

    def __init__(self, round, after=False):
        super().__init__()
        self._round, self._after = round, after
        self.seen = None

    def train(self, round, *arguments):
        if round == self._round:
            self.seen = self.look()
            if self._after:
                super().train(round, *arguments)
            raise Crash
        return super().train(round, *arguments)

    def look(self):
        return None


def test_two_runs_add_up_and_an_identical_one_is_the_same_release(tmp_path):
    first = run(private(), tmp_path / "a").privacy
    assert first.total_epsilon == pytest.approx(first.epsilon)
    again = run(private(), tmp_path / "b").privacy
    assert (again.total_epsilon, again.total_runs) == (first.total_epsilon, 1)
    other = run(private("privacy.noise_multiplier=6"), tmp_path / "c").privacy
    assert other.total_epsilon == pytest.approx(composed(tmp_path / "a", tmp_path / "c"))
    assert (other.total_runs, other.unprotected_runs) == (2, 0)
    secret = run(private("privacy.randomness=secret"), tmp_path / "d").privacy
    folders = [tmp_path / name for name in "acd"]
    assert secret.total_epsilon == pytest.approx(composed(*folders))


def test_a_run_is_entered_in_full_before_its_first_release(tmp_path):
    executor = Crashing(1)
    executor.look = lambda: entry_of(tmp_path / "a")
    with pytest.raises(Crash):
        run(private(), tmp_path / "a", executor=executor)
    entered = executor.seen
    assert entered.state == ""
    assert {g.charges[0].count for g in entered.groups.values()} == {3}
    # The round was charged, and nobody knows whether it was released: the charge stays.
    assert entry_of(tmp_path / "a") == entered


def test_an_interrupted_run_is_one_entry_and_settles_when_it_has_ended(tmp_path):
    whole = run(private(), tmp_path / "whole").privacy
    with pytest.raises(Crash):
        run(private(), tmp_path / "a" / "cut", executor=Crashing(2, after=True))
    summary = resume(tmp_path / "a" / "cut")
    assert summary.privacy.total_epsilon == whole.total_epsilon
    book = read(tmp_path / "a" / FILE)
    assert [each.state for each in book.runs.values()] == ["finished"]
    before = (tmp_path / "a" / FILE).read_bytes()
    resume(tmp_path / "a" / "cut")  # scores it again, and releases nothing
    assert (tmp_path / "a" / FILE).read_bytes() == before


def test_a_run_that_could_release_nothing_is_withdrawn(tmp_path):
    class Broken(SerialExecutor):
        def start(self, *arguments):
            raise Crash

    with pytest.raises(Crash):
        run(private(), tmp_path / "a", executor=Broken())
    assert entry_of(tmp_path / "a").state == "withdrawn"
    assert run(private(), tmp_path / "b").privacy.total_runs == 1
    # It goes on all the same, as an entry of its own.
    assert resume(tmp_path / "a").privacy.total_runs == 1


def test_rounds_that_are_run_again_after_the_end_are_entered_again(tmp_path):
    run(private(), tmp_path / "a")
    max((tmp_path / "a" / "checkpoints").glob("round-*.npz")).unlink()
    resume(tmp_path / "a")
    book = read(tmp_path / FILE)
    assert len(book.runs) == 2
    assert len({each.release for each in book.runs.values()}) == 1


def test_a_copy_of_a_run_that_comes_to_something_else_is_another_run(tmp_path):
    with pytest.raises(Crash):
        run(private(), tmp_path / "a", executor=Crashing(2))
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    resume(tmp_path / "a")
    executor = SerialExecutor()
    executor.sha256 = lambda: "0" * 64
    resume(tmp_path / "b", executor=executor)
    assert len({each.release for each in read(tmp_path / FILE).runs.values()}) == 2


def test_a_round_with_noise_drawn_anew_is_entered_before_it_is_charged(tmp_path):
    from fedfuse_ray.accounts.entry import Entry
    from fedfuse_ray.accounts.pending import pending
    from fedfuse_ray.federation.rounds.charging import planned
    from tests.support.federations import dataset_of, plan_of

    experiment = private()
    plan, folder = plan_of(experiment), tmp_path / "a"
    entry = Entry(pending(plan, dataset_of(experiment), folder), folder, AccountTerms())
    entry.charge(planned(plan))
    before = (tmp_path / FILE).read_bytes()
    once_more = [event for event in planned(plan) if event.round == 3]
    entry.charge(once_more)
    added = (tmp_path / FILE).read_bytes()[len(before) :]
    assert json.loads(added)["entry"] == "more"
    found = entry.settle([*planned(plan), *once_more], "")
    own = [e for e in [*planned(plan), *once_more] if e.institution == "med-01"]
    assert found.epsilon == epsilon(own, 1e-5)


def test_a_budget_is_checked_before_anything_is_touched(tmp_path):
    spent = run(private(), tmp_path / "a").privacy.total_epsilon
    account = (tmp_path / FILE).read_bytes()
    other = private("privacy.noise_multiplier=6")
    terms = AccountTerms(budget=spent * 1.2)
    with pytest.raises(OverBudgetError, match="over 1 earlier runs"):
        run(other, tmp_path / "b", account=terms)
    with pytest.raises(OverBudgetError, match="publishes without noise"):
        run(tiny(), tmp_path / "b", account=terms)
    pair = [
        other,
        tiny("privacy.noise_multiplier=8", "privacy.target_epsilon=null", paradigm="federated_dp"),
    ]
    with pytest.raises(OverBudgetError):
        compare(pair, tmp_path / "b", account=terms)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", FILE]
    assert (tmp_path / FILE).read_bytes() == account
    total = run(other, tmp_path / "b", account=AccountTerms(budget=spent * 3)).privacy.total_epsilon
    assert spent * 1.2 < total <= spent * 3


def test_a_resumed_run_keeps_its_account_and_its_budget(tmp_path):
    terms = AccountTerms(tmp_path / "elsewhere.jsonl", budget=5)
    with pytest.raises(Crash):
        run(private(), tmp_path / "a" / "b", executor=Crashing(2), account=terms)
    resume(tmp_path / "a" / "b")
    assert not (tmp_path / "a" / FILE).exists()
    assert [r.state for r in read(tmp_path / "elsewhere.jsonl").runs.values()] == ["finished"]
    assert json.loads((tmp_path / "a" / "b" / NOTE).read_text())["budget"] == 5


def test_a_comparison_enters_all_its_runs_and_counts_what_has_no_noise(tmp_path):
    experiments = [private(), tiny(), tiny(paradigm="isolated")]
    comparison = compare(experiments, tmp_path / "c")
    assert len(read(tmp_path / FILE).runs) == 3
    told = {name: s.privacy for name, s in comparison.items()}
    assert told["fedfuse"].total_epsilon == told["fedfuse"].epsilon
    assert told["fedfuse_nonprivate"].total_epsilon is None
    assert told["isolated"].unprotected_runs == 2
    page = (tmp_path / "c" / "report.html").read_text()
    assert "not private: 2 runs published without noise" in page


def test_an_audit_and_its_repeat_enter(tmp_path):
    run(private(), tmp_path / "a")
    subject = of_run(tmp_path / "a", lambda text: None)
    shown = enter_audit(subject, ("membership",), tmp_path / "a", AccountTerms())
    assert (shown.runs, shown.unprotected) == (1, 1)
    again = enter_audit(subject, ("canaries",), tmp_path / "a", AccountTerms())
    assert (again.runs, again.unprotected) == (1, 1)
    trained = subject.__class__(subject.plan, subject.dataset, 3, subject.epsilon, None)
    for count in (2, 3):
        found = enter_audit(trained, ("canaries",), tmp_path / "audit", AccountTerms())
        assert found.runs == count
    assert found.epsilon == pytest.approx(composed(*[tmp_path / "a"] * 3))


def test_an_institutions_guarantee_counts_for_its_records_at_half_the_noise(tmp_path):
    client = tiny(
        "privacy.mode=client",
        "privacy.noise_multiplier=8",
        "privacy.clip_norm=1",
        "privacy.delta=0.01",
        "privacy.target_epsilon=null",
        paradigm="federated_dp",
    )
    first = run(client, tmp_path / "a").privacy
    assert first.total_epsilon == pytest.approx(first.epsilon)
    second = run(private(), tmp_path / "b").privacy
    halved = [PrivacyEvent(1, "", (), "gaussian", 4.0, count=3)]
    own = [
        e for e in read_ledger(tmp_path / "b" / "privacy_ledger.jsonl") if e.institution == "med-01"
    ]
    assert second.total_epsilon == pytest.approx(epsilon([*own, *halved], 1e-5))
    assert second.unprotected_runs == 0
