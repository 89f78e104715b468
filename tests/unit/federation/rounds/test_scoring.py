from __future__ import annotations

import numpy as np
import pytest

from fedfuse_ray.federation.messages.metrics import Scores, accuracy, macro_f1
from fedfuse_ray.federation.rounds.loop import final_views
from fedfuse_ray.federation.rounds.scoring import (
    alone_scores,
    final_scores,
    round_scores,
    validation_accuracy,
)
from tests.support.federations import plan_of, tiny

EM, SP = "electron_microscopy", "spectroscopy"


def confusion(hits, misses):
    """Counts over four classes with so many right and wrong."""
    counts = np.diag([hits, 0, 0, 0])
    counts[0, 1] = misses
    return counts


def scored(name, domain, by_view, correct=0, total=0, attention=None):
    slots = max(len(view) for view in by_view)
    zero = np.zeros(slots + 1)
    return Scores(
        name=name,
        domain=domain,
        confusion={view: confusion(*pair) for view, pair in by_view.items()},
        attention={view: zero if attention is None else attention for view in by_view},
        correct=correct,
        total=total,
    )


@pytest.fixture(scope="module")
def plan():
    plan = plan_of(tiny())
    assert plan.test == {"medical": 14, "materials": 7}
    return plan


@pytest.fixture
def counted():
    """Two medical institutions that scored 8 + 6 test specimens, one of materials with 7."""
    return [
        scored(
            "med-01",
            "medical",
            {("ct",): (4, 4), ("mri",): (2, 6), ("ct", "mri"): (8, 0)},
            attention=np.array([6.0, 2.0, 8.0]),
        ),
        scored(
            "med-02",
            "medical",
            {("ct",): (3, 3), ("mri",): (0, 6), ("ct", "mri"): (3, 3)},
            attention=np.array([1.0, 5.0, 6.0]),
        ),
        scored("mat-01", "materials", {(EM,): (7, 0), (SP,): (0, 7), (EM, SP): (0, 7)}),
    ]


def test_final_scores_of_one_global_model(plan, counted):
    scores = final_scores(plan, counted)
    assert scores.accuracy == pytest.approx(
        {"medical": 11 / 14, "materials": 0.0, "overall": 11 / 21}
    )
    assert scores.by_modality == pytest.approx({"ct": 7 / 14, "mri": 2 / 14, EM: 1.0, SP: 0.0})
    assert scores.institutions == pytest.approx(
        {"med-01": 11 / 14, "med-02": 7 / 14, "mat-01": 0.0}
    )
    f1 = macro_f1(confusion(11, 3))
    assert scores.macro_f1["medical"] == pytest.approx(f1)
    assert scores.macro_f1["overall"] == pytest.approx(f1 * 14 / 21)
    whole = scores.views["medical"][-1]
    assert whole.view == ("ct", "mri")
    np.testing.assert_array_equal(whole.confusion, confusion(11, 3))
    np.testing.assert_allclose(whole.attention, [7 / 14, 7 / 14])


def test_round_scores_are_on_all_modalities(plan, counted):
    assert round_scores(plan, counted) == final_scores(plan, counted).accuracy
    assert round_scores(plan, counted, macro_f1) == final_scores(plan, counted).macro_f1


def test_without_fusion_scores_are_the_mean_over_modalities(counted):
    plan = plan_of(tiny(paradigm="federated"))
    scores = final_scores(plan, counted)
    assert scores.accuracy["medical"] == pytest.approx((7 / 14 + 2 / 14) / 2)
    assert scores.accuracy["materials"] == pytest.approx(0.5)
    assert scores.institutions["med-01"] == pytest.approx((7 / 14 + 2 / 14) / 2)
    assert scores.institutions["med-02"] == pytest.approx(7 / 14)
    assert scores.views["medical"][0].attention is None


def test_isolated_is_the_mean_over_institutions_of_what_each_owns():
    plan = plan_of(tiny(paradigm="isolated"))
    counted = [
        scored(
            "med-01",
            "medical",
            {("ct",): (0, 14), ("mri",): (0, 14), ("ct", "mri"): (14, 0)},
            attention=np.array([14.0, 0.0, 14.0]),
        ),
        scored("med-02", "medical", {("ct",): (7, 7)}, attention=np.array([14.0, 14.0])),
        scored("mat-01", "materials", {(EM,): (1, 6), (SP,): (1, 6), (EM, SP): (7, 0)}),
    ]
    scores = alone_scores(plan, counted)
    assert scores.accuracy == pytest.approx(
        {"medical": (1 + 0.5) / 2, "materials": 1.0, "overall": (0.75 * 14 + 7) / 21}
    )
    assert scores.institutions == pytest.approx({"med-01": 1.0, "med-02": 0.5, "mat-01": 1.0})
    assert scores.macro_f1["medical"] == pytest.approx(
        (macro_f1(confusion(14, 0)) + macro_f1(confusion(7, 7))) / 2
    )
    ct = next(v for v in scores.views["medical"] if v.view == ("ct",))
    # Attention of a model that knows only ct is spread onto the domain's two slots.
    np.testing.assert_allclose(ct.attention, [(14 + 14) / 28, 0])


def test_centralized_is_scored_as_its_domains_one_owner():
    plan = plan_of(tiny(paradigm="centralized"))
    counted = [
        scored("medical", "medical", {("ct",): (1, 13), ("mri",): (2, 12), ("ct", "mri"): (7, 7)}),
        scored("materials", "materials", {(EM,): (0, 7), (SP,): (0, 7), (EM, SP): (7, 0)}),
    ]
    scores = alone_scores(plan, counted)
    assert scores.accuracy == pytest.approx(
        {"medical": 0.5, "materials": 1.0, "overall": (7 + 7) / 21}
    )


def test_every_final_view_of_a_plan_can_be_scored(plan):
    views = final_views(plan)
    counted = [
        scored(p.name, p.domain, dict.fromkeys(views[p.domain], (1, 0))) for p in plan.participants
    ]
    scores = final_scores(plan, counted)
    assert set(scores.accuracy.values()) == {1.0}
    for domain, wanted in views.items():
        assert tuple(v.view for v in scores.views[domain]) == wanted
        assert all(accuracy(v.confusion) == 1 for v in scores.views[domain])


def test_validation_is_pooled_over_specimens():
    parts = [
        scored("a", "d", {("ct",): (0, 0)}, correct=9, total=10),
        scored("b", "d", {("ct",): (0, 0)}, correct=0, total=20),
        scored("c", "d", {("ct",): (0, 0)}),
    ]
    assert validation_accuracy(parts) == pytest.approx(0.3)
    assert validation_accuracy(parts[2:]) is None
