"""Secure aggregation: exact sums with dropouts, blocks and their widths, refusal when few stay."""

from __future__ import annotations

import numpy as np
import pytest

import fedfuse_ray.privacy.secure_aggregation as secure_aggregation
from fedfuse_ray.errors import ProtocolError, TooFewError
from fedfuse_ray.packing import packed_bytes
from fedfuse_ray.privacy.secure_aggregation import (
    Stage,
    run_round,
    unprotected_blocks,
)
from fedfuse_ray.privacy.secure_aggregation.envelope import Kind
from fedfuse_ray.privacy.secure_aggregation.messages import Delivery, UnmaskingShares
from tests.support.privacy.secure_rounds import (
    IDENTITIES,
    NAMES,
    OWNERS,
    THRESHOLD,
    Rounds,
    check_sums,
    make_inputs,
    make_terms,
    simulation_randomness,
)

WIDTHS = {"encoder/ct": 2, "encoder/mri": 32, "head/medical": 13}


@pytest.mark.parametrize("stage", list(Stage))
@pytest.mark.parametrize("count", range(len(NAMES) - THRESHOLD + 1))
def test_sum_is_exact_with_dropouts_at_every_stage(stage: Stage, count: int) -> None:
    terms = make_terms(widths=WIDTHS)
    inputs, lost = make_inputs(terms), NAMES[:count]
    aggregate = run_round(terms, IDENTITIES, inputs, {stage: lost}).unmasked
    uploaded = stage in (Stage.CONSISTENCY_CHECK, Stage.UNMASKING)
    check_sums(terms, inputs, aggregate, NAMES if uploaded else NAMES[count:])
    assert aggregate.dropouts[stage.value] == lost
    assert "fusion" in aggregate.sums


@pytest.mark.parametrize("bits", [2, 3, 7, 8, 11, 16, 23, 24, 31, 32])
def test_sum_is_exact_for_every_width_of_word(bits: int) -> None:
    terms = make_terms(bits=bits)
    inputs = make_inputs(terms)
    lost = {Stage.SHARE_KEYS: NAMES[6:], Stage.MASKED_INPUT: NAMES[:1], Stage.UNMASKING: NAMES[5:6]}
    aggregate = run_round(terms, IDENTITIES, inputs, lost).unmasked
    check_sums(terms, inputs, aggregate, NAMES[1:6])
    assert aggregate.withheld == ()


def test_each_block_travels_and_is_summed_at_its_own_width() -> None:
    terms = make_terms(widths=WIDTHS)
    assert {block: terms.bits(block) for block in OWNERS} == WIDTHS | {"fusion": 16}
    play = Rounds(terms)
    answers = play.until(Stage.MASKED_INPUT)
    masked = play.masked(play.message(Stage.MASKED_INPUT, NAMES[2], answers[NAMES[2]]), NAMES[2])
    for block, words in masked.blocks.items():
        assert len(words) == packed_bytes(terms.blocks[block].size, terms.bits(block))
    aggregate = run_round(terms, IDENTITIES, play.inputs).unmasked
    assert int(aggregate.sums["encoder/ct"].max()) == 3
    # The control: at the round's width the sum of the same words is another.
    wide = run_round(make_terms(widths=WIDTHS | {"encoder/ct": 8}), IDENTITIES, play.inputs)
    assert int(wide.unmasked.sums["encoder/ct"].max()) > 3


def test_who_holds_another_width_for_a_block_is_refused() -> None:
    here, there = make_terms(), make_terms(widths={"fusion": 15})
    assert here.digest != there.digest
    assert here.digest == make_terms(widths={"fusion": 16}).digest
    with pytest.raises(ProtocolError, match="other terms"):
        Rounds(here).server.receive(Rounds(there).clients[NAMES[0]].advertise())


@pytest.mark.parametrize("stage", list(Stage))
def test_nothing_is_revealed_below_the_threshold(stage: Stage) -> None:
    terms = make_terms()
    lost = {stage: NAMES[: len(NAMES) - THRESHOLD + 1]}
    with pytest.raises(TooFewError, match=f"3 institutions are left after {stage.value}"):
        run_round(terms, IDENTITIES, make_inputs(terms), lost)


def test_a_server_with_too_few_left_knows_who_they_are_and_takes_nothing_more() -> None:
    play = Rounds(make_terms())
    for name in NAMES[:3]:
        play.server.receive(play.clients[name].advertise())
    with pytest.raises(TooFewError):
        play.server.roster()
    assert play.server.expected == NAMES[:3]
    assert play.server.stage is None
    with pytest.raises(ProtocolError, match="the round is over"):
        play.server.receive(play.clients[NAMES[3]].advertise())


def test_clients_refuse_below_the_threshold_by_themselves() -> None:
    play = Rounds(make_terms())
    sent = {name: play.clients[name].advertise() for name in NAMES[: THRESHOLD - 1]}
    small = play.answer(Kind.ROSTER, play.records(Kind.ADVERTISEMENT, sent))
    with pytest.raises(ProtocolError, match="only 3 institutions advertised"):
        play.clients[NAMES[0]].share_keys(small)

    play = Rounds(make_terms())
    answers = play.until(Stage.MASKED_INPUT)
    whole = play.delivery(answers[NAMES[0]])
    few = NAMES[: THRESHOLD - 1]
    kept = {name: data for name, data in whole.ciphertexts.items() if name in few}
    with pytest.raises(ProtocolError, match="only 3 institutions shared"):
        play.clients[NAMES[0]].mask(play.seal_delivery(Delivery(few, kept)), play.inputs[NAMES[0]])

    play = Rounds(make_terms())
    answers = play.until(Stage.MASKED_INPUT)
    masked = {n: play.message(Stage.MASKED_INPUT, n, answers[n]) for n in NAMES}
    with pytest.raises(ProtocolError, match="only 3 institutions sent a masked input"):
        play.clients[NAMES[0]].confirm(play.survivor_list(masked, NAMES[:3]))


def test_same_seed_gives_same_bytes_and_other_keys_give_the_same_sum() -> None:
    terms = make_terms()
    inputs = make_inputs(terms)
    first, again = (Rounds(terms).until(Stage.MASKED_INPUT) for _ in range(2))
    assert first == again
    seeded = run_round(
        terms, IDENTITIES, inputs, randomness=lambda name: simulation_randomness(3, name, 0)
    ).unmasked
    fresh = run_round(terms, IDENTITIES, inputs).unmasked
    for block in terms.blocks:
        np.testing.assert_array_equal(seeded.sums[block], fresh.sums[block])


def test_a_report_counts_every_byte_once() -> None:
    terms = make_terms()
    report = run_round(terms, IDENTITIES, make_inputs(terms), {Stage.UNMASKING: NAMES[:1]})
    assert set(report.uplink_by_stage) == {stage.value for stage in Stage}
    assert NAMES[0] not in report.uplink_by_stage["unmasking"]
    for total, by_stage in (
        (report.uplink_bytes, report.uplink_by_stage),
        (report.downlink_bytes, report.downlink_by_stage),
    ):
        assert set(total) == set(NAMES)
        for name, count in total.items():
            assert count == sum(counts.get(name, 0) for counts in by_stage.values())


# blocks


def test_a_single_owner_is_reported_as_unprotected() -> None:
    terms = make_terms()
    aggregate = run_round(terms, IDENTITIES, make_inputs(terms)).unmasked
    assert aggregate.unprotected == ("head/medical",)
    assert unprotected_blocks(OWNERS) == ("head/medical",)


def test_a_block_with_too_few_survivors_is_withheld_and_the_others_are_revealed() -> None:
    terms = make_terms()
    inputs = make_inputs(terms)
    lost = NAMES[:3]  # of the four owners of encoder/ct one is left
    aggregate = run_round(terms, IDENTITIES, inputs, {Stage.MASKED_INPUT: lost}).unmasked
    assert aggregate.withheld == ("encoder/ct", "head/medical")
    check_sums(terms, inputs, aggregate, NAMES[3:])

    play = Rounds(terms)
    answers = play.until(Stage.UNMASKING, lost=lost)
    message = play.message(Stage.UNMASKING, NAMES[3], answers[NAMES[3]])
    body = play.read(message, Kind.UNMASKING_SHARES)
    seeds = UnmaskingShares.from_bytes(body, terms).seeds
    assert set(seeds[NAMES[3]]) == {"encoder/mri", "fusion"}  # and no share for encoder/ct
    # The control: nobody lost, and the shares of all its blocks are there.
    play = Rounds(terms)
    answers = play.until(Stage.UNMASKING)
    message = play.message(Stage.UNMASKING, NAMES[3], answers[NAMES[3]])
    seeds = UnmaskingShares.from_bytes(play.read(message, Kind.UNMASKING_SHARES), terms).seeds
    assert set(seeds[NAMES[3]]) == {"encoder/ct", "encoder/mri", "fusion"}


def test_the_minimum_of_survivors_can_be_raised_to_what_the_noise_assumes() -> None:
    inputs, lost = make_inputs(make_terms()), {Stage.MASKED_INPUT: NAMES[:1]}
    kept = run_round(make_terms(encoder=3), IDENTITIES, inputs, lost).unmasked
    assert kept.withheld == ()
    refused = run_round(make_terms(encoder=4), IDENTITIES, inputs, lost).unmasked
    assert refused.withheld == ("encoder/ct",)


def test_a_block_that_lost_its_owners_before_the_upload_is_not_sent() -> None:
    play = Rounds(make_terms())
    answers = play.until(Stage.MASKED_INPUT, lost=NAMES[:3], since=Stage.SHARE_KEYS)
    masked = play.message(Stage.MASKED_INPUT, NAMES[3], answers[NAMES[3]])
    assert set(play.masked(masked, NAMES[3]).blocks) == {"encoder/mri", "fusion"}


def test_the_public_names_are_exact() -> None:
    public = {
        name
        for name, value in vars(secure_aggregation).items()
        if not name.startswith("_") and getattr(value, "__name__", "").count(".") == 0
    }
    modules = {"client", "envelope", "fields", "keys", "masking", "messages", "packing"}
    modules |= {"quantization", "round", "round_secrets", "server", "shamir", "sharing", "terms"}
    assert public - modules - {"unmasking"} == set(secure_aggregation.__all__)
