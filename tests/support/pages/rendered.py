"""Pages as tests look at them: their own markup, their charts, and what a parser sees in them."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

from plotly.offline import get_plotlyjs

from fedfuse_ray.report.page import Charts, Page, Section, document

EVIL = "<script>alert(1)</script>"


def own_markup(page):
    """Return the page without plotly's source, which names addresses that it never fetches."""
    return page.replace(get_plotlyjs(), "")


def markup_of(section, charts=None):
    """Return one section, or the part of one, as a page shows it."""
    if not isinstance(section, Section):
        section = Section("part", "Part", "", [section])
    return own_markup(document(Page("Test", [section]), charts or Charts()))


def charts_of(page):
    """Return the charts that a page draws, by name."""
    found = re.search(r'id="charts">(.*?)</script>', own_markup(page))
    return json.loads(found.group(1)) if found else {}


class Read(HTMLParser):
    """What a browser's parser sees: the text outside of scripts, and all tags."""

    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.tags, self._texts, self._hidden = [], [], False
        self.feed(own_markup(page))
        self.close()
        self.text = " ".join("".join(self._texts).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self._hidden = tag in ("script", "style")

    def handle_endtag(self, tag):
        self._hidden = False

    def handle_data(self, data):
        if not self._hidden:
            self._texts.append(data)
