from __future__ import annotations

import itertools

import numpy as np
import pytest

from fedfuse_ray.federation.messages import metrics
from fedfuse_ray.federation.messages.metrics import Scores


def scores(name, domain, confusion, attention=(0.0, 0.0, 0.0), view=("ct",)):
    return Scores(name, domain, {view: np.array(confusion)}, {view: np.array(attention)}, 0, 0)


def test_accuracy_by_hand():
    assert metrics.accuracy(np.array([[3, 1], [2, 4]])) == 0.7
    assert metrics.accuracy(np.zeros((2, 2), np.int64)) == 0.0


def test_macro_f1_by_hand():
    confusion = np.array([[3, 1], [2, 4]])
    first = 2 * 3 / (2 * 3 + 1 + 2)
    second = 2 * 4 / (2 * 4 + 2 + 1)
    assert metrics.macro_f1(confusion) == pytest.approx((first + second) / 2)


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_macro_f1_agrees_with_the_definition_by_precision_and_recall(classes):
    generator = np.random.default_rng(classes)
    for _ in range(20):
        confusion = generator.integers(0, 4, (classes, classes))
        each = []
        for k in range(classes):
            hit, said, true = confusion[k, k], confusion[:, k].sum(), confusion[k].sum()
            if said + true:
                precision, recall = hit / max(1, said), hit / max(1, true)
                each.append(2 * precision * recall / (precision + recall) if hit else 0.0)
        wanted = np.mean(each) if each else 0.0
        assert metrics.macro_f1(confusion) == pytest.approx(wanted)


def test_a_class_never_seen_nor_predicted_does_not_count():
    assert metrics.macro_f1(np.diag([4, 2, 0])) == 1.0
    assert metrics.macro_f1(np.array([[4, 0], [0, 0]])) == 1.0
    # Predicted but never right: it counts, as zero.
    assert metrics.macro_f1(np.array([[4, 0, 1], [0, 2, 0], [0, 0, 0]])) < 1.0
    assert metrics.macro_f1(np.zeros((3, 3), np.int64)) == 0.0


def test_counts_add_up_in_any_order():
    parts = [
        scores("a", "medical", [[1, 0], [0, 2]]),
        scores("b", "medical", [[0, 3], [1, 0]]),
        scores("c", "materials", [[5]]),
    ]
    for order in itertools.permutations(parts):
        total = metrics.sum_confusions(order)
        assert total["medical"][("ct",)].tolist() == [[1, 3], [1, 2]]
        assert total["materials"][("ct",)].tolist() == [[5]]


def test_adding_up_leaves_the_parts_alone():
    parts = [scores("a", "d", [[1]], (1, 1, 1)), scores("b", "d", [[2]], (1, 1, 1))]
    for _ in range(2):
        metrics.sum_confusions(parts)
        metrics.sum_attention(parts)
    assert parts[0].confusion[("ct",)].tolist() == [[1]]
    assert parts[0].attention[("ct",)].tolist() == [1, 1, 1]


def test_attention_is_the_mean_over_specimens_and_not_over_institutions():
    parts = [scores("a", "d", [[9]], (9.0, 0.0, 9.0)), scores("b", "d", [[1]], (0.0, 1.0, 1.0))]
    mean = metrics.sum_attention(parts)["d"][("ct",)]
    np.testing.assert_allclose(mean, [0.9, 0.1])
    nothing = metrics.sum_attention([scores("a", "d", [[0]])])["d"][("ct",)]
    np.testing.assert_array_equal(nothing, [0, 0])


def test_overall_pools_the_test_specimens():
    assert metrics.mean_over_domains({"a": 1.0, "b": 0.0}, {"a": 30, "b": 10}) == 0.75
    assert metrics.mean_over_domains({}, {"a": 30}) == 0.0
