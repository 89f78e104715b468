"""Who takes part in a round: everybody's turn, samples, deadlines, and what is refused."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest

from fedfuse_ray.config import load
from fedfuse_ray.errors import InputError
from fedfuse_ray.federation.plan.selection import selected
from fedfuse_ray.federation.rounds.timeline import attend
from tests.support.federations import plan_of, tiny

ROUNDS = 20
LINKS = """network.links={
    med-01-0001: {up_mbps: 0.01, down_mbps: 1.0},
    mat-01-0002: {up_mbps: 1.0, down_mbps: 1.0, latency_ms: 100.0, jitter_ms: 50.0},
}"""


def plan_with(*settings, replicas=4):
    """Return a plan of eight medical and four materials institutions."""
    return plan_of(tiny(f"replicas={replicas}", f"training.rounds={ROUNDS}", *settings))


def chosen(plan, reached=None):
    """Return who takes part in each round."""
    return [selected(plan, n, reached or [*plan.by_name]) for n in range(1, ROUNDS + 1)]


def test_all_is_everybody():
    plan = plan_with()
    assert set(chosen(plan)) == {tuple(plan.by_name)}


@pytest.mark.parametrize(("fraction", "size"), [(0.01, 1), (0.3, 4), (0.5, 6), (1.0, 12)])
def test_random_draws_a_fraction_anew_each_round(fraction, size):
    plan = plan_with("selection.kind=random", f"selection.fraction={fraction}")
    rounds = chosen(plan)
    order = [*plan.by_name]
    for names in rounds:
        assert len(names) == size
        assert list(names) == sorted(set(names), key=order.index)
    assert len(set(rounds)) > (1 if size < 12 else 0)
    assert rounds == chosen(plan)
    other = plan_with("selection.kind=random", f"selection.fraction={fraction}", "seed=1")
    assert (chosen(other) == rounds) == (size == 12)


def test_random_is_uniform():
    plan = plan_with("selection.kind=random", "selection.fraction=0.25")
    count = Counter(name for n in range(1, 2001) for name in selected(plan, n, [*plan.by_name]))
    # 2000 rounds, each institution in a quarter of them: 500, with a deviation of 19.
    assert all(400 < count[name] < 600 for name in plan.by_name)


def test_cyclic_gives_each_domain_s_institutions_their_turn():
    plan = plan_with("selection.kind=cyclic")
    rounds = chosen(plan)
    for domain, line in plan.by_domain.items():
        turns = [
            [name for name in names if plan.by_name[name].domain == domain] for names in rounds
        ]
        assert turns == [[line[index % len(line)]] for index in range(ROUNDS)]


def test_incremental_gives_each_one_stretch_of_an_even_length():
    plan = plan_with("selection.kind=incremental")
    rounds = chosen(plan)
    for domain, line in plan.by_domain.items():
        turns = [name for names in rounds for name in names if plan.by_name[name].domain == domain]
        assert [a for a, b in pairwise([*turns, ""]) if a != b] == list(line)
        lengths = Counter(turns).values()
        assert sum(lengths) == ROUNDS
        assert max(lengths) - min(lengths) <= 1


@pytest.mark.parametrize("kind", ["cyclic", "incremental"])
def test_the_next_in_line_stands_in_for_who_is_away(kind):
    plan = plan_with(f"selection.kind={kind}")
    line = plan.by_domain["medical"]
    reached = [name for name in plan.by_name if name not in (line[0], line[-1])]
    rounds = chosen(plan, reached)
    assert rounds[0][0] == line[1]
    if kind == "cyclic":
        assert rounds[len(line) - 1][0] == line[1]  # Round the end of the line.
    assert set(name for names in rounds for name in names) == set(reached)
    assert selected(plan, 1, line[3:4]) == line[3:4]
    assert selected(plan, 1, []) == ()


@pytest.mark.parametrize("kind", ["cyclic", "incremental"])
def test_everybody_must_have_a_turn(kind):
    plan_with(f"selection.kind={kind}", "training.rounds=8")
    with pytest.raises(InputError, match=r"training\.rounds.*7.*one domain has 8"):
        plan_with(f"selection.kind={kind}", "training.rounds=7")


def test_expected_seconds_are_the_mean_of_what_a_round_takes():
    plan = plan_with(LINKS, "network.specimens_per_second=100")
    expected = plan.expected_seconds
    blocks = {"encoder/ct", "encoder/mri", "fusion", "head/medical"}
    assert set(plan.blocks_of(plan.by_name["med-01-0001"])) == blocks
    from fedfuse_ray.models.initial import initial_blocks

    nbytes = sum(4 * v.size for n, v in initial_blocks(plan.spec).items() if n in blocks)
    computing = plan.by_name["med-01-0001"].specimens / 100
    assert expected["med-01-0001"] == pytest.approx(8e-6 * nbytes * (1 + 100) + computing)
    assert expected["med-01-0002"] == pytest.approx(plan.by_name["med-01-0002"].specimens / 100)
    slow = plan_with(LINKS, "institutions.med-01.hardware.speed=0.5").expected_seconds
    fast = plan_with(LINKS).expected_seconds
    assert slow["med-01-0002"] == pytest.approx(2 * fast["med-01-0002"])
    few = plan_with(LINKS, "institutions.med-01.hardware.local_steps=1", "training.batch_size=2")
    assert few.expected_seconds["med-01-0002"] == pytest.approx(2 / 1000)


def test_the_fastest_take_part_and_nobody_starves():
    settings = ("selection.kind=resources", "selection.count=4", "selection.at_least_every=6")
    plan = plan_with(LINKS, *settings)
    rounds = chosen(plan)
    by_speed = sorted(plan.by_name, key=lambda n: plan.expected_seconds[n])
    assert {len(names) for names in rounds} == {4}
    for name in plan.by_name:
        taken = [0, *(n for n, names in enumerate(rounds, 1) if name in names), ROUNDS + 1]
        assert max(b - a for a, b in pairwise(taken)) <= 6
    count = Counter(name for names in rounds for name in names)
    assert count[by_speed[0]] > 2 * count[by_speed[-1]]
    # Those that are not due are the fastest of the others.
    for number, names in enumerate(rounds, 1):
        due = {n for i, n in enumerate(plan.by_name) if (number - 1 - i) % 6 == 0}
        others = [n for n in by_speed if n not in due]
        assert set(names) == due | set(others[: 4 - len(due)])


def test_more_may_be_due_than_were_asked_for():
    plan = plan_with("selection.kind=resources", "selection.count=1", "selection.at_least_every=2")
    assert {len(names) for names in chosen(plan)} == {6}


def test_who_fits_the_deadline_takes_part():
    settings = (LINKS, "selection.kind=resources", "selection.at_least_every=1000")
    plan = plan_with(*settings, "selection.deadline_seconds=1.0")
    slow = [name for name, seconds in plan.expected_seconds.items() if seconds > 1.0]
    assert slow == ["med-01-0001"]
    late = [n for n in plan.by_name if n not in slow]
    assert [*selected(plan, 500, [*plan.by_name])] == late
    # Where nobody fits, the fastest trains.
    nobody = plan_with(*settings, "selection.deadline_seconds=1e-9")
    fastest = min(plan.by_name, key=lambda n: plan.expected_seconds[n])
    assert selected(nobody, 500, [*plan.by_name]) == (fastest,)
    assert selected(nobody, 500, slow) == tuple(slow)
    assert selected(nobody, 500, []) == ()


def test_attendance_tells_apart_who_is_away_and_who_was_not_chosen():
    away = "network.links={med-02-0001: {up_mbps: 1.0, down_mbps: 1.0, offline: [[0.0, 1e9]]}}"
    plan = plan_with(away, "selection.kind=cyclic")
    said = attend(plan, 6, 0.0, ("med-02-0002", "med-02-0003"))
    assert said.absent == ("med-02-0001",)
    assert set(said.idle) == set(plan.by_name) - {"med-02-0002", "mat-01-0002"}
    assert set(said.unselected) == set(said.idle) - {"med-02-0001"}
    assert said.behind == ("med-02-0002",)


@pytest.mark.parametrize("kind", ["random", "cyclic", "incremental"])
@pytest.mark.parametrize("mode", ["record-distributed", "record-local", "client", "local-update"])
def test_privacy_says_itself_who_takes_part(kind, mode):
    with pytest.raises(InputError, match=r"selection\.kind") as caught:
        load("tiny", [f"selection.kind={kind}", f"privacy.mode={mode}"], paradigm="fedfuse")
    assert mode in str(caught.value)
    assert ("sampling_rate" in str(caught.value)) == (mode == "client")


@pytest.mark.parametrize(
    ("settings", "field", "said"),
    [
        (("selection.kind=some",), "selection", "'resources'"),
        (("selection.kind=random", "selection.fraction=0"), "selection.random.fraction", "0"),
        (("selection.kind=cyclic", "selection.fraction=0.5"), "selection", "unknown key"),
        (("selection.kind=resources",), "selection.resources", "exactly one"),
        (
            ("selection.kind=resources", "selection.count=1", "selection.deadline_seconds=1"),
            "selection.resources",
            "exactly one",
        ),
        (
            ("selection.kind=random", "network.aggregation.kind=buffered-async"),
            "selection.kind",
            "own pace",
        ),
    ],
)
def test_wrong_settings_are_named(settings, field, said):
    with pytest.raises(InputError) as caught:
        load("tiny", settings)
    assert caught.value.field.startswith(field)
    assert said in str(caught.value)


def test_another_kind_forgets_the_former_one_s_settings():
    settings = ["selection={kind: random, fraction: 0.2}", "selection.kind=cyclic"]
    assert load("tiny", settings).selection.kind == "cyclic"
