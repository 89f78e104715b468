"""Sweep files: what they may say, and what is told when they can't be used."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from fedfuse_ray.errors import InputError
from fedfuse_ray.studies.sweeping.loading import dump_sweep, load_sweep
from tests.support.paths import ROOT

SMALL = {"base": "tiny", "space": {"training.rounds": [1, 2]}}


def written(tmp_path, tree):
    path = tmp_path / "sweep.yaml"
    path.write_text(tree if isinstance(tree, str) else yaml.safe_dump(tree))
    return path


def refused(tmp_path, tree, *overrides):
    with pytest.raises(InputError) as caught:
        load_sweep(written(tmp_path, tree), overrides)
    return caught.value


def test_a_bare_list_is_a_grid_and_the_search_defaults_to_it(tmp_path):
    sweep = load_sweep(written(tmp_path, SMALL))
    assert sweep.space["training.rounds"].grid == (1, 2)
    assert sweep.search.kind == "grid"
    assert sweep.objectives == ("accuracy", "epsilon", "bytes")


def test_numbers_that_yaml_takes_for_text_are_numbers(tmp_path):
    text = "base: tiny\nspace: {privacy.delta: [1e-5, 1e-6], compression.codec: [fp32, 2bit]}\n"
    sweep = load_sweep(written(tmp_path, text))
    assert sweep.space["privacy.delta"].grid == (1e-5, 1e-6)
    assert sweep.space["compression.codec"].grid == ("fp32", "2bit")


def test_overrides_reach_the_sweep_and_the_base(tmp_path):
    sweep = load_sweep(
        written(tmp_path, {**SMALL, "search": {"kind": "random", "trials": 9}}),
        ["search.trials=4", "space.seed={choice: [1, 2]}", "privacy.delta=1e-6", "concurrent=1"],
    )
    assert sweep.search.trials == 4
    assert sweep.space["seed"].choice == (1, 2)
    assert sweep.settings == {"privacy.delta": 1e-6}
    assert sweep.concurrent == 1


def test_a_base_file_is_found_beside_the_sweep(tmp_path):
    sweep = load_sweep(written(tmp_path, {**SMALL, "base": "mine.yaml"}))
    assert sweep.base == str(tmp_path / "mine.yaml")
    assert load_sweep(written(tmp_path, SMALL)).base == "tiny"


def test_an_override_lets_vary_what_the_file_fixes(tmp_path):
    tree = {"base": "tiny", "settings": {"training.rounds": 3}, "space": {"seed": [0]}}
    sweep = load_sweep(written(tmp_path, tree), ["space.training.rounds=[1, 2]"])
    assert sweep.settings == {}
    assert sweep.space["training.rounds"].grid == (1, 2)


@pytest.mark.parametrize(
    "path", sorted((ROOT / "tune_configs").glob("*.yaml")), ids=lambda p: p.stem
)
def test_shipped_sweeps_survive_writing(path, tmp_path):
    sweep = load_sweep(path)
    again = load_sweep(written(tmp_path, dump_sweep(sweep)))
    assert again == sweep


@pytest.mark.parametrize(
    ("tree", "field", "said"),
    [
        ({**SMALL, "spaces": {}}, "spaces", "did you mean 'space'"),
        ({"base": "tiny"}, "space", "required"),
        ({**SMALL, "space": {}}, "space", "at least 1"),
        ({**SMALL, "space": {"seed": []}}, "space.seed.grid", "at least one"),
        ({**SMALL, "space": {"seed": [1, 1.0]}}, "space.seed.grid", "twice"),
        ({**SMALL, "space": {"seed": {}}}, "space.seed", "one of grid"),
        (
            {**SMALL, "space": {"seed": {"grid": [1], "choice": [1]}}},
            "space.seed",
            "one of grid",
        ),
        (
            {**SMALL, "space": {"privacy.delta": {"uniform": [0.1, 0.2]}}},
            "space.privacy.delta",
            "search.kind",
        ),
        (
            {**SMALL, "space": {"privacy.delta": {"loguniform": [0.0, 0.2]}}},
            "space.privacy.delta",
            "above 0",
        ),
        (
            {**SMALL, "space": {"privacy.delta": {"uniform": [2, 1]}}},
            "space.privacy.delta",
            "rising",
        ),
        ({**SMALL, "search": {"kind": "random"}}, "search.random.trials", "required"),
        ({**SMALL, "search": {"kind": "magic"}}, "search", "grid"),
        ({**SMALL, "settings": {"training.rounds": 3}}, "settings.training.rounds", "varies"),
        ({**SMALL, "objectives": ["epsilon", "epsilon"]}, "objectives", "twice"),
        ("- 1\n", "FILE", "holds no sweep"),
        ("a: [", "FILE", "YAML"),
    ],
)
def test_what_cannot_be_used_is_named(tree, field, said, tmp_path):
    error = refused(tmp_path, tree)
    assert error.field == field
    assert re.search(re.escape(said), str(error), re.IGNORECASE), str(error)


@pytest.mark.parametrize("text", ["nothing", "=3", "search=[1"])
def test_overrides_that_cannot_be_read(text, tmp_path):
    assert refused(tmp_path, SMALL, text).field in ("--set", "search")


def test_true_and_one_are_two_values(tmp_path):
    tree = {**SMALL, "space": {"privacy.adaptive_clipping.enabled": [True, 1]}}
    assert len(load_sweep(written(tmp_path, tree)).space.popitem()[1].values) == 2


def test_a_missing_file():
    with pytest.raises(InputError, match="no such sweep file"):
        load_sweep(Path("nowhere.yaml"))
