from __future__ import annotations

import json

import numpy as np
import pytest

from fedfuse_ray.config import load, load_system, system_names
from fedfuse_ray.data.phantoms import generate
from fedfuse_ray.errors import InputError

PRESETS = [
    system.preset(variant)
    for system in map(load_system, system_names())
    for variant in ("", *system.variants)
]


@pytest.mark.parametrize("name", PRESETS)
def test_every_system_and_variant_loads_on_both_roots(name):
    small, large = load(name), load(name, root="paper")
    assert small.preset == large.preset == name.removeprefix("systems/")
    for domain, config in small.data.domains.items():
        assert large.data.domains[domain].specimens > 9 * config.specimens
        assert large.data.domains[domain].modalities == config.modalities


@pytest.mark.parametrize("paradigm", ["fedfuse", "federated_dp"])
@pytest.mark.parametrize("name", [*PRESETS, "demo", "paper", "paper17", "manifest", "real", "tiny"])
def test_no_preset_counts_private_steps(name, paradigm):
    with pytest.raises(InputError, match=r"fednova.* tells who took part"):
        load(name, ["strategy.kind=fednova"], paradigm=paradigm)
    # No preset asks for it by itself, but to show what it does without privacy.
    if load(name).strategy.kind == "fednova":
        assert not load(name).privacy.enabled


def test_a_systems_settings_go_over_the_recipe_of_the_preset_below_it():
    recipe = load("demo", paradigm="fedfuse_nonprivate").compression
    own = load("systems/mcmahan", paradigm="fedfuse_nonprivate").compression
    assert (recipe.codec, own.codec) == ("rot1bit", "fp32")
    private = load("systems/mcmahan", paradigm="federated_dp")
    assert (private.privacy.mode, private.training.rounds) == ("record-local", 10)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("systems/mcmahn", "did you mean 'systems/mcmahan'"),
        ("mcmahan", "did you mean 'systems/mcmahan'"),
        ("systems/mcmahan@cyclic", "no such variant"),
    ],
)
def test_a_wrong_name_is_one_line_that_helps(name, said):
    with pytest.raises(InputError, match=said) as caught:
        load(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "setting", "said"),
    [
        ("demo", "restrict.domains=[medicine]", "did you mean 'medical'"),
        ("demo", "restrict={domains: [medical], modalities: [xrd]}", "choose among ct"),
        ("demo", "restrict.modalities=[]", "at least one"),
        ("demo", "restrict.institutions=[med-01]", "domains, modalities"),
        ("real", "restrict.domains=[medical]", "only generated"),
    ],
)
def test_a_wrong_restriction_is_one_line_that_helps(source, setting, said):
    with pytest.raises(InputError, match=said) as caught:
        load(source, [setting])
    assert "\n" not in str(caught.value)


def specimens(*settings):
    """Return materials' tables at a twentieth of the size, by split and owner."""
    small = [f"data.domains.{d}.specimens=120" for d in ("medical", "materials", "environmental")]
    whole = load("demo", [*small, "data.skew.label_alpha=0.5", *settings])
    _, parts = generate(whole.data, whole.institutions, seed=3)
    return {(p.split, p.owner): p.specimens for p in parts if p.specimens.domain == "materials"}


def test_a_restriction_leaves_what_is_kept_as_it_was():
    whole = specimens()
    kept = specimens("restrict.modalities=[electron_microscopy]")
    owners = {"mat-01", "mat-02", "mat-04", "mat-05"}
    assert {owner for _, owner in kept} == {*owners, "materials"}
    for key, batch in kept.items():
        assert batch.modalities == ("electron_microscopy",)
        assert batch.ids == whole[key].ids
        assert np.array_equal(batch.labels, whole[key].labels)
        images = (b.images["electron_microscopy"] for b in (batch, whole[key]))
        assert np.array_equal(*images)


def test_it_is_not_what_striking_institutions_from_the_list_gives():
    without = load("demo").model_dump(mode="json")["institutions"]
    without = [i for i in without if i["name"] not in ("mat-03", "mat-06")]
    struck = specimens(f"institutions={json.dumps(without)}")
    absent = specimens(*(f"institutions.mat-{n}.takes_part=false" for n in ("03", "06")))
    assert struck.keys() == absent.keys()
    key = ("train", "mat-01")
    assert len(struck[key]) > len(absent[key]) == len(specimens()[key])


def test_a_modality_whose_owners_all_stay_away_is_refused():
    with pytest.raises(InputError, match="nobody owns 'electron_microscopy'"):
        load("tiny", ["institutions.mat-01.takes_part=false"])
