"""Watching a Ray job over the dashboard's REST interface, played by a server of the test's own."""

from __future__ import annotations

import http.server
import io
import json
import threading
from pathlib import Path

import pytest
from rich.console import Console

from fedfuse_ray import cli
from fedfuse_ray.errors import FedfuseError
from fedfuse_ray.studies.watching import Jobs, look_at_job, watch
from fedfuse_ray.studies.watching.jobs import results_of
from fedfuse_ray.terminal import results_line
from tests.support.pages.report_sample import write_sample

TOKEN = "secret"


def job(name="first", start=1, status="RUNNING", **more):
    known = {"job_id": "01", "submission_id": name, "status": status, "start_time": start}
    return {**known, "message": "", "metadata": {}, "log": "one\ntwo\n", **more}


class Dashboard(http.server.BaseHTTPRequestHandler):
    jobs: list = []  # noqa: RUF012 - set by each test

    def do_GET(self):
        path = self.path.removeprefix("/api/jobs/")
        name, _, what = path.partition("/")
        found = [j for j in self.jobs if name in (j["submission_id"], j["job_id"])]
        if self.headers["Authorization"] != f"Bearer {TOKEN}":
            return self._answer(401, "Unauthorized")
        if not name:
            return self._answer(200, self.jobs)
        if not found:
            return self._answer(404, "does not exist")
        return self._answer(200, {"logs": found[0]["log"]} if what == "logs" else found[0])

    def _answer(self, status, value):
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(value).encode())

    def log_message(self, *args):
        """Stay quiet."""


@pytest.fixture
def address(monkeypatch):
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    monkeypatch.setattr(Dashboard, "jobs", [])
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Dashboard) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def shown(seen):
    console = Console(file=io.StringIO(), width=110)
    console.print(seen.view)
    return console.file.getvalue()


def sample(folder):
    write_sample(folder, rounds=2)
    config = "{paradigm: fedfuse, preset: demo, seed: 0, training: {rounds: 2}, privacy: {}}"
    (folder / "config.yaml").write_text(config)


def test_the_newest_job_is_watched_unless_one_is_named(address):
    Dashboard.jobs = [job("old", 1), job("new", 3), job("middle", 2)]
    jobs = Jobs(address)
    assert jobs.find(None)["submission_id"] == "new"
    assert jobs.find("middle")["submission_id"] == "middle"


def test_a_jobs_folder_is_watched_where_this_machine_has_it(address, tmp_path):
    sample(tmp_path)
    for told in ({"metadata": {"results": str(tmp_path)}}, {"log": results_line(tmp_path) + "\n"}):
        Dashboard.jobs = [job(**told)]
        seen = look_at_job(Jobs(address), "first")()
        assert "round 2/2" in shown(seen)
        assert seen.ended


def test_elsewhere_its_log_is_followed_to_its_end(address):
    Dashboard.jobs = [job(log=results_line(Path("/elsewhere")) + "\nround 1\n")]
    looked = []

    def look():
        seen = look_at_job(Jobs(address), None)()
        looked.append(seen)
        Dashboard.jobs = [job(log="a\nround 1\nround 2\n", status="SUCCEEDED")]
        return seen

    console = Console(file=io.StringIO(), width=110)
    watch(look, console, interval=0.01, timeout=5.0)
    assert [seen.ended for seen in looked] == [False, True]
    assert console.file.getvalue().splitlines()[:3] == [
        "Results go to /elsewhere",
        "round 1",
        "round 2",
    ]
    assert "job first: succeeded" in console.file.getvalue()


def test_once_the_folder_appears_it_is_told_from_its_first_round(address, tmp_path):
    folder = tmp_path / "run"
    Dashboard.jobs = [job(log=f"one\n{results_line(folder)}\n")]
    watched = look_at_job(Jobs(address), None)

    def look():
        seen = watched()
        if not folder.is_dir():
            sample(folder)
        return seen

    console = Console(file=io.StringIO(), width=110)
    watch(look, console, interval=0.01, timeout=5.0)
    told = [
        line.partition("]")[2].partition("  ")[0] for line in console.file.getvalue().split("\n")
    ]
    assert told[2:4] == [" round 1/2", " round 2/2"]


def test_a_job_that_failed_is_an_error_with_its_message(address, capsys):
    Dashboard.jobs = [job(status="FAILED", message="exit code 2, log:\nerror: no\n")]
    with pytest.raises(FedfuseError, match="job first failed: error: no"):
        look_at_job(Jobs(address), None)()
    assert cli.main(["watch", "--job", "--address", address]) == 1
    assert capsys.readouterr().err == "error: job first failed: error: no\n"


def test_a_driver_that_was_not_submitted_has_metadata_and_no_log(address):
    Dashboard.jobs = [job(None, metadata={"results": "/elsewhere"})]
    seen = look_at_job(Jobs(address), "01")()
    assert seen.lines == ()
    assert "job 01: running" in shown(seen)


def test_the_log_names_the_folder_that_it_said_last():
    lines = ("x", results_line(Path("/a")), "y", results_line(Path("/b")))
    assert str(results_of(job(), lines)) == "/b"
    assert str(results_of(job(metadata={"results": "/c"}), lines)) == "/c"
    assert results_of(job(metadata=None), ("x",)) is None


def refused(capsys, *arguments):
    assert cli.main(["watch", "--job", *arguments]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


def test_wrong_jobs_and_addresses_are_bad_input(address, capsys, monkeypatch):
    assert "has no job yet" in refused(capsys, "--address", address)
    Dashboard.jobs = [job()]
    assert "knows no such job" in refused(capsys, "gone", "--address", address)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "wrong")
    assert "asks for the cluster's token" in refused(capsys, "--address", address)
    assert "name the dashboard" in refused(capsys, "--address", "10.0.0.1:6379")
    assert "no dashboard answers" in refused(capsys, "--address", "http://127.0.0.1:1")
