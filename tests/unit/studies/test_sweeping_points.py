"""Points: every combination, in one order, each a whole experiment or a clear refusal."""

from __future__ import annotations

import numpy as np
import pytest

from fedfuse_ray.config import load
from fedfuse_ray.errors import InputError
from fedfuse_ray.studies.sweeping.loading import validate_sweep
from fedfuse_ray.studies.sweeping.points import digest, expand, slug


def sweep_of(space, **more):
    return validate_sweep({"base": "tiny", "space": space, **more})


def test_a_grid_is_the_product_in_order():
    space = {"training.rounds": [1, 2], "seed": [0, 1, 2]}
    points = expand(sweep_of(space))
    told = [(p.values["training.rounds"], p.values["seed"]) for p in points]
    assert told == [(r, s) for r in (1, 2) for s in (0, 1, 2)]
    assert [p.index for p in points] == list(range(6))
    assert points[4].name == "04-rounds-2-seed-1"
    assert (points[4].experiment.training.rounds, points[4].experiment.seed) == (2, 1)


def test_a_point_is_what_overrides_would_give():
    sweep = sweep_of(
        {"privacy.delta": [1e-6], "privacy.target_epsilon": [2]},
        paradigm="fedfuse",
        settings={"training.rounds": 4, "compression": {"codec": "modint", "bits": 9}},
    )
    expected = load(
        "tiny",
        [
            "privacy.delta=0.000001",
            "privacy.target_epsilon=2",
            "training.rounds=4",
            "compression={codec: modint, bits: 9}",
            "execution.executor=serial",
        ],
        paradigm="fedfuse",
    )
    assert expand(sweep)[0].experiment == expected


def test_a_paradigm_may_vary_with_its_recipe():
    points = expand(sweep_of({"paradigm": ["fedfuse", "federated_dp"]}))
    assert [p.experiment.privacy.mode for p in points] == ["record-distributed", "record-local"]


def test_random_points_repeat_with_their_seed_and_keep_their_bounds():
    space = {
        "training.learning_rate": {"loguniform": [1e-4, 1e-1]},
        "privacy.tolerated_dropouts": {"choice": [0, 1]},
        "model.modality_dropout": {"uniform": [0.0, 0.5]},
    }
    search = {"kind": "random", "trials": 60}
    points = expand(sweep_of(space, search=search))
    assert points == expand(sweep_of(space, search=search))
    assert points != expand(sweep_of(space, search={**search, "seed": 1}))
    # A longer search begins with the shorter one's points.
    longer = expand(sweep_of(space, search={**search, "trials": 61}))
    assert [p.values for p in longer[:60]] == [p.values for p in points]
    rates = np.array([p.values["training.learning_rate"] for p in points])
    assert 1e-4 <= rates.min() < 1e-3 < 1e-2 < rates.max() <= 1e-1
    assert 15 < sum(rates < 10**-2.5) < 45
    assert {p.values["privacy.tolerated_dropouts"] for p in points} == {0, 1}


def test_the_number_of_points_may_be_drawn():
    counts = {
        len(expand(sweep_of({"seed": [0, 1]}, search=search | {"seed": seed})))
        for seed in range(6)
        for search in [{"kind": "random", "trials": 5, "number": "geometric"}]
    }
    assert len(counts) > 2


@pytest.mark.parametrize(
    ("space", "field"),
    [
        ({"training.rounds": [1, 0]}, "training.rounds"),
        ({"training.round": [1]}, "training.round"),
        ({"compression.codec": ["fp32", "topk"], "paradigm": ["fedfuse"]}, "compression.codec"),
        ({"execution.executor": ["ray"]}, "execution.executor"),
        ({"privacy.mode": ["record-local"]}, "privacy"),
    ],
)
def test_a_point_that_nobody_could_run_is_named(space, field):
    with pytest.raises(InputError) as caught:
        expand(sweep_of(space))
    assert caught.value.field == field
    assert "(at " in str(caught.value)


def test_a_base_that_asks_for_actors_is_refused(tmp_path):
    base = tmp_path / "base.yaml"
    base.write_text("extends: tiny\nexecution: {executor: ray}\n")
    with pytest.raises(InputError, match="`executor` of the sweep"):
        expand(validate_sweep({"base": str(base), "space": {"seed": [0]}}))


def test_optuna_proposes_later_but_its_space_is_probed_now():
    search = {"kind": "optuna", "trials": 3}
    assert expand(sweep_of({"seed": [0, 1]}, search=search)) == []
    with pytest.raises(InputError):
        expand(sweep_of({"model.modality_dropout": {"uniform": [0.0, 1.5]}}, search=search))


def test_names_suit_files_and_digests_tell_points_apart():
    assert slug({"a.b": "x/y z", "c": 1e-5}) == "b-x_y_z-c-1e-05"
    assert slug({"compression": {"codec": "modint", "bits": 8}}) == "compression-modint-8"
    assert len(slug({"a": "x" * 500})) <= 80
    assert digest({"a": 1}) != digest({"a": 2})
