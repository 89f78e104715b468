"""Two runs of one seed: what they tell together is not more than two independent releases tell.

All is seen from published weights. With noise Z in common, U1 = S + s1 Z and U2 = S + s2 Z give the
sum S itself. Every check is shown to catch noise that is named by its use alone.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from fedfuse_ray.data.dataset import make_specimens, prepare
from fedfuse_ray.federation.plan.plan import make_plan
from fedfuse_ray.privacy.randomness import Randomness
from tests.support.federations import dataset_of, plan_of, tiny
from tests.support.privacy.two_runs import (
    best_estimate,
    named_by_use_alone,
    noises_are_independent,
    released,
    within,
)

PLAIN = ("training.rounds=1", "strategy.server_momentum=0", "strategy.average_last=0")
ONE_STEP = (
    "training.optimizer=sgd",
    "training.momentum=0",
    "training.weight_decay=0",
    "training.schedule=constant",
    "training.batch_size=1024",
)
MODES = {
    "fp32": ("compression.codec=fp32",),
    "modint": ("compression.codec=modint",),
    "record-local": ("privacy.mode=record-local", *ONE_STEP),
    "client": ("privacy.mode=client",),
    "local-update": ("privacy.mode=local-update",),
}


def experiment_of(*settings):
    return tiny(*PLAIN, *settings, paradigm="fedfuse")


@pytest.fixture(params=[False, True], ids=["ours", "named by its use alone"])
def shared(request, monkeypatch):
    """Whether the noise's streams are named without what is run and what they hide, as before."""
    if request.param:
        named_by_use_alone(monkeypatch)
    return request.param


def release_of(*settings, round=1, epoch=0):
    experiment = experiment_of(*settings)
    return released(plan_of(experiment), dataset_of(experiment), round, epoch)


def estimates_no_better_than_two_independent_ones(one, other):
    error, size = best_estimate(one, other)
    return error > 1 - within(size)


@pytest.mark.parametrize("mode", MODES)
def test_two_budgets_do_not_give_the_sum_away(shared, mode):
    one, other = (release_of(*MODES[mode], f"privacy.target_epsilon={e}") for e in (1, 2))
    assert estimates_no_better_than_two_independent_ones(one, other) == (not shared)
    assert noises_are_independent(one, other) == (not shared)


def test_the_exact_sum_came_out_of_noise_in_common(monkeypatch):
    """How bad it was: the sum itself, where one release is off by many times its norm."""
    named_by_use_alone(monkeypatch)
    one, other = (release_of(*MODES["fp32"], f"privacy.target_epsilon={e}") for e in (1, 2))
    assert best_estimate(one, other)[0] < 1e-4


def test_a_round_that_is_charged_again_has_noise_of_its_own(shared):
    # Against a target an institution would refuse to be charged for the only round twice.
    settings = (*MODES["fp32"], "privacy.target_epsilon=null", "privacy.noise_multiplier=5.0")
    one, other = (release_of(*settings, epoch=epoch) for epoch in (0, 1))
    # Of equal survivors one noise gives equal releases, which tell no more than one of them; it is
    # what differs with other survivors that it would bare.
    assert estimates_no_better_than_two_independent_ones(one, other)
    assert noises_are_independent(one, other) == (not shared)


def test_another_learning_rate_does_not_show_how_sums_differ(shared):
    """From the second round on the weights differ, and so do the sums."""
    settings = (*MODES["fp32"], "training.rounds=2")
    one, other = (
        release_of(*settings, f"strategy.server_learning_rate={rate}", round=2)
        for rate in (1.0, 0.5)
    )
    assert noises_are_independent(one, other) == (not shared)


def with_another_image(data, institutions, seed, replicas):
    """Make the specimens, and show the first record of one institution in negative."""
    header, parts = make_specimens(data, institutions, seed, replicas)

    def altered():
        done = False
        for part in parts:
            if (part.split, part.owner) == ("train", "med-01") and not done:
                images = {n: x.copy() for n, x in part.specimens.images.items()}
                for image in images.values():
                    image[0] = image[0].max() - image[0]
                yield replace(part, specimens=replace(part.specimens, images=images))
                done = True
            else:
                yield part

    return header, altered()


@pytest.mark.parametrize("root", [None, bytes(range(32))], ids=["derived", "one secret"])
def test_another_image_does_not_show_by_the_others_noise(shared, tmp_path, root):
    """Also where data are changed before a run with a secret root is resumed."""
    experiment = experiment_of(*MODES["fp32"])
    sets = [dataset_of(experiment)]
    sets.append(
        prepare(
            experiment.data,
            experiment.institutions,
            seed=experiment.seed,
            cache=tmp_path,
            source=with_another_image,
        )
    )
    secret = None if root is None else Randomness(root)
    one, other = (
        released(make_plan(experiment, data.index, randomness=secret), data) for data in sets
    )
    # The others' images are the same, so are their own messages before noise.
    assert any((one.exact[n] != other.exact[n]).any() for n in one.blocks)
    assert noises_are_independent(one, other) == (not shared)


@pytest.mark.parametrize("mode", MODES)
def test_the_same_run_releases_the_same(mode):
    one, other = (release_of(*MODES[mode]) for _ in range(2))
    assert all((one.told[n] == other.told[n]).all() for n in one.blocks)
