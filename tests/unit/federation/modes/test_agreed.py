"""What an institution checks before it believes a broadcast, and the threshold that all derive."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest

from fedfuse_ray.compression.codec import Setting
from fedfuse_ray.errors import InputError, InstitutionError
from fedfuse_ray.federation.messages.downlink import Broadcast
from fedfuse_ray.federation.messages.released import Released
from fedfuse_ray.federation.messages.updates import Kept
from fedfuse_ray.federation.modes.exchange import Answer, Turn
from fedfuse_ray.federation.modes.masked import MaskedGathering, MaskedStep
from fedfuse_ray.federation.modes.session import least_members
from fedfuse_ray.privacy.secure_aggregation import minimum_threshold
from tests.support.federations import plan_of, tiny
from tests.support.privacy.attempts import Federation

SPENDING = ("privacy.noise_schedule=adaptive", "training.rounds=6")
CLIPPING = ("privacy.adaptive_clipping.enabled=true",)
CHOOSING = ("compression.codec=modint", "compression.policy.kind=adaptive")
CLIP = 0.5


def federation_of(*settings):
    return Federation(plan_of(tiny(*settings, paradigm="fedfuse")))


def told(federation, spent=0.0, **changes):
    """Have every institution take the first step of a round of a changed broadcast."""
    turn = Turn(1, Answer(), federation.broadcast(**changes), Kept(spent=spent))
    return [side.take(MaskedStep.ADVERTISE, turn).message for side in federation.sides]


def refused(federation, match, spent=0.0, **changes):
    """Check that the first institution refuses the broadcast, and says who it is and why."""
    with pytest.raises(InstitutionError, match=match) as caught:
        told(federation, spent, **changes)
    assert caught.value.institution == "med-01"
    # Negative control: the true broadcast is believed.
    assert all(told(federation))


@pytest.mark.parametrize("factor", [1e-3, 0.5, 1 / 1.5 - 1e-3, 1.5 + 1e-3, 0.0, -1.0, np.nan])
def test_a_factor_on_the_noise_that_was_not_agreed_on_is_refused(factor):
    refused(
        federation_of(*SPENDING), "on the noise was not agreed on", released=Released(None, factor)
    )


@pytest.mark.parametrize("factor", [1 / 1.5, 1.0, 1.5])
def test_a_factor_within_the_agreed_spread_is_believed(factor):
    released = Released(noise_factor=factor).as_sent()
    assert all(told(federation_of(*SPENDING), released=released))


def test_factors_that_cost_more_than_a_constant_schedule_are_refused():
    """Six rounds may cost 6 in all: each is within the spread, and together they are too much."""
    federation, low = federation_of(*SPENDING), Released(noise_factor=0.8).as_sent()
    cost = 0.8**-2
    assert all(told(federation, spent=6 - cost, released=low))
    refused(federation, "on the noise was not agreed on", spent=6 - cost + 1e-3, released=low)


def test_institutions_add_up_themselves_what_their_noise_has_cost():
    federation, kept, factors = federation_of(*SPENDING), Kept(), (0.8, 1.25, 0.9)
    first, before_masks = federation.sides[0].institution.name, list(MaskedStep)[:3]
    for factor in factors:
        released = Released(noise_factor=factor).as_sent()
        broadcast, answer = federation.broadcast(released=released), Answer()
        gathering = MaskedGathering(federation.server, 1)
        for step in before_masks:
            turn = Turn(1, answer, broadcast, kept)
            replies = {s.institution.name: s.take(step, turn) for s in federation.sides}
            if step != MaskedStep.MASK:
                assert replies[first].kept is None
                answer = gathering.close(step, [(n, r.message) for n, r in replies.items()])
        kept = replies[first].kept
    assert kept.spent == pytest.approx(sum(f**-2 for f in factors), rel=1e-6)


@pytest.mark.parametrize("norm", [CLIP * 100, CLIP / 100, CLIP * 4.01, CLIP / 4.01, 0.0, np.nan])
def test_a_clipping_norm_far_off_is_refused(norm):
    refused(federation_of(*CLIPPING), "was not agreed on", released=Released(clip_norm=norm))


@pytest.mark.parametrize("norm", [CLIP / 4, CLIP, CLIP * 4])
def test_a_clipping_norm_within_its_bounds_is_believed(norm):
    assert all(told(federation_of(*CLIPPING), released=Released(clip_norm=norm).as_sent()))


@pytest.mark.parametrize(
    ("settings", "released"),
    [
        ((), Released(noise_factor=1.0)),
        ((), Released(clip_norm=CLIP)),
        (SPENDING, Released()),
        (CLIPPING, Released()),
        (SPENDING, Released(noise_factor=1.0, clip_norm=CLIP)),
    ],
)
def test_what_is_adaptive_is_agreed_on_and_not_the_servers_choice(settings, released):
    refused(federation_of(*settings), "if, and only if, it is adaptive", released=released)


@pytest.mark.parametrize("bits", [0, 1, 33, 64])
def test_bits_that_do_not_exist_are_refused(bits):
    federation, setting = federation_of(*CHOOSING), Setting()
    object.__setattr__(setting, "bits", bits)  # as a server would that is no `Setting`
    released = Released(settings={"fusion": setting})
    refused(federation, "bits that do not exist", released=released)


def test_bits_that_nobody_agreed_to_let_the_server_choose_are_refused():
    refused(
        federation_of("compression.codec=modint", "compression.policy.kind=fixed"),
        "no policy was agreed on",
        released=Released(settings={"fusion": Setting(bits=12)}),
    )
    chosen = Released(settings={"fusion": Setting(bits=12)})
    assert all(told(federation_of(*CHOOSING), released=chosen))


@pytest.mark.parametrize("change", ["shorter", "longer", "another block", "one block less"])
def test_blocks_of_other_sizes_are_refused(change):
    federation = federation_of()
    held = dict(federation.broadcast().held)
    if change == "another block":
        held["head/unknown"] = np.zeros(3, np.float32)
    elif change == "one block less":
        del held["fusion"]
    else:
        by = -1 if change == "shorter" else 1
        held["fusion"] = np.zeros(held["fusion"].size + by, np.float32)
    refused(federation, "other sizes than the plan's", held=held)


@pytest.mark.parametrize(
    ("settings", "members"),
    [
        ((), 3),  # one may be missing or collude: 2 of 3 could be made to answer twice
        (("privacy.secure_aggregation.colluding=1",), 3),
        (("privacy.secure_aggregation.colluding=0",), 2),
        (("privacy.tolerated_dropouts=0",), 2),
        (("privacy.secure_aggregation.colluding=2",), 3),
        (("privacy.secure_aggregation={colluding: 0, threshold: 1.0}",), 3),
        (("privacy.secure_aggregation={colluding: 0, threshold: 0.51}",), 2),
    ],
)
def test_the_threshold_counts_colluders(settings, members):
    assert least_members(plan_of(tiny(*settings, paradigm="fedfuse")).terms) == members


def test_no_threshold_lets_colluders_answer_for_two_lists_of_survivors():
    """2 t > n + c for whatever is configured, and for the least threshold by itself."""
    plan = plan_of(tiny(paradigm="fedfuse"))
    config, release = plan.terms.config, next(iter(plan.terms.releases.values()))
    for count, stated in itertools.product(range(2, 24), range(24)):
        colluding = min(stated, count - 1)
        least = minimum_threshold(count, colluding)
        assert count >= least > (count + colluding) / 2
        for fraction in (0.51, 2 / 3, 1.0):
            secure = config.secure_aggregation.model_copy(
                update={"threshold": fraction, "colluding": stated}
            )
            terms = dataclasses.replace(
                plan.terms,
                config=config.model_copy(update={"secure_aggregation": secure}),
                releases={f"site-{index}": release for index in range(count)},
            )
            found = least_members(terms)
            assert count >= found > (count + colluding) / 2
            assert found >= fraction * count


@pytest.mark.parametrize("colluding", [3, 100])
def test_more_colluders_than_leave_somebody_to_protect_are_refused(colluding):
    setting = f"privacy.secure_aggregation.colluding={colluding}"
    with pytest.raises(InputError, match=r"colluding: .*at most 2"):
        plan_of(tiny(setting, paradigm="fedfuse"))
    # Where nothing is summed securely, nobody colludes with anybody.
    assert plan_of(tiny(setting, paradigm="federated_dp")).privacy is not None


def test_a_broadcast_is_what_is_checked_and_not_only_the_first():
    """The check stands where a member begins, so each attempt of each round passes it."""
    federation = federation_of(*SPENDING)
    assert all(told(federation))
    refused(federation, "on the noise", attempt=1, released=Released(noise_factor=1e-3))
    assert isinstance(federation.broadcast(), Broadcast)
