"""What all tests share: one torch thread, a cache of their own, one Ray instance."""

from __future__ import annotations

import logging
import os

import pytest
import torch


def pytest_configure() -> None:
    # One thread, here and in every process that a test starts: the same sums everywhere, and no
    # quarrel over two cores.
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # Where two workers share the tests, all that start Ray take turns in one of them, from the
    # beginning; the other one gets the rest, file by file.
    for item in items:
        started = item.get_closest_marker("ray") is not None
        item.add_marker(pytest.mark.xdist_group("ray" if started else str(item.path)))
    items.sort(key=lambda item: item.get_closest_marker("ray") is None)


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory):
    """Keep datasets and encoders away from the user's cache, and share them among tests."""
    folder = tmp_path_factory.mktemp("cache")
    before = os.environ.get("FEDFUSE_RAY_CACHE")
    os.environ["FEDFUSE_RAY_CACHE"] = str(folder)
    yield folder
    if before is None:
        del os.environ["FEDFUSE_RAY_CACHE"]
    else:
        os.environ["FEDFUSE_RAY_CACHE"] = before


@pytest.fixture
def tmp_path(tmp_path):
    """Return a folder that has a parent of its own: runs keep their account beside their folder."""
    folder = tmp_path / "here"
    folder.mkdir()
    return folder


@pytest.fixture(scope="session")
def ray_address(cache):
    """Start one Ray instance of two CPUs for the whole session; returns its address."""
    import ray

    # As `actors.cluster` does: by default workers would run at nice 15, and tests starve.
    os.environ.setdefault("RAY_worker_niceness", "0")
    ray.init(
        address="local",
        num_cpus=2,
        num_gpus=0,
        include_dashboard=False,
        logging_level=logging.WARNING,
        log_to_driver=False,
    )
    yield ray.get_runtime_context().gcs_address
    ray.shutdown()
