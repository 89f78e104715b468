"""The related work's private systems in small: their mechanism, and the cells that it gives."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from fedfuse_ray.config import load, load_system
from fedfuse_ray.federation.messages.updates import Update
from fedfuse_ray.federation.plan import paradigms
from fedfuse_ray.report.store import read_run
from fedfuse_ray.runs import running
from fedfuse_ray.studies.related.columns import derive
from tests.support.federations import plan_of

SMALL = (
    "model.encoder={kind: cnn, width: 4, weights: random, trainable: false}",
    "training.rounds=4",
    "institutions.med-02.modalities=[ct, mri]",
    "execution.executor=serial",
)
HE = importlib.util.find_spec("tenseal") is not None


def small(name):
    return paradigms.resolve(load(f"systems/{name}", SMALL, root="tiny"))


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """Run a system once; returns its folder."""
    made = {}

    def folder_of(name):
        if name not in made:
            made[name] = tmp_path_factory.mktemp("systems") / name
            running.run(small(name), made[name])
        return made[name]

    return folder_of


@pytest.mark.parametrize(
    "name", ["abadi", "wei", pytest.param("wang", marks=pytest.mark.skipif(not HE, reason="extra"))]
)
def test_the_cells_are_the_papers_but_for_the_differences_that_are_told(ran, name):
    about = load_system(name).about
    cells = {column: cell.yes for column, cell in derive(read_run(ran(name))).items()}
    differ = {column for column, yes in cells.items() if yes != about.table1[column]}
    assert differ == set(about.differences)


def test_abadi_spends_its_budget_by_the_moments_accountant(ran):
    privacy = read_run(ran("abadi")).summary.privacy
    assert 1.99 < privacy.epsilon <= 2.0
    experiment = small("abadi")
    assert (experiment.privacy.accountant, experiment.paradigm) == ("rdp", "centralized_dp")
    tight = small("abadi@loss-distributions")
    sigmas = [plan_of(e).privacy.releases["medical"].noise_multiplier for e in (experiment, tight)]
    assert sigmas[0] > sigmas[1]
    assert privacy.noise_multiplier == sigmas[0]


def adds_to_broadcasts(plan):
    """Whether the server adds noise of its own to a sum that carries none."""
    block, owners = next(iter(plan.owners.items()))
    silence = Update({block: np.zeros(50, np.float32)})
    return bool(plan.transforms.means(silence, {block: owners[:1]}, 1).weights[block].any())


def test_wei_adds_noise_on_both_ways(ran):
    run = read_run(ran("wei"))
    assert {event["observer"] for event in run.ledger} == {"uplink", "downlink"}
    plan, alone = plan_of(small("wei")), plan_of(small("wei@all-uploads-seen"))
    assert adds_to_broadcasts(plan)
    assert not adds_to_broadcasts(alone)
    sigma = plan.privacy.releases["med-01"].noise_multiplier
    assert sigma < alone.privacy.releases["med-01"].noise_multiplier


@pytest.mark.skipif(not HE, reason="needs the extra he")
def test_wang_is_the_plain_federation_at_many_times_the_bytes(ran):
    encrypted, plain = (read_run(ran(n)).summary for n in ("wang", "wang@plain"))
    assert encrypted.communication.codec == "ckks"
    assert encrypted.accuracy == pytest.approx(plain.accuracy, abs=0.1)
    many = encrypted.communication.uplink_bytes_total / plain.communication.uplink_bytes_total
    assert many > 10
    assert not encrypted.privacy.private
