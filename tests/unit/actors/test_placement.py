"""Who shares an actor with whom, and what is said when the cluster is too small."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.packing import Host, Node, granted, pack
from actors.placement import Request, lay_out
from actors.remedies import check_fit
from fedfuse_ray.errors import ResourceError
from tests.support.federations import THIRD


def participants(count, num_gpus=0.0, num_cpus=1.0, specimens=None, modalities=("ct",)):
    from fedfuse_ray.federation.plan.plan import Participant

    return tuple(
        Participant(
            name=f"site-{i:02d}",
            domain="medical",
            modalities=modalities,
            members=(f"site-{i:02d}",),
            specimens=specimens[i] if specimens else 10,
            batch_size=8,
            num_cpus=num_cpus,
            num_gpus=num_gpus,
        )
        for i in range(count)
    )


def node(num_cpus, num_gpus=0.0, name="n"):
    return Node(name, num_cpus, num_gpus)


def fits(hosts, nodes, placement="PACK"):
    return pack(hosts, nodes, placement).fits


def asked(people, nodes, per_actor, placement="PACK"):
    return Request(tuple(people), tuple(nodes), per_actor, placement)


def names(hosts):
    return [host.participants for host in hosts]


def test_auto_gives_each_its_own_actor_where_there_is_a_cpu_for_each():
    hosts = lay_out(participants(4), [node(3), node(1)], "auto")
    assert names(hosts) == [(f"site-{i:02d}",) for i in range(4)]
    assert [host.name for host in hosts] == [f"site-{i:02d}" for i in range(4)]
    assert hosts[0].label == "site-00 [ct]"
    assert {host.num_cpus for host in hosts} == {1.0}


def test_auto_makes_a_host_for_each_core_where_there_are_fewer():
    hosts = lay_out(participants(5), [node(2)], "auto")
    assert len(hosts) == 2
    assert sorted(itertools.chain(*names(hosts))) == [f"site-{i:02d}" for i in range(5)]
    assert [host.name for host in hosts] == ["host-01", "host-02"]
    assert "3 institutions: site-00" in hosts[0].label


def test_auto_on_less_than_one_core_makes_one_host():
    (host,) = lay_out(participants(3), [node(0.5)], "auto")
    assert fits([host], [node(0.5)])
    assert len(host.participants) == 3


@pytest.mark.parametrize(("per_actor", "count"), [(1, 5), (2, 3), (3, 2), (5, 1), (99, 1)])
def test_a_number_is_how_many_share_an_actor(per_actor, count):
    hosts = lay_out(participants(5), [node(2)], per_actor)
    assert len(hosts) == count
    assert sorted(itertools.chain(*names(hosts))) == [f"site-{i:02d}" for i in range(5)]
    assert fits(hosts, [node(2)])


def test_hosts_are_balanced_by_work():
    hosts = lay_out(participants(4, specimens=[100, 10, 60, 50]), [node(2)], "auto")
    loads = [
        sum({"site-00": 100, "site-01": 10, "site-02": 60, "site-03": 50}[n] for n in host)
        for host in names(hosts)
    ]
    assert max(loads) == 110


def test_participants_keep_the_plans_order_inside_a_host():
    hosts = lay_out(participants(7, specimens=[1, 9, 2, 8, 3, 7, 4]), [node(2)], "auto")
    for host in names(hosts):
        assert list(host) == sorted(host)
    assert names(hosts)[0][0] < names(hosts)[1][0]


def test_institutions_that_ask_for_less_cpu_get_less():
    hosts = lay_out(participants(2, num_cpus=0.25), [node(8)], "auto")
    assert {host.num_cpus for host in hosts} == {0.25}


# GPUs.


@pytest.mark.parametrize(
    ("fraction", "gpus", "slots"),
    [(0.5, 2, 4), (0.3, 1, 3), (0.1, 1, 10), (1 / 3, 2, 6), (1.0, 3, 3), (2.0, 4, 2), (0.6, 2, 2)],
)
def test_a_gpu_holds_as_many_as_whole_fractions_fit(fraction, gpus, slots):
    nodes = [node(100, gpus)]
    hosts = lay_out(participants(50, fraction), nodes, "auto")
    assert len(hosts) == slots
    assert fits(hosts, nodes)
    for placement in ("PACK", "SPREAD"):
        check_fit(asked(participants(slots, fraction), nodes, 1, placement))
        with pytest.raises(ResourceError, match="GPUs are short"):
            check_fit(asked(participants(slots + 1, fraction), nodes, 1, placement))


@pytest.mark.parametrize(
    ("fraction", "share"),
    [
        (0, 0),
        (0.5, 0.5),
        (0.3, 0.3333),
        (0.34, 0.5),
        (0.6, 1),
        (1, 1),
        (1.5, 2),
        (2, 2),
        (1e-9, 1e-4),
        (1 / 6, 0.1666),
    ],
)
def test_a_fraction_is_rounded_up_to_what_it_blocks(fraction, share):
    assert granted(fraction) == share


def test_a_fraction_is_never_spread_over_two_gpus():
    """Two GPUs with 0.4 left each can't hold 0.6, although 0.8 is free."""
    hosts = [Host(f"h{i}", f"h{i}", (f"s{i}",), 1.0, 0.6) for i in range(3)]
    assert fits(hosts[:2], [node(8, 2)])
    packing = pack(hosts, [node(8, 2, "a")], "PACK")
    assert "no single GPU has 0.6 left" in packing.missing["h2"]


def test_what_ray_would_send_to_a_node_without_a_gpu_for_it_does_not_fit():
    """Four GPUs have 1.2 left as a sum after twelve, and 0.1 each: the thirteenth hangs."""
    hosts = [Host(f"h{i}", f"h{i}", (f"s{i}",), 0.1, 0.3) for i in range(13)]
    nodes = [node(50, 4, "a"), node(50, 4, "b")]
    packing = pack(hosts, nodes, "PACK")
    assert list(packing.missing) == ["h12"]
    assert "no single GPU has 0.3 left" in packing.missing["h12"]
    assert fits(hosts, nodes, "SPREAD")
    assert fits(lay_out(participants(13, 0.3, num_cpus=0.1), nodes, 1), nodes)


def test_two_whole_gpus_come_from_one_node():
    hosts = [Host("h", "h", ("s",), 1.0, 2.0)]
    assert fits(hosts, [node(1, 1), node(1, 2)])
    packing = pack(hosts, [node(1, 1), node(1, 1)], "PACK")
    assert packing.missing == {"h": "no node has 1 CPU and 2 GPU"}


def test_pack_fills_a_node_and_spread_begins_with_one_on_each():
    hosts = [Host(f"h{i}", f"h{i}", (f"s{i}",), 1.0, 0.25) for i in range(4)]
    nodes = [node(8, 1, "a"), node(8, 1, "b"), node(8, 1, "c")]
    assert set(pack(hosts, nodes, "PACK").where.values()) == {0}
    assert sorted(pack(hosts, nodes, "SPREAD").where.values()) == [0, 0, 1, 2]


def test_a_node_of_many_gpus_and_few_cpus_is_no_obstacle():
    nodes = [node(2, 4, "gpus"), node(64, 0, "cpus")]
    hosts = lay_out(participants(8, 0.5), nodes, 1)
    assert fits(hosts, nodes)
    assert {host.num_cpus for host in hosts} == {0.25}


def test_a_cluster_of_a_head_without_cpus_holds_nobody():
    with pytest.raises(ResourceError, match=r"CPUs are short.*add nodes: 1x\(1 CPU\)"):
        check_fit(asked(participants(3), [node(0)], "auto"))


def test_gpus_are_never_shrunk_to_fit():
    hosts = lay_out(participants(3, 0.5), [node(8, 1)], 1)
    assert {host.num_gpus for host in hosts} == {0.5}


def test_a_shortage_of_gpus_names_the_numbers_and_the_fix():
    nodes = [node(8, 1)]
    with pytest.raises(ResourceError) as caught:
        check_fit(asked(participants(6, 0.5), nodes, 1))
    said, *lines = str(caught.value).splitlines()
    assert said.startswith("site-02 finds no place after 2 of 6 actors: GPUs are short: ")
    assert "6 actors of 0.5 GPU" in said
    assert "1 GPUs have 2 slots" in said
    assert "smallest change: set execution.institutions_per_actor=3" in said
    assert "set execution.num_gpus_per_institution=0.1666" in said
    assert "add nodes: 2x(8 CPU, 1 GPU)" in said
    assert lines == [
        "  n: 2 actors, 2 of 8 CPUs, 1 of 1 GPUs",
        *(f"  no place: site-0{i} (GPUs are taken)" for i in (2, 3, 4)),
        "  no place: 1 more",
    ]


def test_a_cluster_without_gpus_is_told_to_ask_for_none():
    for per_actor in ("auto", 1):
        with pytest.raises(ResourceError) as caught:
            check_fit(asked(participants(2, 0.5), [node(8)], per_actor))
        assert "GPUs are short" in str(caught.value)
        assert "execution.num_gpus_per_institution=0" in str(caught.value)


def test_a_shortage_of_cpus_is_told_as_one():
    hosts = [Host(f"h{i}", f"h{i}", (f"s{i}",), 1.0, 0.0) for i in range(3)]
    packing = pack(hosts, [node(2)], "PACK")
    assert packing.missing == {"h2": "CPUs are taken"}


# CPUs are logical: they never stand in the way.


@settings(max_examples=200, deadline=None)
@given(
    count=st.integers(1, 40),
    nodes=st.lists(st.integers(0, 5), min_size=1, max_size=5).filter(any),
    per_actor=st.one_of(st.just("auto"), st.integers(1, 40)),
)
def test_a_cluster_with_a_core_holds_any_number_of_institutions(count, nodes, per_actor):
    offered = [node(cpus, name=f"n{i}") for i, cpus in enumerate(nodes)]
    hosts = lay_out(participants(count), offered, per_actor)
    assert sorted(itertools.chain(*names(hosts))) == [f"site-{i:02d}" for i in range(count)]
    assert fits(hosts, offered)
    assert fits(hosts, offered, "SPREAD")


def test_the_preset_of_five_institutions_lays_out_by_its_hardware():
    from tests.support.federations import plan_of, tiny

    plan = plan_of(tiny(*THIRD, "institutions.env-01.hardware.num_gpus=0.25"))
    hosts = {h.name: h for h in lay_out(plan.participants, [node(8, 2)], "auto")}
    assert hosts["env-01"].num_gpus == 0.25
    assert hosts["env-02"].num_gpus == 0
    assert fits(list(hosts.values()), [node(8, 2)])
