"""A page as plain values, and the self-contained document that the templates make of it.

All HTML is in `templates/`: `page.html` is the layout of every page, `parts.html` has a macro for
each part below. Jinja2 escapes every value there, so a name of the user's is text wherever it
stands. A page carries all that it needs and asks the network for nothing: its content security
policy forbids it to.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from html import unescape
from importlib import resources
from typing import Any, ClassVar, Literal, TypeAlias

import plotly.graph_objects as go
from jinja2 import Environment, PackageLoader, StrictUndefined
from plotly.offline import get_plotlyjs

from fedfuse_ray.report.theme import is_empty, template
from fedfuse_ray.yaml12 import parse

Texts: TypeAlias = Mapping[str, Mapping[str, str]]
"""What a page says in words, from a file: of each section its `title`, `intro` and captions."""

Link: TypeAlias = tuple[str, str]
"""A text, and the file beside the page that it leads to, quoted for a URL already."""


@dataclass(frozen=True)
class Card:
    """A key number: its name, its value, a quiet line below, and what protects it."""

    name: str
    value: str
    note: str = ""
    badge: str = ""


@dataclass(frozen=True)
class Picture:
    """A small picture: the base64 of a PNG, or the points of a line in a square of 100."""

    label: str
    png: str = ""
    points: str = ""


@dataclass(frozen=True)
class Cell:
    """A table's cell that is more than text.

    Attributes:
        text: What it says.
        strong: Bold, before the text.
        note: Small, on a line of its own.
        tip: Shown when the pointer rests on it.
        href: Where the text leads; empty for nowhere.
        sort: What the column is sorted by, instead of the text; empty where there is no value.
        best: It is the best of its column, a column of numbers.
        picture: Stands above the text.
    """

    text: str
    strong: str = ""
    note: str = ""
    tip: str = ""
    href: str = ""
    sort: str | None = None
    best: bool = False
    picture: Picture | None = None


@dataclass(frozen=True)
class Table:
    """A table; columns from the index `numbers` on are set to the right, as numbers are."""

    kind: ClassVar[str] = "table"
    head: Sequence[str]
    rows: Sequence[Sequence[str | Cell]]
    numbers: int = 1
    sortable: bool = False


@dataclass(frozen=True)
class Facts:
    """Names and values."""

    kind: ClassVar[str] = "facts"
    pairs: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Text:
    """A paragraph of bold words, plain words and links; or plain words as `heading` or `code`."""

    text: str = ""
    strong: str = ""
    links: Sequence[Link] = ()
    kind: Literal["text", "heading", "code"] = "text"


@dataclass(frozen=True)
class Items:
    """A list of paragraphs."""

    kind: ClassVar[str] = "items"
    items: Sequence[Text]
    quiet: bool = False


@dataclass(frozen=True)
class Chart:
    """A chart's place; without a name it is empty, and `message` says why.

    The badge says what protects the figures in it.
    A `wide` chart is scrolled on a screen that is too narrow for what stands side by side in it.
    """

    kind: ClassVar[str] = "chart"
    title: str
    caption: str
    name: str = ""
    height: int = 0
    wide: bool = False
    message: str = ""
    badge: str = ""


@dataclass(frozen=True)
class Group:
    """Parts in a box, side by side as `tiles`, or hidden until a click on the title."""

    parts: Sequence[Part]
    title: str = ""
    kind: Literal["panel", "tiles", "details"] = "panel"


Part: TypeAlias = Chart | Facts | Group | Items | Table | Text


@dataclass(frozen=True)
class Section:
    """A section with its anchor `name`, heading and introduction."""

    name: str
    title: str
    intro: str
    parts: Sequence[Part] = ()


def texts_of(package: str) -> Texts:
    """Read the `texts.yaml` of a package."""
    found: Texts = parse((resources.files(package) / "texts.yaml").read_text("utf-8"))
    return found


def section(texts: Texts, name: str, parts: Sequence[Part] = (), **values: Any) -> Section:
    """Return the section `name`, with `values` put into its introduction."""
    return Section(name, texts[name]["title"], texts[name]["intro"].format(**values), parts)


@dataclass(frozen=True)
class Page:
    """A page of any kind; without a heading it has no header.

    The title is the browser tab's, the kicker stands above the heading, the lead below it; the
    header leads to the sections in `links`, which stand above the key numbers where `links_first`.
    """

    title: str
    sections: Sequence[Section]
    kicker: str = ""
    heading: str = ""
    lead: str = ""
    cards: Sequence[Card] = ()
    links: Sequence[Section] = ()
    links_first: bool = False


@dataclass
class Charts:
    """The charts of one page, collected while its parts are made."""

    figures: dict[str, Any] = field(default_factory=dict)

    def add(self, figure: go.Figure, caption: str, *, wide: bool = False, badge: str = "") -> Chart:
        """Return a chart's place; an empty chart becomes its message.

        The figure's title becomes the heading, which wraps where plotly's would be cut. `wide` is
        for things side by side, which a phone's width would lay over each other.
        """
        title, message = unescape(str(figure.layout.title.text)), is_empty(figure)
        if message is not None:
            return Chart(title, caption, message=unescape(message))
        name = f"chart-{len(self.figures) + 1}"
        plain = json.loads(figure.to_json())
        plain["layout"] |= {"title": None, "template": None}
        plain["layout"]["margin"]["t"] = 8
        self.figures[name] = plain
        return Chart(title, caption, name, int(figure.layout.height), wide, badge=badge)


def document(page: Page, charts: Charts) -> str:
    """Return the whole page as HTML."""
    looks = {name: template(name == "dark").to_plotly_json() for name in ("light", "dark")}
    shown = _templates().get_template("page.html")
    return shown.render(page=page, charts=charts.figures, looks=looks)


@cache
def _templates() -> Environment:
    found = Environment(
        loader=PackageLoader("fedfuse_ray.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    # A chart's keys keep their order, and `</script>` in a name can't end the script: the filter
    # writes `<` as `\u003c`.
    found.policies["json.dumps_kwargs"] = {"allow_nan": False}
    found.globals |= {"asset": _asset, "plotly": get_plotlyjs}
    return found


def _asset(name: str) -> str:
    """Return a style sheet or script of our own."""
    return (resources.files("fedfuse_ray.report") / "assets" / name).read_text("utf-8")
