"""Importers: what a right manifest becomes, from CSV and from Parquet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fedfuse_ray.data import importers
from fedfuse_ray.data.importers import embedded, reading
from fedfuse_ray.errors import InputError
from tests.support.importer_files import (
    config,
    federation,
    load,
    png,
    row,
    save,
    save_embedded,
)


def test_header_and_parts(tmp_path: Path) -> None:
    header, parts = load(save(tmp_path, federation()))
    assert header.domains["med"].classes == ("sick", "well")
    assert header.institutions == {"a": ("med", ("ct", "mri")), "b": ("med", ("ct",))}
    assert header.shapes == {"ct": (1, 16, 16), "mri": (1, 16, 16)}
    counts = {key: len(part.specimens) for key, part in parts.items()}
    assert counts == {
        ("train", "a"): 3,
        ("validation", "a"): 1,
        ("train", "b"): 3,
        ("validation", "b"): 1,
        ("test", "med"): 2,
    }
    own = parts["train", "b"].specimens
    assert own.modalities == ("ct",)
    assert own.ids == ("b0", "b1", "b2")
    assert own.labels.tolist() == [0, 1, 0]
    test = parts["test", "med"].specimens
    assert test.present.tolist() == [[True, True], [False, True]]
    assert not test.images["ct"][1].any()
    np.testing.assert_allclose(test.images["mri"], 100 / 255, rtol=1e-3)
    assert test.images["mri"].dtype == np.float16


def test_same_seed_same_data_and_order_of_names(tmp_path: Path) -> None:
    rows = [row(f"x{i}", "b", ("sick", "well")[i % 2], "train") for i in range(20)]
    path = save(tmp_path, rows + [r for r in federation() if r["institution"] != "b"])
    header, first = load(path)
    _, again = load(path)
    _, other = load(path, seed=1)
    assert list(header.institutions) == ["a", "b"]
    held = first["validation", "b"].specimens.ids
    assert len(held) == 3
    assert held == again["validation", "b"].specimens.ids
    assert held != other["validation", "b"].specimens.ids
    assert set(held).isdisjoint(first["train", "b"].specimens.ids)
    assert first["validation", "a"].specimens.ids == ("a3",)


def test_hold_out_leaves_every_label_and_modality_in_train(tmp_path: Path) -> None:
    rows = [line for line in federation() if line["split"] != "val"]
    rows += [row(f"b{i}", "b", "sick", "train") for i in range(4, 20)]
    rows = [r for r in rows if r["specimen_id"] not in {"b1"}]
    rows.append(row("only", "b", "well", "train"))
    for seed in range(12):
        _, parts = load(save(tmp_path, rows), seed)
        assert "only" in parts["train", "b"].specimens.ids
        assert len(parts["validation", "b"].specimens) == 3
    # Three specimens are too few to hold one out.
    assert ("validation", "a") not in parts


def test_numeric_labels_sort_by_value(tmp_path: Path) -> None:
    rows = federation()
    for line in rows:
        line["label"] = {"sick": "10", "well": "9"}[line["label"]]
    assert load(save(tmp_path, rows))[0].domains["med"].classes == ("9", "10")


def test_an_owner_with_many_images_comes_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(tmp_path, federation())
    whole = load(path)[1]["train", "a"].specimens
    monkeypatch.setattr(reading, "PART_BYTES", 2 * 2 * 2 * 16 * 16)
    _, parts = importers.read(config(path), seed=0)
    pieces = [p.specimens for p in parts if (p.split, p.owner) == ("train", "a")]
    assert [len(piece) for piece in pieces] == [2, 1]
    assert pieces[0].ids + pieces[1].ids == whole.ids


def test_colour_if_any_image_is(tmp_path: Path) -> None:
    (tmp_path / "mri").mkdir()
    (tmp_path / "mri/t1.png").write_bytes(png(51, mode="RGB"))
    header, parts = load(save(tmp_path, federation()))
    assert header.shapes == {"ct": (1, 16, 16), "mri": (3, 16, 16)}
    test = parts["test", "med"].specimens.images["mri"].astype(float)
    np.testing.assert_allclose(test[1, :, 8, 8], [0.2, 0, 1], atol=1e-3)
    np.testing.assert_allclose(test[0, :, 8, 8], 100 / 255, atol=1e-3)


def test_summary_counts(tmp_path: Path) -> None:
    rows = [line for line in federation() if (line["institution"], line["split"]) != ("b", "val")]
    rows.append(row("b9", "b", "well", "train"))
    summary = importers.check(config(save(tmp_path, rows)))
    assert summary.rows == len(rows)
    assert summary.images["a", "mri", "train"] == 3
    assert summary.images["med", "ct", "test"] == 1
    assert summary.held_out == ("b",)
    assert summary.specimens["b", "train"] == 3
    assert summary.specimens["b", "validation"] == 1


def test_fingerprint_follows_manifest_and_files(tmp_path: Path) -> None:
    path = save(tmp_path, federation())
    first = importers.fingerprint(config(path))
    assert first == importers.fingerprint(config(path))
    (tmp_path / "ct/a0.png").write_bytes(png(7, size=33))
    second = importers.fingerprint(config(path))
    save(tmp_path, federation()[:-1])
    assert len({first, second, importers.fingerprint(config(path))}) == 3


def test_parquet_with_paths_equals_csv(tmp_path: Path) -> None:
    rows = federation()
    _, expected = load(save(tmp_path, rows))
    for line in rows:
        line["institution"] = line["institution"] or None
    table = pa.Table.from_pylist(rows)
    label = table.schema.get_field_index("label")
    table = table.set_column(label, "label", table.column("label").dictionary_encode())
    pq.write_table(table, tmp_path / "m.parquet")
    _, found = load(tmp_path / "m.parquet")
    assert found.keys() == expected.keys()
    for key, part in found.items():
        assert part.specimens.ids == expected[key].specimens.ids
        np.testing.assert_array_equal(part.specimens.labels, expected[key].specimens.labels)


def test_numbers_with_nulls_are_read_as_whole_numbers(tmp_path: Path) -> None:
    rows = federation()
    for line in rows:
        line["label"] = {"sick": 1.0, "well": 0.0}[line["label"]]
    save(tmp_path, rows)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "m.parquet")
    assert load(tmp_path / "m.parquet")[0].domains["med"].classes == ("0", "1")


@pytest.mark.parametrize("spool", [0, 1 << 20])
def test_embedded_images_with_bytes_or_path(
    tmp_path: Path, spool: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "SPOOL_BYTES", spool)
    rows = federation()
    images: list[dict[str, Any] | None] = [
        {"bytes": png(i), "path": None if i % 2 else "same.png"} for i in range(len(rows))
    ]
    (tmp_path / "beside.png").write_bytes(png(200))
    images[0] = {"bytes": None, "path": "beside.png"}
    _, parts = load(save_embedded(tmp_path / "m.parquet", rows, images))
    train = parts["train", "a"].specimens.images
    values = [round(float(train[m][n, 0, 0, 0]) * 255) for n in range(3) for m in ("ct", "mri")]
    assert values == [200, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("image", [None, {"bytes": None, "path": None}])
def test_embedded_row_without_image(tmp_path: Path, image: dict[str, Any] | None) -> None:
    rows = federation()
    images: list[dict[str, Any] | None] = [{"bytes": png(), "path": None}] * len(rows)
    path = save_embedded(tmp_path / "m.parquet", rows, [*images[:4], image, *images[5:]])
    with pytest.raises(InputError, match=r"m\.parquet row 5, image: .*neither bytes nor a path"):
        load(path)


def test_embedded_column_of_a_wrong_type(tmp_path: Path) -> None:
    rows = [{**line, "image": "x"} for line in federation()]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "m.parquet")
    with pytest.raises(InputError, match="must be a struct of bytes"):
        load(tmp_path / "m.parquet")


def test_embedded_path_outside_the_folder(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "out.png").write_bytes(png())
    images: list[dict[str, Any] | None] = [{"bytes": None, "path": "../out.png"}]
    images *= len(federation())
    path = save_embedded(tmp_path / "in/m.parquet", federation(), images)
    with pytest.raises(InputError, match=r"row 1, path: '../out.png': is outside"):
        load(path)
