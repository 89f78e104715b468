"""`make cluster-test`: a real two-node cluster on this machine, from `ray up` to `ray down`.

Two sshd on 127.0.0.1 and 127.0.0.2 are the hosts. The files under docs/cluster are what is brought
up; `run` and `sweep` are submitted as jobs, with token authentication on, through the dashboard's
tunnel; what they write must equal a serial run. Needs openssh-server, and nothing of ~/.ssh.
"""

from __future__ import annotations

import json
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

import pyarrow.parquet as pq
from hosts import HEAD, WORKER, Place, set_up, sshd
from isolation import isolated, remove
from launching import Cluster, serial_run, status_without_token

_SECONDS = 540
_RUN = ("tiny", "--paradigm", "fedfuse", "--set", "execution.placement=SPREAD")
_SWEEP = (
    *("--set", "space.compression.codec=[fp32]"),
    *("--set", "space.privacy.target_epsilon=[1,4]"),
    *("--set", "training.rounds=2"),
)
_BEGAN = time.monotonic()


def say(text: str) -> None:
    """Say which step begins, and when."""
    print(f"[{time.monotonic() - _BEGAN:5.1f} s] {text}", flush=True)


def check(holds: bool, what: str) -> None:
    """Say what holds.

    Raises:
        RuntimeError: It does not.
    """
    print(f"  {'ok    ' if holds else 'FAILED'} {what}", flush=True)
    if not holds:
        raise RuntimeError(what)


def check_run(cluster: Cluster, shared: Path) -> None:
    """Submit a run, and compare it with the serial one."""
    reference = serial_run(cluster.place, shared / "serial", _RUN)
    cluster.submit(
        "python", "-m", "fedfuse_ray", "run", *_RUN, "--out", shared / "run", seconds=180
    )
    check(reference.wait(120) == 0, "the serial run to compare with ended well")
    summaries = [json.loads((shared / n / "summary.json").read_text()) for n in ("run", "serial")]
    check(summaries[0]["executor"] == "ray", "summary.json says that it ran on Ray")
    check(
        summaries[0]["weights_sha256"] == summaries[1]["weights_sha256"],
        f"weights equal the serial run's: {summaries[0]['weights_sha256'][:16]}...",
    )
    spent = [s["privacy"]["epsilon_by_institution"] for s in summaries]
    check(spent[0] == spent[1], "so does the privacy spent")
    actors = [a for a in cluster.listed("actors") if a["class_name"] == "InstitutionActor"]
    nodes = {a["node_id"] for a in actors}
    check(len(actors) == 3 and len(nodes) == 2, "3 institutions' actors were on 2 nodes")


def check_sweep(cluster: Cluster, shared: Path) -> None:
    """Submit a sweep, and look at its table."""
    # The file as `ray up` copied it to the head.
    file = cluster.place.home(HEAD) / "fedfuse_ray" / "tune_configs" / "smoke.yaml"
    out = ("--out", shared / "sweep")
    cluster.submit("python", "-m", "fedfuse_ray.sweep", file, *_SWEEP, *out, seconds=180)
    rows = pq.read_table(shared / "sweep" / "trials.parquet").to_pylist()
    check([r["status"] for r in rows] == ["done"] * 4, "trials.parquet has 4 trials, all done")
    best = json.loads((shared / "sweep" / "summary.json").read_text())
    check(bool(best["pareto"]), "summary.json has a Pareto front")


def test(work: Path) -> None:
    """Bring the cluster up, use it, and take it down."""
    place = Place(work)
    say("two hosts: sshd on 127.0.0.1 and 127.0.0.2, throw-away keys")
    set_up(place)
    with sshd(place, HEAD), sshd(place, WORKER):
        cluster = Cluster(place)
        say("ray up")
        try:
            cluster.up()
            with cluster.dashboard():
                use(cluster)
        except BaseException:
            _show_logs()
            raise
        finally:
            say("ray down")
            cluster.down()
    say("down")


def use(cluster: Cluster) -> None:
    """Look whether the cluster is whole and closed, and submit jobs."""
    say("waiting for the worker")
    cluster.wait_for_nodes(2, 120)
    check(status_without_token() == 401, "the dashboard refuses who has no token")
    shared = cluster.place.work / "shared"
    shared.mkdir()
    say("ray job submit: run")
    check_run(cluster, shared)
    say("ray job submit: sweep")
    check_sweep(cluster, shared)


def _show_logs() -> None:
    for log in sorted(Path("/tmp/ray/session_latest/logs").glob("monitor.*")):
        print(f"--- {log.name}\n{log.read_text()[-3000:]}", flush=True)


def _give_up(number: int, frame: object) -> None:
    raise TimeoutError(f"the whole test took longer than {_SECONDS} s")


def main() -> int:
    """Run the test; returns 0 where it passed."""
    given = sys.argv[1:]
    # Short: Ray's sockets lie in paths of at most 107 bytes.
    work = Path(given[0]) if given else Path(tempfile.mkdtemp(prefix="ff-", dir="/tmp"))
    try:
        status = isolated(work, _SECONDS + 120)
        if status is not None:
            return status
        signal.signal(signal.SIGALRM, _give_up)
        signal.alarm(_SECONDS)
        test(work)
    except Exception:
        traceback.print_exc()
        print("cluster-test: FAILED", flush=True)
        return 1
    finally:
        if not given:
            remove(work)
    print("cluster-test: passed", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
