"""A table of text, for a page, a document and the terminal alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedfuse_ray.report.page import Table as Cells

if TYPE_CHECKING:
    from rich.table import Table


_LONGEST_NAME = 16


@dataclass(frozen=True)
class Grid:
    """A table of text: the first column names the row."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def as_part(grid: Grid, numbers: int = 1) -> Cells:
    """Return the table for a page; columns from `numbers` on are set to the right."""
    return Cells(grid.head, grid.rows, numbers)


def as_markdown(grid: Grid) -> str:
    """Return the table for a document."""
    lines = [
        "| " + " | ".join(grid.head) + " |",
        "|" + "---|" * len(grid.head),
        *("| " + " | ".join(row) + " |" for row in grid.rows),
    ]
    return "\n".join(lines) + "\n"


def as_rich(grid: Grid) -> Table:
    """Return the table for the terminal."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=box.SIMPLE_HEAD, show_edge=False)
    longest = max((len(row[0]) for row in grid.rows), default=0)
    for index, name in enumerate(grid.head):
        # What a row is of stays whole as long as it is a name.
        whole = min(longest, _LONGEST_NAME) if index == 0 else None
        shown.add_column(name, overflow="fold", min_width=whole)
    for row in grid.rows:
        shown.add_row(*map(Text, row))
    return shown
