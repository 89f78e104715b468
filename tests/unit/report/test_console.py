from __future__ import annotations

import pytest
from rich.console import Console

from fedfuse_ray.report import Summary, comparison_table, run_table
from fedfuse_ray.report.units import (
    ABSENT,
    epsilon,
    human_bytes,
    human_seconds,
    percent,
    times_fewer,
)
from tests.support.pages.report_sample import summary


def printed(renderable, width=80):
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(renderable)
    return console.export_text()


def checked(*arguments, **told):
    return Summary.model_validate(summary(*arguments, **told))


def test_a_runs_table_holds_scores_and_costs():
    text = printed(run_table(checked("fedfuse", private=True)))
    for shown in ("90.0%", "88.7%", "environmental", "1.00", "1e-05", "1.43 MB", "4.0x below"):
        assert shown in text


def test_a_run_without_rounds_shows_no_bytes():
    text = printed(run_table(checked("isolated", rounds=0)))
    assert "uplink" not in text
    assert "not private" in text


@pytest.mark.parametrize("width", [80, 120])
def test_no_number_is_cut_in_a_terminal(width):
    names = ("centralized", "isolated", "federated", "federated_dp", "fedfuse")
    comparison = {name: checked(name, private="dp" in name) for name in names}
    comparison["fedfuse_nonprivate"] = checked(level=0.915)
    lines = printed(comparison_table(comparison), width).splitlines()
    (last,) = [line for line in lines if line.startswith("fedfuse_nonprivate")]
    scores = ["91.5%", "93.5%", "91.5%", "89.5%"]
    assert last.split() == [
        "fedfuse_nonprivate",
        *scores,
        "101.7%",
        ABSENT,
        "1.43",
        "MB",
        "61.2",
        "s",
    ]


def test_markup_in_a_name_is_printed_as_it_is():
    assert "[bold]x" in printed(comparison_table({"[bold]x": checked("[bold]x")}))


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (percent(0.87494), "87.5%"),
        (percent(None), ABSENT),
        (human_bytes(999), "999 bytes"),
        (human_bytes(1000), "1.00 kB"),
        (human_bytes(5_700_000), "5.70 MB"),
        (human_bytes(57_000_000), "57.0 MB"),
        (human_bytes(2.5e12), "2.50 TB"),
        (human_seconds(0.123), "0.12 s"),
        (human_seconds(61.2), "61.2 s"),
        (human_seconds(99.96), "1 min 40 s"),
        (human_seconds(3599.6), "1 h 00 min"),
        (times_fewer(100, 50), "2.0x below fp32"),
        (times_fewer(100, 100), None),
        (times_fewer(100, 0), None),
        (epsilon(checked(private=True).privacy), "1.00"),
        (epsilon(checked().privacy), "not private"),
    ],
)
def test_numbers_read_well(shown, expected):
    assert shown == expected
