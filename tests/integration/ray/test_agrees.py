"""One seed, one result: in this process and on Ray actors, however they are laid out."""

from __future__ import annotations

import time

import pytest
import ray

from fedfuse_ray.config import load
from fedfuse_ray.runs.reading import read_resumed
from fedfuse_ray.runs.running import Silent, run
from tests.support.federations import rows_of, scores_of, tiny
from tests.support.private_manifests import Sizes, write
from tests.support.processes.clusters import actors
from tests.support.processes.interruptions import CutAfter, PowerCut

pytestmark = pytest.mark.ray
TABLES = ("rounds.parquet", "institutions.parquet")


def agrees(folder, other):
    assert scores_of(folder) == scores_of(other)
    for table in TABLES:
        assert rows_of(folder, table) == rows_of(other, table)


class Look(Silent):
    """Notes what the dashboard would show of each actor."""

    def __init__(self):
        self.seen = {}

    def advanced(self, done, total, what, rows):
        for name, actor in actors().items():
            self.seen[name] = ray.get(actor.__ray_call__.remote(lambda self: repr(self)))


SHARED = {  # Two hosts, on which the work is balanced.
    "host-01": "host-01 [2 institutions: med-01 ...]",
    "mat-01": "mat-01 [electron_microscopy, spectroscopy]",
    "parameter-server": "parameter server",
}
APART = {
    "med-01": "med-01 [ct, mri]",
    "med-02": "med-02 [ct]",
    "mat-01": "mat-01 [electron_microscopy, spectroscopy]",
    "parameter-server": "parameter server",
}


@pytest.mark.parametrize(("per_actor", "shown"), [("auto", SHARED), (2, SHARED), (1, APART)])
@pytest.mark.parametrize("kind", ["fedavg", "scaffold"])
def test_ray_gives_what_this_process_gives(ray_address, serial, tmp_path, kind, per_actor, shown):
    settings = (f"strategy.kind={kind}",)
    layout = f"execution.institutions_per_actor={per_actor}"
    look = Look()
    run(tiny(*settings, layout, "execution.executor=ray"), tmp_path, progress=look)
    agrees(tmp_path, serial(*settings))
    assert look.seen == shown


@pytest.mark.slow
def test_contrastive_rounds_agree_too(ray_address, serial, tmp_path):
    settings = ("training.contrastive.rounds=1",)
    run(tiny(*settings, "execution.executor=ray"), tmp_path)
    agrees(tmp_path, serial(*settings))


@pytest.mark.slow
@pytest.mark.parametrize("paradigm", ["isolated", "federated", "centralized"])
def test_other_paradigms_agree_too(ray_address, serial, tmp_path, paradigm):
    run(tiny("execution.executor=ray", paradigm=paradigm), tmp_path)
    agrees(tmp_path, serial(paradigm=paradigm))


@pytest.mark.slow
def test_scores_with_noise_agree_too(ray_address, tmp_path):
    manifest = write(tmp_path / "data", Sizes(held_test=6, shared_test=0))
    small = ("data.image_size=16", "training.rounds=2")
    for executor in ("serial", "ray"):
        settings = (*small, f"execution.executor={executor}")
        experiment = load("real", settings, paradigm="fedfuse", manifest=manifest)
        run(experiment, tmp_path / executor)
    agrees(tmp_path / "serial", tmp_path / "ray")
    texts = [(tmp_path / name / "evaluation.json").read_text() for name in ("serial", "ray")]
    assert texts[0] == texts[1]


def test_a_run_begun_in_one_place_goes_on_in_the_other(ray_address, serial, tmp_path):
    settings = ("strategy.kind=scaffold",)
    with pytest.raises(PowerCut):
        run(tiny(*settings), tmp_path, progress=CutAfter(2))
    begun = read_resumed(tmp_path, executor="ray")
    assert run(begun, tmp_path, resume=True).executor == "ray"
    agrees(tmp_path, serial(*settings))


def test_a_run_leaves_nothing_behind_on_the_cluster(ray_address, tmp_path):
    run(tiny("execution.executor=ray", "training.rounds=1"), tmp_path)
    assert actors() == {}
    groups = ray.util.placement_group_table().values()
    assert {group["state"] for group in groups} <= {"REMOVED"}
    deadline = time.monotonic() + 20  # Ray tells late what became free.
    while ray.available_resources().get("CPU") != 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert ray.available_resources()["CPU"] == 2
