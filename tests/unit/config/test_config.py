from __future__ import annotations

import json

import pytest

from fedfuse_ray.config import dump, json_schema, load, preset_names, validate
from fedfuse_ray.errors import InputError


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_loads_and_survives_a_round_trip(name, tmp_path):
    experiment = load(name)
    assert experiment.preset == name
    file = tmp_path / f"{name}.yaml"
    file.write_text(dump(experiment))
    assert load(str(file)) == experiment


def test_the_papers_counts():
    for name, counts in (("paper", (5, 6, 4)), ("paper17", (5, 8, 4)), ("demo", (5, 6, 4))):
        domains = [i.domain for i in load(name).institutions]
        assert tuple(domains.count(d) for d in ("medical", "materials", "environmental")) == counts
    specimens = {k: d.specimens for k, d in load("paper").data.domains.items()}
    assert specimens == {"medical": 12450, "materials": 18920, "environmental": 15680}


def test_overrides_win_in_order():
    experiment = load("tiny", ["seed=1", "seed=2", "institutions.med-02.share=3"])
    assert experiment.seed == 2
    assert {i.name: i.share for i in experiment.institutions}["med-02"] == 3


def test_naming_another_kind_drops_what_it_does_not_know():
    settings = ["strategy.server_momentum=0.9", "strategy.kind=fedadam", "strategy.beta1=0.5"]
    assert load("tiny", settings).strategy.beta1 == 0.5
    kept = load("tiny", ["strategy.weighting=uniform", "strategy.kind=fedadam"]).strategy
    assert kept.weighting == "uniform"


def test_extends_merges_and_refuses_a_circle(tmp_path):
    child = tmp_path / "mine.yaml"
    child.write_text("extends: tiny\ntraining: {rounds: 7}\n")
    assert (load(child).training.rounds, load(child).training.batch_size) == (7, 16)
    child.write_text("extends: mine.yaml\n")
    with pytest.raises(InputError, match="extends itself"):
        load(child)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["trainning.rounds=3"], "did you mean 'training'"),
        (["training.rond=3"], "did you mean 'rounds'"),
        (["training.learning_rate=-0.1"], "training.learning_rate: '-0.1'"),
        (["training.rounds=many"], "training.rounds: 'many'"),
        (["institutions.med-01.modalities=[pet]"], "'pet' is not one of"),
        (["institutions.med-01.domain=legal"], "'legal' is not one of"),
        (["data.domains.medical.modalities=[ct, mri, histopathology]"], "nobody owns"),
        (["strategy.kind=fedsomething"], "fedsomething"),
        (["rounds"], "dotted.name=value"),
        (["institutions.nobody.share=1"], "no institution of that name"),
        (["seed.deep=1"], "seed"),
        (["training.learning_rate=.nan"], "training.learning_rate"),
        (["institutions=[]"], "at least one"),
    ],
)
def test_wrong_input_is_one_line_that_names_it(settings, said):
    with pytest.raises(InputError) as caught:
        load("tiny", settings)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_preset_suggests_the_nearest():
    with pytest.raises(InputError, match="did you mean 'demo'"):
        load("deno")


def test_a_file_that_is_not_yaml_is_refused(tmp_path):
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [")
    with pytest.raises(InputError, match="is not YAML"):
        load(broken)


def test_configs_are_frozen():
    with pytest.raises(ValueError, match="frozen"):
        load("tiny").seed = 3


def test_the_schema_describes_every_group():
    schema = json.loads(json_schema())
    assert {"data", "institutions", "training", "strategy"} <= set(schema["properties"])


def test_a_name_twice_is_refused():
    tree = load("tiny").model_dump()
    tree["institutions"] = [tree["institutions"][0]] * 2 + [tree["institutions"][2]]
    with pytest.raises(InputError, match="named twice"):
        validate(tree)


def test_a_file_sets_listed_institutions_by_name(tmp_path):
    child = tmp_path / "mine.yaml"
    child.write_text("extends: tiny\ninstitutions: {med-02: {hardware: {speed: 0.5}, share: 2}}\n")
    before, after = load("tiny").institutions, load(child).institutions
    assert [i.name for i in after] == [i.name for i in before]
    assert (after[1].hardware.speed, after[1].share) == (0.5, 2.0)
    assert after[1].modalities == before[1].modalities
    assert (after[0], after[2]) == (before[0], before[2])


@pytest.mark.parametrize(
    ("text", "said"),
    [("{med-2: {share: 2}}", "did you mean 'med-02'"), ("{med-02: 3}", "a group of settings")],
)
def test_a_wrong_institution_in_a_file_is_one_line_that_helps(tmp_path, text, said):
    child = tmp_path / "mine.yaml"
    child.write_text(f"extends: tiny\ninstitutions: {text}\n")
    with pytest.raises(InputError, match=said) as caught:
        load(child)
    assert "\n" not in str(caught.value)
