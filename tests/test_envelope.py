"""One frame: what it says in the clear, how large it is, and what is bound to it."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import cbor2
import pytest

from devices import Pair, introduce, make
from pqc_iiot import InvalidFrameError, InvalidInputError
from pqc_iiot._core import envelope_aad, envelope_protected, envelope_to_be_signed
from pqc_iiot.cose import bstr
from pqc_iiot.envelope import MAX_CONTEXT, MAX_OVERHEAD, encode_context, parse, payload_size
from pqc_iiot.suites import SUITES, get_suite


def dumps(value: object) -> bytes:
    return cbor2.dumps(value, canonical=True)


def test_what_it_says_in_the_clear(pair: Pair) -> None:
    header = parse(pair.frame(b"21.5"))
    assert header.suite is get_suite(1)
    assert header.recipient == pair.plc.bundle.kid
    assert header.sender == pair.sensor.bundle.kid
    assert header.sequence == 1
    assert len(header.enc) == header.enc_size == 1120
    fields = cbor2.loads(cbor2.loads(header.protected))
    assert fields == {1: -65793, 4: header.recipient, -5: header.sender, -6: 1}
    assert payload_size(header, 666) == 4
    with pytest.raises(AttributeError):
        header.sequence = 2  # type: ignore[misc]


@pytest.mark.parametrize("suite", SUITES)
def test_sizes(tmp_path: Path, suite: int) -> None:
    row = get_suite(suite)
    fixed = row.kem.ciphertext_size + row.sig.signature_size + 16
    with make(tmp_path, "a", suite) as a, make(tmp_path, "b", suite) as b:
        introduce(a, b)
        for size in (0, 1, 23, 24, 255, 256, 65535, 65536, 1 << 20):
            frame = a.seal(bytes(size), to="b")
            assert payload_size(parse(frame), row.sig.signature_size) == size
            assert fixed < len(frame) - size < MAX_OVERHEAD
            assert len(frame) - size - fixed <= 60


def test_the_smallest_suite_meets_its_bar(pair: Pair) -> None:
    for _ in range(300):
        frame = pair.frame(bytes(64))
    assert len(frame) - 64 <= 1862


@pytest.mark.parametrize("size", [0, 1, 666, 700])
def test_a_ciphertext_too_short_for_a_signature(pair: Pair, size: int) -> None:
    protected, unprotected, _ = cbor2.loads(pair.frame()).value
    frame = dumps(cbor2.CBORTag(16, [protected, dict(unprotected), bytes(size)]))
    assert payload_size(parse(frame), 666) in (-1, size - 666 - 3 - 3 - 1 - 16)


def test_what_is_bound_is_cose() -> None:
    """RFC 9052, sections 4.4 and 5.3, against a general encoder."""
    kids, context, payload = (b"r" * 8, b"s" * 8), "line1/ä", bytes(300)
    protected = envelope_protected(-65793, *kids, 1 << 40)
    header = dumps({1: -65793, 4: kids[0], -5: kids[1], -6: 1 << 40})
    assert protected == bstr(header)
    encoded = encode_context(context)
    assert encoded == dumps(context.encode())
    assert envelope_aad(protected, encoded) == dumps(["Encrypt0", header, context.encode()])
    external = ["pqc-iiot envelope v1", header, b"R" * 32, b"S" * 32, context.encode()]
    assert envelope_to_be_signed(protected, b"R" * 32, b"S" * 32, encoded, payload) == dumps(
        ["Signature1", b"", dumps(external), payload]
    )


def test_contexts() -> None:
    assert encode_context("") == b"\x40"
    assert len(encode_context("x" * MAX_CONTEXT)) == MAX_CONTEXT + 3
    for context in ("x" * (MAX_CONTEXT + 1), "ä" * MAX_CONTEXT, "\ud800", "a\udfffb"):
        with pytest.raises(InvalidInputError):
            encode_context(context)


def test_contexts_from_outside_fill_no_memory() -> None:
    encode_context("")
    tracemalloc.start()
    try:
        for number in range(1500):
            encode_context(f"{number}/" + "x" * 60_000)
            encode_context(f"{number}/" + "x" * 200)
        assert tracemalloc.get_traced_memory()[0] < 2 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("alg", "recipient", "sender"),
    [(-65793, b"7" * 7, b"8" * 8), (-65793, b"8" * 8, b"9" * 9), (-7, b"8" * 8, b"8" * 8)],
)
def test_headers_that_cannot_be(alg: int, recipient: bytes, sender: bytes) -> None:
    with pytest.raises(InvalidInputError):
        envelope_protected(alg, recipient, sender, 1)


def test_an_encapsulated_key_of_another_suite(pair: Pair) -> None:
    protected, unprotected, ciphertext = cbor2.loads(pair.frame()).value
    for size in (0, 1, 1119, 1121, 1568, 70_000):
        frame = dumps(cbor2.CBORTag(16, [protected, {-4: bytes(size)}, ciphertext]))
        with pytest.raises(InvalidFrameError):
            parse(frame)
    assert parse(dumps(cbor2.CBORTag(16, [protected, dict(unprotected), ciphertext])))
