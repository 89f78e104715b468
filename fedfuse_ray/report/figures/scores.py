"""The final scores: by domain, by institution, by the modalities that the model is shown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from textwrap import wrap

import plotly.graph_objects as go

from fedfuse_ray.report.schema import OVERALL, Evaluation, InstitutionEvaluation, Summary
from fedfuse_ray.report.theme import (
    BLUE,
    ORANGE,
    SEQUENTIAL,
    category_axis,
    empty,
    hover,
    layout,
    line_count,
    lines,
    marks,
    small,
    text,
)
from fedfuse_ray.report.units import percent

NOT_EVALUATED = "Not evaluated in this run."
_QUARTERS = [0, 0.25, 0.5, 0.75, 1]
_ACCURACY_AXIS = {"tickformat": ".0%", "range": [0, 1.12], "tickvals": _QUARTERS}
_MOST_BARS = 60
_MOST_CELLS = 12


def accuracy_by_domain(summary: Summary) -> go.Figure:
    """Accuracy and macro-F1, overall and by domain."""
    names = [OVERALL, *summary.domains]
    figure = go.Figure()
    for label, scores, color in (
        ("accuracy", summary.accuracy, BLUE),
        ("macro-F1", summary.macro_f1, ORANGE),
    ):
        values = [scores.get(name) for name in names]
        figure.add_bar(
            y=[text(name) for name in names],
            x=values,
            name=label,
            orientation="h",
            marker_color=color,
            text=[percent(value) for value in values],
            textposition="outside",
            cliponaxis=False,
            constraintext="none",
            hovertemplate=hover(f"%{{y}}: {label} %{{x:.2%}}"),
        )
    figure.update_xaxes(_ACCURACY_AXIS, title_text="score")
    figure.update_yaxes(category_axis(autorange="reversed"))
    height = 100 + 62 * len(names)
    figure.update_layout(**layout("Accuracy by domain", height, bargroupgap=0.08))
    return figure


def accuracy_by_institution(evaluation: Evaluation) -> go.Figure:
    """Each institution's accuracy with the modalities that it owns; many become a distribution."""
    title = "Accuracy by institution"
    if not evaluation.institutions:
        return empty(title, NOT_EVALUATED)
    if len(evaluation.institutions) > _MOST_BARS:
        return _distribution(title, evaluation)
    figure = go.Figure()
    for domain, mark in marks(_domains(evaluation)).items():
        own = _of_domain(domain, evaluation)
        if not own:
            continue
        figure.add_bar(
            y=[_institution_label(name, entry) for name, entry in own.items()],
            x=[entry.accuracy for entry in own.values()],
            customdata=[_hover(name, entry) for name, entry in own.items()],
            name=text(domain),
            orientation="h",
            marker_color=mark.color,
            text=[percent(entry.accuracy) for entry in own.values()],
            textposition="outside",
            cliponaxis=False,
            constraintext="none",
            hovertemplate=hover("%{customdata}: %{x:.2%}"),
        )
    tallest = max(line_count(_institution_label(*i)) for i in evaluation.institutions.items())
    figure.update_xaxes(_ACCURACY_AXIS, title_text="accuracy")
    figure.update_yaxes(category_axis(autorange="reversed"))
    height = 110 + (10 + 16 * tallest) * len(evaluation.institutions)
    # One bar a name: grouped bars would keep an empty place for every other domain.
    figure.update_layout(**layout(title, height, barmode="overlay", bargap=0.3))
    return figure


def accuracy_by_view(domain: str, evaluation: Evaluation) -> go.Figure:
    """A domain's accuracy by the modalities shown, one alone to all together."""
    title = f"{text(domain)}: accuracy by modalities shown"
    views = evaluation.domains[domain].views if domain in evaluation.domains else []
    if not views:
        return empty(title, NOT_EVALUATED)
    ordered = sorted(views, key=lambda view: (len(view.modalities), view.accuracy))
    figure = go.Figure()
    figure.add_bar(
        y=[_view_label(view.modalities) for view in ordered],
        x=[view.accuracy for view in ordered],
        customdata=[[text(" + ".join(v.modalities)), v.macro_f1] for v in ordered],
        orientation="h",
        marker_color=marks(_domains(evaluation))[domain].color,
        text=[percent(view.accuracy) for view in ordered],
        textposition="outside",
        cliponaxis=False,
        constraintext="none",
        hovertemplate=hover("%{customdata[0]}: %{x:.2%}, macro-F1 %{customdata[1]:.2%}"),
    )
    halves = {"range": [0, 1.3], "tickvals": [0, 0.5, 1], "tickangle": 0}
    figure.update_xaxes(_ACCURACY_AXIS | halves, title_text="accuracy")
    figure.update_yaxes(category_axis(tickfont_size=12))
    height = 80 + _row_height(view.modalities for view in ordered) * len(ordered)
    figure.update_layout(**layout(title, height, showlegend=False, bargap=0.25))
    return figure


def attention(domain: str, evaluation: Evaluation) -> go.Figure:
    """Mean weight that the fusion gives each modality, by the modalities shown."""
    title = f"{text(domain)}: attention weights"
    entry = evaluation.domains.get(domain)
    views = [(v, v.attention) for v in (entry.views if entry else []) if v.attention is not None]
    if not views:
        return empty(title, "This run's fusion has no attention weights.")
    modalities = list(dict.fromkeys(name for _, weights in views for name in weights))
    ordered = sorted(views, key=lambda pair: len(pair[0].modalities))
    figure = go.Figure()
    figure.add_heatmap(
        x=[lines(_wrapped(name, 12)) for name in modalities],
        y=[_view_label(view.modalities) for view, _ in ordered],
        z=[
            [weights.get(name) if name in view.modalities else None for name in modalities]
            for view, weights in ordered
        ],
        zmin=0,
        zmax=1,
        colorscale=SEQUENTIAL,
        texttemplate="%{z:.2f}",
        hoverongaps=False,
        xgap=2,
        ygap=2,
        showscale=False,
        hovertemplate=hover("shown %{y}", "%{x}: %{z:.3f}"),
    )
    figure.update_xaxes(category_axis(tickangle=0, tickfont_size=10))
    figure.update_yaxes(category_axis(tickfont_size=12))
    height = 80 + _row_height(view.modalities for view, _ in ordered) * len(ordered)
    figure.update_layout(**layout(title, height))
    return figure


def confusion_matrix(domain: str, evaluation: Evaluation) -> go.Figure:
    """Counts of true against predicted class, coloured by the share of the true class."""
    title = f"{text(domain)}: confusion matrix"
    entry = evaluation.domains.get(domain)
    if entry is None or entry.widest is None or not entry.classes:
        return empty(title, NOT_EVALUATED)
    counts = entry.widest.confusion
    names = [text(name) for name in entry.classes]
    few = len(names) <= _MOST_CELLS
    figure = go.Figure()
    figure.add_heatmap(
        x=names,
        y=names,
        z=[[count / max(1, sum(row)) for count in row] for row in counts],
        text=counts,
        texttemplate="%{text}" if few else None,
        zmin=0,
        zmax=1,
        colorscale=SEQUENTIAL,
        xgap=1 if few else 0,
        ygap=1 if few else 0,
        showscale=not few,
        colorbar={"title": "share", "tickformat": ".0%", "thickness": 12, "outlinewidth": 0},
        hovertemplate=hover("true %{y}, predicted %{x}: %{text} (%{z:.1%} of the class)"),
    )
    # Long names stand upright below the matrix and need room of their own.
    height = (320 if few else 460) + 6 * min(24, max(map(len, names)))
    figure.update_xaxes(category_axis(title_text="predicted class"))
    figure.update_yaxes(category_axis(title_text="true class", autorange="reversed"))
    figure.update_layout(**layout(title, height))
    return figure


def _distribution(title: str, evaluation: Evaluation) -> go.Figure:
    figure = go.Figure()
    for domain, mark in marks(_domains(evaluation)).items():
        own = _of_domain(domain, evaluation)
        if not own:
            continue
        figure.add_box(
            y=[entry.accuracy for entry in own.values()],
            customdata=[_hover(name, entry) for name, entry in own.items()],
            name=f"{text(domain)} ({len(own)})",
            marker={"color": mark.color, "size": 4, "opacity": 0.5},
            boxpoints="all",
            jitter=0.6,
            pointpos=0,
            fillcolor="rgba(0,0,0,0)",
            hovertemplate=hover("%{customdata}: %{y:.2%}"),
        )
    figure.update_yaxes(title_text="accuracy", tickformat=".0%")
    figure.update_layout(**layout(title, 420, showlegend=False))
    return figure


def _domains(evaluation: Evaluation) -> list[str]:
    """The domains in one order for every chart, so that a domain keeps its colour."""
    owners = (entry.domain for entry in evaluation.institutions.values())
    return list(dict.fromkeys([*evaluation.domains, *owners]))


def _of_domain(domain: str, evaluation: Evaluation) -> dict[str, InstitutionEvaluation]:
    return {n: i for n, i in evaluation.institutions.items() if i.domain == domain}


def _wrapped(name: str, width: int) -> list[str]:
    """Break a name at its underscores and spaces into lines."""
    return [text(line) for line in wrap(name.replace("_", " "), width, break_long_words=False)]


def _view_label(modalities: Sequence[str]) -> str:
    return lines(_wrapped(" + ".join(modalities), 20))


def _row_height(views: Iterable[Sequence[str]]) -> int:
    """Return pixels enough for the tallest label: all rows of a chart are alike."""
    return 12 + 16 * max(line_count(_view_label(view)) for view in views)


def _institution_label(name: str, entry: InstitutionEvaluation) -> str:
    return lines([text(name), *map(small, _wrapped(", ".join(entry.modalities), 30))])


def _hover(name: str, entry: InstitutionEvaluation) -> str:
    return f"{text(name)} ({text(', '.join(entry.modalities))})"
