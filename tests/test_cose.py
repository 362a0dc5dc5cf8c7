"""CBOR as this protocol uses it: one encoding for one meaning, and nothing built from tags."""

from __future__ import annotations

import math
import tracemalloc
from collections.abc import Mapping
from decimal import Decimal

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pqc_iiot import InvalidBundleError, InvalidFrameError
from pqc_iiot.cose import bstr, dumps, head, loads

plain = st.recursive(
    st.integers(-(1 << 64), (1 << 64) - 1) | st.binary(max_size=40) | st.text(max_size=40),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.integers(-9, 9) | st.text(max_size=3), inner, max_size=4)
    ),
    max_leaves=12,
)


def as_read(value: object) -> object:
    if isinstance(value, list):
        return tuple(map(as_read, value))
    if isinstance(value, dict):
        return {key: as_read(item) for key, item in value.items()}
    return value


@given(plain)
def test_what_is_written_is_read_again(value: object) -> None:
    try:
        read = loads(dumps(value), 4096, "it")
    except InvalidFrameError:
        assert len(dumps(value)) > 4096 or depth(value) > 8
    else:
        assert read == as_read(value)


def depth(value: object) -> int:
    if isinstance(value, list):
        return 1 + max(map(depth, value), default=0)
    if isinstance(value, dict):
        return 1 + max(map(depth, value.values()), default=0)
    return 0


@given(st.binary(max_size=64))
def test_whatever_is_read_is_its_own_encoding(data: bytes) -> None:
    try:
        value = loads(data, 64, "it")
    except InvalidFrameError:
        return
    assert dumps(value) == data


@pytest.mark.parametrize("value", [0, 23, 24, 255, 256, 65535, 65536, 2**32 - 1, 2**32, 2**64 - 1])
def test_heads_are_the_shortest(value: int) -> None:
    assert head(0, value) == cbor2.dumps(value)
    assert head(1, value) == cbor2.dumps(-1 - value)


def test_byte_strings() -> None:
    assert bstr(bytes(300)) == cbor2.dumps(bytes(300))


@pytest.mark.parametrize(
    "data",
    [
        "",
        "01 01",  # more than one item
        "1818 00",
        "1801",  # 1 in two bytes
        "190001",
        "1a00000001",
        "1b0000000000000001",
        "5f41004100ff",  # indefinite lengths
        "9f01ff",
        "bf0101ff",
        "a2 02 00 01 00",  # keys out of order
        "a2 01 00 01 00",  # a key twice
        "61ff",  # no UTF-8
        "81" * 9 + "00",  # too deep
        "43 0102",  # cut short
        "9b7fffffffffffffff",  # lengths that nobody has memory for
        "5b7fffffffffffffff",
        "bb7fffffffffffffff",
        "ff",
        "fc",
    ],
)
def test_other_encodings_are_refused(data: str) -> None:
    with pytest.raises(InvalidFrameError, match="it is "):
        loads(bytes.fromhex(data), 64, "it")


@pytest.mark.parametrize(
    "value",
    [
        True,
        False,
        None,
        1.0,
        math.nan,
        math.inf,
        {True: 0},
        {1.0: 0},
        [[1.5]],
        {1: {2: None}},
        cbor2.CBORSimpleValue(99),
        cbor2.undefined,
    ],
)
def test_what_equals_another_value_is_refused(value: object) -> None:
    with pytest.raises(InvalidFrameError):
        loads(dumps(value), 64, "it")


@pytest.mark.parametrize(
    "data",
    [
        dumps(Decimal("1E+999999999")),
        bytes.fromhex("c5821a3fffffff01"),  # a bigfloat of 2^30 bits
        bytes.fromhex("c482 1b7fffffffffffffff 01"),
        bytes.fromhex("d823") + dumps("(a*)*" * 4),  # a pattern
        bytes.fromhex("d824") + dumps("MIME-Version: 1.0"),
        bytes.fromhex("c1 1a514b67b0"),  # a time
        bytes.fromhex("c0") + dumps("2013-03-21T20:04:00Z"),
        bytes.fromhex("d81c 81 d81d 00"),  # an array that holds itself
        bytes.fromhex("d90100 82 43616263 d81900"),  # a string by reference
        bytes.fromhex("c2 42 0100"),  # a large integer
        bytes.fromhex("d90102 81 01"),  # a set
        bytes.fromhex("d9d9f7 01"),  # self-described CBOR
        bytes.fromhex("d862 01"),
        bytes.fromhex("81 a1 01 c6 01"),
    ],
)
def test_tags_are_refused_and_build_nothing(data: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(InvalidFrameError) as caught:
            loads(data, 64, "it")
        assert caught.value.__cause__ is not None
        assert str(caught.value.__cause__.__cause__) == "a tag where none belongs"
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_the_limit_comes_first() -> None:
    assert loads(dumps(bytes(60)), 62, "it") == bytes(60)
    with pytest.raises(InvalidBundleError, match="the bundle is longer than 61 bytes"):
        loads(dumps(bytes(60)), 61, "the bundle", InvalidBundleError)


def test_what_is_read_cannot_be_changed() -> None:
    value = loads(dumps([{1: [2]}]), 64, "it")
    assert isinstance(value, tuple)
    assert isinstance(value[0], Mapping)
    with pytest.raises(TypeError):
        value[0][1] = 3  # type: ignore[index]
