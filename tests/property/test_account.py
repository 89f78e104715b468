"""Totals of an account against the sum over each record by hand, for any split over runs."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from fedfuse_ray.accounts.charges import fold
from fedfuse_ray.accounts.totals import Total, total
from fedfuse_ray.privacy.accounting.epsilon import epsilon
from tests.support.privacy.accounts import DELTA, RECORDS, book_of, charges, coming, units

RECORD = st.integers(0, 7)
RUN = st.tuples(st.frozensets(RECORD, min_size=1), st.sampled_from([1.0, 2.0, 4.0, 8.0]))
HISTORY = st.lists(RUN, min_size=1, max_size=5)
IMAGES = {record: [f"{record}/ct", f"{record}/mri"] for record in range(8)}


def pending(history, institution=lambda run, record: "a"):
    """Return the runs of a history, their records dealt to institutions in some order."""
    runs = []
    for number, (records, sigma) in enumerate(history):
        homes = {}
        for record in records:
            homes.setdefault(institution(number, record), []).append(IMAGES[record])
        groups = {name: (units(*own), charges(sigma)) for name, own in homes.items()}
        runs.append(coming(str(number), groups))
    return runs


def by_hand(history, asked):
    """Return the largest epsilon over the records of a run: all runs that hold the record."""
    return max(
        epsilon(fold(e for held, sigma in history if record in held for e in charges(sigma)), DELTA)
        for record in asked
    )


def same(found, expected):
    return abs(found.epsilon - expected) <= 1e-9 * expected


@settings(max_examples=60, deadline=None)
@given(HISTORY, st.data())
def test_the_total_is_the_composition_record_by_record(history, data):
    number = data.draw(st.integers(0, len(history) - 1))
    found = total(book_of(*pending(history)), [str(number)], RECORDS)
    assert same(found, by_hand(history, history[number][0]))


@settings(max_examples=40, deadline=None)
@given(HISTORY, st.randoms(use_true_random=False))
def test_order_and_institutions_change_nothing(history, random):
    runs = pending(history, lambda run, record: random.choice("abc"))
    random.shuffle(runs)
    asked = [run.run.id for run in runs]
    everybody = frozenset().union(*(held for held, _ in history))
    assert same(total(book_of(*runs), asked, RECORDS), by_hand(history, everybody))


def forgetful(runs, asked) -> Total:
    """A planted fault: an account that knows records by the set that they came in."""
    own = next(run for run in runs if run.run.id == asked)
    ids = {held.id for held in own.units}
    kept = [run for run in runs if ids & {held.id for held in run.units}]
    return total(book_of(*kept), [asked], RECORDS)


def test_an_account_that_forgets_overlaps_is_caught():
    history = [(frozenset({0, 1}), 1.0), (frozenset({1, 2}), 1.0)]
    runs, expected = pending(history), by_hand(history, {0, 1})
    assert same(total(book_of(*runs), ["0"], RECORDS), expected)
    assert not same(forgetful(runs, "0"), expected)
