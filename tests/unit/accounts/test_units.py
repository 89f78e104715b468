"""Units of an account: which images they have, whatever order, file or id they came in."""

from __future__ import annotations

import numpy as np
import pytest

from fedfuse_ray.accounts.units import Units, shared, units_of
from fedfuse_ray.data.dataset import prepare
from tests.support import importer_files as files
from tests.support.federations import dataset_of, tiny
from tests.support.privacy.accounts import key, units


def test_units_are_known_by_their_images_in_any_order():
    one = units(["x", "y"], ["z"])
    assert units(["z"], ["y", "x"], ["z"]).id == one.id
    assert units(["x"], ["y", "z"]).id != one.id  # the same images, of other records
    assert units(["x", "y"]).id != one.id


def test_units_survive_the_file():
    one = units(["x", "y"], ["z"])
    again = Units.from_json(one.to_json())
    assert again.id == one.id
    assert again.keys.tolist() == one.keys.tolist()


@pytest.mark.parametrize("broken", [{"sizes": ""}, {"keys": "eAEBAAD//wAAAAE="}, {"keys": "?"}])
def test_broken_units_are_no_units(broken):
    with pytest.raises((ValueError, KeyError, Exception)):
        Units.from_json({**units(["x"]).to_json(), **broken})


def test_a_shared_image_is_enough_to_be_the_same():
    found = shared(units(["ct", "mri"], ["alone"]), [units(["mri"]), units(["other"])])
    assert found.sum(axis=0).tolist() == [1, 0]
    assert found.shape == (2, 2)


def test_keys_that_end_in_zeros_are_told_apart():
    one = np.array([b"a" + bytes(15)], "S16")
    assert shared(Units(one, np.array([1], np.uint32)), [units(["x"])]).sum() == 0
    assert key("x") != key("y")


def distinct(rows):
    """Give every image of a manifest bytes of its own."""
    return {row["path"]: files.png(value=3 * n + 1) for n, row in enumerate(rows)}


def manifest(folder, rows, images):
    for row in rows:
        path = folder / row["path"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(images[row["path"]])
    return files.save(folder, rows)


def held(path, names=("a", "b"), **more):
    dataset = prepare(files.config(path, **more), (), seed=0)
    return {name: units_of(dataset, [name], "record") for name in names}


def test_a_moved_a_reordered_and_a_resized_manifest_have_the_same_units(tmp_path):
    rows = files.federation()
    images = distinct(rows)
    one = held(manifest(tmp_path / "one", rows, images))
    assert [len(one[name].sizes) for name in ("a", "b")] == [4, 4]
    assert one["a"].sizes.tolist() == [2, 2, 2, 2]
    other = held(manifest(tmp_path / "two", rows[::-1], images), signal_length=128)
    assert {name: own.id for name, own in one.items()} == {n: own.id for n, own in other.items()}


def test_embedded_images_have_the_keys_of_files(tmp_path):
    rows = files.federation()
    images = distinct(rows)
    one = held(manifest(tmp_path, rows, images))
    embedded = [{"bytes": images[row["path"]], "path": None} for row in rows]
    other = held(files.save_embedded(tmp_path / "m.parquet", rows, embedded))
    assert one["a"].id == other["a"].id


def test_other_ids_labels_and_splits_change_no_unit(tmp_path):
    rows = files.federation()
    images = distinct(rows)
    one = held(manifest(tmp_path / "one", rows, images))
    for row in rows:
        row["specimen_id"] = f"new-{row['specimen_id']}"
        if row["split"] == "val":
            row["split"] = "train"
    assert held(manifest(tmp_path / "two", rows, images))["a"].id == one["a"].id


def test_generated_specimens_are_the_same_as_long_as_they_are_generated_alike():
    one = units_of(dataset_of(tiny()), ["med-01"], "record")
    again = units_of(dataset_of(tiny("training.rounds=9")), ["med-01"], "record")
    other = units_of(dataset_of(tiny("seed=1")), ["med-01"], "record")
    assert one.id == again.id
    assert not shared(one, [other]).any()


def test_an_institution_and_what_nobody_knows_is_one_unit():
    dataset = dataset_of(tiny())
    records = units_of(dataset, ["med-01"], "record")
    for unit in ("institution", "a unit of tomorrow"):
        whole = units_of(dataset, ["med-01"], unit)
        assert whole.sizes.tolist() == [len(records.distinct)]
        assert shared(records, [whole]).all()
