"""How commands end when they are stopped, or when what is around them is not as they need it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.processes.commands import done, refused

SERIAL = ("run", "tiny", "--executor", "serial", "--no-progress")
ENDLESS = ("--set", "training.rounds=100000")


def started(*arguments, module="fedfuse_ray", **environment):
    return subprocess.Popen(
        [sys.executable, "-m", module, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
        start_new_session=True,
    )


def ended(*arguments, **environment):
    process = started(*arguments, **environment)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def wait_for(there: Callable[[], object], process, seconds=120):
    until = time.monotonic() + seconds
    while not there():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.05)


def stopped(process, number, *, group=False):
    """Send a signal and return status, standard error's lines of ours, and all text."""
    os.killpg(process.pid, number) if group else process.send_signal(number)
    out, err = process.communicate(timeout=60)
    said = [line for line in err.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in out + err
    return process.returncode, said


def first_round(folder: Path):
    return lambda: list(folder.glob("**/checkpoints/*.npz"))


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_run_says_how_to_go_on_and_goes_on(number, status, tmp_path):
    folder = tmp_path / "out"
    process = started(*SERIAL, *ENDLESS, "--out", folder)
    wait_for(first_round(folder), process)
    found, said = stopped(process, number)
    assert found == status
    (line,) = said
    command = line.partition("continue with: ")[2].split()
    assert command == ["python", "-m", "fedfuse_ray", "run", "--resume", str(folder)]
    again = started(*command[3:], "--no-progress")
    before = set(first_round(folder)())
    wait_for(lambda: set(first_round(folder)()) - before, again)
    assert stopped(again, signal.SIGINT)[0] == 130


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_a_stopped_run_on_ray_ends_so_too(number, tmp_path):
    folder = tmp_path / "out"
    process = started("run", "tiny", "--executor", "ray", *ENDLESS, "--out", folder)
    wait_for(first_round(folder), process)
    status, said = stopped(process, number, group=number == signal.SIGINT)
    assert status == 128 + number
    assert said == [
        f"error: interrupted; continue with: python -m fedfuse_ray run --resume {folder}"
    ]


def test_a_stopped_sweep_says_how_to_go_on(tmp_path):
    folder = tmp_path / "out"
    process = started(
        "tune_configs/smoke.yaml",
        *("--set", "executor=serial", *ENDLESS, "--out", folder),
        module="fedfuse_ray.sweep",
    )
    wait_for(lambda: list(folder.glob("trials/*/config.yaml")), process)
    status, said = stopped(process, signal.SIGINT, group=True)
    assert status == 130
    assert said == [
        f"error: interrupted; continue with: python -m fedfuse_ray.sweep --resume {folder}"
    ]


def test_a_command_with_nothing_to_continue_says_only_that_it_was_stopped():
    process = started("account", "--sigma", "0.8", "--rounds", 10**6, "--local-epochs", 100)
    time.sleep(1.5)
    assert stopped(process, signal.SIGINT) == (130, ["error: interrupted"])


def test_who_reads_no_further_ends_a_command_quietly():
    process = started("data", "describe", "tiny")
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(60) in (1, 141)


def test_a_terminal_without_the_letters_gets_question_marks(tmp_path):
    folder = tmp_path / "Universität"
    arguments = (*SERIAL, "--set", "training.rounds=1", "--out", folder)
    status, out, err = ended(*arguments, PYTHONIOENCODING="ascii")
    assert (status, err) == (0, "")
    assert "Universit?t" in out.replace("\n", "")
    assert (folder / "summary.json").is_file()


@pytest.mark.parametrize("address", ["127.0.0.1:{free}", "localhost:{silent}"])
def test_a_cluster_that_does_not_answer_is_named(address, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        ports = {"silent": silent.getsockname()[1], "free": free.getsockname()[1]}
        named = address.format(**ports)
        arguments = ("run", "tiny", "--executor", "ray", "--out", tmp_path / "out")
        deadline = ("--set", "execution.startup_seconds=2")
        status, _, err = ended(*arguments, *deadline, RAY_ADDRESS=named)
    assert status == 1
    assert err.startswith(f"error: RAY_ADDRESS={named}: ")
    assert err.count("\n") == 1


def test_a_temporary_folder_too_long_for_sockets_is_named(tmp_path):
    long = tmp_path / ("x" * 100)
    long.mkdir()
    arguments = ("run", "tiny", "--executor", "ray", "--out", tmp_path / "out")
    status, _, err = ended(*arguments, TMPDIR=str(long))
    assert status == 1
    assert err.startswith(f"error: {long} is too long a name")
    assert err.count("\n") == 1


@pytest.mark.parametrize("out", ["file", "file/below", "/proc/none"])
def test_a_folder_that_can_not_be_is_one_line(out, tmp_path):
    (tmp_path / "file").touch()
    status, _, err = ended(*SERIAL, "--out", tmp_path / out)
    assert status in (1, 2)
    assert str(tmp_path / "file") in err or "/proc/none" in err
    assert err.count("\n") == 1


def test_a_typo_leaves_an_older_runs_folder_as_it_was(tmp_path):
    """Neither a file that is not there nor one that is wrong in a row costs a ledger."""
    folder = tmp_path / "out"
    done(*SERIAL, "--paradigm", "fedfuse", "--set", "training.rounds=1", "--out", folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    wrong = tmp_path / "wrong.csv"
    wrong.write_text("specimen_id,institution,domain,modality,label,split,path\ns,a,d,m,x,train,\n")
    for source in (tmp_path / "nope.csv", wrong, "tinny"):
        refused("run", source, "--executor", "serial", "--out", folder)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_training_that_diverges_names_institution_and_round(tmp_path):
    diverging = ("--set", "training.learning_rate=1e30", "--out", tmp_path / "out")
    status, _, err = ended(*SERIAL, *diverging)
    assert status == 1
    assert err.startswith("error: institution med-01, round 1: ")
    assert "not finite" in err
    assert "lower the learning rate" in err
    assert err.count("\n") == 1


def test_a_delta_that_no_accountant_resolves_is_no_infinite_epsilon():
    tiny_delta = ("account", "--sigma", "0.8", "--records", "1650", "--batch-size", "64")
    tiny_delta += ("--rounds", "2", "--delta", "1e-18")
    status, out, err = ended(*tiny_delta)
    assert (status, out) == (2, "")
    assert "delta" in err
    status, out, _ = ended(*tiny_delta, "--accountant", "rdp")
    assert status == 0
    assert "inf" not in out
