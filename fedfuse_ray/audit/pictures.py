"""Originals and reconstructions as pictures inside the page: PNG for images, lines for signals."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable

import numpy as np
from PIL import Image

from fedfuse_ray.audit.attacks.image_attack import Picture as Attacked
from fedfuse_ray.audit.attacks.similarity import Array, psnr
from fedfuse_ray.report.page import Cell, Picture, Table


def gallery(pictures: Iterable[Attacked]) -> Table:
    """Return a table of pictures: a row an image, its original first, then what each view gave."""
    shown = list(pictures)
    views = list(shown[0].reconstructions) if shown else []
    rows: list[tuple[str | Cell, ...]] = []
    for picture in shown:
        name = picture.modality
        cells = [_cell(picture.original, f"{name}, original", "original")]
        for view, image in picture.reconstructions.items():
            note = f"{psnr(picture.original, image):.1f} dB"
            cells.append(_cell(image, f"{name}, from {view}", note))
        rows.append((name.replace("_", " "), *cells))
    head = ("", "original", *views)
    return Table(head, rows, numbers=len(head))


def _cell(image: Array, label: str, note: str) -> Cell:
    drawn = {"points": _points(image)} if image.ndim == 2 else {"png": _png(image)}
    return Cell(note, picture=Picture(label, **drawn))


def _png(image: Array) -> str:
    values = np.clip(np.rint(image * 255), 0, 255).astype(np.uint8)
    plain = np.moveaxis(values[:3], 0, 2) if len(values) >= 3 else values[0]
    buffer = io.BytesIO()
    Image.fromarray(plain).save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def _points(signal: Array) -> str:
    line = signal[0]
    x = np.linspace(0, 100, len(line))
    return " ".join(f"{a:.1f},{98 - 96 * b:.1f}" for a, b in zip(x, line, strict=True))
