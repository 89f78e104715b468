"""All that a patient adds to a joint sum, at every institution, stays within what is charged."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedfuse_ray.federation.institution.patients import Patients
from fedfuse_ray.privacy.mechanisms.clipping import JOINT, clip_and_sum_torch
from fedfuse_ray.privacy.mechanisms.integers import integer_scale

SIZES = {"encoder/ct": 7, "fusion": 4}
SCALE = integer_scale(0.5, sum(SIZES.values()))


@st.composite
def institutions(draw):
    """Gradients of the records at each institution, and how many the first patient has there."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    found = []
    for _ in range(draw(st.integers(1, 4))):
        sizes = draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
        count = sum(sizes)
        scales = 10.0 ** rng.uniform(-3, 3, (count, 1))
        blocks = {n: (scales * rng.standard_normal((count, s))) for n, s in SIZES.items()}
        if draw(st.booleans()):  # all of one direction, which a clip of each record lets add up
            blocks = {n: np.abs(rows) for n, rows in blocks.items()}
        found.append(({n: rows.astype(np.float32) for n, rows in blocks.items()}, sizes))
    return found


def integers(blocks, sizes, mean, patients=True):
    """Return the integers that an institution adds to the sum, before noise, [d]."""
    gradients = {n: torch.from_numpy(rows) for n, rows in blocks.items()}
    if patients:
        owners = Patients(torch.tensor(sizes), mean)
        gradients = {n: owners.gradients(rows) for n, rows in gradients.items()}
    clipped = clip_and_sum_torch({n: [g] for n, g in gradients.items()}, {JOINT: SCALE.clip_norm})
    whole = np.concatenate([clipped.sums[n] for n in SIZES]).astype(np.float64)
    return np.rint(whole * SCALE.scale).astype(np.int64)


def moved(found, mean, patients=True):
    """Return how far the sum moves when the first patient of each adds nothing, in L2."""
    total = np.zeros(sum(SIZES.values()), np.int64)
    for blocks, sizes in found:
        nothing = {n: rows.copy() for n, rows in blocks.items()}
        for rows in nothing.values():
            rows[: sizes[0]] = 0.0
        total += integers(blocks, sizes, mean, patients) - integers(nothing, sizes, mean, patients)
    return float(np.linalg.norm(total.astype(np.float64)))


@settings(max_examples=60, deadline=None)
@given(institutions(), st.booleans())
def test_a_patient_moves_the_integers_by_no_more_than_is_charged(found, mean):
    assert moved(found, mean) <= len(found) * SCALE.l2


def test_a_clip_of_each_record_is_seen_to_break_it():
    rows = {n: np.full((4, s), 10.0, np.float32) for n, s in SIZES.items()}
    found = [(rows, [4])] * 2
    assert moved(found, mean=True) <= 2 * SCALE.l2
    assert moved(found, mean=True) > 1.9 * SCALE.scale * SCALE.clip_norm
    assert moved(found, mean=True, patients=False) > 2 * SCALE.l2


def test_what_is_charged_for_one_institution_is_too_little_for_two():
    rows = {n: np.full((2, s), 10.0, np.float32) for n, s in SIZES.items()}
    assert moved([(rows, [2])] * 2, mean=True) > SCALE.l2
