"""Write docs/monitoring/grafana.json, the dashboard to import into Grafana.

    python docs/monitoring/make_dashboard.py

`tests/unit/project/test_monitoring.py` fails when the file is out of date, or a query names a
metric or a label that `actors/metrics.py` does not have.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedfuse_ray.report.theme import BLUE, GREEN, ORANGE, VERMILION

FILE = Path(__file__).with_name("grafana.json")

_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
_THIS = 'run=~"$run",trial=~"$trial"'
_OF = "run, trial"
_NAME = "{{run}} {{trial}}"
_COLUMNS, _HEIGHT = 3, 8
_STATUS = {"late": ORANGE, "absent": BLUE, "failed": VERMILION}
_PHASES = {"train": BLUE, "aggregate": ORANGE, "evaluate": GREEN}


@dataclass(frozen=True)
class Panel:
    """One panel.

    Attributes:
        queries: PromQL to legend.
        unit: Grafana's name of the unit.
        kind: Grafana's name of the panel.
        colors: Legend to colour; other series are shades of one colour, told apart by lightness.
        limits: Smallest and largest value of the axis.
    """

    title: str
    about: str
    queries: dict[str, str]
    unit: str
    kind: str = "timeseries"
    colors: dict[str, str] | None = None
    stacked: bool = False
    limits: tuple[float | None, float | None] = (0, None)


def _by(how: str, labels: str, metric: str, extra: str = "") -> str:
    return f"{how} by ({labels}) (ray_fedfuse_{metric}{{{_THIS}{extra}}})"


def _rate(labels: str, metric: str) -> str:
    return f"sum by ({labels}) (rate(ray_fedfuse_{metric}{{{_THIS}}}[$__rate_interval]))"


PANELS = (
    Panel(
        "Progress",
        "The last round that ended, of all that there will be.",
        {f"{_by('max', _OF, 'round')} / {_by('max', _OF, 'rounds')}": _NAME},
        "percentunit",
        kind="bargauge",
        limits=(0, 1),
    ),
    Panel(
        "Epsilon spent, of what was granted",
        "The largest epsilon over institutions, by the privacy ledger. At 1 the run stops.",
        {f"{_by('max', _OF, 'epsilon')} / {_by('max', _OF, 'epsilon_target')}": _NAME},
        "percentunit",
        kind="bargauge",
        limits=(0, 1),
    ),
    Panel(
        "Participants",
        "Institutions whose update is in the last round's sum.",
        {_by("max", _OF, "participants"): _NAME},
        "short",
        kind="stat",
    ),
    Panel(
        "Accuracy by domain",
        "On the consortium's test specimens; overall pools all domains.",
        {_by("max", f"{_OF}, domain", "accuracy"): "{{domain}} " + _NAME},
        "percentunit",
        limits=(0, 1),
    ),
    Panel(
        "Epsilon by institution",
        "By the ledger, at the run's delta; dashed is what was granted.",
        {
            _by("max", f"{_OF}, institution", "epsilon"): "{{institution}} " + _NAME,
            _by("max", _OF, "epsilon_target"): "granted",
        },
        "short",
        colors={"granted": VERMILION},
    ),
    Panel(
        "Training loss",
        "Mean over the institutions that trained.",
        {_by("max", _OF, "loss"): _NAME},
        "short",
        limits=(None, None),
    ),
    Panel(
        "Uplink by institution",
        "Bytes sent up so far, as encoded.",
        {_by("sum", f"{_OF}, institution", "uplink_bytes_total"): "{{institution}} " + _NAME},
        "decbytes",
    ),
    Panel(
        "Bytes a second",
        "Over all institutions; a run shorter than two scrapes shows none.",
        {_rate(_OF, "uplink_bytes_total"): "up", _rate(_OF, "downlink_bytes_total"): "down"},
        "Bps",
        colors={"up": BLUE, "down": ORANGE},
    ),
    Panel(
        "Updates that are not in the sum",
        "Late: after the deadline. Absent: not reached. Failed: lost on the way.",
        {_by("sum", "status", "dropouts_total"): "{{status}}"},
        "short",
        colors=_STATUS,
        stacked=True,
    ),
    Panel(
        "Seconds of a round, by phase",
        "Wall time of the last round.",
        {_by("max", "phase", "phase_seconds"): "{{phase}}"},
        "s",
        colors=_PHASES,
        stacked=True,
    ),
    Panel(
        "Seconds of a round",
        "Wall time, without the checkpoint.",
        {_by("max", _OF, "round_seconds"): _NAME},
        "s",
    ),
    Panel(
        "Virtual clock",
        "Simulated seconds since the run began, over the simulated network.",
        {_by("max", _OF, "simulated_seconds"): _NAME},
        "s",
    ),
)


def dashboard() -> str:
    """Return the dashboard as JSON."""
    value = {
        "title": "fedfuse_ray",
        "uid": "fedfuse-ray",
        "tags": ["fedfuse_ray", "ray"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "10s",
        "time": {"from": "now-30m", "to": "now"},
        "templating": {"list": [_source(), _variable("run"), _variable("trial")]},
        "panels": [_panel(number, panel) for number, panel in enumerate(PANELS)],
    }
    return json.dumps(value, indent=2) + "\n"


def _panel(number: int, panel: Panel) -> dict[str, Any]:
    row, column = divmod(number, _COLUMNS)
    width = 24 // _COLUMNS
    return {
        "id": number + 1,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.about,
        "datasource": _SOURCE,
        "gridPos": {"h": _HEIGHT, "w": width, "x": width * column, "y": _HEIGHT * row},
        "targets": [
            {"refId": chr(65 + i), "datasource": _SOURCE, "expr": query, "legendFormat": legend}
            for i, (query, legend) in enumerate(panel.queries.items())
        ],
        "fieldConfig": {"defaults": _defaults(panel), "overrides": _overrides(panel)},
        "options": _options(panel),
    }


def _defaults(panel: Panel) -> dict[str, Any]:
    low, high = panel.limits
    shown: dict[str, Any] = {
        "unit": panel.unit,
        "color": {"mode": "shades", "fixedColor": BLUE},
        "thresholds": {"mode": "absolute", "steps": [{"color": BLUE, "value": None}]},
    }
    shown |= {} if low is None else {"min": low}
    shown |= {} if high is None else {"max": high}
    if panel.kind == "timeseries":
        stacking = {"mode": "normal" if panel.stacked else "none"}
        shown["custom"] = {"lineWidth": 2, "fillOpacity": 20 * panel.stacked, "stacking": stacking}
    return shown


def _overrides(panel: Panel) -> list[dict[str, Any]]:
    dashed = {"id": "custom.lineStyle", "value": {"fill": "dash", "dash": [8, 8]}}
    return [
        {
            "matcher": {"id": "byName", "options": name},
            "properties": [
                {"id": "color", "value": {"mode": "fixed", "fixedColor": color}},
                *([dashed] if name == "granted" else []),
            ],
        }
        for name, color in (panel.colors or {}).items()
    ]


def _options(panel: Panel) -> dict[str, Any]:
    if panel.kind == "timeseries":
        legend = {"displayMode": "table", "placement": "bottom", "calcs": ["lastNotNull"]}
        return {"legend": legend, "tooltip": {"mode": "multi", "sort": "desc"}}
    return {
        "reduceOptions": {"calcs": ["lastNotNull"]},
        "orientation": "horizontal",
        **({"displayMode": "basic"} if panel.kind == "bargauge" else {}),
    }


def _source() -> dict[str, Any]:
    return {
        "name": "datasource",
        "label": "Prometheus",
        "type": "datasource",
        "query": "prometheus",
    }


def _variable(label: str) -> dict[str, Any]:
    return {
        "name": label,
        "type": "query",
        "datasource": _SOURCE,
        "query": f"label_values(ray_fedfuse_round, {label})",
        "refresh": 2,
        "multi": True,
        "includeAll": True,
        # A run that is no trial has an empty label, which Prometheus leaves out.
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }


if __name__ == "__main__":
    FILE.write_text(dashboard(), encoding="utf-8")
