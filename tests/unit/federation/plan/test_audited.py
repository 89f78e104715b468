"""What an audit's file does to a run's budget, and what an attack's success says of epsilon."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from fedfuse_ray.audit.attacks.features import FeatureLeak
from fedfuse_ray.audit.attacks.membership import Membership, dp_bound
from fedfuse_ray.audit.implied import from_membership, from_reconstruction, least_rate
from fedfuse_ray.config import load
from fedfuse_ray.config.settings.privacy import PrivacyConfig
from fedfuse_ray.errors import InputError
from fedfuse_ray.federation.plan.audited import after_audit

DELTA = 1e-5
FACTS = {"paradigm": "fedfuse", "mode": "record-distributed", "delta": DELTA, "epsilon": 2.0}


def after(path, bounds, target=1.0, scores="shown", **facts):
    path.write_text(json.dumps(FACTS | {"lower_bounds": bounds} | facts))
    config = PrivacyConfig(
        mode="record-distributed", target_epsilon=target, audit=str(path), scores=scores
    )
    return after_audit(config, "fedfuse")


def test_a_weak_attack_changes_nothing(tmp_path):
    config, said = after(tmp_path / "audit.json", {"canaries": 1.2, "membership": 1.6})
    assert config.target_epsilon == 1.0
    assert "within the margin of 0.8, which changes nothing" in said


@pytest.mark.parametrize("bounds", [{"canaries": 2.0}, {"canaries": 2.0, "membership": 0.2}])
def test_canaries_as_close_as_a_sound_run_allows_change_nothing(bounds, tmp_path):
    config, said = after(tmp_path / "audit.json", bounds)
    assert config.target_epsilon == 1.0
    assert "changes nothing" in said


@pytest.mark.parametrize(
    ("bounds", "target"),
    [
        ({"membership": 1.8}, 0.8 / 0.9),
        ({"canaries": 1.9, "membership": 2.0}, 0.8),
        ({"canaries": 0.4, "membership": 4.0}, 0.4),
        ({"reconstruction": 3.0, "membership": 1.0}, 0.8 / 1.5),
    ],
)
@pytest.mark.parametrize("asked", [0.25, 8.0])
def test_a_close_one_lowers_the_target_in_proportion_and_says_so(bounds, target, asked, tmp_path):
    config, said = after(tmp_path / "audit.json", bounds, asked)
    assert config.target_epsilon == pytest.approx(asked * target)
    assert f"not {asked:g}" in said
    attacks = {name: bound for name, bound in bounds.items() if name != "canaries"}
    assert max(attacks, key=attacks.get) in said


def test_what_attacks_on_real_records_found_stays_private(tmp_path):
    path = tmp_path / "audit.json"
    for found in (0.2, 4.0):
        bounds = {"canaries": 1.8, "membership": found, "reconstruction": found}
        config, said = after(path, bounds, scores="private")
        assert config.target_epsilon == 1.0
        assert "changes nothing" in said
        assert "membership" not in said
        with pytest.raises(InputError, match="--attacks canaries"):
            after(path, {"membership": found}, scores="private")
    with pytest.raises(InputError, match="broken"):
        after(path, {"canaries": 2.01}, scores="private")


def test_canaries_above_the_claim_refuse_the_run(tmp_path):
    with pytest.raises(InputError, match=r"privacy\.audit.*at least 2\.01.*claims 2\.00.*broken"):
        after(tmp_path / "audit.json", {"canaries": 2.01})
    with pytest.raises(InputError, match=r"too large a loss .*claims 2\.00.*once in twenty"):
        after(tmp_path / "audit.json", {"canaries": 1.5}, passed=False)


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"mode": "client"}, "mode client"),
        ({"paradigm": "federated_dp"}, "paradigm federated_dp"),
        ({"delta": 1e-3}, "delta 0.001"),
        ({"epsilon": None}, "nothing private"),
        ({"lower_bounds": {}}, "nothing private"),
        ({"lower_bounds": None}, r"no audit\.json"),
        ({"lower_bounds": {"canaries": float("nan")}}, r"no audit\.json"),
        ({"lower_bounds": {"canaries": -1.0}}, r"no audit\.json"),
        ({"epsilon": 0.0}, r"no audit\.json"),
        ({"epsilon": "much"}, r"no audit\.json"),
    ],
)
def test_what_is_no_audit_of_a_run_alike_is_refused(facts, said, tmp_path):
    with pytest.raises(InputError, match=said):
        after(tmp_path / "audit.json", {"canaries": 1.0}, **facts)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"epsilon": 1}', "\x00"])
def test_what_is_no_audit_at_all_is_refused(text, tmp_path):
    config = PrivacyConfig(mode="client", target_epsilon=1, audit=str(tmp_path / "audit.json"))
    with pytest.raises(InputError, match=r"can't be read"):
        after_audit(config, "fedfuse")
    (tmp_path / "audit.json").write_text(text)
    with pytest.raises(InputError, match=r"no audit\.json"):
        after_audit(config, "fedfuse")


def test_the_file_is_looked_for_beside_the_configuration_that_names_it(tmp_path):
    text = "extends: tiny\nparadigm: fedfuse\nprivacy: {audit: audit.json}\n"
    (tmp_path / "my.yaml").write_text(text)
    assert load(tmp_path / "my.yaml").privacy.audit == str(tmp_path / "audit.json")


def attack(tpr, members=500, others=500):
    return Membership("LiRA", "released model", 0.5, tpr, members, others, ((), ()))


def test_guessing_proves_nothing_of_epsilon_and_finding_everybody_does():
    assert from_membership([], DELTA) == from_reconstruction([], DELTA) == 0.0
    assert from_membership([attack(0.01), attack(0.014)], DELTA) == 0.0
    assert from_membership([attack(0.01), attack(0.5)], DELTA) > 2.5
    # The same rate over fewer specimens proves less.
    assert from_membership([attack(0.5, 40, 100)], DELTA) < from_membership([attack(0.5)], DELTA)
    assert from_reconstruction([FeatureLeak("secure sum", 1.0, 1 / 64, 63, 64)], DELTA) == 0.0
    everyone = from_reconstruction([FeatureLeak("secure sum", 0.0, 1.0, 63, 64)], DELTA)
    assert 4.0 < everyone < math.log(64)


@pytest.mark.parametrize("epsilon", [0.5, 2.0])
def test_attacks_as_strong_as_epsilon_allows_rarely_prove_more(epsilon):
    generator = np.random.default_rng(0)
    limit = float(dp_bound(np.array([0.01]), epsilon, DELTA)[0])
    found = generator.binomial(500, limit, 200) / 500
    rates = generator.binomial(64, math.exp(epsilon) / 64, 200) / 64
    bounds = [from_membership([attack(rate)], DELTA) for rate in found]
    others = [from_reconstruction([FeatureLeak("", 0.0, r, 63, 64)], DELTA) for r in rates]
    assert np.mean(np.array(bounds) > epsilon) <= 0.05
    assert np.mean(np.array(others) > epsilon) <= 0.09  # 5% and three standard errors of 200
    # Negative control: rates taken as they are would.
    assert np.mean([r > limit for r in found]) > 0.3


def test_a_least_rate_is_that_of_clopper_and_pearson():
    from scipy.stats import beta

    for hits, trials in ((1, 10), (7, 64), (400, 500), (500, 500)):
        assert least_rate(hits, trials, 0.05) == pytest.approx(
            beta.ppf(0.05, hits, trials - hits + 1), abs=1e-6
        )
    assert least_rate(0, 10, 0.05) == 0.0
