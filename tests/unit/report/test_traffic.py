from __future__ import annotations

import json
from dataclasses import replace

import pytest

from fedfuse_ray.errors import InputError
from fedfuse_ray.report import figures, read_run
from fedfuse_ray.report.rows import institutions_table
from fedfuse_ray.report.theme import is_empty
from tests.support.pages.report_sample import institution_rows, write_sample


@pytest.fixture(scope="module")
def private(tmp_path_factory):
    return read_run(write_sample(tmp_path_factory.mktemp("run"), rounds=14, private=True))


@pytest.fixture(scope="module")
def ideal(tmp_path_factory):
    return read_run(write_sample(tmp_path_factory.mktemp("ideal"), rounds=3))


def traces(figure):
    return {trace.name: trace for trace in figure.data}


def test_bytes_by_institution_are_means_with_the_update_apart(private):
    bars = traces(figures.bytes_by_institution(private.institutions))
    update, protocol = bars["uplink: encoded update"], bars["uplink: protocol"]
    assert list(update.y)[:2] == ["med-01", "med-02"]
    assert update.x[0] == pytest.approx(88.0)
    assert protocol.x[0] == pytest.approx(95.0 - 88.0)
    assert bars["downlink"].x[0] == pytest.approx(380.0)
    # Three of the 14 rounds went without it.
    assert update.x[list(update.y).index("mat-03")] == pytest.approx(88.0 * 11 / 14)


def test_where_updates_were_not_measured_the_uplink_is_one_bar(ideal):
    bars = traces(figures.bytes_by_institution(ideal.institutions))
    assert set(bars) == {"uplink", "downlink"}
    assert bars["uplink"].x[0] == pytest.approx(95.0)


def test_of_very_many_institutions_those_that_send_most_are_shown(tmp_path):
    first = institution_rows(1)[0]
    rows = [replace(first, institution=f"s{i}", uplink_bytes=1000 * i) for i in range(50)]
    figure = figures.bytes_by_institution(institutions_table(rows))
    assert "the 40 of 50" in figure.layout.title.text
    assert list(figure.data[0].y) == [f"s{i}" for i in range(49, 9, -1)]


def test_the_encoded_updates_have_their_line_where_measured(private, ideal):
    lines = traces(figures.bytes_per_round(private.rounds, private.institutions, private.summary))
    assert lines["encoded updates alone"].y[-1] == pytest.approx(0.088 * (15 * 14 - 3))
    plain = figures.bytes_per_round(ideal.rounds, ideal.institutions, ideal.summary)
    assert "encoded updates alone" not in traces(plain)


def test_bits_are_drawn_by_block_where_they_vary(private):
    lines = traces(figures.bits_by_block(private.institutions))
    assert set(lines) == {"encoder/ct", "fusion", "head/medical"}
    assert list(lines["fusion"].x) == list(range(1, 15))
    assert list(lines["fusion"].y)[:3] == [7.5, 7.0, 6.5]
    assert set(lines["encoder/ct"].y) == {6.0}


def test_bits_are_means_over_the_institutions_that_sent_the_block():
    first = institution_rows(1)[0]
    told = [{"fusion": 4}, {"fusion": 8, "head/x": 2}, {}]
    rows = [replace(first, compression=json.dumps(bits)) for bits in told]
    rows.append(replace(first, compression=""))
    lines = traces(figures.bits_by_block(institutions_table(rows)))
    assert (list(lines["fusion"].y), list(lines["head/x"].y)) == ([6.0], [2.0])


@pytest.mark.parametrize(("told", "said"), [("", "did not tell"), ('{"a":8}', "the same")])
def test_bits_that_never_change_are_not_drawn(told, said):
    rows = [replace(row, compression=told) for row in institution_rows(1)]
    assert said in is_empty(figures.bits_by_block(institutions_table(rows)))


def test_broken_compression_is_named():
    rows = [replace(institution_rows(1)[0], compression="[1]")]
    with pytest.raises(InputError, match=r"institutions\.parquet: compression"):
        figures.bits_by_block(institutions_table(rows))
