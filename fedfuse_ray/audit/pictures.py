"""Originals and reconstructions as pictures inside the page: PNG for images, lines for signals."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from html import escape

import numpy as np
from PIL import Image

from fedfuse_ray.audit.attacks.image_attack import Picture
from fedfuse_ray.audit.attacks.similarity import Array, psnr
from fedfuse_ray.report.page import table

_SIZE = 112
_STYLE = f"width:{_SIZE}px;height:{_SIZE}px;image-rendering:pixelated;border-radius:4px"


def gallery(pictures: Iterable[Picture]) -> str:
    """Return a table of pictures: a row an image, its original first, then what each view gave."""
    shown = list(pictures)
    views = list(shown[0].reconstructions) if shown else []
    rows = []
    for picture in shown:
        name = escape(picture.modality.replace("_", " "))
        cells = [name, _cell(picture.original, f"{picture.modality}, original", "original")]
        for view, image in picture.reconstructions.items():
            note = f"{psnr(picture.original, image):.1f} dB"
            cells.append(_cell(image, f"{picture.modality}, from {view}", note))
        rows.append(cells)
    head = ("", "original", *views)
    return f'<div class="panel">{table(head, rows, numbers=len(head))}</div>'


def _cell(image: Array, label: str, note: str) -> str:
    drawn = _signal(image, label) if image.ndim == 2 else _image(image, label)
    return f'{drawn}<br><span class="quiet">{escape(note)}</span>'


def _image(image: Array, label: str) -> str:
    values = np.clip(np.rint(image * 255), 0, 255).astype(np.uint8)
    plain = np.moveaxis(values[:3], 0, 2) if len(values) >= 3 else values[0]
    buffer = io.BytesIO()
    Image.fromarray(plain).save(buffer, format="PNG")
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img src="data:image/png;base64,{data}" alt="{escape(label)}" style="{_STYLE}">'


def _signal(signal: Array, label: str) -> str:
    line = signal[0]
    x = np.linspace(0, 100, len(line))
    points = " ".join(f"{a:.1f},{98 - 96 * b:.1f}" for a, b in zip(x, line, strict=True))
    return (
        f'<svg viewBox="0 0 100 100" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(label)}" style="width:{_SIZE}px;height:{_SIZE}px">'
        f'<polyline points="{points}" fill="none" stroke="currentColor" stroke-width="1"/></svg>'
    )
