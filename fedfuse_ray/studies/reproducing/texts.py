"""What the page and the document say around the tables."""

from __future__ import annotations

from fedfuse_ray.report.page import texts_of
from fedfuse_ray.studies.reproducing.results import Reproduction

TITLE = "The paper beside this software"
SPREAD = "Where there are several seeds, whiskers and brackets span the lowest to the highest."

SECTIONS = texts_of("fedfuse_ray.studies.reproducing")


def lead(found: Reproduction) -> str:
    """Return what this reproduction is, in a sentence."""
    return (
        f"The experiments of the paper on generated images, preset {found.base}, "
        f"by `{found.command}`."
    )
