"""Small federations in a manifest, of which one record can be another."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

COLUMNS = ("specimen_id", "institution", "domain", "modality", "label", "split", "path")
SITES = ("north", "south", "west")
LABELS = ("sick", "well")


@dataclass(frozen=True)
class Sizes:
    """How many specimens there are: of each site, and of the consortium."""

    train: int = 8
    validation: int = 4
    held_test: int = 0
    shared_test: int = 8


SMALL = Sizes()


def write(folder: Path, sizes: Sizes = SMALL, changed: str = "") -> Path:
    """Write a manifest and its images; `changed` is a specimen with another image and label.

    Specimens are named by site, split and number, as `north-train-0`; the consortium's by split and
    number, as `test-0`.
    """
    rows = []
    for site in (*SITES, ""):
        counts = {"test": sizes.shared_test}
        if site:
            counts = {
                "train": sizes.train,
                "validation": sizes.validation,
                "test": sizes.held_test,
            }
        for split, count in counts.items():
            for number in range(count):
                name = "-".join(filter(None, (site, split, str(number))))
                rows.append(_row(folder, name, site, split, number, other=name == changed))
    path = folder / "manifest.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    return path


def _row(
    folder: Path, name: str, site: str, split: str, number: int, *, other: bool
) -> dict[str, str]:
    label = (number + other) % len(LABELS)
    noise = np.random.default_rng([len(name), *name.encode(), other]).integers(0, 90, (16, 16))
    image = noise + 120 * label * (np.arange(16) < 8)
    file = folder / f"{name}.png"
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image.astype(np.uint8)).save(file)
    values = (name, site, "medical", "ct", LABELS[label], split, file.name)
    return dict(zip(COLUMNS, values, strict=True))
