"""The table of systems: what is asked for, how it is read back and shown."""

from __future__ import annotations

import shutil

import pytest

from fedfuse_ray.cli import main
from fedfuse_ray.config import load_system, system_names
from fedfuse_ray.errors import InputError
from fedfuse_ray.studies.related import running, tables
from fedfuse_ray.studies.related.markdown import document
from fedfuse_ray.studies.related.page import page
from fedfuse_ray.studies.related.results import Related
from fedfuse_ray.studies.related.running import TABLE, Asked, chosen, plan
from fedfuse_ray.studies.sweeping.store import FAILED, Row
from tests.support.paths import DOCS


@pytest.fixture(scope="module")
def found():
    """The table that the documentation shows."""
    return Related.read(DOCS / "related.json")


def test_the_documentation_is_what_the_measurements_say(found):
    assert (DOCS / "related-work.md").read_text() == document(found)


def test_exactly_the_cells_that_differ_from_the_papers_are_explained(found):
    explained = {r.system: set(load_system(r.system).about.differences) for r in found.rows}
    measured = {r.system: set(tables.differing(r)) for r in found.rows if r.measured}
    assert {name: explained[name] for name in measured} == measured


def test_every_system_was_measured(found):
    assert {row.system for row in found.rows if row.measured} == set(system_names())


def test_the_page_shows_each_system_and_asks_nobody_else(found):
    shown = page(found)
    for row in found.rows:
        assert load_system(row.system).about.citation.split(",")[0] in shown
        for name in row.variants:
            assert name.partition("-")[0] in shown
    assert "http://" not in shown.partition("<script>")[0]
    assert "paper: " in shown


def test_report_writes_the_page_again(tmp_path, capsys):
    shutil.copy(DOCS / "related.json", tmp_path)
    (tmp_path / "sweep.yaml").write_text("base: demo\n")
    assert main(["report", str(tmp_path)]) == 0
    assert "Table 1, derived" in (tmp_path / "report.html").read_text()
    assert (tmp_path / "related-work.md").is_file()


def test_a_cell_that_is_not_the_papers_stands_beside_it(found):
    grid = tables.columns(found)
    row = next(cells for cells in grid.rows if cells[0].startswith("mcmahan:"))
    assert row[1:] == ("no", "yes", "no", "yes (paper: no)", "no")


def test_variants_of_kinds_and_levels_are_a_curve_or_a_grid(found):
    rows = {row.system: row for row in found.rows}
    curve = tables.layout(rows["kairouz"])
    assert curve.numeric
    assert curve.levels["feature"] == ("0.3", "0.6", "1")
    assert list(curve.levels) == ["label", "feature", "quantity"]
    grid = tables.variants(rows["li"], found.domains)
    assert grid.head == ("overall accuracy", "fedavg", "fedprox", "scaffold", "fednova")
    assert [cells[0] for cells in grid.rows] == ["label", "feature", "temporal"]
    assert tables.layout(rows["karimireddy"]) is None


def test_table1_asks_for_all_in_the_papers_order():
    names = chosen(TABLE)
    assert set(names) == set(system_names())
    assert (names[0], names[-1]) == ("mcmahan", "fedfuse")
    assert chosen("fedfuse, mcmahan") == ("mcmahan", "fedfuse")
    assert Asked(names, "demo").command == "python -m fedfuse_ray compare demo --systems table1"


def test_variants_that_are_the_same_federation_run_once():
    planned = plan(Asked(("kairouz", "li"), "demo", ("seed=3", "training.rounds=2")))
    assert len({p.experiment.model_dump_json() for p in planned.points}) == len(planned.points)
    assert {p.experiment.seed for p in planned.points} == {3}
    assert planned.runs["kairouz", "label-0.3"] != planned.runs["kairouz", ""]
    same = plan(Asked(("kairouz",), "demo", ("data.skew.label_alpha=1", "data.skew.feature=0")))
    assert same.runs["kairouz", "label-10"] == same.runs["kairouz", ""]


def test_a_setting_that_does_not_fit_a_system_names_it():
    with pytest.raises(InputError, match="in systems/geyer on demo"):
        plan(Asked(("geyer",), "demo", ("privacy.mode=none",)))


def test_what_is_not_installed_is_told_and_the_rest_runs(monkeypatch):
    load, remedy = running.load, "needs TenSEAL: pip install 'fedfuse-ray[he]'"

    def lacking(preset, *arguments, **options):
        if preset == "systems/geyer":
            raise InputError("compression.codec", "ckks", remedy)
        return load(preset, *arguments, **options)

    monkeypatch.setattr(running, "load", lacking)
    planned = plan(Asked(("mcmahan", "geyer"), "demo"))
    assert remedy in planned.missing["geyer", ""]
    assert ("mcmahan", "") in planned.runs


@pytest.mark.parametrize(
    ("error", "told"),
    [("fedfuse_ray.errors.InputError: codec: 'ckks': pip install it", True), ("OSError: 3", False)],
)
def test_a_run_that_failed_otherwise_is_no_missing_extra(error, told):
    row = Row(0, "trial", {}, FAILED, error=f"Traceback\n  line\n{error}\n")
    assert bool(running._not_installed(row)) is told


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--systems", "mcmahn"], "--systems: 'mcmahn'"),
        (["--systems", "table1", "--paradigms", "fedfuse"], "--paradigms"),
        (["--systems", "table1", "--executor", "ray"], "--executor"),
        (["--systems", "table1", "--data", "mine.csv"], "--data"),
        (["--systems", "geyer", "--set", "privacy.mode=none"], "in systems/geyer on tiny"),
        (["--resume", "nowhere"], "--resume"),
        (["--resume", "nowhere", "--seed", "0"], "--seed"),
    ],
)
def test_wrong_options_are_one_line_and_status_2(arguments, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["compare", "tiny", *arguments]) == 2
    told = capsys.readouterr().err
    assert said in told
    assert told.count("\n") == 1
    assert not list(tmp_path.iterdir())
