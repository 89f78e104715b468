"""From a command's arguments to an experiment."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedfuse_ray.config import load
from fedfuse_ray.errors import InputError
from fedfuse_ray.runs.reading import read_experiment


def test_a_preset_is_read_as_it_is():
    assert read_experiment("tiny") == load("tiny")


def test_options_win_over_settings_and_settings_over_the_preset():
    experiment = read_experiment(
        "tiny",
        settings=["seed=1", "training.rounds=9", "execution.executor=ray"],
        seed=2,
        paradigm="isolated",
        executor="serial",
    )
    assert experiment.seed == 2
    assert experiment.training.rounds == 9
    assert experiment.paradigm == "isolated"
    assert experiment.execution.executor == "serial"


def test_a_seed_of_zero_counts():
    assert read_experiment("tiny", settings=["seed=5"], seed=0).seed == 0


def test_a_manifest_replaces_the_specimens_and_keeps_their_size(tmp_path):
    path = tmp_path / "m.csv"
    experiment = read_experiment("tiny", data=path)
    assert (experiment.data.kind, experiment.data.path) == ("manifest", str(path))
    assert (experiment.data.image_size, experiment.data.signal_length) == (16, 64)
    assert experiment.institutions == ()
    assert experiment.model == load("tiny").model


@pytest.mark.parametrize("name", ["m.csv", "m.parquet", "m.pq"])
def test_a_manifest_alone_is_read_by_the_preset_of_its_name(tmp_path, name):
    experiment = read_experiment(str(tmp_path / name))
    assert experiment.data.path == str(tmp_path / name)
    assert experiment.preset == "manifest"


def test_a_manifest_is_named_once():
    with pytest.raises(InputError, match="name one of them"):
        read_experiment("a.csv", data=Path("b.csv"))


def test_a_relative_manifest_starts_where_the_command_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert read_experiment("sub/m.csv").data.path == str(tmp_path / "sub" / "m.csv")


def test_a_files_own_path_starts_at_the_file(tmp_path, monkeypatch):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "mine.yaml").write_text("extends: real\ndata: {path: images.csv}\n")
    monkeypatch.chdir(tmp_path)
    experiment = read_experiment("sub/mine.yaml")
    assert experiment.data.path == str(tmp_path / "sub" / "images.csv")
    assert experiment.preset == "mine"


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ({"paradigm": "feduse"}, "paradigm: 'feduse'"),
        ({"seed": -1}, "seed: '-1'"),
        ({"settings": ["training.rounds"]}, "--set"),
        ({"settings": ["=3"]}, "--set"),
    ],
)
def test_what_cannot_be_used_is_named(named, said):
    with pytest.raises(InputError) as caught:
        read_experiment("tiny", **named)
    assert said in str(caught.value)
