"""The systems that choose or weigh institutions: what each does, and the cells that follow."""

from __future__ import annotations

import pytest

from fedfuse_ray.config import load, load_system
from fedfuse_ray.report import read_run
from fedfuse_ray.runs.running import run
from fedfuse_ray.studies.related.columns import derive
from tests.support.watching import status_of, tables

SMALL = (
    *(f"data.domains.{d}.specimens=120" for d in ("medical", "materials", "environmental")),
    "data.image_size=16",
    "data.signal_length=64",
    "model.embedding_dim=8",
    "model.encoder={kind: cnn, width: 4, weights: random, trainable: false}",
    "training.rounds=8",
    "training.max_epochs=2",
    "execution.executor=serial",
    "execution.evaluate_every=8",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return the folder of a small run of a system or variant, made once."""
    made = {}

    def folder_of(name):
        if name not in made:
            made[name] = tmp_path_factory.mktemp("run")
            run(load(f"systems/{name}", SMALL), made[name])
        return made[name]

    return folder_of


@pytest.mark.parametrize("name", ["rieke", "sheller", "liu"])
def test_the_cells_are_those_of_the_papers_table(folder, name):
    derived = derive(read_run(folder(name)))
    assert {column: cell.yes for column, cell in derived.items()} == load_system(name).about.table1


def senders(folder):
    """Return who sent an update, round by round."""
    rounds = {}
    for (number, who), status in status_of(folder).items():
        rounds.setdefault(number, []).extend([who] * (status == "sent"))
    return [rounds[number] for number in sorted(rounds)]


LINE = ["med-01", "med-02", "med-03", "med-05"]


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("sheller", 8 * [LINE]),
        ("sheller@cyclic", [[who] for who in 2 * LINE]),
        ("sheller@incremental", [[who] for who in LINE for _ in range(2)]),
    ],
)
def test_sheller_trains_side_by_side_or_one_after_another(folder, name, wanted):
    assert senders(folder(name)) == wanted


def test_shellers_pool_is_no_federation(folder):
    cells = derive(read_run(folder("sheller@pooled")))
    assert not any(cell.yes for cell in cells.values())


def test_rieke_shows_the_losses_that_it_weighs_by(folder):
    adaptive, plain = (tables(folder(name))[1] for name in ("rieke", "rieke@specimens"))
    for told, untold in zip(adaptive, plain, strict=True):
        assert told["payload_bytes"] == untold["payload_bytes"]
        assert told["uplink_bytes"] > untold["uplink_bytes"]
    digests = {read_run(folder(f"rieke{v}")).summary.weights_sha256 for v in ("", "@specimens")}
    assert len(digests) == 2


def test_liu_asks_two_and_is_done_sooner(folder):
    asked = senders(folder("liu"))
    assert {len(names) for names in asked} == {2}
    for number in range(4):
        assert {who for names in asked[number : number + 5] for who in names} == {
            f"env-0{n}" for n in (1, 2, 3, 4)
        }
    seconds = {
        name: read_run(folder(name)).summary.time.simulated_seconds for name in ("liu", "liu@all")
    }
    assert seconds["liu"] < 0.75 * seconds["liu@all"]
    assert {len(names) for names in senders(folder("liu@random"))} == {2}
