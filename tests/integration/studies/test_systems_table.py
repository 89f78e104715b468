"""The table of systems in small, on Ray: run, interrupted, continued."""

from __future__ import annotations

import shutil

import pytest

from fedfuse_ray.cli import main
from fedfuse_ray.errors import InputError
from fedfuse_ray.studies.related import running
from fedfuse_ray.studies.related.markdown import document
from fedfuse_ray.studies.related.results import Related
from fedfuse_ray.studies.related.running import Asked
from fedfuse_ray.studies.sweeping.live import LiveTable

pytestmark = pytest.mark.ray

SMALL = (
    "model.encoder={kind: cnn, width: 4, weights: random, trainable: false}",
    "training.rounds=2",
    "replicas=1",
)


@pytest.fixture(scope="module")
def small(tmp_path_factory, ray_address):
    """A table of two systems; its folder, and what it found."""
    folder = tmp_path_factory.mktemp("related")
    running.begin(Asked(("mcmahan", "geyer"), "tiny", SMALL), folder)
    return folder, running.run(folder, LiveTable([], quiet=True))


def test_each_system_is_measured_with_its_variants(small):
    _, found = small
    mcmahan, geyer = found.rows
    assert mcmahan.measured.cells["federated"].yes
    assert not mcmahan.measured.cells["privacy"].yes
    assert geyer.measured.cells["privacy"].yes
    assert geyer.variants["epsilon-64"].epsilon > geyer.measured.epsilon == pytest.approx(8, 0.01)


def test_continued_it_runs_what_is_missing_and_finds_the_same(small, capsys):
    folder, found = small
    lost = found.rows[1].measured
    shutil.rmtree(folder / lost.run / "checkpoints")
    (folder / lost.run / "outcome.json").unlink()
    assert main(["compare", "--resume", str(folder), "--no-progress"]) == 0
    assert "yes (paper: no)" in capsys.readouterr().out
    again = Related.read(folder / Related.FILE)
    assert again.rows[0] == found.rows[0]
    same = again.rows[1].measured.model_copy(update={"seconds": lost.seconds})
    assert same == lost
    assert (folder / "related-work.md").read_text() == document(again)
    assert (folder / "report.html").stat().st_size > 10_000


def test_a_table_whose_systems_have_changed_is_not_continued(small, monkeypatch):
    folder, _ = small
    asked = running.begun(folder)
    monkeypatch.setattr(running, "begun", lambda _: Asked(("mcmahan",), "tiny", asked.settings))
    with pytest.raises(InputError, match="changed since"):
        running.run(folder, LiveTable([], quiet=True))
