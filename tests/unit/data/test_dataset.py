"""A dataset on disk: made once, found again, opened by institution, pool and test part."""

from __future__ import annotations

import json

import numpy as np
import pytest

from fedfuse_ray.data import dataset as datasets
from fedfuse_ray.data.dataset import Dataset, prepare
from fedfuse_ray.errors import FedfuseError, InputError
from tests.support.federations import tiny


def made(cache, *settings, seed=0, source=None):
    experiment = tiny(*settings)
    return prepare(
        experiment.data,
        experiment.institutions,
        seed=seed,
        replicas=experiment.replicas,
        cache=cache,
        source=source,
    )


def contents(dataset):
    return {
        str(path.relative_to(dataset.folder)): path.read_bytes()
        for path in sorted(dataset.folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return made(tmp_path_factory.mktemp("datasets"))


def test_a_dataset_holds_a_table_for_each_split_and_owner(dataset):
    assert sorted(contents(dataset)) == [
        "index.json",
        *(f"records/{name}.npy" for name in ("mat-01", "med-01", "med-02")),
        "test/materials.arrow",
        "test/medical.arrow",
        *(f"train/{name}.arrow" for name in ("mat-01", "med-01", "med-02")),
        *(f"validation/{name}.arrow" for name in ("mat-01", "med-01", "med-02")),
    ]


def test_the_index_counts_what_is_in_the_tables(dataset):
    for name, info in dataset.index.institutions.items():
        assert len(dataset.split("train", [name])) == info.train > 0
        assert len(dataset.split("validation", [name])) == info.validation
        assert dataset.split("train", [name]).modalities == info.modalities
    for domain, count in dataset.index.test.items():
        assert len(dataset.test(domain)) == count > 0
        assert dataset.test(domain).modalities == dataset.index.domains[domain].modalities
        for modality in dataset.index.domains[domain].modalities:
            images = dataset.test(domain).images[modality]
            assert images.shape[1:] == dataset.index.shapes[modality]


def test_no_specimen_is_in_two_tables(dataset):
    ids = [
        *(i for name in dataset.index.institutions for i in dataset.split("train", [name]).ids),
        *(i for n in dataset.index.institutions for i in dataset.split("validation", [n]).ids),
        *(i for domain in dataset.index.test for i in dataset.test(domain).ids),
    ]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("parts", [1, 2, 3, 20])
def test_parts_of_a_test_set_cover_it_in_order(dataset, parts):
    pieces = [dataset.test("medical", part, parts) for part in range(parts)]
    assert tuple(i for piece in pieces for i in piece.ids) == dataset.test("medical").ids
    sizes = [len(piece) for piece in pieces]
    assert max(sizes) - min(sizes) <= 1


def test_a_pool_joins_its_members(dataset):
    pooled = dataset.split("train", ["med-01", "med-02"])
    first, second = (dataset.split("train", [name]) for name in ("med-01", "med-02"))
    assert pooled.ids == first.ids + second.ids
    assert pooled.modalities == ("ct", "mri")
    np.testing.assert_array_equal(pooled.images["ct"][len(first) :], second.images["ct"])
    assert not pooled.present[len(first) :, 1].any()


def test_the_same_request_is_found_and_another_is_made(tmp_path, monkeypatch):
    first = made(tmp_path)
    stamp = (first.folder / "index.json").stat().st_mtime_ns
    assert made(tmp_path, "training.rounds=9").folder == first.folder
    assert (first.folder / "index.json").stat().st_mtime_ns == stamp
    others = {
        made(tmp_path, *settings, seed=seed).folder
        for settings, seed in (
            ((), 1),
            (("data.image_size=17",), 0),
            (("data.skew.feature=0.5",), 0),
            (("institutions.med-01.share=2",), 0),
            (("replicas=2",), 0),
        )
    }
    assert first.folder not in others
    assert len(others) == 5
    assert not list((tmp_path / "data").glob(".making-*"))


def test_the_same_request_makes_the_same_files_anywhere(tmp_path):
    here, there = made(tmp_path / "a"), made(tmp_path / "b")
    assert here.folder != there.folder
    assert contents(here) == contents(there)


def test_a_failure_leaves_no_dataset_behind(tmp_path):
    def broken(*args):
        header, parts = datasets.make_specimens(*args)

        def some():
            yield next(parts)
            raise InputError("images", "x", "is broken")

        return header, some()

    with pytest.raises(InputError, match="is broken"):
        made(tmp_path, source=broken)
    assert list((tmp_path / "data").iterdir()) == []
    assert made(tmp_path).index.institutions


def test_whoever_comes_second_takes_what_the_first_made(tmp_path):
    experiment = tiny()
    first = made(tmp_path)
    header, parts = datasets.make_specimens(experiment.data, experiment.institutions, 0, 1)
    datasets.write(first.folder, header, parts)
    assert [p.name for p in (tmp_path / "data").iterdir()] == [first.folder.name]


@pytest.mark.parametrize("content", [None, "", "{}", "[1]", '{"domains": 3}'])
def test_a_folder_without_a_whole_index_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "index.json").write_text(content)
    with pytest.raises(FedfuseError, match=f"dataset {tmp_path} can't be read"):
        Dataset(tmp_path)


def test_an_institution_without_validation_specimens_has_an_empty_split(dataset, tmp_path):
    tree = json.loads((dataset.folder / "index.json").read_text())
    tree["institutions"]["med-02"]["validation"] = 0
    (tmp_path / "index.json").write_text(json.dumps(tree))
    (tmp_path / "train").symlink_to(dataset.folder / "train")
    (tmp_path / "validation").mkdir()
    (tmp_path / "validation" / "med-01.arrow").symlink_to(
        dataset.folder / "validation" / "med-01.arrow"
    )
    bare = Dataset(tmp_path)
    empty = bare.split("validation", ["med-02"])
    assert len(empty) == 0
    assert empty.modalities == ("ct",)
    assert len(bare.split("validation", ["med-01", "med-02"])) == len(
        dataset.split("validation", ["med-01"])
    )


def test_generated_data_only_can_be_replicated(tmp_path):
    from fedfuse_ray.config.settings.data import ManifestData

    (tmp_path / "m.csv").write_text("specimen_id,institution,domain,modality,label,split,path\n")
    data = ManifestData(kind="manifest", path=str(tmp_path / "m.csv"))
    with pytest.raises(InputError, match="replicas"):
        prepare(data, (), seed=0, replicas=2, cache=tmp_path)
