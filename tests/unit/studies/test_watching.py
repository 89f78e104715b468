"""Watching result folders while they grow."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from fedfuse_ray import cli
from fedfuse_ray.config import dump
from fedfuse_ray.errors import DeadlineError, InputError
from fedfuse_ray.report import RunStore, write_comparison
from fedfuse_ray.studies.sweeping.loading import validate_sweep
from fedfuse_ray.studies.sweeping.points import expand
from fedfuse_ray.studies.sweeping.store import DONE, Outcome, SweepStore, write_outcome
from fedfuse_ray.studies.watching import look, look_at_folder, watch
from fedfuse_ray.studies.watching.views import sparkline
from tests.support.federations import tiny
from tests.support.pages.report_sample import institution_rows, round_row, summary

TOTAL = 3


def begun(folder, paradigm="fedfuse"):
    store = RunStore(folder)
    settings = (f"training.rounds={TOTAL}",)
    store.start(dump(tiny(*settings, paradigm=paradigm)), {})
    return store


def advance(store, number):
    store.append_round(round_row(number, private=True), institution_rows(number, private=True))


def text(view, **options):
    console = Console(file=io.StringIO(), width=110, **options)
    console.print(view)
    return console.file.getvalue()


@pytest.fixture
def time(monkeypatch):
    """A clock of which each sleep is a chance for something to happen."""

    class Clock:
        now, happens = 0.0, lambda self: None

        def monotonic(self):
            return self.now

        def sleep(self, seconds):
            self.now += seconds
            self.happens()

    clock = Clock()
    monkeypatch.setattr(look, "time", clock)
    return clock


def happening(*events):
    left = list(events)
    return lambda: left.pop(0)() if left else None


def test_a_run_is_told_round_by_round_until_its_summary_appears(tmp_path, time):
    store = begun(tmp_path)
    time.happens = happening(
        *(lambda n=n: advance(store, n) for n in (1, 2, 3)),
        lambda: store.write_summary(summary("fedfuse", TOTAL, private=True)),
    )
    console = Console(file=io.StringIO(), width=110)
    watch(look_at_folder(tmp_path), console, interval=2.0, timeout=60.0)
    assert time.now == 8.0
    lines = console.file.getvalue().splitlines()
    row = round_row(1, private=True)
    assert lines[0].startswith("[######..............] round 1/3")
    assert f"accuracy {100 * row.accuracy:.1f}%" in lines[0]
    assert f"epsilon {row.epsilon:.2f}" in lines[0]
    assert [line.split("  ")[0] for line in lines[1:3]] == [
        "[#############.......] round 2/3",
        "[####################] round 3/3",
    ]
    assert lines[3] == "fedfuse on tiny, seed 0"


def test_on_a_terminal_the_view_is_live(tmp_path, time):
    store = begun(tmp_path)
    advance(store, 1)
    time.happens = happening(
        lambda: advance(store, 2),
        lambda: store.write_summary(summary("fedfuse", TOTAL, private=True)),
    )
    console = Console(file=io.StringIO(), width=110, force_terminal=True)
    watch(look_at_folder(tmp_path), console, interval=1.0, timeout=60.0)
    shown = console.file.getvalue()
    assert "round 1/3" in shown
    assert "round 2/3" in shown
    assert "ended after" in shown


def test_without_news_it_gives_up(tmp_path, time):
    store = begun(tmp_path)
    time.happens = happening(*[lambda: None] * 9, lambda: advance(store, 1))
    with pytest.raises(DeadlineError, match="no news for 10 s"):
        watch(look_at_folder(tmp_path), Console(file=io.StringIO()), interval=1.0, timeout=10.0)
    assert 20.0 < time.now < 22.0  # The round was news.


def test_rounds_that_are_run_again_are_told_again(tmp_path, time):
    store = begun(tmp_path)
    advance(store, 1)
    advance(store, 2)
    time.happens = happening(
        lambda: store.truncate(1),
        lambda: advance(store, 2),
        lambda: store.write_summary(summary("fedfuse", TOTAL, private=True)),
    )
    console = Console(file=io.StringIO(), width=110)
    watch(look_at_folder(tmp_path), console, interval=1.0, timeout=60.0)
    assert console.file.getvalue().count("round 2/3  accuracy") == 2


def test_the_view_tells_scores_epsilon_bytes_and_who_was_late(tmp_path):
    store = begun(tmp_path)
    for number in (1, 2):
        rows = [replace(r, status="sent") for r in institution_rows(number, private=True)]
        rows[4] = replace(rows[4], status="late")
        rows[5] = replace(rows[5], status="not selected")
        store.append_round(round_row(number, private=True), rows)
    shown = text(look_at_folder(tmp_path)().view)
    assert "round 2/3" in shown
    assert "left" in shown
    assert "ε of 1" in shown
    assert f"15 institutions, {_sent(store)} sent up" in shown
    sites = [line.split() for line in shown.splitlines() if "-0" in line]
    # Who missed rounds comes first.
    assert sites[0][0] == rows[4].institution
    assert sites[0][-2:] == ["late", "2"]
    assert sites[1][-2:] == ["sent", "–"]  # noqa: RUF001
    # Nobody who was not chosen has missed anything.
    assert next(s for s in sites if s[0] == rows[5].institution)[-3:] == ["not", "selected", "–"]  # noqa: RUF001
    overall = next(line for line in shown.splitlines() if line.strip().startswith("overall"))
    assert f"{100 * round_row(2, private=True).accuracy:.1f}%" in overall
    assert overall.rstrip().endswith("▁█")


def _sent(store):
    from fedfuse_ray.report.units import human_bytes

    return human_bytes(sum(store.tables()[1]["uplink_bytes"].to_pylist()))


def test_a_run_that_has_no_round_yet_is_starting(tmp_path):
    begun(tmp_path)
    seen = look_at_folder(tmp_path)()
    assert "starting" in text(seen.view)
    assert (seen.lines, seen.ended) == ((), False)


def test_participants_apart_have_no_rounds_to_come(tmp_path):
    begun(tmp_path, "isolated")
    assert "participants train apart" in text(look_at_folder(tmp_path)().view)


def test_a_comparison_shows_what_has_begun_then_the_table(tmp_path):
    first = begun(tmp_path / "isolated", "isolated")
    first.write_summary(summary("isolated"))
    advance(begun(tmp_path / "fedfuse"), 1)
    watched = look_at_folder(tmp_path)
    seen = watched()
    shown = text(seen.view)
    assert not seen.ended
    assert "isolated   done" in shown
    assert "fedfuse    round 1/3" in shown
    assert [line.split("[")[0] for line in seen.lines] == ["fedfuse: "]
    write_comparison(tmp_path, {"isolated": summary("isolated"), "fedfuse": summary("fedfuse")})
    seen = watched()
    assert seen.ended
    assert "Paradigms compared" in text(seen.view)


def test_a_sweep_shows_its_trials(tmp_path):
    tree = {"base": "tiny", "paradigm": "fedfuse", "space": {"privacy.clip_norm": [0.25, 0.5]}}
    store = SweepStore(tmp_path)
    sweep = validate_sweep(tree)
    store.start(sweep, expand(sweep))
    first, second = (begun(store.trials / name) for name in store.names())
    advance(first, 1)
    first.write_summary(summary("fedfuse", 1, private=True))
    write_outcome(first.folder, Outcome(DONE, 10.0, 12.5))
    advance(second, 1)
    watched = look_at_folder(tmp_path)
    seen = watched()
    shown = text(seen.view)
    assert "1 of 2 trials ended" in shown
    assert "round 1/3" in shown
    assert seen.lines == (
        f"{first.folder.name}: done, accuracy 90.0% at round 1, epsilon 1.00, 2.50 s",
    )
    assert not seen.ended
    (tmp_path / "summary.json").write_text("{}")
    assert watched().ended


def test_a_folder_that_holds_nothing_is_bad_input(tmp_path, capsys):
    for folder in (tmp_path / "gone", tmp_path):
        with pytest.raises(InputError, match="DIR"):
            look_at_folder(folder)
        assert cli.main(["watch", str(folder)]) == 2
        assert capsys.readouterr().err.count("\n") == 1
    (tmp_path / "config.yaml").write_text("a: 1\n")
    assert cli.main(["watch", str(tmp_path), "--once"]) == 2
    assert "is no run's config.yaml" in capsys.readouterr().err


def test_the_command_shows_a_finished_run_once(tmp_path, capsys):
    store = begun(tmp_path)
    advance(store, 1)
    assert cli.main(["watch", str(tmp_path), "--once"]) == 0
    assert "round 1/3" in capsys.readouterr().out
    store.write_summary(summary("fedfuse", TOTAL, private=True))
    assert cli.main(["watch", str(tmp_path)]) == 0
    assert capsys.readouterr().out.count("round 1/3") == 1


def test_what_does_not_go_together_is_refused(capsys):
    assert cli.main(["watch"]) == 2
    assert "--job" in capsys.readouterr().err
    assert cli.main(["watch", "x", "--address", "http://localhost"]) == 2
    assert "--address" in capsys.readouterr().err


def test_a_sparkline_spans_what_it_shows():
    assert sparkline([0.1, 0.2, 0.3]) == "▁▅█"
    assert sparkline([9.0, 0.0, 1.0], width=2) == "▁█"
    assert sparkline([0.5, 0.5]) == "▁▁"
    assert sparkline([]) == ""
