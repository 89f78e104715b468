"""Whose a specimen is: read, checked, kept, and never cut in two by a split."""

from __future__ import annotations

import csv

import pyarrow.parquet as pq
import pytest

from fedfuse_ray.config import PhantomData
from fedfuse_ray.data import importers
from fedfuse_ray.data.dataset import outline, prepare
from fedfuse_ray.data.exporting import write_manifest
from fedfuse_ray.data.importers.layout import HELD_OUT
from fedfuse_ray.data.importers.table import PATIENT
from fedfuse_ray.data.phantoms import generate
from fedfuse_ray.errors import InputError
from tests.support.federations import tiny
from tests.support.importer_files import COLUMNS, config, federation, load, png, row, save


def with_patients(rows, whose):
    """Return rows with the patient that `whose` gives each."""
    return [{**line, PATIENT: whose(line)} for line in rows]


def save_patients(folder, rows):
    """Write a CSV manifest of rows with patients, and its images."""
    save(folder, [{name: line[name] for name in COLUMNS} for line in rows])
    path = folder / "m.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, (*COLUMNS, PATIENT))
        writer.writeheader()
        writer.writerows(rows)
    return path


def pairs(line):
    """Two train specimens of a site are one patient; others are one each."""
    return f"{line['institution']}-p" if line["specimen_id"][1:] in "01" else line["specimen_id"]


def test_a_csv_manifest_says_whose_a_specimen_is(tmp_path):
    path = save_patients(tmp_path, with_patients(federation(), pairs))
    _, parts = load(path)
    assert parts["train", "a"].specimens.patients == ("a-p", "a-p", "a2")
    assert parts["validation", "a"].specimens.patients == ("a3",)
    dataset = prepare(config(path), (), seed=0)
    assert dataset.index.institutions["a"].patients == 2
    assert dataset.patients("b") == ["b-p", "b-p", "b2"]
    both = dataset.split("train", ("a", "b"))
    assert both.patients == ("a-p", "a-p", "a2", "b-p", "b-p", "b2")
    summary = importers.check(config(path))
    assert summary.patients == {"a": 2, "b": 2}
    assert summary.shared_patients == ()


def test_without_the_column_nobody_knows(tmp_path):
    path = save(tmp_path, federation())
    dataset = prepare(config(path), (), seed=0)
    assert dataset.patients("a") == []
    assert dataset.split("train", ("a",)).patients == ()
    assert dataset.index.institutions["a"].patients == 0
    assert not importers.has_patients(config(path))


@pytest.mark.parametrize(
    ("whose", "said"),
    [
        (lambda r: "P1" if r["specimen_id"] in ("a0", "a3") else r["specimen_id"],
         r"line \d+, patient_id: 'P1': is in validation here and in train at line 2, a leak"),
        (lambda r: "P1" if r["specimen_id"] in ("a0", "t0") else r["specimen_id"],
         r"patient_id: 'P1': is in test here and in train at line 2, a leak; keep all specimens"),
        (lambda r: r["specimen_id"] + r["modality"] if r["specimen_id"] == "a0" else "",
         r"line \d+, patient_id: '': is empty; give every train and validation row one"),
        (lambda r: r["specimen_id"] + r["modality"],
         r"patient_id: 'a0mri': specimen a0 is of patient 'a0ct' at line 2"),
    ],
    ids=["validation", "test", "empty", "two patients"],
)  # fmt: skip
def test_a_manifest_that_cuts_a_patient_is_refused(tmp_path, whose, said):
    path = save_patients(tmp_path, with_patients(federation(), whose))
    with pytest.raises(InputError, match=said):
        importers.check(config(path))


def test_test_rows_may_come_without_patients(tmp_path):
    rows = with_patients(federation(), lambda r: "" if r["split"] == "test" else r["specimen_id"])
    _, parts = load(save_patients(tmp_path, rows))
    assert parts["test", "med"].specimens.patients == ("", "")


def many(sites=("a", "b"), count=24, of_each=3):
    """Rows without validation, in which both sites share the patient `both`."""
    rows = [
        row(f"{s}{i}", s, ("sick", "well")[i % 2], "train") for s in sites for i in range(count)
    ]
    rows += [row("t0", "", "sick", "test"), row("t1", "", "well", "test")]

    def whose(line):
        if line["split"] == "test":
            return ""
        number = int(line["specimen_id"][1:]) // of_each
        return "both" if number == 0 else f"{line['institution']}{number}"

    return with_patients(rows, whose)


@pytest.mark.parametrize("seed", range(6))
def test_the_drawn_split_never_cuts_a_patient(tmp_path, seed):
    _, parts = load(save_patients(tmp_path, many()), seed)
    split_of = {}
    for (split, _), part in parts.items():
        for patient in filter(None, part.specimens.patients):
            assert split_of.setdefault(patient, split) == split
    assert split_of["both"] == "train"
    held = parts["validation", "a"].specimens
    assert 0 < len(held) <= round(HELD_OUT * 24)


def test_a_specimen_of_two_institutions_is_not_held_out_at_one(tmp_path):
    rows = [row(f"s{i}", s, ("sick", "well")[i % 2], "train") for s in "ab" for i in range(8)]
    rows += [row("t0", "", "sick", "test"), row("t1", "", "well", "test")]
    _, parts = load(save(tmp_path, rows))
    assert ("validation", "a") not in parts
    assert len(parts["train", "a"].specimens) == 8


def test_phantoms_have_patients_where_they_are_asked_for():
    experiment = tiny("data.specimens_per_patient=4")
    dataset = prepare(experiment.data, experiment.institutions, seed=0)
    for name, info in dataset.index.institutions.items():
        names = dataset.patients(name)
        assert len(set(names)) == info.patients == -(-info.train // 4)
        assert max(names.count(n) for n in names) == 4
        assert {n.split("-p")[0] for n in names} == {f"{name}-train"}
    counted = outline(experiment.data, experiment.institutions, seed=0)
    assert counted.institutions == dataset.index.institutions
    assert prepare(tiny().data, experiment.institutions, seed=0).patients("med-01") == []


def test_generated_patients_come_back_from_a_manifest(tmp_path):
    experiment = tiny("data.specimens_per_patient=3")
    assert isinstance(experiment.data, PhantomData)
    header, parts = generate(experiment.data, experiment.institutions, seed=0)
    path = tmp_path / "m.parquet"
    write_manifest(path, header, parts, patients=True)
    assert PATIENT in pq.read_schema(path).names
    dataset = prepare(experiment.data, experiment.institutions, seed=0)
    again = prepare(config(path), (), seed=0)
    for name in dataset.index.institutions:
        assert again.patients(name) == dataset.patients(name)


def tree(folder, patients=12, of_each=3):
    for p in range(patients):
        for i in range(of_each):
            file = folder / "med" / "ct" / ("sick", "well")[(p + i) % 2] / f"p{p}" / f"{i}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(png(10 * p + i))
    return folder


@pytest.mark.parametrize("seed", range(4))
def test_a_folders_patients_are_dealt_and_split_whole(tmp_path, seed):
    out = importers.import_to_manifest(
        tree(tmp_path / "in"), tmp_path / "out", institutions=2, seed=seed
    )
    rows = pq.read_table(out).select(["institution", "split", PATIENT]).to_pylist()
    placed = {r[PATIENT]: (r["institution"], r["split"]) for r in rows}
    assert len(placed) == 12
    assert all((r["institution"], r["split"]) == placed[r[PATIENT]] for r in rows)
    assert {split for _, split in placed.values()} == {"train", "validation", "test"}


def test_a_folder_with_patients_in_part_or_in_two_domains_is_refused(tmp_path):
    folder = tree(tmp_path / "in")
    (folder / "med" / "ct" / "sick" / "loose.png").write_bytes(png())
    with pytest.raises(InputError, match="give all images a patient's folder, or none"):
        importers.import_to_manifest(folder, tmp_path / "out", institutions=2)
    (folder / "med" / "ct" / "sick" / "loose.png").unlink()
    other = folder / "eye" / "oct" / "sick" / "p1" / "0.png"
    other.parent.mkdir(parents=True)
    other.write_bytes(png())
    with pytest.raises(InputError, match="patient p1 is in eye and in med"):
        importers.import_to_manifest(folder, tmp_path / "out", institutions=2)
