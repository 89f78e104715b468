"""Looking again and again until it has ended: a live view on a terminal, lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from rich.console import Console, RenderableType
from rich.live import Live

from fedfuse_ray.errors import DeadlineError


@dataclass(frozen=True)
class Look:
    """What is seen at one moment.

    Attributes:
        view: All of it, for a terminal.
        lines: What has happened so far, a line each, for a log.
        ended: Nothing more will happen.
        source: What the lines are read from; where it changes they begin anew.
    """

    view: RenderableType
    lines: tuple[str, ...]
    ended: bool
    source: str = ""


def watch(look: Callable[[], Look], console: Console, *, interval: float, timeout: float) -> Look:
    """Show what is seen until it has ended; returns the last of it.

    Args:
        look: Looks once.
        console: Gets a live view where it is a terminal, and lines, then the view, elsewhere.
        interval: Seconds between looks.
        timeout: Seconds without a new line after which to give up.

    Raises:
        DeadlineError: Nothing happened for so long.
    """
    if console.is_terminal:
        with Live(console=console, auto_refresh=False) as live:
            return _follow(
                look, lambda seen, _: live.update(seen.view, refresh=True), interval, timeout
            )

    def tell(seen: Look, news: tuple[str, ...]) -> None:
        for line in news:
            console.print(line, markup=False, highlight=False, soft_wrap=True)

    last = _follow(look, tell, interval, timeout)
    console.print(last.view)
    return last


def _follow(
    look: Callable[[], Look],
    tell: Callable[[Look, tuple[str, ...]], None],
    interval: float,
    timeout: float,
) -> Look:
    shown, source, heard = 0, "", time.monotonic()
    while True:
        seen = look()
        # A resumed run forgets the rounds after its checkpoint, and runs them again.
        shown = min(shown, len(seen.lines)) if seen.source == source else 0
        source = seen.source
        news, shown = seen.lines[shown:], len(seen.lines)
        tell(seen, news)
        if seen.ended:
            return seen
        heard = time.monotonic() if news else heard
        if time.monotonic() - heard > timeout:
            raise DeadlineError(f"no news for {timeout:g} s; look whether it still runs")
        time.sleep(interval)
