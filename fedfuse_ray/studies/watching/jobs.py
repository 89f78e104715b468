"""A Ray job: its result folder where this machine sees it, else the lines of its log.

Asks the cluster's dashboard over Ray's documented REST interface (`/api/jobs/`), so that watching
a job needs neither Ray's start-up nor a place in the cluster.
"""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.text import Text

from fedfuse_ray.errors import FedfuseError, InputError
from fedfuse_ray.studies.watching.folders import look_at_folder
from fedfuse_ray.studies.watching.look import Look
from fedfuse_ray.terminal import RESULTS

ADDRESS = "http://127.0.0.1:8265"
"""Where a dashboard on this machine answers, unless it was told otherwise."""

_ENDED = ("SUCCEEDED", "FAILED", "STOPPED")
_SECONDS = 10.0
_SHOWN = 20


class Jobs:
    """The jobs of one cluster.

    Args:
        address: The dashboard's; by default what `RAY_API_SERVER_ADDRESS` names, or this machine.
    """

    def __init__(self, address: str | None = None) -> None:
        self.address = (address or os.environ.get("RAY_API_SERVER_ADDRESS") or ADDRESS).rstrip("/")
        if not self.address.startswith(("http://", "https://")):
            raise InputError("--address", address, f"name the dashboard, as {ADDRESS}")

    def find(self, name: str | None) -> Mapping[str, Any]:
        """Return a job by its id or its submission id; the newest where none is named.

        Raises:
            InputError: There is none, or the dashboard refuses or does not answer.
        """
        if name is not None:
            return dict(self._ask(f"/api/jobs/{urllib.parse.quote(name, safe='')}", name))
        jobs = self._ask("/api/jobs/", self.address)
        if not jobs:
            raise InputError("--job", self.address, "the cluster has no job yet; submit one")
        return dict(max(jobs, key=lambda job: job["start_time"] or 0))

    def log(self, job: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the lines of a job's log; Ray keeps none of what was not submitted."""
        if job["submission_id"] is None:
            return ()
        name = urllib.parse.quote(job["submission_id"], safe="")
        text = self._ask(f"/api/jobs/{name}/logs", job["submission_id"])["logs"] or ""
        return tuple(text.splitlines())

    def _ask(self, path: str, asked: str) -> Any:
        token = _token()
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        request = urllib.request.Request(self.address + path, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=_SECONDS) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            remedy = {
                404: "the cluster knows no such job; `ray job list` names them",
                401: "the dashboard asks for the cluster's token; set RAY_AUTH_TOKEN_PATH",
                403: "the cluster has another token; set RAY_AUTH_TOKEN_PATH",
            }.get(error.code, f"{self.address} answered {error.code}")
            raise InputError("--job", asked, remedy) from None
        except (OSError, ValueError) as error:
            raise InputError("--address", self.address, f"no dashboard answers: {error}") from None


def look_at_job(jobs: Jobs, name: str | None) -> Callable[[], Look]:
    """Return what looks at a job.

    Raises:
        InputError: There is no such job, or no dashboard.
    """
    found = jobs.find(name)
    job_id = found["submission_id"] or found["job_id"]

    def look() -> Look:
        job = jobs.find(job_id)
        ended = job["status"] in _ENDED
        lines = jobs.log(job)
        if job["status"] == "FAILED":
            # Ray's message ends with the log, whose last line is what the run itself complained of.
            told = (job["message"] or "see its log").strip().splitlines()
            raise FedfuseError(f"job {job_id} failed: {told[-1]}")
        folder = results_of(job, lines)
        try:
            seen = look_at_folder(folder) if folder is not None else None
        except InputError:
            seen = None  # Not on this machine, or not begun.
        if seen is None:
            head = Text(f"job {job_id}: {job['status'].lower()}", style="bold")
            return Look(Group(head, *map(Text, lines[-_SHOWN:])), lines, ended)
        now = seen()
        return Look(now.view, now.lines, now.ended or ended, source=str(folder))

    return look


def results_of(job: Mapping[str, Any], lines: tuple[str, ...]) -> Path | None:
    """Return the folder that a job writes to: from its metadata, else from its log."""
    if told := (job.get("metadata") or {}).get("results"):
        return Path(told)
    named = [line.removeprefix(RESULTS) for line in lines if line.startswith(RESULTS)]
    return Path(named[-1]) if named else None


def _token() -> str | None:
    """Return the cluster's token from where Ray itself looks for it."""
    if token := os.environ.get("RAY_AUTH_TOKEN"):
        return token
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    path = Path(named) if named else Path.home() / ".ray" / "auth_token"
    return path.read_text().strip() if path.is_file() else None
