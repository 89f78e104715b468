"""Importers: manifests made from MedMNIST archives and from folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedfuse_ray.config.settings.data import ManifestData
from fedfuse_ray.data import importers
from fedfuse_ray.data.importers import dealing
from fedfuse_ray.errors import InputError
from tests.support.importer_files import (
    config,
    load,
    png,
)


def medmnist(path: Path, count: int = 60, channels: tuple[int, ...] = ()) -> Path:
    generator = np.random.Generator(np.random.PCG64(0))
    arrays = {}
    for split, n in (("train", count), ("val", 12), ("test", 8)):
        arrays[f"{split}_images"] = generator.integers(0, 255, (n, 28, 28, *channels), np.uint8)
        arrays[f"{split}_labels"] = (np.arange(n) % 3)[:, None]
    np.savez_compressed(path, **arrays)
    return path


@pytest.mark.parametrize("channels", [(), (3,)])
@pytest.mark.parametrize("alpha", [None, 0.3])
def test_medmnist(tmp_path: Path, channels: tuple[int, ...], alpha: float | None) -> None:
    source = medmnist(tmp_path / "x.npz", channels=channels)
    path = importers.import_to_manifest(
        source, tmp_path / "o", domain="med", modality="us", institutions=4, label_alpha=alpha
    )
    data = ManifestData(kind="manifest", path=str(path), image_size=28)
    header, parts = importers.read(data, seed=0)
    assert header.shapes == {"us": (3 if channels else 1, 28, 28)}
    assert list(header.institutions) == ["med-01", "med-02", "med-03", "med-04"]
    found = {(part.split, part.owner): part.specimens for part in parts}
    train = [s for (split, _), s in found.items() if split == "train"]
    validation = [s for (split, _), s in found.items() if split == "validation"]
    assert sum(map(len, train)) + sum(map(len, validation)) == 72
    if alpha is None:
        assert [len(s) for s in train] == [15] * 4
    images = np.load(source)["test_images"].reshape(8, 28, 28, -1).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(found["test", "med"].images["us"], images / 255, atol=1e-3)
    assert found["test", "med"].labels.tolist() == [0, 1, 2, 0, 1, 2, 0, 1]


def test_medmnist_is_deterministic(tmp_path: Path) -> None:
    source = medmnist(tmp_path / "x.npz")
    made = [
        importers.import_medmnist(
            source,
            tmp_path / str(i),
            domain="m",
            modality="us",
            institutions=3,
            label_alpha=0.5,
            seed=seed,
        ).read_bytes()
        for i, seed in enumerate((0, 0, 1))
    ]
    assert made[0] == made[1] != made[2]


def test_wrong_medmnist(tmp_path: Path) -> None:
    good = dict(np.load(medmnist(tmp_path / "x.npz")))
    cases: list[tuple[dict[str, Any], str]] = [
        ({"val_labels": None}, "has no array val_labels"),
        ({"train_labels": np.zeros((60, 14), int)}, "give one a specimen"),
        ({"train_images": np.zeros((60, 28, 28, 28), np.uint8)}, "give uint8"),
        ({"train_images": good["train_images"][:5]}, "one image a label"),
        ({"test_images": good["test_images"] / 255}, "test_images is float64"),
    ]
    for changes, message in cases:
        arrays = {k: v for k, v in (good | changes).items() if v is not None}
        np.savez(tmp_path / "y.npz", **arrays)
        with pytest.raises(InputError, match=message):
            convert(tmp_path / "y.npz", tmp_path / "o")
    (tmp_path / "z.npz").write_bytes((tmp_path / "x.npz").read_bytes()[:3000])
    for name, message in (("z.npz", "can't be read"), ("none.npz", "can't be read")):
        with pytest.raises(InputError, match=message):
            convert(tmp_path / name, tmp_path / "o")
    for values, message in (
        ({"institutions": 61}, "60 train specimens"),
        ({"institutions": 0}, "must be 1 or more"),
        ({"label_alpha": 0.0}, "must be above 0"),
        ({"domain": None}, "give the option"),
    ):
        with pytest.raises(InputError, match=message):
            convert(tmp_path / "x.npz", tmp_path / "o", **values)
    assert not (tmp_path / "o/images.parquet").exists()


def convert(source: Path, out: Path, **values: Any) -> Path:
    options = {"domain": "m", "modality": "us", "institutions": 3} | values
    return importers.import_to_manifest(source, out, **options)


def test_dirichlet_skews_and_iid_does_not() -> None:
    labels = np.arange(6000) % 3
    spread = {}
    for alpha in (None, 0.1):
        generator = np.random.Generator(np.random.PCG64(3))
        shares = dealing.draw_shares(3, 5, alpha, generator)
        owner = dealing.deal(labels, shares, generator)
        table = np.stack([np.bincount(labels[owner == i], minlength=3) for i in range(5)])
        assert table.sum() == 6000
        spread[alpha] = np.ptp(table, axis=0).max()
    assert spread[None] == 0
    assert spread[0.1] > 1000


def tree(root: Path) -> Path:
    for domain, names in (("med", ("ct", "mri")), ("sky", ("aerial",))):
        for modality in names:
            for label in ("no", "yes"):
                folder = root / domain / modality / label
                folder.mkdir(parents=True)
                for i in range(20 if modality != "mri" else 12):
                    (folder / f"{i:03d}.png").write_bytes(png(i))
    return root


def test_folder(tmp_path: Path) -> None:
    path = importers.import_to_manifest(tree(tmp_path / "s"), tmp_path / "o", institutions=2)
    header, parts = load(path)
    assert header.domains["med"].modalities == ("ct", "mri")
    assert header.domains["sky"].classes == ("no", "yes")
    assert list(header.institutions) == ["med-01", "med-02", "sky-01", "sky-02"]
    assert sum(len(p.specimens) for p in parts.values()) == 80
    test = parts["test", "med"].specimens
    assert len(test) == 6
    assert test.present.sum(axis=1).tolist().count(2) == 4
    assert set(test.ids).isdisjoint(parts["train", "med-01"].specimens.ids)


@pytest.mark.parametrize(("institutions", "alpha"), [(5, 0.05), (12, None)])
def test_folder_dealt_to_many_is_always_readable(
    tmp_path: Path, institutions: int, alpha: float | None
) -> None:
    source = tree(tmp_path / "s")
    for seed in range(8):
        path = importers.import_to_manifest(
            source, tmp_path / "o", institutions=institutions, label_alpha=alpha, seed=seed
        )
        # A site's validation images of a modality that it has no train images of are refused.
        assert len(importers.check(config(path)).header.institutions) == 2 * institutions


def test_wrong_folder(tmp_path: Path) -> None:
    source = tree(tmp_path / "s")
    with pytest.raises(InputError, match="holds no DOMAIN/MODALITY/LABEL"):
        importers.import_to_manifest(source / "med", tmp_path / "o", institutions=2)
    with pytest.raises(InputError, match="leave the option out"):
        importers.import_to_manifest(source, tmp_path / "o", institutions=2, domain="x")
    (source / "med/ct/no/000.tif").write_bytes(png())
    with pytest.raises(InputError, match=r"same name as 000\.png"):
        importers.import_to_manifest(source, tmp_path / "o", institutions=2)
    (source / "med/ct/no/000.tif").unlink()
    (tmp_path / "out.png").write_bytes(png())
    (source / "med/ct/no/link.png").symlink_to(tmp_path / "out.png")
    with pytest.raises(InputError, match="link out of"):
        importers.import_to_manifest(source, tmp_path / "o", institutions=2)
