from __future__ import annotations

import itertools

import numpy as np
import pytest

from fedfuse_ray.config import DomainConfig, InstitutionConfig, PhantomData, SkewConfig, load
from fedfuse_ray.data.phantoms import class_names, codewords, draw_factors, generate, nearest_class
from fedfuse_ray.data.phantoms.factors import MEDICAL
from fedfuse_ray.data.phantoms.fields import smooth_field
from fedfuse_ray.errors import InputError
from fedfuse_ray.rng import generator

TINY = load("tiny")


def tables(data=TINY.data, institutions=TINY.institutions, **options):
    """Generate everything, {(split, owner): [Specimens]}."""
    header, parts = generate(data, institutions, **{"seed": 0, **options})
    found: dict[tuple[str, str], list] = {}
    for part in parts:
        found.setdefault((part.split, part.owner), []).append(part.specimens)
    return header, found


def skewed(**knobs):
    return TINY.data.model_copy(update={"skew": SkewConfig(**knobs)})


def one_domain(modalities, name="custom", specimens=60):
    data = PhantomData(
        image_size=16,
        signal_length=64,
        domains={name: DomainConfig(modalities=modalities, specimens=specimens)},
    )
    return data, (InstitutionConfig(name="a", domain=name, modalities=modalities),)


def test_the_papers_table_2():
    for preset in ("paper", "paper17"):
        experiment = load(preset)
        # One modality and the least image keep this to the arithmetic of who gets how many.
        domains = {
            name: domain.model_copy(update={"modalities": domain.modalities[:1]})
            for name, domain in experiment.data.domains.items()
        }
        data = experiment.data.model_copy(
            update={"domains": domains, "image_size": 16, "signal_length": 64}
        )
        first = {name: domain.modalities for name, domain in domains.items()}
        members = tuple(
            i.model_copy(update={"modalities": first[i.domain]}) for i in experiment.institutions
        )
        counts = dict.fromkeys(itertools.product(domains, ("train", "validation", "test")), 0)
        for part in generate(data, members, seed=0)[1]:
            counts[part.specimens.domain, part.split] += len(part.specimens)
        assert list(counts.values()) == [8715, 1868, 1867, 13244, 2838, 2838, 10976, 2352, 2352]


def test_parts_are_what_the_header_says():
    header, found = tables()
    assert header.institutions["med-02"] == ("medical", ("ct",))
    assert header.shapes["ct"] == (1, 16, 16)
    assert header.shapes["spectroscopy"] == (1, 64)
    assert len(set(header.domains["medical"].classes)) == 4
    owners = {(split, name) for name in header.institutions for split in ("train", "validation")}
    assert set(found) == owners | {("test", domain) for domain in header.domains}
    for (split, owner), batches in found.items():
        for batch in batches:
            domain, owned = header.institutions.get(
                owner, (owner, header.domains.get(owner, header.domains["medical"]).modalities)
            )
            assert (batch.domain, batch.modalities) == (domain, owned)
            assert set(batch.images) == set(owned)
            assert batch.present.any(axis=1).all()
            assert split == "test" or owner in header.institutions
            for column, modality in enumerate(owned):
                images = batch.images[modality]
                assert images.dtype == np.float16
                assert images.shape == (len(batch), *header.shapes[modality])
                assert not images[~batch.present[:, column]].any()
                assert images[batch.present[:, column]].any(axis=tuple(range(1, images.ndim))).all()
    ids = [name for batches in found.values() for batch in batches for name in batch.ids]
    assert len(ids) == len(set(ids)) == 96 + 48


def test_the_seed_decides_everything():
    first, again, other = (tables(seed=seed)[1]["train", "med-01"][0] for seed in (3, 3, 4))
    assert np.array_equal(first.images["ct"], again.images["ct"])
    assert np.array_equal(first.labels, again.labels)
    assert np.array_equal(first.present, again.present)
    assert not np.array_equal(first.images["ct"], other.images["ct"])


def test_what_others_own_changes_nothing():
    _, whole = tables()
    only = TINY.data.model_copy(update={"domains": {"medical": TINY.data.domains["medical"]}})
    fewer = tuple(i for i in TINY.institutions if i.domain == "medical")
    _, part = tables(only, fewer)
    a, b = whole["train", "med-01"][0], part["train", "med-01"][0]
    assert np.array_equal(a.images["mri"], b.images["mri"])


def test_replicas_have_as_much_of_their_own_and_the_test_set_stays():
    header, found = tables(replicas=3)
    _, single = tables()
    names = [name for name in header.institutions if name.startswith("med-01")]
    assert names == ["med-01-0001", "med-01-0002", "med-01-0003"]
    sizes = {len(found["train", name][0]) for name in names}
    assert sizes == {len(single["train", "med-01"][0])}
    assert not np.array_equal(
        found["train", names[0]][0].images["ct"], found["train", names[1]][0].images["ct"]
    )
    assert len(found["test", "medical"][0]) == len(single["test", "medical"][0])


def test_parts_are_bounded():
    data, members = one_domain(("spectroscopy",), specimens=4000)
    lengths = [len(part.specimens) for part in generate(data, members, seed=0)[1]]
    assert max(lengths) == 2048
    assert sum(lengths) == 4000
    data = data.model_copy(update={"signal_length": 16384})
    _, parts = generate(data, members, seed=0)
    first = next(parts)
    assert sum(i.nbytes for i in first.specimens.images.values()) <= 64 << 20


def test_six_classes_are_balanced_and_overlap_as_intended():
    assert np.abs(codewords(6).sum(axis=0)).max() == 0
    labels = np.arange(60_000) % 6
    factors = draw_factors(labels, 6, generator(0, "test"))
    assert 0.94 < np.mean(nearest_class(factors, 6) == labels) < 0.96


@pytest.mark.parametrize("classes", range(2, 9))
def test_classes_are_distinct_and_named(classes):
    assert len(np.unique(codewords(classes), axis=0)) == classes
    assert len(set(class_names(MEDICAL, classes))) == classes
    if classes % 2 == 0:
        assert not codewords(classes).sum(axis=0).any()


def test_label_skew_spares_the_test_set():
    _, found = tables(skewed(label_alpha=0.05))
    train = np.bincount(found["train", "med-01"][0].labels, minlength=4)
    test = np.bincount(found["test", "medical"][0].labels, minlength=4)
    assert train.max() > 0.6 * train.sum()
    assert test.max() - test.min() <= 1


def test_quantity_skew_moves_specimens_and_keeps_their_number():
    even, uneven = (
        {k: len(v[0]) for k, v in tables(skewed(**knob))[1].items()}
        for knob in ({}, {"quantity_alpha": 0.2})
    )
    assert even != uneven
    assert sum(even.values()) == sum(uneven.values())
    assert min(n for (split, _), n in uneven.items() if split == "train") >= 2


def test_feature_skew_is_the_scanners_alone():
    none, some = (tables(skewed(feature=f))[1]["train", "med-01"][0] for f in (0.0, 1.0))
    assert np.array_equal(none.labels, some.labels)
    assert np.abs(none.images["mri"] - some.images["mri"]).mean() > 0.01


def test_temporal_drift_grows_with_time():
    still, moved = (
        tables(skewed(feature=0.0, temporal=t))[1]["train", "med-01"][0].images["ct"]
        for t in (0.0, 1.0)
    )
    change = np.abs(still.astype(np.float32) - moved.astype(np.float32)).mean(axis=(1, 2, 3))
    third = len(change) // 3
    assert change[-third:].mean() > 2 * change[:third].mean()


def test_a_domain_of_any_name_works():
    data, members = one_domain(("histopathology", "ct"), name="veterinary")
    header, parts = generate(data, members, seed=0)
    assert header.domains["veterinary"].modalities == ("histopathology", "ct")
    assert sum(len(part.specimens) for part in parts) == 60


@pytest.mark.parametrize(
    ("modalities", "said"),
    [
        (("ct", "mrl"), "data.domains.custom.modalities: 'mrl': no forward model; known are ct,"),
        (("ct", "mrl"), "did you mean 'mri'"),
        (("ct", "satellite"), "data.domains.custom.modalities: 'satellite': images environmental"),
    ],
)
def test_a_modality_that_can_not_be_generated_is_named(modalities, said):
    data, members = one_domain(modalities)
    with pytest.raises(InputError) as caught:
        generate(data, members, seed=0)
    assert said in str(caught.value)


def test_too_few_specimens_for_the_institutions():
    data, members = one_domain(("ct",), specimens=10)
    many = tuple(members[0].model_copy(update={"name": f"s{n}"}) for n in range(6))
    with pytest.raises(InputError, match=r"data\.domains\.custom\.specimens: '10'"):
        generate(data, many, seed=0)


@pytest.mark.parametrize("cells", [3, 6, (18, 5)])
def test_smooth_fields_have_unit_variance_and_are_smooth(cells):
    field = smooth_field(generator(0, "test"), 2000, 64, cells)
    assert field.std() == pytest.approx(1.0, abs=0.05)
    assert np.abs(np.diff(field, axis=2)).mean() < 0.2
