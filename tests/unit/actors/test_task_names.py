"""Names of tasks in Ray's dashboard."""

from __future__ import annotations

from actors.task_names import of_round


def test_a_short_run_names_every_round():
    assert [of_round(r, 40) for r in (1, 3, 40)] == ["round 1", "round 3", "round 40"]


def test_a_long_run_names_few_spans_that_hold_every_round():
    for total in (41, 500, 12_345):
        names = [of_round(r, total) for r in range(1, total + 1)]
        assert len(set(names)) <= 12
        for number, name in enumerate(names, 1):
            first, last = map(int, name.removeprefix("rounds ").split("-"))
            assert first <= number <= last <= total
    told = [of_round(r, 500) for r in (1, 20, 21, 41, 80, 321, 500)]
    assert told[:3] == ["rounds 1-20", "rounds 1-20", "rounds 21-40"]
    assert told[3:] == ["rounds 41-80", "rounds 41-80", "rounds 321-500", "rounds 321-500"]
