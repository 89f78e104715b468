"""The audit's two charts."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go

from fedfuse_ray.audit.attacks.canary.verdicts import CanaryAudit
from fedfuse_ray.audit.attacks.membership import dp_bound
from fedfuse_ray.audit.findings import Audit
from fedfuse_ray.report import theme

_LEAST = 1e-3


def bounds_chart(audit: CanaryAudit) -> go.Figure:
    """Bars of what each test proves epsilon to be at least, beside what the ledger says."""
    tests = audit.tests
    colors = [theme.BLUE if test.passed else theme.VERMILION for test in tests]
    figure = go.Figure()
    figure.add_bar(
        y=[theme.text(test.group) for test in tests],
        x=[test.lower_bound for test in tests],
        marker_color=colors,
        text=[f"{test.lower_bound:.2f}" for test in tests],
        **theme.TO_THE_RIGHT,
        hovertemplate=theme.hover("%{y}: at least %{x:.2f}"),
        showlegend=False,
    )
    figure.add_vline(x=audit.epsilon, line={"color": theme.NEUTRAL, "dash": "dash", "width": 2})
    figure.add_annotation(
        x=audit.epsilon,
        y=0,
        yref="paper",
        yanchor="bottom",
        xanchor="right",
        text=f"the ledger says {audit.epsilon:.2f} ",
        showarrow=False,
        font={"color": theme.NEUTRAL},
    )
    widest = max(audit.epsilon, *(test.lower_bound for test in tests))
    x = {"title_text": "epsilon is at least", "range": [0, 1.15 * widest]}
    y, height = theme.category_axis(autorange="reversed"), 120 + 26 * len(tests)
    return theme.dressed(figure, "Lower bounds on epsilon", height, x, y, bargap=0.3)


def membership_chart(found: Audit) -> go.Figure:
    """Receiver operating characteristics on logarithmic axes, with the limit that DP sets."""
    figure = go.Figure()
    names = [f"{m.attack}, {m.target}" for m in found.membership]
    for membership, (name, mark) in zip(found.membership, theme.marks(names).items(), strict=True):
        false, true = (np.maximum(np.array(axis), _LEAST) for axis in membership.curve)
        figure.add_scatter(
            x=false,
            y=true,
            name=theme.text(name),
            mode="lines",
            line={
                "color": mark.color,
                "width": 2.5,
                "dash": "solid" if membership.target == found.membership[0].target else "dot",
            },
            hovertemplate="%{y:.1%} at %{x:.1%}",
        )
    grid = np.geomspace(_LEAST, 1.0, 60)
    figure.add_scatter(
        x=grid, y=grid, name="guessing", mode="lines", line={"color": theme.NEUTRAL, "dash": "dash"}
    )
    if found.subject.epsilon is not None:
        delta = found.subject.plan.experiment.privacy.delta
        figure.add_scatter(
            x=grid,
            y=dp_bound(grid, found.subject.epsilon, delta),
            name=f"limit at epsilon {found.subject.epsilon:.2f}",
            mode="lines",
            line={"color": theme.VERMILION, "width": 3},
        )
    ticks = {"tickvals": [0.001, 0.01, 0.1, 1.0], "ticktext": ["0.1%", "1%", "10%", "100%"]}
    figure.update_xaxes(type="log", range=[-3, 0], title_text="false alarms", **ticks)
    figure.update_yaxes(type="log", range=[-3, 0.02], title_text="members found", **ticks)
    legend = {"orientation": "v", "x": 1, "xanchor": "right", "y": 0.02, "yanchor": "bottom"}
    figure.update_layout(**theme.layout("Members found by false alarms", 460) | {"legend": legend})
    return figure
