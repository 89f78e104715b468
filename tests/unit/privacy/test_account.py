from __future__ import annotations

import json
from dataclasses import replace

import plotly.graph_objects
import pytest

from fedfuse_ray import cli
from fedfuse_ray.errors import InputError
from fedfuse_ray.privacy.account import (
    PAPER_SCHEDULE,
    answer,
    curve_figure,
    epsilon_curve,
    noise_for,
    paper_recipe,
    schedule,
)


def test_the_papers_recipe_costs_194_not_1():
    recipe = paper_recipe()
    assert recipe.true_epsilon == pytest.approx(194, abs=2)
    assert recipe.one_step_epsilon == pytest.approx(1.61, abs=0.01)
    assert recipe.needed_noise_multiplier == pytest.approx(33.0, abs=0.1)
    assert "not the 1.0 claimed" in str(recipe)


@pytest.mark.parametrize(("batch", "epochs", "sigma"), [(64, 5, 1.92), (64, 60, 5.79)])
def test_sigmas_measured_while_planning(batch, epochs, sigma):
    assert noise_for(schedule(1650, batch, epochs), 1.0) == pytest.approx(sigma, rel=0.01)


def test_renyi_accounting_asks_for_more_noise():
    plan = schedule(1650, 64, 20)
    renyi = replace(plan, accountant="rdp")
    there = answer(renyi, target_epsilon=1.0)
    assert 0.99 <= there.epsilon <= 1.0
    assert there.noise_multiplier > noise_for(plan, 1.0)
    assert answer(plan, noise_multiplier=there.noise_multiplier).epsilon < there.epsilon


def test_both_directions_agree():
    plan = schedule(1650, 64, 20)
    there = answer(plan, target_epsilon=1.0)
    back = answer(plan, noise_multiplier=there.noise_multiplier)
    assert back == there
    assert 0.99 <= there.epsilon <= 1.0
    assert (there.steps, there.delta) == (520, 1e-5)
    for given in ({}, {"noise_multiplier": 1.0, "target_epsilon": 1.0}, {"noise_multiplier": 0.0}):
        with pytest.raises(InputError):
            answer(plan, **given)


@pytest.mark.parametrize("records", [2, 732])
def test_a_delta_that_publishes_a_record_is_refused(records, capsys):
    asked = ("account", "--epsilon", "1", "--records", str(records), "--delta")
    assert cli.main([*asked, str(1 / records)]) == 2
    said = capsys.readouterr().err
    assert f"with {records} records a delta of 1 / {records} or more" in said
    assert cli.main([*asked, str(0.9 / records)]) == 0


@pytest.mark.parametrize("delta", ["0", "1", "-0.1", "nan"])
def test_a_delta_that_is_no_probability_is_refused(delta, capsys):
    assert cli.main(["account", "--epsilon", "1", f"--delta={delta}"]) == 2
    assert "--delta" in capsys.readouterr().err


def test_without_a_number_of_records_any_probability_passes():
    assert cli.main(["account", "--sigma", "5", "--delta", "0.01"]) == 0


def test_a_group_is_told_beside_the_unit(capsys):
    assert cli.main(["account", "--sigma", "23.6", "--rounds", "40", "--group", "4"]) == 0
    assert "epsilon of 4 units together" in capsys.readouterr().out
    asked = ["account", "--sigma", "5.9", "--rounds", "40", "--json"]
    assert cli.main(asked) == 0
    alone = json.loads(capsys.readouterr().out)
    asked[2] = "23.6"
    assert cli.main([*asked, "--group", "4"]) == 0
    together = json.loads(capsys.readouterr().out)
    assert together["group_epsilon"] == pytest.approx(alone["epsilon"])


def test_steps_are_rounded_up_each_epoch():
    assert PAPER_SCHEDULE.steps == 52_000
    assert schedule(128, 64, 3).steps == 6
    assert (schedule(10, 64, 3).steps, schedule(10, 64, 3).sampling_rate) == (3, 1.0)
    for bad in ((0, 1, 1, 1), (1, 0, 1, 1), (1, 1, 0, 1), (1, 1, 1, 0)):
        with pytest.raises(InputError):
            schedule(*bad)


def test_the_curve_starts_at_nothing_grows_and_ends_at_the_answer():
    plan = schedule(1650, 64, 25)
    rounds, epsilons = epsilon_curve(plan, 2.0, points=10)
    assert (rounds[0], rounds[-1], epsilons[0]) == (0, 25, 0.0)
    assert epsilons == sorted(epsilons)
    assert epsilons[-1] == answer(plan, noise_multiplier=2.0).epsilon
    figure = plotly.graph_objects.Figure(curve_figure([("sigma 2", (rounds, epsilons))]))
    assert list(figure.data[0].x) == rounds
