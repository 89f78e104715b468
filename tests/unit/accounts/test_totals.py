"""Totals: every run that touched a record composes, and what only looks like another record too."""

from __future__ import annotations

import pytest

from fedfuse_ray.accounts.book import FINISHED, STOPPED, WITHDRAWN, settled_line
from fedfuse_ray.accounts.totals import Guarantee, total, total_of
from fedfuse_ray.privacy.accounting.epsilon import epsilon
from tests.support.privacy.accounts import DELTA, RECORDS, book_of, charges, coming, units

ONE, TWO = units(["x"], ["y"]), units(["y"], ["z"])


def of(*several):
    return epsilon([event for own in several for event in own], DELTA)


def test_runs_on_the_same_records_add_up():
    book = book_of(coming("1", {"a": (ONE, charges(4.0))}), coming("2", {"a": (ONE, charges(2.0))}))
    found = total(book, ["2"], RECORDS)
    assert found.epsilon == of(charges(4.0), charges(2.0))
    assert (found.runs, found.unprotected) == (2, 0)


def test_an_overlap_counts_where_it_is():
    book = book_of(coming("1", {"a": (ONE, charges(4.0))}), coming("2", {"a": (TWO, charges(2.0))}))
    assert total(book, ["1"], RECORDS).epsilon == of(charges(4.0), charges(2.0))
    assert total_of([units(["x"])], book, RECORDS).epsilon == of(charges(4.0))
    assert total_of([units(["z"])], book, RECORDS).epsilon == of(charges(2.0))
    assert total_of([units(["w"])], book, RECORDS).epsilon is None


def test_institutions_of_other_names_hold_the_same_records():
    book = book_of(coming("1", {"a": (ONE, charges(4.0))}), coming("2", {"b": (ONE, charges(2.0))}))
    assert total(book, ["2"], RECORDS).epsilon == of(charges(4.0), charges(2.0))


def test_two_modalities_of_a_specimen_are_one_record():
    ct, mri, both = units(["ct"]), units(["mri"]), units(["ct", "mri"])
    book = book_of(
        coming("1", {"a": (ct, charges(4.0))}),
        coming("2", {"a": (mri, charges(2.0))}),
        coming("3", {"a": (both, charges(3.0))}),
    )
    assert total(book, ["3"], RECORDS).epsilon == of(charges(4.0), charges(2.0), charges(3.0))
    assert total(book, ["1"], RECORDS).epsilon == of(charges(4.0), charges(3.0))


def test_an_image_at_two_institutions_of_a_run_is_charged_as_the_dearer_one():
    groups = {"a": (ONE, charges(4.0)), "b": (TWO, charges(2.0))}
    assert total(book_of(coming("1", groups)), ["1"], RECORDS).epsilon == of(charges(2.0))
    sampled = charges(4.0, 3, sampling_rate=0.5)
    groups = {"a": (ONE, charges(4.0)), "b": (TWO, sampled)}
    found = total(book_of(coming("1", groups)), ["1"], RECORDS)
    assert found.epsilon == pytest.approx(of(charges(4.0), sampled))


def settled(book, id, *, state=FINISHED, own=None, releases="r"):
    return book.after([settled_line(id, state, {"a": own} if own else {}, releases)])


def test_a_settled_run_counts_what_it_charged():
    book = book_of(coming("1", {"a": (ONE, charges(4.0, 10))}))
    book = settled(book, "1", state=STOPPED, own=charges(4.0, 3), releases="")
    assert total(book, ["1"], RECORDS).epsilon == of(charges(4.0, 3))


def test_equal_releases_count_once_and_only_when_both_have_ended():
    twice = [coming(id, {"a": (ONE, charges(4.0))}, identity="same") for id in "12"]
    book = book_of(*twice)
    both = of(charges(4.0, 2))
    assert total(book, ["1"], RECORDS).epsilon == both
    book = settled(book, "1", own=charges(4.0))
    assert total(book, ["1"], RECORDS).epsilon == both
    found = total(settled(book, "2", own=charges(4.0)), ["1"], RECORDS)
    assert (found.epsilon, found.runs) == (of(charges(4.0)), 1)
    other = settled(book, "2", own=charges(4.0), releases="another kernel")
    assert total(other, ["1"], RECORDS).epsilon == both
    unseen = settled(
        settled(book_of(*twice), "1", own=charges(4.0), releases=""),
        "2",
        own=charges(4.0),
        releases="",
    )
    assert total(unseen, ["1"], RECORDS).epsilon == both


def test_equal_releases_about_other_files_of_the_same_images_count_once_for_both():
    again = units(["x again"], ["y again"])
    book = book_of(
        coming("1", {"a": (ONE, charges(4.0))}, identity="same"),
        coming("2", {"a": (again, charges(4.0))}, identity="same"),
        coming("3", {"a": (units(["x", "x again"]), charges(2.0))}),
    )
    for id in "12":
        book = settled(book, id, own=charges(4.0))
    assert total(book, ["2"], RECORDS).epsilon == of(charges(4.0), charges(2.0))
    assert total(book, ["3"], RECORDS).epsilon == of(charges(4.0), charges(2.0))


def test_a_run_without_noise_is_counted_beside_the_epsilon():
    book = book_of(
        coming("1", {"a": (ONE, charges(4.0))}),
        coming("2", {"a": (TWO, ())}, protected=False),
        coming("3", {"a": (units(["far away"]), ())}, protected=False),
    )
    found = total(book, ["1"], RECORDS)
    assert (found.epsilon, found.runs, found.unprotected) == (of(charges(4.0)), 1, 1)
    assert found.text.endswith("; not private: 1 run published without noise")
    alone = total(book, ["3"], RECORDS)
    assert (alone.epsilon, alone.runs) == (None, 0)


def test_a_withdrawn_run_counts_as_nothing():
    book = book_of(
        coming("1", {"a": (ONE, charges(4.0))}), coming("2", {"a": (ONE, ())}, protected=False)
    )
    for id in "12":
        book = settled(book, id, state=WITHDRAWN, releases="")
    found = total(book, ["1"], RECORDS)
    assert (found.epsilon, found.runs, found.unprotected) == (None, 0, 0)


def test_runs_of_other_units_are_told_apart():
    of_institution = charges(4.0, unit="institution")
    whole = units(["x", "y"])
    book = book_of(
        coming("1", {"a": (ONE, charges(4.0))}),
        coming("2", {"a": (whole, of_institution)}, unit="institution"),
    )
    found = total(book, ["1"], RECORDS)
    assert (found.epsilon, found.unprotected) == (of(charges(4.0), charges(2.0)), 0)
    found = total(book, ["2"], Guarantee("institution", DELTA))
    assert (found.epsilon, found.unprotected) == (of(of_institution), 1)
    assert found.text.endswith("not private: 1 run gave the unit institution no guarantee")


def test_a_run_that_the_account_does_not_know_has_no_total():
    found = total(book_of(), ["unknown"], RECORDS)
    assert (found.epsilon, found.runs, found.text) == (None, 0, "no private run")
