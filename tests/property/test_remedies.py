"""What is proposed when a federation does not fit: it does fit then, and nothing smaller does."""

from __future__ import annotations

from itertools import chain

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from actors.packing import Node, pack
from actors.placement import Request
from actors.remedies import check_fit, fractions, more_nodes, placements, remedies, sharing
from fedfuse_ray.errors import ResourceError
from fedfuse_ray.federation.plan.participants import Participant

SHARES = (0.0, 0.1, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 1.0, 2.0)


def participant(number, num_gpus, num_cpus=1.0):
    name = f"site-{number:02d}"
    return Participant(name, "medical", ("ct",), (name,), 10 + number, 8, num_cpus, num_gpus)


def nodes_of(offered):
    return tuple(Node(f"n{i}", cpus, gpus) for i, (cpus, gpus) in enumerate(offered))


requests = st.builds(
    lambda shares, offered, per_actor, placement: Request(
        tuple(participant(i, share) for i, share in enumerate(shares)),
        nodes_of(offered),
        per_actor,
        placement,
    ),
    st.one_of(
        st.lists(st.sampled_from(SHARES), min_size=1, max_size=12),
        st.builds(lambda n, s: [s] * n, st.integers(1, 20), st.sampled_from(SHARES)),
    ),
    st.lists(st.tuples(st.integers(0, 8), st.integers(0, 4)), min_size=1, max_size=4),
    st.one_of(st.just("auto"), st.integers(1, 4)),
    st.sampled_from(["PACK", "SPREAD"]),
)


@settings(max_examples=150, deadline=None)
@given(request=requests)
def test_every_proposal_fits_and_nothing_smaller_of_its_kind_does(request):
    found = remedies(request)
    assert request.fits() == request.packing().fits
    if request.fits():
        assert found == ()
        return
    # `remedies` must not be believed: each is packed once more, in the order of their size.
    for proposals in (placements, sharing, fractions, more_nodes):
        tried = list(proposals(request))
        works = [pack(c.request.hosts(), c.request.nodes, c.request.placement).fits for c in tried]
        mine = [c for c in found if c in tried]
        assert mine == ([tried[works.index(True)]] if any(works) else [])
    assert len(found) == len(set(map(str, found)))


@settings(max_examples=100, deadline=None)
@given(request=requests)
def test_kinds_change_one_thing_and_grow(request):
    shared = [c.request.per_actor for c in sharing(request)]
    assert shared == sorted(set(shared))
    most = [max(p.num_gpus for p in c.request.participants) for c in fractions(request)]
    assert most == sorted(set(most), reverse=True)
    added = [len(c.request.nodes) for c in more_nodes(request)]
    assert added == list(range(len(request.nodes) + 1, len(request.nodes) + 1 + len(added)))
    for change in chain(sharing(request), placements(request)):
        assert change.request.participants == request.participants
        assert change.request.nodes == request.nodes


@settings(max_examples=100, deadline=None)
@given(request=requests)
def test_on_paper_no_node_and_no_gpu_holds_more_than_it_has(request):
    packing = request.packing()
    hosts = {h.name: h for h in request.hosts()}
    assert set(packing.where) | set(packing.missing) == set(hosts)
    for index, node in enumerate(request.nodes):
        here = [hosts[name] for name, where in packing.where.items() if where == index]
        assert sum(h.num_cpus for h in here) <= node.num_cpus + 1e-3
        whole = sum(h.num_gpus for h in here if h.num_gpus >= 1)
        parts = sorted((h.num_gpus for h in here if 0 < h.num_gpus < 1), reverse=True)
        over_half = sum(part > 0.5 for part in parts)
        assert whole + max(over_half, sum(parts)) <= node.num_gpus + 1e-3


@settings(max_examples=60, deadline=None)
@given(
    share=st.sampled_from([s for s in SHARES if s]),
    gpus=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    placement=st.sampled_from(["PACK", "SPREAD"]),
)
def test_equal_shares_fill_every_gpu_and_not_one_more(share, gpus, placement):
    offered = nodes_of([(64, n) for n in gpus])
    capacity = sum(int(n // share) if share > 1 else n * int(1 / share + 1e-9) for n in gpus)
    assume(capacity)

    def asked(count):
        return Request(
            tuple(participant(i, share) for i in range(count)), offered, 1, placement
        ).packing()

    assert asked(capacity).fits
    assert not asked(capacity + 1).fits


def test_settings_name_those_who_state_gpus_of_their_own():
    people = (
        participant(0, 0.5),
        participant(1, 0.5),
        Participant("site-02-0007", "medical", ("ct",), ("site-02-0007",), 9, 8, 1.0, 0.5),
    )
    request = Request(people, nodes_of([(8, 1)]), 1, "PACK")
    found = {s for c in remedies(request, {"site-01", "site-02"}) for s in c.settings}
    assert found == {
        "execution.institutions_per_actor=2",
        "execution.num_gpus_per_institution=0.3333",
        "institutions.site-01.hardware.num_gpus=0.3333",
        "institutions.site-02.hardware.num_gpus=0.3333",
    }


def test_another_placement_comes_first_where_it_is_enough():
    shares = [0.5, 0.5, 0.3333, 0.3333, 0.3333]
    people = tuple(participant(i, share) for i, share in enumerate(shares))
    request = Request(people, nodes_of([(8, 1), (8, 1)]), 1, "SPREAD")
    assert str(remedies(request)[0]) == "set execution.placement=PACK"


def test_what_no_single_change_mends_is_said():
    request = Request((participant(0, 1.0, num_cpus=0.0),), nodes_of([(0, 0)]), 1, "PACK")
    with pytest.raises(ResourceError, match="GPUs are short"):
        check_fit(request)
