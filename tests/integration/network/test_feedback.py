"""What error feedback owes waits for the institution that was late."""

from __future__ import annotations

import numpy as np
import pytest

from fedfuse_ray import blocks
from fedfuse_ray.runs.running import run
from tests.support.federations import plan_of, tiny
from tests.support.watching import NAMES, SHAKY, SHORT, Watched, status_of


@pytest.mark.parametrize("feedback", ["ef14", "ef21"])
def test_the_late_keep_what_they_owe_and_pay_it_later(tmp_path, feedback):
    watched = Watched()
    experiment = tiny(
        SHAKY,
        SHORT,
        "compression.codec=topk",
        "compression.fraction=0.2",
        f"compression.feedback={feedback}",
        "training.rounds=8",
    )
    run(experiment, tmp_path, executor=watched)
    told = status_of(tmp_path)
    own = [told[number, "med-01"] for number in range(1, 9)]
    assert "late,sent" in ",".join(own)
    assert "sent,late" in ",".join(own)
    for number in range(1, 9):
        before, after = watched.states[number - 1], watched.states[number]
        for who in NAMES:
            changed = blocks.sha256(before.get(who, {})) != blocks.sha256(after.get(who, {}))
            assert changed == (told[number, who] == "sent"), (number, who)


def test_under_ef21_the_server_steps_with_what_each_got_across(tmp_path):
    """Who is late stays in the sum with what it sent before, and nothing of it is lost for good."""
    watched = Watched()
    ef21 = ("compression.codec=topk", "compression.feedback=ef21")
    experiment = tiny(SHAKY, SHORT, *ef21, "training.rounds=8")
    run(experiment, tmp_path, executor=watched)
    told, plan = status_of(tmp_path), plan_of(experiment)
    sent = 0
    for number, step in enumerate(watched.steps(), 1):
        states = watched.states[number]
        for name, moved in step.items():
            owners = plan.owners[name]
            if all(told[number, who] != "sent" for who in owners):
                assert not moved.any()
                continue
            known = [states[who]["memory/" + name] for who in owners if who in states]
            np.testing.assert_allclose(moved, sum(known), atol=1e-6)
            sent += len(owners) - len([w for w in owners if told[number, w] == "sent"])
    assert sent > 0


def test_the_state_of_scaffold_waits_too(tmp_path):
    watched = Watched()
    run(
        tiny(SHAKY, SHORT, "strategy.kind=scaffold", "training.rounds=6"),
        tmp_path,
        executor=watched,
    )
    told = status_of(tmp_path)
    late = [number for number in range(2, 7) if told[number, "med-01"] == "late"]
    assert late
    for number in late:
        before, after = (watched.states[n].get("med-01", {}) for n in (number - 1, number))
        assert blocks.sha256(before) == blocks.sha256(after)
