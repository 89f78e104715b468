"""A table's page and document, from its `related.json`."""

from __future__ import annotations

from pathlib import Path

from fedfuse_ray.studies.pages import write_both
from fedfuse_ray.studies.related.markdown import document
from fedfuse_ray.studies.related.page import page
from fedfuse_ray.studies.related.results import Related


def write_pages(folder: Path) -> Path:
    """Write `report.html` and `related-work.md`, or write them again; return the page's path.

    Raises:
        InputError: `related.json` is broken.
    """
    found = Related.read(folder / Related.FILE)
    return write_both(folder, page(found), "related-work.md", document(found))
