"""A real Prometheus scrapes what a run told, after the run's process has ended."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from contextlib import contextmanager

import pyarrow.parquet as pq
import pytest
import ray

from actors.metrics import METRICS, PREFIX
from tests.support.paths import DOCS
from tests.support.processes.commands import done

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.skipif(
        shutil.which("prometheus") is None,
        reason="prometheus is missing: apt-get install prometheus",
    ),
]

MONITORING = DOCS / "monitoring"
SECONDS = 30.0
STRAGGLER = (
    "--set=network.links={med-01: {up_mbps: 0.01, down_mbps: 10.0}}",
    "--set=network.aggregation={kind: deadline, deadline_seconds: 2.0}",
    "--set=privacy.target_epsilon=3.0",
)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def prometheus(folder, targets):
    """Run Prometheus on the documented config, faster and on Ray's list of nodes; yields a URL."""
    nodes = folder / "nodes.json"
    nodes.write_text(json.dumps([{"labels": {"job": "ray"}, "targets": targets}]))
    config = (MONITORING / "prometheus.yml").read_text()
    for old, new in (
        ("/tmp/ray/prom_metrics_service_discovery.json", str(nodes)),
        ("scrape_interval: 10s", "scrape_interval: 1s"),
        ("scrape_timeout: 5s", "scrape_timeout: 1s"),
    ):
        assert old in config
        config = config.replace(old, new)
    (folder / "prometheus.yml").write_text(config)
    port = free_port()
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log,
            stderr=log,
        )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(timeout=30)


def ask(url, query):
    """Return the values that a query gives, by its labels."""
    asked = urllib.parse.urlencode({"query": query})
    with urllib.request.urlopen(f"{url}/api/v1/query?{asked}", timeout=10) as answer:
        told = json.load(answer)
    assert told["status"] == "success"
    return [(each["metric"], float(each["value"][1])) for each in told["data"]["result"]]


def told(url, query):
    """Return what a query gives, as soon as it gives anything."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        try:
            if found := ask(url, query):
                return found
        except OSError:
            pass  # Prometheus is starting.
        time.sleep(0.2)
    raise AssertionError(f"{query}: nothing within {SECONDS:g} s")


@pytest.fixture(scope="module")
def scraped(tmp_path_factory, ray_address):
    """Run a federation as a process of its own; yields its folder and a Prometheus's URL."""
    folder = tmp_path_factory.mktemp("prometheus")
    node = ray.nodes()[0]
    targets = [f"{node['NodeManagerAddress']}:{node['MetricsExportPort']}"]
    with prometheus(folder, targets) as url:
        done(
            *("run", "tiny", "--paradigm", "fedfuse", "--executor", "ray", "--no-progress"),
            *STRAGGLER,
            *("--out", folder / "scraped"),
            RAY_ADDRESS=ray_address,
        )
        told(url, 'ray_fedfuse_round{run="scraped"} == 3')
        yield folder / "scraped", url


def test_prometheus_has_every_metric_of_the_ended_run(scraped):
    _, url = scraped
    missing = [
        m.name
        for m in METRICS
        if not ask(url, f'last_over_time({PREFIX}{m.name}{{run="scraped"}}[5m])')
    ]
    assert missing == []


def test_its_values_are_the_tables(scraped):
    folder, url = scraped
    rounds = pq.read_table(folder / "rounds.parquet").to_pylist()
    sent = ask(url, 'sum(ray_fedfuse_uplink_bytes_total{run="scraped"})')
    assert sent[0][1] == sum(row["uplink_bytes"] for row in rounds)
    late = ask(url, 'ray_fedfuse_dropouts_total{run="scraped"}')
    assert [(m["institution"], m["status"], value) for m, value in late] == [("med-01", "late", 3)]
    (accuracy,) = ask(
        url, 'last_over_time(ray_fedfuse_accuracy{run="scraped",domain="overall"}[5m])'
    )
    assert accuracy[1] == pytest.approx(rounds[-1]["accuracy"])


def test_every_panel_of_the_dashboard_has_something_to_show(scraped):
    _, url = scraped
    panels = json.loads((MONITORING / "grafana.json").read_text())["panels"]
    for panel in panels:
        for target in panel["targets"]:
            query = re.sub(r"\$(run|trial)\b", ".*", target["expr"])
            query = query.replace("$__rate_interval", "1m")
            # The run may have ended before it was asked: look back at its last values.
            assert ask(url, f"last_over_time(({query})[5m:1s])"), panel["title"]
