from __future__ import annotations

import numpy as np
import pytest

from fedfuse_ray.errors import InputError
from fedfuse_ray.federation.plan.paradigms import is_pooled, resolve, trains_alone
from fedfuse_ray.federation.rounds.loop import final_views, round_views
from tests.support.federations import THIRD, dataset_of, plan_of, tiny

DOMAIN = "strategy.weighting=domain"


def test_each_block_has_the_owners_of_its_modality_or_domain():
    plan = plan_of(tiny())
    assert plan.owners == {
        "encoder/ct": ("med-01", "med-02"),
        "encoder/mri": ("med-01",),
        "encoder/electron_microscopy": ("mat-01",),
        "encoder/spectroscopy": ("mat-01",),
        "fusion": ("med-01", "med-02", "mat-01"),
        "head/medical": ("med-01", "med-02"),
        "head/materials": ("mat-01",),
    }


@pytest.mark.parametrize("weighting", ["specimens", "uniform", "domain"])
def test_fractions_sum_to_one_over_a_blocks_owners(weighting):
    plan = plan_of(tiny(f"strategy.weighting={weighting}", *THIRD))
    assert plan.fractions.keys() == plan.owners.keys()
    for block, fractions in plan.fractions.items():
        assert tuple(fractions) == plan.owners[block]
        assert sum(fractions.values()) == pytest.approx(1)


def test_weights_by_specimens():
    plan = plan_of(tiny())
    counts = {p.name: p.specimens for p in plan.participants}
    total = counts["med-01"] + counts["med-02"]
    assert plan.fractions["encoder/ct"]["med-02"] == pytest.approx(counts["med-02"] / total)
    assert plan.fractions["fusion"]["mat-01"] == pytest.approx(
        counts["mat-01"] / sum(counts.values())
    )


def test_uniform_weights():
    plan = plan_of(tiny("strategy.weighting=uniform"))
    assert plan.fractions["fusion"] == dict.fromkeys(("med-01", "med-02", "mat-01"), 1 / 3)


def test_the_papers_domain_weights_split_by_specimens_inside_a_domain():
    plan = plan_of(tiny(DOMAIN, *THIRD))
    fusion, counts = plan.fractions["fusion"], {p.name: p.specimens for p in plan.participants}
    by_domain = {d: sum(fusion[p.name] for p in plan.participants if p.domain == d) for d in (
        "medical", "materials", "environmental")}  # fmt: skip
    assert by_domain == pytest.approx({"medical": 0.6, "materials": 0.25, "environmental": 0.15})
    ratio = counts["med-02"] / counts["med-01"]
    assert ratio == pytest.approx(2, rel=0.1)
    assert fusion["med-02"] / fusion["med-01"] == pytest.approx(ratio)
    # A block of one domain does not feel the domain's weight.
    total = counts["med-01"] + counts["med-02"]
    assert plan.fractions["head/medical"]["med-01"] == pytest.approx(counts["med-01"] / total)


def test_a_domain_without_a_weight_is_refused():
    with pytest.raises(InputError, match=r"strategy\.domain_weights.*materials"):
        plan_of(tiny(DOMAIN, "strategy.domain_weights={medical: 1}"))


@pytest.mark.parametrize("paradigm", ["fedfuse_nonprivate", "centralized"])
def test_test_parts_cover_each_domains_test_set_exactly(paradigm):
    experiment = tiny(*THIRD, paradigm=paradigm)
    plan, dataset = plan_of(experiment), dataset_of(experiment)
    seen = {domain: [] for domain in plan.spec.domains}
    for participant in plan.participants:
        part, parts = plan.test_part(participant)
        seen[participant.domain] += dataset.test(participant.domain, part, parts).ids
    for domain, ids in seen.items():
        assert tuple(ids) == dataset.test(domain).ids
        assert len(set(ids)) == plan.test[domain]


def test_modalities_come_in_the_domains_order():
    plan = plan_of(tiny(*THIRD))
    assert plan.by_name["env-02"].modalities == ("satellite", "aerial")
    assert plan.by_name["env-02"].label == "env-02 [satellite, aerial]"


def test_hardware_comes_from_the_institution_then_from_the_experiment():
    settings = (
        "institutions.med-01.hardware={batch_size: 5, num_cpus: 0.5, num_gpus: 0.25}",
        "training.batch_size=9",
        "execution.num_gpus_per_institution=0.1",
    )
    by_name = plan_of(tiny(*settings)).by_name
    first, second = by_name["med-01"], by_name["med-02"]
    assert (first.batch_size, first.num_cpus, first.num_gpus) == (5, 0.5, 0.25)
    assert (second.batch_size, second.num_cpus, second.num_gpus) == (9, 1.0, 0.1)


def test_replicas_share_their_originals_hardware():
    plan = plan_of(tiny("replicas=2", "institutions.med-01.hardware.batch_size=5"))
    sizes = {p.name: p.batch_size for p in plan.participants}
    assert len(sizes) == 6
    assert {size for name, size in sizes.items() if name.startswith("med-01-")} == {5}
    assert {size for name, size in sizes.items() if not name.startswith("med-01-")} == {16}


def test_a_pool_holds_what_its_members_hold():
    apart, pooled = plan_of(tiny(*THIRD)), plan_of(tiny(*THIRD, paradigm="centralized"))
    assert [p.name for p in pooled.participants] == ["medical", "materials", "environmental"]
    for pool in pooled.participants:
        members = [apart.by_name[name] for name in pool.members]
        assert pool.members == tuple(p.name for p in apart.participants if p.domain == pool.domain)
        assert pool.specimens == sum(p.specimens for p in members)
        assert pool.modalities == pooled.spec.domains[pool.domain]


def test_what_paradigms_fix():
    experiment = tiny("model.fusion=concat")
    for paradigm, fusion in (
        ("centralized", "concat"),
        ("isolated", "concat"),
        ("fedfuse_nonprivate", "concat"),
        ("federated", "none"),
    ):
        chosen = resolve(experiment.model_copy(update={"paradigm": paradigm}))
        assert chosen.model.fusion == fusion
        assert is_pooled(chosen) is (paradigm == "centralized")
        assert trains_alone(chosen) is (paradigm in ("centralized", "isolated"))


def test_final_views_are_all_subsets_and_what_institutions_own():
    plan = plan_of(tiny())
    assert final_views(plan)["medical"] == (("ct",), ("mri",), ("ct", "mri"))
    assert round_views(plan)["medical"] == (("ct", "mri"),)
    alone = plan_of(tiny(paradigm="federated"))
    assert final_views(alone)["medical"] == round_views(alone)["medical"] == (("ct",), ("mri",))


def test_many_modalities_are_not_scored_in_every_subset():
    import dataclasses

    plan = plan_of(tiny())
    many = tuple("abcdef")
    spec = dataclasses.replace(plan.spec, domains={"d": many})
    owner = dataclasses.replace(plan.participants[0], domain="d", modalities=("b", "d"))
    wide = dataclasses.replace(plan, spec=spec, participants=(owner,))
    assert final_views(wide) == {"d": (*((m,) for m in many), ("b", "d"), many)}


def test_only_scaffold_keeps_state():
    assert plan_of(tiny("strategy.kind=scaffold")).keeps_state
    assert not plan_of(tiny()).keeps_state


def test_specimens_of_the_plan_are_those_on_disk():
    experiment = tiny()
    plan, dataset = plan_of(experiment), dataset_of(experiment)
    for p in plan.participants:
        assert p.specimens == len(dataset.split("train", p.members))
    assert all(np.array(list(plan.test.values())) > 0)
