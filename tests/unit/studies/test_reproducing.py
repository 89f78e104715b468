"""The paper's experiments: what is run, and how it is read back and shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fedfuse_ray.cli import main
from fedfuse_ray.errors import InputError
from fedfuse_ray.studies.reproducing import paper, tables
from fedfuse_ray.studies.reproducing.cells import ENCODERS, FUSION, SCRATCH, STUDIES, cells_of
from fedfuse_ray.studies.reproducing.markdown import document
from fedfuse_ray.studies.reproducing.page import page
from fedfuse_ray.studies.reproducing.results import (
    Reproduction,
    Row,
    Spread,
    gains,
    pooled,
)
from fedfuse_ray.studies.reproducing.running import plan, study_names
from fedfuse_ray.studies.reproducing.scale import FULL, QUICK, scale_of
from tests.support.paths import DOCS


@pytest.fixture(scope="module")
def planned():
    return plan(QUICK, study_names(None), Path("/results/trials"))


def row(at, accuracy, seeds=(0, 1), **more):
    values = {
        "at": at,
        "seeds": seeds,
        "accuracy": {n: Spread(values=v) for n, v in accuracy.items()},
        "epsilon": None,
        "uplink_bytes": Spread(values=(100.0,) * len(seeds)),
        "fp32_uplink_bytes": 400.0,
        "rounds": Spread(values=(3.0,) * len(seeds)),
        "runs": tuple(f"trials/{seed}" for seed in seeds),
    }
    return Row.model_validate(values | more)


def found(**studies):
    return Reproduction(
        scale="quick",
        base="demo",
        command="python -m fedfuse_ray reproduce --quick",
        wall_seconds=61.0,
        environment={"hardware": {"usable_cores": 2, "gpus": []}},
        studies=studies,
    )


def test_the_same_federation_of_two_studies_is_run_once(planned):
    assert len(planned.runs) == len(planned.cells)
    assert len({p.experiment.model_dump_json() for p in planned.points}) == len(planned.points)
    by_cell = list(zip(planned.cells, planned.runs, strict=True))
    shared = {
        run
        for cell, run in by_cell
        if (
            cell.paradigm == "fedfuse"
            and cell.seed == 0
            and cell.at.get("epsilon", 1.0) == 1.0
            and not cell.settings
        )
        or (cell.settings == ("privacy.target_epsilon=1.0",) and cell.seed == 0)
    }
    assert len(shared) == 1, "table 3, epsilon 1, compression and the ablations' base are one run"


def test_whoever_takes_weights_over_waits_for_them(planned):
    names = {p.name: p for p in planned.points}
    for name in planned.second:
        donor = Path(names[name].experiment.model.transfer.run)
        assert donor.parent == Path("/results/trials")
        assert donor.name in names
        assert donor.name not in planned.second
    waiting = {n for n, p in names.items() if p.experiment.model.transfer is not None}
    assert waiting == planned.second


def test_a_transfer_differs_from_scratch_by_its_start_alone(planned):
    names = {p.name: p.experiment for p in planned.points}
    by_start = {}
    for cell, run in zip(planned.cells, planned.runs, strict=True):
        if cell.study == "transfer" and cell.at["target"] == "materials" and cell.seed == 1:
            by_start[cell.at["start"]] = names[run]
    assert set(by_start) == {SCRATCH, FUSION, ENCODERS}
    plain = [e.model_dump(exclude={"model": {"transfer"}}) for e in by_start.values()]
    assert plain[0] == plain[1] == plain[2]
    assert set(by_start[SCRATCH].data.domains) == {"materials"}
    donors = by_start[ENCODERS].model.transfer.blocks
    assert "encoder/spectroscopy" not in {*donors, *donors.values()}
    own = set(by_start[SCRATCH].data.domains["materials"].modalities)
    assert not own & {block.removeprefix("encoder/") for block in donors.values()}


def test_every_cell_of_both_scales_is_a_valid_experiment():
    for scale in (QUICK, FULL):
        assert plan(scale, ("skew", "ablation"), Path("/x")).points
    assert {c.study for c in cells_of(FULL, tuple(STUDIES))} == {*STUDIES, "pretraining"}


@pytest.mark.parametrize("listed", ["tabel3", "", " , "])
def test_studies_that_do_not_exist_are_refused(listed):
    with pytest.raises(InputError, match="--studies"):
        study_names(listed)


def test_a_scale_that_does_not_exist_is_refused():
    with pytest.raises(InputError, match="quick or full"):
        scale_of("huge")


def test_gains_are_paired_by_seed():
    one = row({}, {"overall": (0.5, 0.9)}, seeds=(0, 1))
    other = row({}, {"overall": (0.7, 0.4)}, seeds=(1, 0))
    assert gains(one, other).values == pytest.approx((0.1, 0.2))
    assert pooled([gains(one, other), Spread(values=(1.0,))]).mean == pytest.approx(1.3 / 3)


def test_the_gain_by_transfer_is_told_in_points_and_relative():
    rows = (
        row({"target": "medical", "start": SCRATCH}, {"overall": (0.4, 0.5)}),
        row({"target": "medical", "start": FUSION}, {"overall": (0.5, 0.4)}),
    )
    absolute, relative = tables.transfer_gain(found(transfer=rows), FUSION)
    assert absolute.values == pytest.approx((0.1, -0.1))
    assert relative.values == pytest.approx((0.25, -0.2))
    assert tables.points_text(absolute) == "+0.0 (-10.0 to +10.0)"
    grid = tables.transfer(found(transfer=rows))
    assert grid.rows[0][3] == "–"  # noqa: RUF001
    assert grid.rows[1][3] == "+0.0 (-10.0 to +10.0)"


def test_the_paper_stands_beside_the_measurement_and_nothing_unmeasured_is_claimed():
    domains = dict.fromkeys(("overall", *paper.DOMAINS), (0.9,))
    low = dict.fromkeys(("overall", *paper.DOMAINS), (0.81,))
    table = (
        row({"paradigm": "centralized"}, domains, seeds=(0,)),
        row({"paradigm": "fedfuse"}, low, seeds=(0,)),
    )
    told = tables.claims(found(table3=table)).rows
    assert told[0][:3] == (
        "accuracy at epsilon 1, of centralized",
        "94.2%",
        "90.0% overall; by domain 90.0% (90.0% to 90.0%)",
    )
    assert len(told) == 1
    assert tables.claims(found()).rows == ()


def test_page_and_document_show_what_was_run_and_ask_the_network_for_nothing():
    rows = (row({"epsilon": 1.0}, dict.fromkeys(("overall", *paper.DOMAINS), (0.8, 0.7))),)
    shown = page(found(privacy=rows))
    assert 'id="privacy"' in shown
    assert 'id="transfer"' not in shown
    assert 'href="trials/1/report.html"' in shown
    assert "default-src 'none'" in shown
    text = document(found(privacy=rows))
    assert "| 1 | 0.750 (0.700-0.800) |" in text
    assert "Transfer across domains" not in text


def test_report_writes_page_and_document_again(tmp_path, capsys):
    found().write(tmp_path)
    (tmp_path / "sweep.yaml").write_text("base: demo\n")
    assert main(["report", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"Report: {tmp_path / 'report.html'}\n"
    assert (tmp_path / "report.html").read_text() == page(found())
    assert (tmp_path / "paper.md").read_text() == document(found())


def test_the_document_is_what_the_reproduction_gives():
    stored = DOCS / "reproduction.json"
    assert (DOCS / "paper.md").read_text() == document(Reproduction.read(stored)), (
        "copy paper.md and reproduction.json from the folder of `reproduce --quick`"
    )
    assert json.loads(stored.read_text())["scale"] == "quick"
