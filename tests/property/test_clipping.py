"""Clipping holds its bound, and its sum is the sum of what it clipped, for any gradients."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.privacy.clipping import clipped, one_by_one


@st.composite
def gradients(draw, poison=False):
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    records = draw(st.integers(0, 9))
    sizes = draw(st.lists(st.integers(1, 40), min_size=1, max_size=4))
    scales = 10.0 ** rng.uniform(-6, 6, (records, 1))
    blocks = {
        f"block/{i}": (scales * rng.standard_normal((records, size))).astype(np.float32)
        for i, size in enumerate(sizes)
    }
    for rows in blocks.values():  # a record that does not touch a block
        rows[rng.random(records) < 0.2] = 0.0
    if poison and records:
        block = blocks[draw(st.sampled_from(sorted(blocks)))]
        block[draw(st.integers(0, records - 1)), 0] = draw(
            st.sampled_from([np.nan, np.inf, -np.inf])
        )
    return blocks


@settings(max_examples=60, deadline=None)
@given(blocks=gradients(poison=True), clip_norm=st.floats(1e-3, 1e3))
def test_the_sum_is_the_sum_of_clipped_records(blocks, clip_norm):
    ours = clipped(blocks, {"joint": clip_norm})
    for name, expected in one_by_one(blocks, clip_norm).items():
        assert ours.sums[name].dtype == np.float32
        np.testing.assert_allclose(ours.sums[name], expected, rtol=3e-5, atol=4e-4 * clip_norm)


@settings(max_examples=60, deadline=None)
@given(blocks=gradients(), clip_norm=st.floats(1e-3, 1e3))
def test_one_record_moves_all_blocks_together_by_at_most_the_clip_norm(blocks, clip_norm):
    records = len(next(iter(blocks.values())))
    for record in range(records):
        alone = clipped(
            {k: v[record : record + 1] for k, v in blocks.items()}, {"joint": clip_norm}
        )
        moved = np.concatenate([total.astype(np.float64) for total in alone.sums.values()])
        assert np.linalg.norm(moved) <= clip_norm


@settings(max_examples=40, deadline=None)
@given(blocks=gradients(), first=st.floats(1e-2, 10), others=st.floats(1e-2, 10))
def test_every_group_holds_its_own_bound(blocks, first, others):
    groups = {name: "first" if i == 0 else "others" for i, name in enumerate(blocks)}
    clip_norms = {"first": first, "others": others}
    for record in range(len(next(iter(blocks.values())))):
        alone = clipped({k: v[record : record + 1] for k, v in blocks.items()}, clip_norms, groups)
        for group, bound in clip_norms.items():
            parts = [alone.sums[k].astype(np.float64) for k in blocks if groups[k] == group]
            assert np.linalg.norm(np.concatenate([*parts, np.zeros(1)])) <= bound
