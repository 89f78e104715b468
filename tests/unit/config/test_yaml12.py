import math

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from fedfuse_ray.config import load
from fedfuse_ray.errors import InputError
from fedfuse_ray.yaml12 import parse, write

CORE = {
    "yes": "yes",
    "No": "No",
    "on": "on",
    "y": "y",
    "true": True,
    "FALSE": False,
    "010": 10,
    "0o10": 8,
    "0x1F": 31,
    "-7": -7,
    "+7": 7,
    "1_000": "1_000",
    "1:30": "1:30",
    "190:20:30": "190:20:30",
    "1e3": 1000.0,
    "-.5": -0.5,
    "1.": 1.0,
    "2026-12-01": "2026-12-01",
    "~": None,
    "null": None,
    ".inf": math.inf,
    "=": "=",
    "'010'": "010",
}

ODD = {
    "a: 1\nb: 2\na: 3": "line 3, column 1: the key 'a' stands twice",
    "a: {x: 1, x: 2}": "the key 'x' stands twice",
    "a: 1\n'a': 2": "the key 'a' stands twice",
    "- {x: 1}\n- [{y: 1, y: 2}]": "the key 'y' stands twice",
    "1: x": "the key '1' is not text",
    "true: x": "the key 'true' is not text",
    "[a, b]: x": "the key 'a collection' is not text",
    "a: [1": "line 1",
    "!!python/name:os.system x": "could not determine a constructor",
    "a: *nobody": "undefined alias",
    "a: " + "9" * 5000: "too long",
    "[" * 5000: "recursion",
    "\x00": "not allowed",
    "!!int word": "invalid literal",
}

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.sampled_from(sorted(CORE))
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize("text", CORE)
def test_a_scalar_is_what_the_core_schema_says(text):
    value = parse(text)
    assert value == CORE[text]
    assert type(value) is type(CORE[text])


def test_the_older_version_reads_some_of_them_as_something_else():
    read = {text: yaml.safe_load(text) for text in ("yes", "010", "1:30", "1e3")}
    assert read == {"yes": True, "010": 8, "1:30": 90, "1e3": "1e3"}


@pytest.mark.parametrize("text", ODD, ids=lambda text: repr(text[:20]))
def test_what_is_no_settings_is_refused_in_one_line(text):
    with pytest.raises(ValueError, match=r".") as caught:
        parse(text)
    assert ODD[text] in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_merge_key_takes_over_what_is_not_said():
    text = "a: {deep: {er: &d {<<: &x {p: 1, q: 1}, q: 2}}}\ne: {<<: *d, q: 3}\nf: {<<: *x}"
    read = parse(text)
    assert read["a"] == {"deep": {"er": {"p": 1, "q": 2}}}
    assert (read["e"], read["f"]) == ({"p": 1, "q": 3}, {"p": 1, "q": 1})


@settings(deadline=None)
@given(value=PLAIN, on_one_line=st.booleans())
def test_what_is_written_is_read_back(value, on_one_line):
    assert parse(write(value, on_one_line=on_one_line)) == value


@settings(deadline=None)
@given(text=st.text(max_size=60) | st.text("{}[]:,-?&*!|>'\"#%@ \n01ae.~<", max_size=60))
def test_any_text_is_read_or_refused(text):
    try:
        parse(text)
    except ValueError as error:
        assert "\n" not in str(error)  # noqa: PT017


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("training.rounds=yes", "yes"),
        ("training.rounds=true", "True"),
        ("training.rounds='3'", "3"),
        ("training.rounds=3.0", "3.0"),
        ("seed=1:30", "1:30"),
        ("training.learning_rate='0.1'", "0.1"),
        ("training.learning_rate=.inf", "inf"),
        ("training.learning_rate=true", "True"),
        ("privacy.clip_norm=.nan", "nan"),
        ("execution.executor=1", "1"),
        ("data.image_size=null", "None"),
    ],
)
def test_no_value_is_taken_for_another(setting, value):
    with pytest.raises(InputError) as caught:
        load("tiny", [setting], paradigm="fedfuse")
    assert caught.value.field.endswith(setting.partition("=")[0].rpartition(".")[2])
    assert str(caught.value.value) == value


def test_a_leading_zero_is_no_octal():
    assert load("tiny", ["seed=010"]).seed == 10


def test_a_group_that_stands_twice_is_refused_by_name(tmp_path):
    path = tmp_path / "two.yaml"
    path.write_text("extends: tiny\ntraining: {rounds: 3}\nprivacy: {}\ntraining: {seed: 1}\n")
    with pytest.raises(InputError, match="line 4, column 1: the key 'training' stands twice"):
        load(path)
