"""Small manifests and images that the tests of the importers read."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from fedfuse_ray.config.settings.data import ManifestData
from fedfuse_ray.data import importers
from fedfuse_ray.data.specimens import Header, Part

Rows = list[dict[str, Any]]
COLUMNS = ("specimen_id", "institution", "domain", "modality", "label", "split", "path")


def png(value: int = 100, size: int = 20, mode: str = "L") -> bytes:
    buffer = io.BytesIO()
    color = value if mode == "L" else (value, 0, 255)
    Image.new(mode, (size, size), color).save(buffer, "PNG")
    return buffer.getvalue()


def row(
    name: str, institution: str, label: str, split: str, modality: str = "ct", domain: str = "med"
) -> dict[str, Any]:
    values = (name, institution, domain, modality, label, split, f"{modality}/{name}.png")
    return dict(zip(COLUMNS, values, strict=True))


def federation() -> Rows:
    """Two sites; a owns ct and mri, b owns ct; two classes; one shared test specimen of each."""
    rows = []
    for site in ("a", "b"):
        for i in range(4):
            split = "val" if i == 3 else "train"
            rows.append(row(f"{site}{i}", site, ("sick", "well")[i % 2], split))
            if site == "a":
                rows.append(row(f"{site}{i}", site, ("sick", "well")[i % 2], split, "mri"))
    rows += [row("t0", "", "sick", "test"), row("t0", "", "sick", "test", "mri")]
    rows += [row("t1", "", "well", "test", "mri")]
    return rows


def save(folder: Path, rows: Rows, *, images: bool = True) -> Path:
    for line in rows if images else ():
        file = folder / line["path"]
        file.parent.mkdir(parents=True, exist_ok=True)
        if not file.exists():
            file.write_bytes(png())
    path = folder / "m.csv"
    with path.open("w", newline="") as file_:
        writer = csv.DictWriter(file_, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    return path


def save_embedded(path: Path, rows: Rows, images: list[dict[str, Any] | None]) -> Path:
    table = pa.Table.from_pylist([{k: r[k] for k in COLUMNS[:-1]} for r in rows])
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    pq.write_table(table.append_column("image", pa.array(images, kind)), path, row_group_size=3)
    return path


def config(path: Path, **values: int) -> ManifestData:
    return ManifestData(kind="manifest", path=str(path), image_size=16, **values)


def load(path: Path, seed: int = 0) -> tuple[Header, dict[tuple[str, str], Part]]:
    header, parts = importers.read(config(path), seed=seed)
    return header, {(part.split, part.owner): part for part in parts}


def one_image(folder: Path, name: str, data: bytes) -> Any:
    """Read one training image of site a through a manifest, [C, H, W] or [C, L]."""
    rows = federation()
    for line in rows:
        if line["modality"] == "ct":
            line["path"] = f"{line['split']}-{name}"
            (folder / line["path"]).write_bytes(data)
    _, parts = load(save(folder, rows))
    return parts["train", "a"].specimens.images["ct"][0].astype(np.float64)


def npy_bytes(values: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


def saved(values: Any, kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, kind)
    return buffer.getvalue()
