"""Every wrong input: exit status 2, and exactly one line that names it."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from PIL import Image

from fedfuse_ray import cli
from tests.support.processes.commands import done, refused

COLUMNS = ("specimen_id", "institution", "domain", "modality", "label", "split", "path")
RUN = ("run", "tiny", "--executor", "serial")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--set", "training.round=3"], ["training.round", "unknown key", "'rounds'"]),
        (["--set", "training.learning_rate=-0.1"], ["training.learning_rate", "-0.1"]),
        (["--set", "training.rounds=many"], ["training.rounds", "many"]),
        (["--set", "training.rounds"], ["--set", "training.rounds"]),
        (
            ["--set", "data.domains.medical.modalities=[ct, mri, histopathology]"],
            ["histopathology"],
        ),
        (["--set", "institutions.med-02.modalities=[pet]"], ["pet", "med-02"]),
        (["--paradigm", "feduse"], ["paradigm", "feduse"]),
        (["--seed", "-1"], ["seed", "-1"]),
        (["--executor", "slurm"], ["--executor", "slurm"]),
        (["--resume", "/nowhere/run"], ["--resume", "/nowhere/run"]),
        (["--data", "/nowhere/m.csv"], ["/nowhere/m.csv"]),
        (
            ["--paradigm", "fedfuse", "--set", "strategy.kind=fednova"],
            ["strategy.kind", "'fednova'", "private numbers of steps", "use fedavg"],
        ),
        (
            ["--paradigm", "fedfuse", "--set", "privacy.secure_aggregation.colluding=3"],
            ["privacy.secure_aggregation.colluding", "at most 2"],
        ),
    ],
)
def test_settings(tmp_path, arguments, named):
    line = refused(*RUN, "--out", tmp_path / "out", *arguments)
    for text in named:
        assert text in line


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["run", "tyny"], ["tyny", "tiny"]),
        (["compare", "tiny", "--paradigms", "isolated,feduse"], ["--paradigms", "feduse"]),
        (["report", "/nowhere/run"], ["/nowhere/run"]),
        (["data", "describe", "tyny"], ["tyny"]),
    ],
)
def test_arguments(tmp_path, arguments, named):
    line = refused(*arguments, cwd=tmp_path)
    for text in named:
        assert text in line


class Manifest:
    """Two institutions, two classes, small images; a test breaks one thing about it."""

    def __init__(self, folder):
        self.folder = folder
        self.rows = []
        for site in ("a", "b"):
            for i in range(6):
                split = "validation" if i > 3 else "train"
                self.add(f"{site}{i}", site, ("sick", "well")[i % 2], split)
        for i in range(4):
            self.add(f"t{i}", "", ("sick", "well")[i % 2], "test")

    def add(self, name, institution, label, split, modality="ct"):
        path = f"images/{name}-{modality}.png"
        values = (name, institution, "medical", modality, label, split, path)
        self.rows.append(dict(zip(COLUMNS, values, strict=True)))
        file = self.folder / path
        file.parent.mkdir(exist_ok=True)
        noise = np.random.default_rng(len(self.rows)).integers(0, 255, (20, 20))
        Image.fromarray(noise.astype(np.uint8)).save(file)

    def save(self):
        path = self.folder / "m.csv"
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(self.rows)
        return path


def missing_image(manifest):
    (manifest.folder / manifest.rows[1]["path"]).unlink()
    return ["line 3", "images/a1-ct.png", "missing"]


def truncated_image(manifest):
    path = manifest.folder / manifest.rows[1]["path"]
    path.write_bytes(path.read_bytes()[:-60])
    return ["line 3", "images/a1-ct.png"]


def no_image_at_all(manifest):
    (manifest.folder / manifest.rows[1]["path"]).write_bytes(b"GIF89a but not really")
    return ["line 3", "images/a1-ct.png"]


def label_outside_the_set(manifest):
    manifest.add("t9", "", "undecided", "test")
    return ["line 18", "label", "undecided"]


def empty_institution(manifest):
    manifest.add("c0", "c", "sick", "validation")
    return ["line 18", "institution", "'c'"]


def modality_nobody_owns(manifest):
    manifest.add("t9", "", "sick", "test", modality="pet")
    return ["line 18", "modality", "'pet'", "owns"]


def path_outside_the_folder(manifest):
    manifest.rows[2]["path"] = "../secret.png"
    return ["line 4", "../secret.png", "outside"]


def absolute_path(manifest):
    manifest.rows[2]["path"] = "/etc/passwd"
    return ["line 4", "/etc/passwd", "outside"]


def unknown_split(manifest):
    manifest.rows[0]["split"] = "dev"
    return ["line 2", "split", "dev"]


def broken(folder, breaks):
    """Return the command of a run on a broken manifest, and what has to be named."""
    (folder / "data").mkdir()
    manifest = Manifest(folder / "data")
    named = breaks(manifest)
    settings = ("--set", "training.rounds=1", "--set", "data.image_size=16")
    return (*RUN, "--data", manifest.save(), "--out", folder / "out", *settings), named


@pytest.mark.parametrize(
    "breaks",
    [
        missing_image,
        truncated_image,
        label_outside_the_set,
        empty_institution,
        path_outside_the_folder,
    ],
)
def test_manifests(tmp_path, breaks):
    command, named = broken(tmp_path, breaks)
    line = refused(*command)
    for text in named:
        assert text in line
    assert not (tmp_path / "out" / "summary.json").exists()


@pytest.mark.parametrize(
    "breaks", [no_image_at_all, modality_nobody_owns, absolute_path, unknown_split]
)
def test_manifests_in_this_process(tmp_path, capfd, breaks):
    command, named = broken(tmp_path, breaks)
    assert cli.main([str(word) for word in command]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    for text in named:
        assert text in line


def test_the_manifest_of_these_tests_runs_when_nothing_is_broken(tmp_path):
    done(
        *(*RUN, "--data", Manifest(tmp_path).save(), "--out", tmp_path / "out"),
        *("--set", "training.rounds=1", "--set", "data.image_size=16"),
    )
