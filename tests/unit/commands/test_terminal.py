from __future__ import annotations

import signal
from dataclasses import replace

import typer

from fedfuse_ray import cli
from fedfuse_ray.errors import (
    BudgetSpentError,
    DeadlineError,
    InputError,
    InstitutionError,
    ProtocolError,
    ResourceError,
)
from fedfuse_ray.report.rows import RoundRow
from fedfuse_ray.stopping import Stopped
from fedfuse_ray.terminal import TerminalProgress, exit_status

_TIMES = (
    "seconds",
    "train_seconds",
    "aggregate_seconds",
    "evaluate_seconds",
    "simulated_seconds",
)


def status_of(error, capsys):
    def command():
        raise error

    status = exit_status(command)
    captured = capsys.readouterr()
    assert captured.out == ""
    return status, captured.err


def test_a_command_that_is_done_says_nothing(capsys):
    assert exit_status(lambda: 5) == 0
    assert capsys.readouterr() == ("", "")


def test_bad_input_is_one_line_and_status_2(capsys):
    error = InputError("training.rounds", "1\n2", "must be\n  a number")
    assert status_of(error, capsys) == (2, "error: training.rounds: '1 2': must be a number\n")


def test_a_long_value_is_cut(capsys):
    _, said = status_of(InputError("x", "v" * 1000, "is long"), capsys)
    assert len(said) < 200
    assert said.count("\n") == 1


def test_the_projects_other_errors_are_status_1_without_a_traceback(capsys):
    for error in (
        ProtocolError("replayed"),
        DeadlineError("late"),
        ResourceError("GPUs are short"),
        BudgetSpentError("spent"),
    ):
        assert status_of(error, capsys) == (1, f"error: {error}\n")


def test_a_failing_institution_is_named_with_its_traceback(capsys):
    status, said = status_of(InstitutionError("med-02", "Traceback ...\nOSError: x"), capsys)
    assert status == 1
    assert said == "error: institution med-02 failed:\nTraceback ...\nOSError: x\n"


def test_anything_else_is_a_traceback_and_status_1(capsys):
    status, said = status_of(ZeroDivisionError("oops"), capsys)
    assert status == 1
    assert said.startswith("Traceback")
    assert "ZeroDivisionError: oops" in said


def test_an_interrupt_tells_how_to_go_on(capsys):
    for error in (KeyboardInterrupt(), typer.Abort(), Stopped()):
        assert status_of(error, capsys) == (130, "error: interrupted\n")
    stopped = Stopped("continue with: run --resume x", signal.SIGTERM)
    assert status_of(stopped, capsys) == (143, f"error: interrupted; {stopped.remedy}\n")


def test_typers_own_exit_keeps_its_status(capsys):
    assert status_of(typer.Exit(3), capsys) == (3, "")
    assert status_of(typer.Exit(0), capsys) == (0, "")


def test_usage_errors_are_one_line_and_status_2(capsys):
    for arguments in (
        ["run", "tiny", "--nonsense"],
        ["nonsense"],
        ["run", "tiny", "--seed", "x"],
        ["run", "tiny", "--executor", "slurm"],
        ["data", "import", "x", "--out", "y"],
        ["data", "import", "x", "--out", "y", "--institutions", "0"],
        ["report"],
    ):
        assert cli.main(arguments) == 2, arguments
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("error: ")
        assert err.count("\n") == 1
    cli.main(["run", "tiny", "--executor", "slurm"])
    assert "--executor" in capsys.readouterr().err


def test_help_is_not_an_error(capsys):
    assert cli.main(["--help"]) == 0
    assert "run" in capsys.readouterr().out
    assert cli.main(["run", "--help"]) == 0
    assert "--resume" in capsys.readouterr().out


def round_of(number, **values):
    zeros = dict.fromkeys(_TIMES, 0.0)
    row = RoundRow(number, 0.5, **zeros, uplink_bytes=46_100, downlink_bytes=0, participants=3)
    return replace(row, **values), ()


def test_progress_in_a_job_log_is_plain_lines(capsys):
    with TerminalProgress() as progress:
        progress.stage("Training [40] rounds")
        for done in range(1, 41):
            last = {"accuracy": 0.5, "epsilon": 1.0} if done == 40 else {}
            progress.advanced(done, 40, "round", round_of(done, **last))
        progress.advanced(1, 2, "med-01", None)
    captured = capsys.readouterr()
    lines = (captured.out + captured.err).splitlines()
    assert lines[0] == "Training [40] rounds"
    assert lines[1].startswith("  [##..................] round 4/40  uplink 46.1 kB  0.")
    assert "s left" in lines[1]
    assert lines[10] == (
        f"  [{'#' * 20}] round 40/40  accuracy 50.0%  epsilon 1.00  uplink 46.1 kB"
    )
    assert lines[11] == "  [##########..........] 1/2 med-01"
    assert len(lines) == 12  # About ten of forty rounds are told.
    assert "\x1b" not in captured.out + captured.err


def test_slow_rounds_are_told_every_half_minute_with_the_time_to_go(capsys, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("fedfuse_ray.terminal.time.monotonic", lambda: now[0])
    progress = TerminalProgress()
    for done, seconds in enumerate([600.0, 20.0, 20.0, 20.0], 1):
        now[0] += seconds
        progress.advanced(done, 200, "round", round_of(done))
    told = [line.split("]")[1] for line in capsys.readouterr().out.splitlines()]
    assert told == [
        " round 1/200  uplink 46.1 kB",  # The first round warms up, and tells of no other.
        " round 3/200  uplink 46.1 kB  1 h 05 min left",
    ]


def test_quiet_progress_says_nothing(capsys):
    with TerminalProgress(quiet=True) as progress:
        progress.stage("Training")
        progress.advanced(1, 1, "round", round_of(1))
    assert capsys.readouterr() == ("", "")
