"""The dashboard and the Prometheus config name what the project exports."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys

import pytest
import yaml

from actors.metrics import METRICS, PREFIX, RUN
from tests.support.paths import DOCS

FOLDER = DOCS / "monitoring"
LABELS = {PREFIX + m.name: {*RUN, *m.labels} for m in METRICS}
NAMES = re.compile(r"\bray_[a-z_]+")
USED = re.compile(r"by \(([^)]*)\) \((?:rate\()?(ray_[a-z_]+)\{([^}]*)\}")

promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is missing: apt-get install prometheus"
)


@pytest.fixture(scope="module")
def maker():
    spec = importlib.util.spec_from_file_location("make_dashboard", FOLDER / "make_dashboard.py")
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up.
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def panels():
    return json.loads((FOLDER / "grafana.json").read_text())["panels"]


def queries(panels):
    return [target["expr"] for panel in panels for target in panel["targets"]]


def filled(query):
    """Return a query as Grafana sends it, for all runs."""
    return re.sub(r"\$(run|trial)\b", ".*", query).replace("$__rate_interval", "1m")


def test_the_dashboard_is_up_to_date(maker):
    assert (FOLDER / "grafana.json").read_text() == maker.dashboard(), (
        "run `python docs/monitoring/make_dashboard.py`"
    )


def test_every_query_names_a_metric_and_labels_that_exist(panels):
    for query in queries(panels):
        assert set(NAMES.findall(query)) <= set(LABELS), query
        used = USED.findall(query)
        assert len(used) == len(NAMES.findall(query)), query
        for by, metric, where in used:
            labels = {*by.split(", "), *re.findall(r"(\w+)=", where)}
            assert labels <= LABELS[metric], query


def test_every_metric_is_shown(panels):
    shown = {name for query in queries(panels) for name in NAMES.findall(query)}
    assert set(LABELS) - shown == set()


def test_legends_name_labels_that_their_query_keeps(panels):
    for panel in panels:
        for target in panel["targets"]:
            kept = {label for by, *_ in USED.findall(target["expr"]) for label in by.split(", ")}
            legend = target["legendFormat"]
            assert legend, panel["title"]
            assert set(re.findall(r"{{(\w+)}}", legend)) <= kept, panel["title"]


def test_panels_have_a_unit_a_description_and_a_place_of_their_own(panels):
    places = set()
    for panel in panels:
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["description"].endswith("."), panel["title"]
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        places.add((at["x"], at["y"]))
    assert len(places) == len(panels) == len({panel["title"] for panel in panels})


def test_names_follow_prometheus():
    for metric in METRICS:
        assert metric.name.startswith("fedfuse_")
        assert metric.name.endswith("_total") == (metric.kind == "counter"), metric.name


def test_the_documentation_lists_every_metric():
    lines = (FOLDER.parent / "monitoring.md").read_text().splitlines()
    listed = [line for line in lines if line.startswith(f"| `{PREFIX}fedfuse")]
    assert listed == [
        f"| `{PREFIX}{m.name}` | {m.kind} | {', '.join(m.labels) or '-'} | {m.description} |"
        for m in METRICS
    ]


@promtool
def test_prometheus_can_parse_every_query(panels, tmp_path):
    rules = [
        {"record": f"panel:query:{i}", "expr": filled(q)} for i, q in enumerate(queries(panels))
    ]
    path = tmp_path / "rules.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    done = subprocess.run(["promtool", "check", "rules", path], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@promtool
def test_the_prometheus_config_is_valid_and_scrapes_in_time():
    path = FOLDER / "prometheus.yml"
    done = subprocess.run(["promtool", "check", "config", path], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    # A gauge outlives its process by two of Ray's intervals of 10 s.
    assert int(yaml.safe_load(path.read_text())["global"]["scrape_interval"].rstrip("s")) <= 10
