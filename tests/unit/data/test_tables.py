"""Arrow tables of specimens, memory-mapped."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from fedfuse_ray.data.specimens import Specimens, concatenate, select
from fedfuse_ray.data.tables import TableWriter, read_table
from fedfuse_ray.federation.institution.tensors import BackboneCache, to_tensors
from tests.support.federations import spec_of

SHAPES = {"rgb": (3, 4, 4), "line": (1, 8)}


def batch(count: int, seed: int = 0, modalities=("rgb", "line")) -> Specimens:
    generator = np.random.default_rng(seed)
    present = generator.random((count, len(modalities))) < 0.7
    present[:, 0] |= ~present.any(axis=1)
    return Specimens(
        domain="materials",
        modalities=tuple(modalities),
        ids=tuple(f"s{seed}-{i}" for i in range(count)),
        labels=generator.integers(0, 3, count),
        images={m: generator.random((count, *SHAPES[m])).astype(np.float16) for m in modalities},
        present=present,
    )


def written(path: Path, *batches: Specimens, shapes=SHAPES) -> Path:
    with TableWriter(path, "materials", shapes) as writer:
        for each in batches:
            writer.write(each)
    return path


def same(a: Specimens, b: Specimens) -> None:
    assert (a.domain, a.modalities, a.ids) == (b.domain, b.modalities, b.ids)
    np.testing.assert_array_equal(a.labels, b.labels)
    np.testing.assert_array_equal(a.present, b.present)
    assert a.images.keys() == b.images.keys()
    for name in a.images:
        np.testing.assert_array_equal(a.images[name], b.images[name])
        assert a.images[name].dtype == np.float16


def test_a_table_comes_back_as_it_was_written(tmp_path):
    path = written(tmp_path / "deep" / "t.arrow", batch(5))
    same(read_table(path), batch(5))


def test_several_batches_come_back_in_order(tmp_path):
    batches = [batch(3, 1), batch(1, 2), batch(4, 3)]
    same(read_table(written(tmp_path / "t.arrow", *batches)), concatenate(batches, SHAPES))


def test_every_range_of_rows(tmp_path):
    batches = [batch(3, 1), batch(2, 2), batch(2, 3)]
    path, whole = written(tmp_path / "t.arrow", *batches), concatenate(batches, SHAPES)
    for start, stop in itertools.combinations_with_replacement(range(8), 2):
        same(read_table(path, (start, stop)), select(whole, slice(start, stop)))


def test_images_are_views_of_the_file_and_cannot_be_written(tmp_path):
    path = written(tmp_path / "t.arrow", batch(6))
    for rows in (None, (2, 5)):
        images = read_table(path, rows).images["rgb"]
        assert not images.flags.writeable
        assert not images.flags.owndata
    mapped = read_table(path).images["rgb"]
    content = path.read_bytes()
    address = mapped.__array_interface__["data"][0]
    with Path("/proc/self/maps").open() as maps:
        spans = [line.split()[0].split("-") for line in maps if str(path) in line]
    assert any(int(low, 16) <= address < int(high, 16) for low, high in spans)
    with pytest.raises(ValueError, match="read-only"):
        mapped[0] = 0
    assert path.read_bytes() == content


def test_tensors_are_the_files_own_memory(tmp_path):
    path = written(tmp_path / "t.arrow", batch(6))
    specimens = read_table(path)
    data = to_tensors(specimens, spec_of(), BackboneCache(spec_of()), torch.device("cpu"))
    for name, images in specimens.images.items():
        assert data.inputs[name].data_ptr() == images.__array_interface__["data"][0]
    assert data.batch(slice(0, 2))["rgb"].dtype == torch.float32
    del specimens
    torch.testing.assert_close(
        data.inputs["rgb"], torch.from_numpy(batch(6).images["rgb"]), rtol=0, atol=0
    )


def test_a_table_of_fewer_modalities_leaves_the_others_out(tmp_path):
    path = written(tmp_path / "t.arrow", batch(4), shapes={"line": SHAPES["line"]})
    got = read_table(path)
    assert got.modalities == ("line",)
    np.testing.assert_array_equal(got.images["line"], batch(4).images["line"])
    np.testing.assert_array_equal(got.present[:, 0], batch(4).present[:, 1])


def test_an_unfinished_table_cannot_be_read(tmp_path):
    path = written(tmp_path / "t.arrow", batch(50))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(Exception, match="Arrow"):
        read_table(path)


def test_owners_of_different_modalities_join(tmp_path):
    both, line = batch(3, 1), batch(2, 2, ("line",))
    joined = concatenate([line, both], ("rgb", "line"))
    assert joined.ids == line.ids + both.ids
    assert joined.modalities == ("rgb", "line")
    np.testing.assert_array_equal(joined.images["rgb"][:2], 0)
    np.testing.assert_array_equal(joined.images["rgb"][2:], both.images["rgb"])
    assert not joined.present[:2, 0].any()
    np.testing.assert_array_equal(joined.present[:2, 1], line.present[:, 0])
    np.testing.assert_array_equal(joined.present[2:], both.present)
