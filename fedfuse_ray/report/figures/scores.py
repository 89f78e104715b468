"""The final scores: by domain, by institution, by the modalities that the model is shown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from textwrap import wrap

import plotly.graph_objects as go

from fedfuse_ray.report import theme
from fedfuse_ray.report.schema import OVERALL, Evaluation, InstitutionEvaluation, Summary

NOT_EVALUATED = "Not evaluated in this run."
PRIVATE = "Left out: it would tell of institutions' own specimens."
_MOST_BARS = 60
_MOST_CELLS = 12


def accuracy_by_domain(summary: Summary) -> go.Figure:
    """Accuracy and macro-F1, overall and by domain."""
    names = [OVERALL, *summary.domains]
    figure = go.Figure()
    for label, scores, color in (
        ("accuracy", summary.accuracy, theme.BLUE),
        ("macro-F1", summary.macro_f1, theme.ORANGE),
    ):
        theme.add_scores(
            figure,
            [theme.text(name) for name in names],
            [scores.get(name) for name in names],
            name=label,
            marker_color=color,
            hovertemplate=theme.hover(f"%{{y}}: {label} %{{x:.2%}}"),
        )
    x, y = {**theme.SCORE_AXIS, "title_text": "score"}, theme.category_axis(autorange="reversed")
    height = 100 + 62 * len(names)
    return theme.dressed(figure, "Accuracy by domain", height, x, y, bargroupgap=0.08)


def accuracy_by_institution(evaluation: Evaluation) -> go.Figure:
    """Each institution's accuracy with the modalities that it owns; many become a distribution."""
    title = "Accuracy by institution"
    if not evaluation.institutions:
        return theme.empty(title, NOT_EVALUATED)
    scored = {n: i for n, i in evaluation.institutions.items() if i.accuracy is not None}
    if not scored:
        return theme.empty(title, PRIVATE)
    if len(scored) > _MOST_BARS:
        return _distribution(title, evaluation)
    figure = go.Figure()
    for domain, mark in theme.marks(_domains(evaluation)).items():
        own = _of_domain(domain, evaluation)
        if not own:
            continue
        theme.add_scores(
            figure,
            [_institution_label(name, entry) for name, entry in own.items()],
            [entry.accuracy for entry in own.values()],
            customdata=[_hover(name, entry) for name, entry in own.items()],
            name=theme.text(domain),
            marker_color=mark.color,
            hovertemplate=theme.hover("%{customdata}: %{x:.2%}"),
        )
    tallest = max(theme.line_count(_institution_label(*i)) for i in scored.items())
    x, y = {**theme.SCORE_AXIS, "title_text": "accuracy"}, theme.category_axis(autorange="reversed")
    height = 110 + (10 + 16 * tallest) * len(scored)
    # One bar a name: grouped bars would keep an empty place for every other domain.
    return theme.dressed(figure, title, height, x, y, barmode="overlay", bargap=0.3)


def accuracy_by_view(domain: str, evaluation: Evaluation) -> go.Figure:
    """A domain's accuracy by the modalities shown, one alone to all together."""
    title = f"{theme.text(domain)}: accuracy by modalities shown"
    views = evaluation.domains[domain].views if domain in evaluation.domains else []
    if not views:
        return theme.empty(title, NOT_EVALUATED)
    ordered = sorted(views, key=lambda view: (len(view.modalities), view.accuracy))
    figure = go.Figure()
    theme.add_scores(
        figure,
        [_view_label(view.modalities) for view in ordered],
        [view.accuracy for view in ordered],
        customdata=[[theme.text(" + ".join(v.modalities)), v.macro_f1] for v in ordered],
        marker_color=theme.marks(_domains(evaluation))[domain].color,
        hovertemplate=theme.hover("%{customdata[0]}: %{x:.2%}, macro-F1 %{customdata[1]:.2%}"),
    )
    halves = {"range": [0, 1.3], "tickvals": [0, 0.5, 1], "tickangle": 0, "title_text": "accuracy"}
    x, y = theme.SCORE_AXIS | halves, theme.category_axis(tickfont_size=12)
    height = 80 + _row_height(view.modalities for view in ordered) * len(ordered)
    return theme.dressed(figure, title, height, x, y, showlegend=False, bargap=0.25)


def attention(domain: str, evaluation: Evaluation) -> go.Figure:
    """Mean weight that the fusion gives each modality, by the modalities shown."""
    title = f"{theme.text(domain)}: attention weights"
    entry = evaluation.domains.get(domain)
    views = [(v, v.attention) for v in (entry.views if entry else []) if v.attention is not None]
    if not views:
        noised = entry is not None and entry.source == "noised"
        return theme.empty(
            title, PRIVATE if noised else "This run's fusion has no attention weights."
        )
    modalities = list(dict.fromkeys(name for _, weights in views for name in weights))
    ordered = sorted(views, key=lambda pair: len(pair[0].modalities))
    figure = go.Figure()
    figure.add_heatmap(
        x=[theme.lines(_wrapped(name, 12)) for name in modalities],
        y=[_view_label(view.modalities) for view, _ in ordered],
        z=[
            [weights.get(name) if name in view.modalities else None for name in modalities]
            for view, weights in ordered
        ],
        zmin=0,
        zmax=1,
        colorscale=theme.SEQUENTIAL,
        texttemplate="%{z:.2f}",
        hoverongaps=False,
        xgap=2,
        ygap=2,
        showscale=False,
        hovertemplate=theme.hover("shown %{y}", "%{x}: %{z:.3f}"),
    )
    x, y = theme.category_axis(tickangle=0, tickfont_size=10), theme.category_axis(tickfont_size=12)
    height = 80 + _row_height(view.modalities for view, _ in ordered) * len(ordered)
    return theme.dressed(figure, title, height, x, y)


def confusion_matrix(domain: str, evaluation: Evaluation) -> go.Figure:
    """Counts of true against predicted class, coloured by the share of the true class."""
    title = f"{theme.text(domain)}: confusion matrix"
    entry = evaluation.domains.get(domain)
    if entry is None or entry.widest is None or not entry.classes:
        return theme.empty(title, NOT_EVALUATED)
    counts = entry.widest.confusion
    names = [theme.text(name) for name in entry.classes]
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
        colorscale=theme.SEQUENTIAL,
        xgap=1 if few else 0,
        ygap=1 if few else 0,
        showscale=not few,
        colorbar={"title": "share", "tickformat": ".0%", "thickness": 12, "outlinewidth": 0},
        hovertemplate=theme.hover("true %{y}, predicted %{x}: %{text} (%{z:.1%} of the class)"),
    )
    # Long names stand upright below the matrix and need room of their own.
    height = (320 if few else 460) + 6 * min(24, max(map(len, names)))
    x = theme.category_axis(title_text="predicted class")
    y = theme.category_axis(title_text="true class", autorange="reversed")
    return theme.dressed(figure, title, height, x, y)


def _distribution(title: str, evaluation: Evaluation) -> go.Figure:
    figure = go.Figure()
    for domain, mark in theme.marks(_domains(evaluation)).items():
        own = _of_domain(domain, evaluation)
        if not own:
            continue
        figure.add_box(
            y=[entry.accuracy for entry in own.values()],
            customdata=[_hover(name, entry) for name, entry in own.items()],
            name=f"{theme.text(domain)} ({len(own)})",
            marker={"color": mark.color, "size": 4, "opacity": 0.5},
            boxpoints="all",
            jitter=0.6,
            pointpos=0,
            fillcolor="rgba(0,0,0,0)",
            hovertemplate=theme.hover("%{customdata}: %{y:.2%}"),
        )
    y = {"title_text": "accuracy", "tickformat": ".0%"}
    return theme.dressed(figure, title, 420, {}, y, showlegend=False)


def _domains(evaluation: Evaluation) -> list[str]:
    """The domains in one order for every chart, so that a domain keeps its colour."""
    owners = (entry.domain for entry in evaluation.institutions.values())
    return list(dict.fromkeys([*evaluation.domains, *owners]))


def _of_domain(domain: str, evaluation: Evaluation) -> dict[str, InstitutionEvaluation]:
    """Return a domain's institutions, as far as their scores are told."""
    own = {n: i for n, i in evaluation.institutions.items() if i.domain == domain}
    return {n: i for n, i in own.items() if i.accuracy is not None}


def _wrapped(name: str, width: int) -> list[str]:
    """Break a name at its underscores and spaces into lines."""
    return [
        theme.text(line) for line in wrap(name.replace("_", " "), width, break_long_words=False)
    ]


def _view_label(modalities: Sequence[str]) -> str:
    return theme.lines(_wrapped(" + ".join(modalities), 20))


def _row_height(views: Iterable[Sequence[str]]) -> int:
    """Return pixels enough for the tallest label: all rows of a chart are alike."""
    return 12 + 16 * max(theme.line_count(_view_label(view)) for view in views)


def _institution_label(name: str, entry: InstitutionEvaluation) -> str:
    return theme.lines(
        [theme.text(name), *map(theme.small, _wrapped(", ".join(entry.modalities), 30))]
    )


def _hover(name: str, entry: InstitutionEvaluation) -> str:
    return f"{theme.text(name)} ({theme.text(', '.join(entry.modalities))})"
