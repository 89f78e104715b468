"""The parts of a self-contained page: cards, sections, tables, charts, and the document.

A page carries all that it needs and asks the network for nothing: its content security policy
forbids it to.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape
from importlib import resources
from typing import Any

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from fedfuse_ray.report.theme import is_empty, template

_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
)


@dataclass(frozen=True)
class Card:
    """A key number: its name, its value, and a quiet line below."""

    name: str
    value: str
    note: str = ""


@dataclass
class Charts:
    """The charts of one page, collected while its parts are built."""

    figures: dict[str, Any] = field(default_factory=dict)

    def add(self, figure: go.Figure, caption: str) -> str:
        """Return the HTML of a chart's place; an empty chart becomes its message.

        Args:
            figure: Its title becomes the heading, which wraps where plotly's would be cut.
            caption: What the reader sees, in a sentence or two.
        """
        title = str(figure.layout.title.text)
        heading, message = f"<h3>{title}</h3>", is_empty(figure)
        if message is not None:
            return f'<figure>{heading}<p class="empty">{message}</p></figure>'
        name = f"chart-{len(self.figures) + 1}"
        plain = json.loads(figure.to_json())
        height = int(figure.layout.height)
        plain["layout"] |= {"title": None, "template": None}
        plain["layout"]["margin"]["t"] = 8
        self.figures[name] = plain
        return (
            f'<figure>{heading}<div class="chart" id="{name}" role="img" '
            f'style="min-height:{height}px" aria-label="{_flat(title)}: {_flat(caption)}"></div>'
            f"<figcaption>{escape(caption)}</figcaption></figure>"
        )


def cards(entries: Iterable[Card]) -> str:
    """Return the key numbers."""
    return "".join(
        [
            '<dl class="cards">',
            *(
                f"<div><dt>{escape(card.name)}</dt><dd>{escape(card.value)}</dd>"
                + (f'<dd class="note">{escape(card.note)}</dd>' if card.note else "")
                + "</div>"
                for card in entries
            ),
            "</dl>",
        ]
    )


def section(name: str, title: str, intro: str, *blocks: str) -> str:
    """Return a section with its anchor `name`, heading and introduction."""
    return (
        f'<section id="{name}" aria-labelledby="{name}-title"><h2 id="{name}-title">'
        f'{escape(title)}</h2><p class="intro">{escape(intro)}</p>{"".join(blocks)}</section>'
    )


def grid(blocks: Iterable[str]) -> str:
    """Put blocks side by side where the window has room."""
    return f'<div class="grid">{"".join(blocks)}</div>'


def details(title: str, content: str) -> str:
    """Return a block that opens on a click."""
    return f'<details class="panel"><summary>{escape(title)}</summary>{content}</details>'


def table(head: Sequence[str], rows: Iterable[Sequence[str]], numbers: int | None = None) -> str:
    """Return a table of cells that are HTML already.

    Args:
        head: The columns' names, as text.
        rows: Cells of each row, as HTML; a cell may begin with `<td`, to bring its own class.
        numbers: Columns from this index on are numbers, set to the right; None for all but the
            first.
    """
    start = 1 if numbers is None else numbers
    kind = [' class="number"' if index >= start else "" for index in range(len(head))]
    top = "".join(f'<th scope="col"{k}>{escape(n)}</th>' for n, k in zip(head, kind, strict=True))
    body = "".join(
        "<tr>"
        + "".join(
            cell if cell.startswith("<td") else f"<td{k}>{cell}</td>"
            for cell, k in zip(row, kind, strict=True)
        )
        + "</tr>"
        for row in rows
    )
    return (
        f'<div class="scroll"><table><thead><tr>{top}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """Return a table of names and values, both text."""
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(value)}</td></tr>'
        for name, value in pairs
    )
    return f'<div class="scroll"><table class="facts"><tbody>{rows}</tbody></table></div>'


def document(title: str, body: str, charts: Charts) -> str:
    """Return the whole page.

    Args:
        title: The browser tab's title.
        body: The header and the sections, as HTML.
        charts: What `body` left places for.
    """
    templates = {name: template(name == "dark").to_plotly_json() for name in ("light", "dark")}
    drawing = (
        f"<script>{get_plotlyjs()}</script>"
        f"{_data('charts', charts.figures)}{_data('templates', templates)}"
        f"<script>{_asset('page.js')}</script>"
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_asset('page.css')}</style>\n</head>\n<body>\n"
        f"{body}\n<noscript><p>The charts need JavaScript; the tables do not.</p></noscript>\n"
        "<footer>fedfuse_ray simulates a federation. It protects no real deployment.</footer>\n"
        f"{drawing if charts.figures else ''}\n</body>\n</html>\n"
    )


def _data(name: str, value: Any) -> str:
    # A name of the user's that holds `</script>` must not end the element.
    plain = json.dumps(value, allow_nan=False).replace("<", "\\u003c")
    return f'<script type="application/json" id="{name}">{plain}</script>'


def _asset(name: str) -> str:
    return (resources.files("fedfuse_ray.report.assets") / name).read_text(encoding="utf-8")


def _flat(text: str) -> str:
    return escape(" ".join(text.split()), quote=True)
