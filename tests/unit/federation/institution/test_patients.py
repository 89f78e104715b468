"""Patients as units: who is sampled, which records count, and what is clipped."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from fedfuse_ray.config import PrivacyConfig
from fedfuse_ray.federation.institution.patients import Patients, expected_records, records_of
from fedfuse_ray.federation.institution.private_gradients import clipped_gradient_sum
from fedfuse_ray.privacy.mechanisms.clipping import JOINT
from fedfuse_ray.privacy.randomness import derived
from tests.support.local_setup import net_of, specimens, training_of

UNITS = torch.tensor([0, 1, 0, 2, 1, 0, 0, 3, 1, 2, 0, 4, 4, 0, 0, 0, 0, 1, 5, 5])
CLIP = 0.05


def config(**settings):
    given = {"mode": "record-distributed", "target_epsilon": 1.0, "unit": "patient"}
    return PrivacyConfig(**{**given, **settings})


def data():
    return dataclasses.replace(specimens(), units=UNITS)


def drawn(chosen, draws=None, **settings):
    return records_of(
        data(), np.array(chosen, np.intp), config(**settings), draws or derived(0), "a", 1
    )


def test_a_patients_records_follow_each_other_and_stop_at_the_cap():
    rows, patients = drawn([0, 2, 4], records_per_patient=3)
    assert patients.sizes.tolist() == [3, 2, 2]
    assert UNITS[rows].tolist() == [0, 0, 0, 2, 2, 4, 4]
    assert len(set(rows.tolist())) == 7
    everything, patients = drawn(range(6), records_per_patient=100)
    assert sorted(everything.tolist()) == list(range(20))
    assert patients.sizes.tolist() == np.bincount(UNITS).tolist()


def test_which_records_count_is_drawn_anew_and_evenly():
    own = np.flatnonzero(UNITS.eq(0))
    counts = np.zeros(20)
    for seed in range(400):
        rows, _ = drawn([0], derived(seed), records_per_patient=3)
        counts[rows] += 1
    expected = 400 * 3 / len(own)
    assert counts.sum() == 1200
    assert np.all(np.abs(counts[own] - expected) < 5 * np.sqrt(expected))


def test_nobody_sampled_is_a_step_of_noise_alone():
    rows, patients = drawn([])
    training = training_of(data=data(), dropout=0.0)
    clipped, loss = clipped_gradient_sum(
        training, rows, np.random.default_rng(0), {JOINT: CLIP}, None, {}, patients
    )
    assert (loss, clipped.norms[JOINT].size) == (0.0, 0)
    assert all(not vector.any() for vector in clipped.sums.values())


def test_records_are_units_where_nobody_is_grouped():
    rows, patients = records_of(specimens(), np.array([3, 5]), config(), derived(0), "a", 1)
    assert (rows.tolist(), patients) == ([3, 5], None)


@pytest.mark.parametrize("kind", ["mean", "sum"])
@pytest.mark.parametrize("chunk", [1, 4, 100])
def test_a_patient_is_clipped_as_one_however_its_records_are_chunked(monkeypatch, kind, chunk):
    net = net_of()
    monkeypatch.setattr(
        "fedfuse_ray.federation.institution.private_gradients.CHUNK_FLOATS",
        chunk * net.flat.numel(),
    )
    training = training_of(net=net, data=data(), dropout=0.0)
    rows, patients = drawn(range(6), records_per_patient=100, patient_gradient=kind)

    def total(rows, patients, clip):
        generator = np.random.default_rng(0)
        given = (training, rows, generator, {JOINT: clip}, None, {}, patients)
        return clipped_gradient_sum(*given)[0]

    whole = total(rows, patients, CLIP)
    expected = {name: np.zeros(v.size) for name, v in whole.sums.items()}
    for number in range(6):
        own = torch.from_numpy(np.flatnonzero(UNITS.eq(number)))
        plain = total(own, None, 1e6).sums  # unclipped: the sum of the records' gradients
        scale = 1.0 / len(own) if kind == "mean" else 1.0
        norm = scale * np.sqrt(sum(float(np.square(v.astype(float)).sum()) for v in plain.values()))
        assert whole.norms[JOINT][number] == pytest.approx(norm, rel=1e-4)
        for name, vector in plain.items():
            expected[name] += vector * scale * min(1.0, CLIP / norm)
    assert (whole.norms[JOINT] > CLIP).any()
    for name, vector in expected.items():
        np.testing.assert_allclose(whole.sums[name], vector, atol=2e-4 * CLIP + 1e-7)


def test_one_bad_record_drops_its_whole_patient_and_nobody_else():
    net, bad = net_of(), data()
    bad.inputs["ct"][0] = float("nan")  # of patient 0
    bad.present[0] = True
    training = training_of(net=net, data=bad, dropout=0.0)
    rows, patients = drawn(range(6), records_per_patient=100)
    given = (training, rows, np.random.default_rng(0), {JOINT: CLIP}, None, {}, patients)
    clipped = clipped_gradient_sum(*given)[0]
    assert np.isnan(clipped.norms[JOINT]).tolist() == [True, *[False] * 5]
    assert all(np.isfinite(vector).all() for vector in clipped.sums.values())


def test_chunks_hold_whole_patients():
    patients = Patients(torch.tensor([3, 1, 9, 2, 2]), mean=True)
    parts = list(patients.chunks(4))
    assert [(p.start, p.stop) for p, _ in parts] == [(0, 4), (4, 13), (13, 17)]
    assert [own.sizes.tolist() for _, own in parts] == [[3, 1], [9], [2, 2]]


def test_what_a_step_takes_on_the_clock_follows_from_public_numbers():
    assert expected_records(data(), 0.5, config(records_per_patient=2)) == 0.5 * 12
    assert expected_records(data(), 0.5, config(records_per_patient=9)) == 0.5 * 20
    assert expected_records(specimens(), 0.5, config()) == 0.5 * 20
