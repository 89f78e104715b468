"""What a sweep says in the terminal."""

from __future__ import annotations

from rich.console import Console

from fedfuse_ray.studies.sweeping.live import LiveTable, folded, point_text, result_table
from fedfuse_ray.studies.sweeping.store import DONE, Row

NAME = "03-paradigm-fedfuse-target_epsilon-16-seed-2"
ROW = Row(3, NAME, {"a.compression": {"codec": "modint", "bits": 8}, "x": 0.25}, DONE, 0.5)


def test_names_are_broken_after_hyphens():
    assert folded(NAME, 20) == ["03-paradigm-fedfuse-", "target_epsilon-16-", "seed-2"]
    assert folded("x" * 30, 10) == ["x" * 30]
    assert "".join(folded(NAME, 5)) == NAME


def test_groups_of_settings_are_words():
    assert point_text(ROW) == "compression codec modint, bits 8, x 0.25"


def test_a_narrow_table_folds_names_and_a_wide_one_does_not():
    narrow, wide = Console(width=50), Console(width=120)
    with narrow.capture() as told:
        narrow.print(result_table([ROW], [ROW]))
    assert NAME not in told.get()
    assert max(map(len, told.get().splitlines())) <= 50
    assert "target_epsilon-" in told.get()
    with wide.capture() as told:
        wide.print(result_table([ROW], [ROW]))
    assert NAME in told.get()


def test_a_line_that_is_too_long_for_a_terminal_goes_on_below(capsys):
    log = Console(force_terminal=False)
    live = LiveTable([ROW], total=4, terminal=log)
    live.ended(ROW)
    assert len(capsys.readouterr().out.splitlines()) == 1  # a log keeps a line a trial
    narrow = Console(width=60, force_terminal=True, color_system=None)
    live = LiveTable([ROW], total=4, terminal=log, console=narrow)
    live.ended(ROW)
    lines = capsys.readouterr().out.splitlines()
    assert lines == [f"[1/4] {NAME}:", "      done, accuracy 50.0% at round 0, not private, –"]  # noqa: RUF001
