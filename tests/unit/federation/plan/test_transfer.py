"""Weights taken over from an earlier run."""

from __future__ import annotations

import numpy as np
import pytest

from fedfuse_ray.config import load
from fedfuse_ray.errors import InputError
from fedfuse_ray.federation.checkpoints import checkpoint as checkpoints
from fedfuse_ray.federation.plan.transfer import _fitted
from fedfuse_ray.federation.rounds.serial import SerialExecutor
from fedfuse_ray.runs import running

SMALL = ("execution.executor=serial", "training.rounds=1", "training.local_epochs=1")


class Watched(SerialExecutor):
    """Keeps the weights before the first round."""

    def load(self, path, journal=None):
        super().load(path, journal)
        self.first = dict(self.weights)


@pytest.fixture(scope="module")
def earlier(tmp_path_factory):
    folder = tmp_path_factory.mktemp("earlier")
    running.run(load("tiny", [*SMALL, "seed=7"]), folder)
    return folder


def last(folder):
    return checkpoints.read(checkpoints.latest(folder / "checkpoints", 99)).weights


def started(folder, settings, **more):
    executor = Watched()
    running.run(load("tiny", [*SMALL, *settings], **more), folder, executor=executor)
    return executor.first


def test_named_blocks_start_from_the_other_run_and_the_rest_from_the_seed(earlier, tmp_path):
    there, drawn = last(earlier), started(tmp_path / "drawn", [])
    blocks = "{fusion: fusion, encoder/mri: encoder/ct}"
    first = started(
        tmp_path / "first", [f"model.transfer.run={earlier}", f"model.transfer.blocks={blocks}"]
    )
    np.testing.assert_array_equal(first["fusion"], there["fusion"])
    np.testing.assert_array_equal(first["encoder/mri"], there["encoder/ct"])
    others = set(first) - {"fusion", "encoder/mri"}
    assert all(np.array_equal(first[name], drawn[name]) for name in others)
    assert not np.array_equal(drawn["fusion"], there["fusion"])


def test_by_default_every_block_of_the_same_name_is_taken(earlier, tmp_path):
    there = last(earlier)
    first = started(tmp_path, [f"model.transfer.run={earlier}"])
    assert all(np.array_equal(first[name], there[name]) for name in there)


def test_a_first_convolution_takes_the_mean_over_other_channels():
    theirs = np.arange(2 * 3 * 4 + 5, dtype=np.float32)  # [2, 3, 2, 2], then five more
    fitted = _fitted(theirs, ((2, 1, 2, 2), (5,)), "field", "donor")
    stem = theirs[:24].reshape(2, 3, 4)
    np.testing.assert_allclose(fitted[:8].reshape(2, 4), stem.sum(axis=1))
    np.testing.assert_array_equal(fitted[8:], theirs[24:])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["model.transfer.run=/nowhere"], r"model\.transfer\.run.*no config\.yaml"),
        (["model.transfer.blocks={fusion: fusio}"], "no such block"),
        (["model.transfer.blocks={fusio: fusion}"], "no block 'fusio'"),
        (["model.transfer.blocks={head/medical: encoder/ct}"], "parameters where"),
        (["model.transfer.blocks={encoder/ct: encoder/spectroscopy}"], "parameters where"),
    ],
)
def test_what_does_not_fit_is_refused(earlier, tmp_path, settings, message):
    given = [f"model.transfer.run={earlier}", *settings]
    with pytest.raises(InputError, match=message):
        running.run(load("tiny", [*SMALL, *given]), tmp_path)


def test_a_private_run_takes_nothing_that_its_own_institutions_taught(earlier, tmp_path):
    settings = [*SMALL, f"model.transfer.run={earlier}", "model.transfer.blocks={fusion: fusion}"]
    with pytest.raises(InputError, match="ledger"):
        running.run(load("tiny", settings, paradigm="fedfuse"), tmp_path)
