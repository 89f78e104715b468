import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedfuse_ray.data.importers.spellings import MISSING, folded
from tests.support.processes.commands import done, refused

SAME = [
    ("benign", "Benign"),
    ("STRASSE", "straße"),
    ("caf\u00e9", "cafe\u0301"),
    ("ﬁbrous", "fibrous"),
    ("grade  2", "grade 2"),
    ("grade\u00a02", "grade 2"),
    ("01", "1"),
    ("1.0", "1"),
    ("-0", "0"),
    ("1e2", "100"),
]
OTHER = [("benign", "malignant"), ("1", "2"), ("1", "1a"), ("-1", "1"), ("0x10", "16")]


@pytest.mark.parametrize(("one", "two"), SAME)
def test_spellings_of_a_class(one, two):
    assert folded(one) == folded(two)


@pytest.mark.parametrize(("one", "two"), OTHER)
def test_other_classes(one, two):
    assert folded(one) != folded(two)


@given(label=st.text(max_size=30) | st.from_regex(r"\A[-+]?[0-9.]{1,9}([eE][-+]?[0-9]{1,9})?\Z"))
def test_folding_ends_where_it_began(label):
    once = folded(label)
    assert folded(label.upper().casefold()) == folded(label.casefold()) or not label.isascii()
    assert folded(unicodedata.normalize("NFD", label)) == once
    assert len(once) <= 40 + 20 * len(label)


def manifest(path, labels, image):
    rows = ["specimen_id,institution,domain,modality,label,split,path"]
    for i, label in enumerate(labels):
        split = "test" if i >= len(labels) - 2 else "train"
        owner = "" if split == "test" else "north"
        rows.append(f"s{i},{owner},medical,xray,{label},{split},a/{i}.png")
        image(path.parent / "a" / f"{i}.png", i)
    path.write_text("\n".join(rows) + "\n")
    return path


@pytest.fixture
def image():
    import numpy as np
    from PIL import Image

    def make(path, seed):
        path.parent.mkdir(exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 256, (16, 16), np.uint8)
        Image.fromarray(pixels).save(path)

    return make


@pytest.mark.parametrize(("one", "two"), [("benign", "Benign"), ("1", "01")])
def test_two_spellings_are_refused_by_name(one, two, tmp_path, image):
    path = manifest(tmp_path / "m.csv", [one, "x", two, "x", one, "x"], image)
    line = refused("data", "describe", path)
    assert "line 4, label" in line
    assert repr(one) in line
    assert repr(two) in line


@pytest.mark.parametrize("label", ["nan", "None", "N/A"])
def test_a_missing_label_is_refused(label, tmp_path, image):
    path = manifest(tmp_path / "m.csv", ["a", "b", label, "b", "a", "b"], image)
    assert "missing value" in refused("data", "describe", path)


def test_names_that_only_resemble_missing_values_are_classes(tmp_path, image):
    path = manifest(tmp_path / "m.csv", ["none", "Na", "none", "Na", "none", "Na"], image)
    assert "Na, none" in done("data", "describe", path)
    assert not {"none", "Na", "unknown", "0"} & MISSING
