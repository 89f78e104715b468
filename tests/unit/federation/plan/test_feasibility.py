"""What the data decide of an experiment: delta against sizes, and records at several places."""

from __future__ import annotations

import pytest

from fedfuse_ray import cli
from fedfuse_ray.errors import InputError
from fedfuse_ray.federation.plan import feasibility
from tests.support.federations import plan_of, tiny
from tests.support.importer_files import federation, row, save

PRIVATE = ("record-distributed", "record-local")


@pytest.mark.parametrize("mode", PRIVATE)
def test_delta_stays_below_one_over_the_largest_institution(mode):
    largest = max(plan_of(tiny()).participants, key=lambda p: p.specimens)
    for delta in (1 / largest.specimens, 0.49):
        with pytest.raises(InputError, match=r"privacy\.delta") as error:
            plan_of(tiny(f"privacy.mode={mode}", f"privacy.delta={delta}", paradigm="fedfuse"))
        assert f"{largest.name} has {largest.specimens} training specimens" in str(error.value)
        assert "set it well below" in str(error.value)
    just = f"privacy.delta={0.999 / largest.specimens}"
    assert plan_of(tiny(f"privacy.mode={mode}", just, paradigm="fedfuse")).privacy is not None


@pytest.mark.parametrize("mode", ["client", "local-update"])
def test_where_institutions_are_hidden_delta_stays_below_one_over_their_number(mode):
    assert len(plan_of(tiny()).participants) == 3
    with pytest.raises(InputError, match="there are 3 institutions"):
        plan_of(tiny(f"privacy.mode={mode}", "privacy.delta=0.34", paradigm="fedfuse"))
    assert plan_of(tiny(f"privacy.mode={mode}", "privacy.delta=0.3", paradigm="fedfuse")).privacy


def test_without_privacy_delta_says_nothing():
    assert plan_of(tiny("privacy.delta=0.4")).privacy is None


def both():
    """Return rows in which a0 is seen by a, and by b too."""
    rows = [r for r in federation() if r["specimen_id"] != "b0"]
    return [*rows, row("a0", "b", "sick", "train"), row("b0", "b", "sick", "train")]


def experiment(path, mode):
    data = f"data={{kind: manifest, path: '{path}', image_size: 16}}"
    settings = () if mode == "none" else (f"privacy.mode={mode}",)
    paradigm = "fedfuse_nonprivate" if mode == "none" else "fedfuse"
    return tiny(data, "institutions=[]", *settings, paradigm=paradigm)


@pytest.mark.parametrize("mode", PRIVATE)
def test_a_record_at_two_institutions_is_refused(mode, tmp_path):
    path = save(tmp_path, both(), images=False)
    said = r"m\.csv line 16, specimen_id: 'a0': is trained on at a and b, .*at one institution"
    with pytest.raises(InputError, match=said):
        feasibility.check_units(experiment(path, mode))


def test_a_record_at_two_institutions_is_charged_where_that_is_asked_for(tmp_path):
    path = save(tmp_path, both(), images=False)
    charged = tiny(
        f"data={{kind: manifest, path: '{path}', image_size: 16}}",
        *("institutions=[]", "privacy.institutions_per_unit=2"),
        paradigm="fedfuse",
    )
    feasibility.check_units(charged)
    with pytest.raises(InputError, match=r"set privacy\.institutions_per_unit=2, which charges"):
        feasibility.check_units(experiment(path, "record-distributed"))


@pytest.mark.parametrize("mode", PRIVATE)
def test_patients_need_the_column_that_says_who_they_are(mode, tmp_path):
    path = save(tmp_path, federation(), images=False)
    asked = tiny(
        f"data={{kind: manifest, path: '{path}', image_size: 16}}",
        *("institutions=[]", f"privacy.mode={mode}", "privacy.unit=patient"),
        paradigm="fedfuse",
    )
    with pytest.raises(InputError, match=r"m\.csv has no column patient_id; add it, or set priv"):
        feasibility.check_units(asked)


def test_delta_goes_by_patients_where_they_are_the_unit():
    settings = ("data.specimens_per_patient=4", "privacy.unit=patient")
    plan = plan_of(tiny(*settings, paradigm="fedfuse"))
    most = max(p.patients for p in plan.participants)
    with pytest.raises(InputError, match=f"has {most} patients: with a delta of 1 / {most} or mo"):
        plan_of(tiny(*settings, f"privacy.delta={1 / most}", paradigm="fedfuse"))


@pytest.mark.parametrize("mode", ["none", "client", "local-update"])
def test_it_is_accepted_where_records_are_not_the_unit(mode, tmp_path):
    feasibility.check_units(experiment(save(tmp_path, both(), images=False), mode))


@pytest.mark.parametrize("mode", PRIVATE)
def test_a_specimen_of_one_institution_and_its_modalities_passes(mode, tmp_path):
    # a0 has two images at a; t0 is a test specimen; one id in two domains is two specimens.
    rows = [*federation(), row("a0", "c", "sick", "train", domain="other")]
    feasibility.check_units(experiment(save(tmp_path, rows, images=False), mode))


def test_the_command_ends_before_an_older_result_is_touched(tmp_path, capsys):
    path = save(tmp_path, both())
    kept = tmp_path / "run" / "summary.json"
    kept.parent.mkdir()
    kept.write_text("{}")
    arguments = ["run", str(path), "--out", str(kept.parent), "--executor", "serial"]
    assert cli.main([*arguments, "--paradigm", "fedfuse"]) == 2
    assert "'a0': is trained on at a and b" in capsys.readouterr().err
    assert kept.read_text() == "{}"
    assert list(kept.parent.iterdir()) == [kept]
    assert cli.main(["data", "describe", str(path)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "1 specimens at several institutions, as a0 of med at a, b" in said
