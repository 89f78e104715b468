"""Draw docs/images/phantoms.png: every modality of the generated data, a column for each class."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from fedfuse_ray.data.phantoms import FORWARD_MODELS, ForwardModel, class_names, codewords, ideal
from fedfuse_ray.rng import generator

CLASSES, RESOLUTION, SIGNAL = 6, 64, 256
TILE, GAP, TITLE, NAMES, MARGIN = 128, 6, 22, 26, 12
INK, MUTED, PAPER = (30, 34, 42), (96, 104, 118), (255, 255, 255)
CAPTIONS = {
    "satellite": "satellite (near infrared, red, green shown as red, green, blue)",
}


def tile(image: npt.NDArray[np.float32]) -> Image.Image:
    """Return one image [C, H, W], or the plot of a signal [C, L], as a tile."""
    if image.ndim == 2:
        return plot(image[0])
    planes = image[[3, 0, 1]] if len(image) == 4 else np.broadcast_to(image, (3, *image.shape[1:]))
    pixels = (np.clip(planes, 0, 1) * 255).round().astype(np.uint8).transpose(1, 2, 0)
    return Image.fromarray(pixels).resize((TILE, TILE), Image.Resampling.NEAREST)


def plot(signal: npt.NDArray[np.float32]) -> Image.Image:
    """Return the plot of a signal, drawn at four times its size for smooth lines."""
    scale = 4
    side = TILE * scale
    canvas = Image.new("RGB", (side, side), (246, 247, 249))
    x = np.linspace(0.03, 0.97, len(signal)) * side
    y = (0.95 - 0.9 * np.clip(signal, 0, 1)) * side
    line = [(float(a), float(b)) for a, b in zip(x, y, strict=True)]
    ImageDraw.Draw(canvas).line(line, fill=(26, 84, 144), width=5, joint="curve")
    return canvas.resize((TILE, TILE), Image.Resampling.LANCZOS)


def caption(model: ForwardModel) -> str:
    """Return a row's title: the modality and what it shows."""
    name = CAPTIONS.get(model.modality, model.modality.replace("_", " "))
    hidden = 3 - model.strong - model.weak
    shown = [model.family.factors[i] for i in (model.strong, model.weak, hidden)]
    return f"{name}: shows {shown[0]}, weakly {shown[1]}, hides {shown[2]}"


def draw(seed: int) -> Image.Image:
    """Return the sheet; each column's specimen lies at its class's centre."""
    models = list(FORWARD_MODELS.values())
    families = list(dict.fromkeys(model.family for model in models))
    width = 2 * MARGIN + CLASSES * TILE + (CLASSES - 1) * GAP
    height = 2 * MARGIN + len(models) * (TITLE + TILE + GAP) + len(families) * NAMES
    sheet = Image.new("RGB", (width, height), PAPER)
    pen = ImageDraw.Draw(sheet)
    title, small = ImageFont.load_default(14), ImageFont.load_default(12)
    top = MARGIN
    for family in families:
        for model in (m for m in models if m.family == family):
            pen.text((MARGIN, top), caption(model), INK, title)
            top += TITLE
            rng = generator(seed, "contact-sheet", model.modality)
            shape = model.shape(RESOLUTION, SIGNAL)
            images = model.render(codewords(CLASSES), shape, ideal(CLASSES), rng)
            for column, image in enumerate(images):
                sheet.paste(tile(image), (MARGIN + column * (TILE + GAP), top))
            top += TILE + GAP
        for column, name in enumerate(class_names(family, CLASSES)):
            middle = MARGIN + column * (TILE + GAP) + TILE / 2
            pen.text((middle, top - 1), name, MUTED, small, anchor="ma")
        top += NAMES
    return sheet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/images/phantoms.png"))
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    draw(arguments.seed).save(arguments.out, optimize=True)
    print(arguments.out)


if __name__ == "__main__":
    main()
