"""A reproduction's page and document, from its `reproduction.json`."""

from __future__ import annotations

from pathlib import Path

from fedfuse_ray.studies.pages import write_both
from fedfuse_ray.studies.reproducing.markdown import document
from fedfuse_ray.studies.reproducing.page import page
from fedfuse_ray.studies.reproducing.results import Reproduction


def write_pages(folder: Path) -> Path:
    """Write `report.html` and `paper.md`, or write them again; return the page's path.

    Raises:
        InputError: `reproduction.json` is broken.
    """
    found = Reproduction.read(folder / Reproduction.FILE)
    return write_both(folder, page(found), "paper.md", document(found))
