from __future__ import annotations

import numpy as np
import pytest

from fedfuse_ray.audit.attacks.canaries import JOINT, draw_canaries, honest_owners
from fedfuse_ray.audit.attacks.canary.verdicts import guess
from fedfuse_ray.audit.attacks.releases import releases, secure_sum
from fedfuse_ray.errors import InputError
from fedfuse_ray.federation.plan.terms import PrivacyTerms
from fedfuse_ray.models.initial import block_sizes
from fedfuse_ray.privacy.secure_aggregation import to_modular
from tests.support.federations import plan_of, tiny


def drawn(*settings, count=600, paradigm="fedfuse"):
    plan = plan_of(tiny(*settings, paradigm=paradigm))
    sizes = block_sizes(plan.spec)
    hosts = draw_canaries(plan, plan.privacy, sizes, count, np.random.default_rng(0))
    return plan, sizes, hosts


def test_canaries_are_about_every_block_and_half_take_part():
    plan, sizes, hosts = drawn()
    groups = {group for host in hosts for group in host.groups}
    assert groups == {*sizes, JOINT}
    included = np.concatenate([host.included for host in hosts])
    assert 0.4 < included.mean() < 0.6
    for host in hosts:
        assert np.allclose(np.linalg.norm(host.values, axis=1), plan.privacy.clip_norms["joint"])
        own = {*plan.blocks_of(plan.by_name[host.institution]), JOINT}
        assert {*host.groups} <= own


def test_colluding_owners_hold_no_canaries_of_their_block():
    plan, _, hosts = drawn()
    for host in hosts:
        for group in {*host.groups} - {JOINT}:
            assert host.institution in honest_owners(plan, plan.privacy, group)
    assert honest_owners(plan, plan.privacy, "encoder/ct") == ("med-01",)


def test_what_is_released_without_noise_is_the_sum_of_the_included(monkeypatch):
    plan, sizes, hosts = drawn()
    monkeypatch.setattr(
        "fedfuse_ray.audit.attacks.releases.noisy_words",
        lambda sums, institution, grid, draws: {
            name: to_modular(
                np.rint(v.astype(float) * grid.units(name)).astype(np.int64),
                grid.bits(name),
            )
            for name, v in sums.items()
        },
    )
    released = next(iter(releases(plan, hosts, sizes, 1)))
    for block, size in sizes.items():
        expected = np.zeros(size)
        for host in hosts:
            blocks = plan.blocks_of(plan.by_name[host.institution])
            if block not in blocks:
                continue
            flat = np.zeros(sum(sizes[b] for b in blocks))
            np.add.at(flat, host.positions[host.included], host.values[host.included])
            start = sum(sizes[b] for b in blocks[: blocks.index(block)])
            expected += flat[start : start + size]
        assert np.allclose(released[hosts[0].institution][block], expected, atol=2e-3)


def test_a_secure_sum_over_all_owners_is_the_servers(monkeypatch):
    plan, sizes, _ = drawn()
    monkeypatch.setattr(PrivacyTerms, "noise_stds", lambda terms, sigma: {"joint": 1e-9})
    updates = {
        p.name: {b: np.full(sizes[b], 0.01, np.float32) for b in plan.blocks_of(p)}
        for p in plan.participants
    }
    total = secure_sum(updates, plan, 1, plan.owners)
    for block, owners in plan.owners.items():
        assert np.allclose(total[block], 0.01 * len(owners), atol=1e-3)


def test_guesses_are_the_extremes():
    scores = np.arange(10.0)
    guesses = guess(scores, scores > 4.5, 0.2)
    assert (guesses.canaries, guesses.guessed, guesses.correct) == (10, 4, 4)
    assert guess(scores, scores < 4.5, 0.2).correct == 0
    assert guess(np.zeros(1), np.ones(1, bool), 0.2).guessed == 0


def test_uploads_that_carry_their_own_noise_are_refused():
    plan, sizes, hosts = drawn("privacy.mode=local-update")
    with pytest.raises(InputError, match=r"privacy\.mode"):
        next(iter(releases(plan, hosts, sizes, 1)))


@pytest.mark.parametrize("codec", ["fp32", "rot1bit"])
def test_canary_institutions_go_through_the_clip_and_the_servers_sum(codec, monkeypatch):
    monkeypatch.setattr(
        "fedfuse_ray.federation.messages.transforms.gaussian_noise",
        lambda size, std, generator: np.zeros(size, np.float32),
    )
    plan, sizes, hosts = drawn("privacy.mode=client", f"compression.codec={codec}", count=60)
    assert plan.terms.config.protected_unit == "institution"
    for released in releases(plan, hosts, sizes, 2):
        total = released[hosts[0].institution]
        expected = {block: np.zeros(size) for block, size in sizes.items()}
        for host in hosts:
            blocks = plan.blocks_of(plan.by_name[host.institution])
            flat = np.zeros(sum(sizes[b] for b in blocks))
            np.add.at(flat, host.positions[host.included], host.values[host.included])
            cuts = np.cumsum([sizes[b] for b in blocks])[:-1]
            for block, part in zip(blocks, np.split(flat, cuts), strict=True):
                expected[block] += part
        size = sum(np.square(v).sum() for v in expected.values())
        error = sum(np.square(total[b] - v).sum() for b, v in expected.items())
        assert error < (1e-6 if codec == "fp32" else 1.0) * size
