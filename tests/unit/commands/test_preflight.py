"""The pre-flight table: what it says of a cluster that is only declared."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fedfuse_ray import cli
from fedfuse_ray.commands.preflight import parse_nodes
from fedfuse_ray.config import load
from fedfuse_ray.data.dataset import outline
from fedfuse_ray.errors import InputError
from tests.support.federations import dataset_of, tiny


def offered(text):
    return [(n.num_cpus, n.num_gpus) for n in parse_nodes(text)]


def test_nodes_are_declared_by_kind():
    assert offered("4x(8 CPU, 1 GPU)") == [(8, 1)] * 4
    assert offered("(2 CPUs)+ 2 x (16cpu,4 gpus)") == [(2, 0), (16, 4), (16, 4)]
    assert [n.name for n in parse_nodes("2x(1 CPU)")] == ["node-1", "node-2"]


@pytest.mark.parametrize(
    "text", ["", "4", "4x8", "4x(1 GPU)", "0x(8 CPU)", "2000x(8 CPU)", "(1.2.3 CPU)", "(8 CPU)+"]
)
def test_what_declares_no_nodes_is_refused(text):
    with pytest.raises(InputError, match="--nodes"):
        parse_nodes(text)


@pytest.mark.parametrize(
    "settings",
    [(), ("replicas=3",), ("data.skew.quantity_alpha=0.5", "data.domains.medical.specimens=200")],
)
def test_specimens_are_counted_without_being_made(settings):
    e = tiny(*settings)
    index = outline(e.data, e.institutions, seed=e.seed, replicas=e.replicas)
    assert index == replace(dataset_of(e).index, digest="")


def preflight(capsys, *arguments):
    status = cli.main(["preflight", *arguments])
    return status, *capsys.readouterr()


def test_what_fits_is_shown_actor_by_actor(capsys):
    status, told, errors = preflight(
        capsys, "tiny", "--nodes", "2x(4 CPU, 1 GPU)",
        "--set", "execution.num_gpus_per_institution=0.5", "--set", "execution.placement=SPREAD",
    )  # fmt: skip
    assert (status, errors) == (0, "")
    rows = [line for line in told.splitlines() if "med-" in line or "mat-" in line]
    assert [("node-1" in row, "node-2" in row) for row in rows] == [
        (True, False),
        (False, True),
        (True, False),
    ]
    assert told.rstrip().endswith("It fits.")


def test_what_does_not_fit_is_shown_with_the_smallest_changes(capsys):
    status, told, errors = preflight(
        capsys, "tiny", "--nodes", "(8 CPU, 1 GPU)",
        "--set", "execution.num_gpus_per_institution=0.5",
        "--set", "execution.institutions_per_actor=1",
    )  # fmt: skip
    assert status == 1
    assert "NONE: GPUs are taken" in told
    assert "--set execution.institutions_per_actor=2" in told
    assert "--set execution.num_gpus_per_institution=0.3333" in told
    assert "add nodes: 1x(8 CPU, 1 GPU)" in told
    (line,) = errors.splitlines()
    assert line.startswith("error: mat-01 finds no place after 2 of 3 actors: GPUs are short")


def test_the_proposed_change_is_one_that_the_command_accepts(capsys):
    base = ("tiny", "--nodes", "(8 CPU, 1 GPU)", "--set", "execution.institutions_per_actor=1")
    own = ("--set", "institutions.med-01.hardware.num_gpus=0.6")
    status, told, _ = preflight(
        capsys, *base, *own, "--set", "execution.num_gpus_per_institution=0.25"
    )
    assert status == 1
    change = next(w for w in told.split() if w.startswith("institutions.med-01.hardware"))
    assert preflight(capsys, *base, *own, "--set", change)[0] == 0


def test_pools_and_presets_for_gpus_are_answered_at_once(capsys):
    assert preflight(capsys, "paper-gpu", "--nodes", "5x(8 CPU, 1 GPU)")[0] == 0
    status, told, _ = preflight(
        capsys, "tiny", "--paradigm", "centralized", "--nodes", "(2 CPU)"
    )  # fmt: skip
    assert status == 0
    assert "medical" in told


def test_of_very_many_actors_those_without_a_place_are_shown(capsys):
    status, told, _ = preflight(
        capsys, "tiny", "--nodes", "(8 CPU, 4 GPU)", "--set", "replicas=25",
        "--set", "execution.num_gpus_per_institution=0.06",
        "--set", "execution.institutions_per_actor=1",
    )  # fmt: skip
    assert status == 1
    assert told.count("NONE: GPUs are taken") == 75 - 4 * 16
    assert "and 15 more actors" in told


def test_wrong_nodes_are_bad_input(capsys):
    status, _, errors = preflight(capsys, "tiny", "--nodes", "many")
    assert status == 2
    assert errors.startswith("error: --nodes: 'many'")


def test_the_cluster_file_holds_the_preset_for_gpus():
    """Five of cluster.yaml's workers hold `paper-gpu`, and its head none of it."""
    assert len(load("paper-gpu", []).institutions) == 15
    assert cli.main(["preflight", "paper-gpu", "--nodes", "(0 CPU) + 5x(8 CPU, 1 GPU)"]) == 0
