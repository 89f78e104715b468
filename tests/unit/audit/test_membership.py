from __future__ import annotations

import numpy as np
import pytest

from fedfuse_ray.audit.attacks.membership import assess, dp_bound, lira, roc
from fedfuse_ray.audit.attacks.shadows import confidences, halves, pools
from fedfuse_ray.errors import InputError
from fedfuse_ray.models.initial import initial_blocks
from tests.support.federations import dataset_of, plan_of, tiny


def test_auc_is_the_chance_that_a_member_scores_higher():
    generator = np.random.default_rng(0)
    members, others = np.round(generator.normal(0.5, 1, 300), 1), generator.normal(0, 1, 200)
    others = np.round(others, 1)
    pairs = (members[:, None] > others).mean() + 0.5 * (members[:, None] == others).mean()
    assert assess("a", "t", members, others).auc == pytest.approx(pairs, abs=1e-12)


def test_a_perfect_attack_and_a_blind_one():
    perfect = assess("a", "t", np.ones(50), np.zeros(50))
    assert (perfect.auc, perfect.tpr) == (1.0, 1.0)
    blind = assess("a", "t", np.zeros(50), np.zeros(50))
    assert (blind.auc, blind.tpr) == (0.5, 0.0)


def test_curves_run_from_nothing_to_everything():
    generator = np.random.default_rng(1)
    false, true = roc(generator.normal(size=70), generator.normal(size=90))
    assert (false[0], true[0], false[-1], true[-1]) == (0.0, 0.0, 1.0, 1.0)
    assert np.all(np.diff(false) >= 0)
    assert np.all(np.diff(true) >= 0)


def test_without_others_there_is_nothing_to_assess():
    with pytest.raises(InputError, match="0 others"):
        assess("a", "t", np.ones(3), np.ones(0))


def test_the_limit_under_differential_privacy():
    false = np.array([0.0, 0.01, 0.5, 1.0])
    assert dp_bound(false, 0.0, 0.0) == pytest.approx(false)
    bound = dp_bound(false, 1.0, 1e-5)
    assert bound[1] == pytest.approx(np.e * 0.01 + 1e-5)
    assert bound[2] == pytest.approx(1 - np.exp(-1) * (0.5 - 1e-5))
    assert dp_bound(false, 1e4, 0.0)[1] == 1.0


def test_lira_finds_what_a_plain_threshold_misses():
    """Hard members: their confidence is low, but higher than without them."""
    generator = np.random.default_rng(2)
    difficulty = generator.normal(0, 5, 400)
    member = np.arange(400) < 200
    trained_on = generator.random((16, 400)) < 0.5
    shadows = difficulty + 2.0 * trained_on + generator.normal(0, 0.5, (16, 400))
    target = difficulty + 2.0 * member + generator.normal(0, 0.5, 400)
    scores = lira(target, shadows, trained_on)
    better = assess("lira", "t", scores[member], scores[~member])
    plain = assess("loss", "t", target[member], target[~member])
    assert better.auc > 0.95 > 0.7 > plain.auc


def test_lira_abstains_without_unseeing_shadows():
    assert lira(np.ones(3), np.zeros((4, 3)), np.ones((4, 3), bool)).tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("paradigm", ["fedfuse", "fedfuse_nonprivate", "federated_dp"])
def test_pools_score_the_released_model_as_it_is(paradigm):
    experiment = tiny(paradigm=paradigm)
    plan, data = plan_of(experiment), dataset_of(experiment)
    weights = initial_blocks(plan.spec)
    for pool in pools(plan, data, weights):
        assert 0 < pool.members < len(pool.data)
        values = confidences(pool.net(pool.target), pool.data)
        assert np.isfinite(values).all()
        assert halves(pool, 3, 0).sum(axis=1).tolist() == [len(pool.data) // 2] * 3


def test_overfitted_heads_give_their_members_away():
    experiment = tiny(paradigm="fedfuse")
    plan, data = plan_of(experiment), dataset_of(experiment)
    pool = next(iter(pools(plan, data, initial_blocks(plan.spec))))
    member = halves(pool, 1, 0)[0]
    values = confidences(pool.train(member, 60, 0), pool.data)
    assert assess("loss", "t", values[member], values[~member]).auc > 0.75
