"""Whatever is done to a sealed ledger is noticed: bytes, lines, the tail, the seal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedfuse_ray.errors import FedfuseError
from fedfuse_ray.privacy.accounting.chain import BrokenChainError, Chain, follow
from fedfuse_ray.privacy.accounting.ledger import PrivacyEvent
from fedfuse_ray.runs.sealing import LEDGER, SEAL, LedgerSeal, check_end, read_seal

EVENTS = (
    PrivacyEvent(1, "med-01", ("encoder/ct", "fusion"), "gaussian", 4.0, 0.1, 3),
    PrivacyEvent(1, "mat-01", ("fusion",), "gaussian", 5.5),
    PrivacyEvent(2, "med-01", ("fusion",), "skellam", 6.0, rho=0.02, xi=0.0),
    PrivacyEvent(2, "mat-01", ("fusion",), "gaussian", 5.5),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sealed")
    seal = LedgerSeal.begin(folder, None, "settings")
    (folder / "config.yaml").write_text("settings")
    seal.append(EVENTS[:2])
    seal.append(EVENTS[2:])
    seal.finish("finished", "0" * 64)
    return folder


@pytest.fixture(scope="module")
def sealed(folder):
    return read_seal(folder), (folder / LEDGER).read_bytes()


def check(statement, data):
    check_end(statement, tuple(follow(data)))


def entry_of(data, position):
    return data[:position].count(b"\n") + 1


def test_what_nobody_touched_passes(sealed):
    check(*sealed)
    assert sealed[0].entries == len(EVENTS)


@pytest.mark.parametrize("mask", [0x01, 0x02, 0x20, 0x80, 0xFF], ids=hex)
def test_every_byte_counts_and_the_entry_is_named(sealed, mask):
    statement, data = sealed
    for position in range(len(data)):
        altered = bytearray(data)
        altered[position] ^= mask
        with pytest.raises(BrokenChainError) as caught:
            check(statement, bytes(altered))
        assert caught.value.entry == entry_of(data, position)


@given(st.data())
def test_any_other_byte_anywhere_is_noticed(sealed, data):
    statement, content = sealed
    position = data.draw(st.integers(0, len(content) - 1))
    other = data.draw(st.integers(0, 255).filter(lambda value: value != content[position]))
    altered = content[:position] + bytes([other]) + content[position + 1 :]
    with pytest.raises(BrokenChainError):
        check(statement, altered)


@given(position=st.integers(min_value=0), extra=st.binary(min_size=1, max_size=3))
def test_bytes_put_in_anywhere_are_noticed(sealed, position, extra):
    statement, content = sealed
    at = position % (len(content) + 1)
    with pytest.raises(FedfuseError):
        check(statement, content[:at] + extra + content[at:])


def test_any_tail_that_is_cut_off_is_noticed(sealed):
    statement, data = sealed
    for length in range(len(data)):
        with pytest.raises(FedfuseError, match="entry"):
            check(statement, data[:length])


@given(order=st.lists(st.integers(0, len(EVENTS) - 1), max_size=6))
def test_lines_dropped_doubled_or_moved_are_noticed(sealed, order):
    statement, data = sealed
    if order == list(range(len(EVENTS))):
        return
    lines = data.splitlines(keepends=True)
    with pytest.raises(FedfuseError, match="entry"):
        check(statement, b"".join(lines[index] for index in order))


def test_a_ledger_chained_anew_does_not_end_where_it_was_signed(sealed):
    statement, data = sealed
    contents = [line.decode().partition(', "chain"')[0] + "}" for line in data.splitlines()]
    milder = [
        text.replace('"noise_multiplier": 4.0', '"noise_multiplier": 9.0') for text in contents
    ]
    assert "".join(Chain().extend(contents)[0]).encode() == data
    for forged in (milder, contents[:-1], [*contents, contents[-1]]):
        with pytest.raises(FedfuseError, match=r"rewritten|missing|not covered"):
            check(statement, "".join(Chain().extend(forged)[0]).encode())


@pytest.mark.parametrize("mask", [0x01, 0x20, 0xFF], ids=hex)
def test_every_byte_of_the_seal_counts(folder, tmp_path, mask):
    data = (folder / SEAL).read_bytes()
    for position in range(len(data)):
        altered = bytearray(data)
        altered[position] ^= mask
        (tmp_path / SEAL).write_bytes(altered)
        with pytest.raises(FedfuseError, match="altered"):
            read_seal(tmp_path)
