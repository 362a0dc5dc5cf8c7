"""A device's public face: what makes one, and every way in which one is not."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import cbor2
import pytest

from devices import PLAINTEXT
from pqc_iiot import Bundle, InvalidBundleError, InvalidInputError
from pqc_iiot.bundle import (
    MAX_BUNDLE_SIZE,
    MAX_SERIAL,
    check_name,
    endorsed_by,
    fingerprint,
    format_fingerprint,
    make_bundle,
    parse_bundle,
    parse_fingerprint,
)
from pqc_iiot.providers import KeySet, open_provider
from pqc_iiot.suites import SUITES, get_suite

SUB, SERIAL, KEYS, PREVIOUS = 2, -65537, -65538, -65539


@pytest.fixture(scope="module")
def new_keys() -> Callable[[int], KeySet]:
    provider = open_provider(PLAINTEXT)
    return lambda suite: provider.generate(get_suite(suite))[0]


@pytest.fixture(scope="module")
def keys(new_keys: Callable[[int], KeySet]) -> KeySet:
    return new_keys(3)


@pytest.fixture(scope="module")
def bundle(keys: KeySet) -> Bundle:
    return make_bundle("plc-7", keys, 1)


def claims_of(bundle: Bundle) -> dict[object, Any]:
    return dict(cbor2.loads(cbor2.loads(bundle.encoded).value[2]))


def forged(bundle: Bundle, keys: KeySet, claim: object, value: object) -> bytes:
    """The bundle with another claim, signed as it should be."""
    return signed(claims_of(bundle) | {claim: value}, bundle, keys)


def signed(claims: object, bundle: Bundle, keys: KeySet, header: object = None) -> bytes:
    payload = cbor2.dumps(claims, canonical=True)
    header = header or {1: keys.suite.sig.id, 4: bundle.kid}
    protected = cbor2.dumps(header, canonical=True)
    structure = ["Signature", b"", protected, b"pqc-iiot bundle v1", payload]
    entry = [protected, {}, keys.sign(cbor2.dumps(structure, canonical=True))]
    return cbor2.dumps(cbor2.CBORTag(98, [b"", {}, payload, [entry]]), canonical=True)


def edited(bundle: Bundle, edit: Callable[[Any], object]) -> bytes:
    """The COSE_Sign with something changed beside the signed bytes."""
    start, unprotected, payload, signatures = cbor2.loads(bundle.encoded).value
    message = [start, unprotected, payload, [list(entry) for entry in signatures]]
    edit(message)
    return cbor2.dumps(cbor2.CBORTag(98, message), canonical=True)


@pytest.mark.parametrize("suite", SUITES)
def test_what_was_made_is_read_again(suite: int, new_keys: Callable[[int], KeySet]) -> None:
    keys = new_keys(suite)
    bundle = make_bundle("plc-7", keys, 1)
    assert parse_bundle(bundle.encoded) == bundle
    assert (bundle.name, bundle.serial, bundle.suite.id) == ("plc-7", 1, suite)
    assert bundle.kem_public_key == keys.kem_public_key
    assert bundle.sig_public_key == keys.sig_public_key
    assert bundle.previous is None


def test_it_is_a_cose_sign_over_a_cwt_claims_set(bundle: Bundle) -> None:
    tag = cbor2.loads(bundle.encoded)
    assert tag.tag == 98  # RFC 9052 section 4.1
    assert list(tag.value[:2]) == [b"", {}]
    claims = claims_of(bundle)
    assert claims[2] == "plc-7"  # RFC 8392: sub
    assert claims[KEYS] == [
        {1: 7, 3: -65601, -1: bundle.sig_public_key},  # RFC 9964: kty AKP
        {1: 7, 3: -65795, -1: bundle.kem_public_key},
    ]


def test_the_fingerprint_is_over_both_keys_and_the_suite(bundle: Bundle, keys: KeySet) -> None:
    both = cbor2.dumps(claims_of(bundle)[KEYS], canonical=True)
    assert bundle.fingerprint == hashlib.sha256(both).digest()
    assert bundle.kid == bundle.fingerprint[:8]
    flipped = bytes([keys.kem_public_key[0] ^ 1]) + keys.kem_public_key[1:]
    others = {
        fingerprint(get_suite(3), flipped, keys.sig_public_key),
        fingerprint(get_suite(3), keys.kem_public_key, bytes(897)),
        fingerprint(get_suite(4), keys.kem_public_key, keys.sig_public_key),
    }
    assert len(others) == 3
    assert bundle.fingerprint not in others


def test_a_successor_is_signed_by_both(
    keys: KeySet, bundle: Bundle, new_keys: Callable[[int], KeySet]
) -> None:
    after = make_bundle("plc-7", new_keys(1), 2, (bundle, keys))
    assert after.previous == bundle.fingerprint
    assert endorsed_by(parse_bundle(after.encoded), bundle)
    assert not endorsed_by(bundle, after)
    assert not endorsed_by(bundle, bundle)


def test_the_largest_bundle_fits(new_keys: Callable[[int], KeySet]) -> None:
    old = new_keys(5)
    before = make_bundle("n" * 64, old, MAX_SERIAL - 1)
    after = make_bundle("n" * 64, new_keys(5), MAX_SERIAL, (before, old))
    assert len(after.encoded) < MAX_BUNDLE_SIZE
    assert endorsed_by(after, before)


def test_no_successor_without_the_old_keys(
    keys: KeySet, bundle: Bundle, new_keys: Callable[[int], KeySet]
) -> None:
    other = new_keys(3)
    imposter = replace(bundle, encoded=b"")
    for name, serial, signer in (
        ("plc-7", 2, other),  # names the old keys but has a signature by others
        ("plc-7", 1, keys),  # not a higher serial
        ("plc-8", 2, keys),  # another device
    ):
        after = make_bundle(name, other, serial, (imposter, signer))
        assert after.previous == bundle.fingerprint
        assert not endorsed_by(after, bundle)


def test_an_endorsement_is_not_moved_to_other_keys(
    keys: KeySet, bundle: Bundle, new_keys: Callable[[int], KeySet]
) -> None:
    genuine = make_bundle("plc-7", new_keys(3), 2, (bundle, keys))
    stolen = cbor2.loads(genuine.encoded).value[3][1]
    mallory = new_keys(3)
    own = make_bundle("plc-7", mallory, 2, (bundle, mallory))
    forged_ = parse_bundle(edited(own, lambda m: m[3].__setitem__(1, stolen)))
    assert not endorsed_by(forged_, bundle)


@pytest.mark.parametrize(
    ("claim", "value"),
    [
        (SUB, ""),
        (SUB, "-plc"),
        (SUB, "plc 7"),
        (SUB, "plc\n7"),
        (SUB, "n" * 65),
        (SUB, "pl\N{CYRILLIC SMALL LETTER ES}"),
        (SUB, b"plc-7"),
        (SERIAL, 0),
        (SERIAL, -1),
        (SERIAL, MAX_SERIAL + 1),
        (SERIAL, True),
        (SERIAL, 1.0),
        (SERIAL, "1"),
        (KEYS, []),
        (KEYS, [1, 2]),
        (PREVIOUS, bytes(31)),
        (PREVIOUS, "x" * 32),
        (PREVIOUS, bytes(32)),  # one signature where two belong
    ],
)
def test_claims_out_of_range(bundle: Bundle, keys: KeySet, claim: int, value: object) -> None:
    with pytest.raises(InvalidBundleError):
        parse_bundle(forged(bundle, keys, claim, value))


def test_claims_that_are_missing_or_unknown(bundle: Bundle, keys: KeySet) -> None:
    claims = claims_of(bundle)
    assert parse_bundle(signed(claims, bundle, keys)).fingerprint == bundle.fingerprint
    for key in claims:
        with pytest.raises(InvalidBundleError):
            parse_bundle(signed({k: v for k, v in claims.items() if k != key}, bundle, keys))
    for key in (1, 4, -65540, "sub"):
        with pytest.raises(InvalidBundleError):
            parse_bundle(signed({**claims, key: 1}, bundle, keys))
    others: list[object] = [[], 1, b"", {}]
    for other in others:
        with pytest.raises(InvalidBundleError):
            parse_bundle(signed(other, bundle, keys))


def test_signatures_under_another_header(bundle: Bundle, keys: KeySet) -> None:
    claims, alg = claims_of(bundle), keys.suite.sig.id
    headers: list[object] = [{1: alg}, {4: bundle.kid}, {1: alg, 4: bytes(8)}]
    headers += [{1: -50, 4: bundle.kid}, {1: alg, 4: bundle.kid, 5: 0}, [1], 7]
    for header in headers:
        with pytest.raises(InvalidBundleError):
            parse_bundle(signed(claims, bundle, keys, header))


@pytest.mark.parametrize(
    "change",
    [
        {1: 2},
        {1: 7.0},
        {1: True},
        {3: -65602},
        {3: -65793},
        {3: -65792},
        {3: -7},
        {-1: b""},
        {-1: bytes(897)},
        {-1: "key"},
        {4: 1},
        {3: None},
        {"x": 1},
    ],
    ids=lambda change: repr(change)[:20],
)
@pytest.mark.parametrize("which", [0, 1])
def test_keys_that_make_no_suite(
    bundle: Bundle, keys: KeySet, change: dict[object, object], which: int
) -> None:
    pair = [dict(key) for key in claims_of(bundle)[KEYS]]
    pair[which] |= change
    pair[which] = {key: value for key, value in pair[which].items() if value is not None}
    for order in (pair, pair[::-1]):
        with pytest.raises(InvalidBundleError):
            parse_bundle(forged(bundle, keys, KEYS, order))


def test_a_kem_key_that_is_none(bundle: Bundle, keys: KeySet) -> None:
    # FIPS 203 section 7.2: coefficients are below q.
    sig, kem = claims_of(bundle)[KEYS]
    with pytest.raises(InvalidBundleError, match="not valid"):
        parse_bundle(forged(bundle, keys, KEYS, [sig, {**kem, -1: b"\xff" * 1184}]))


@pytest.mark.parametrize(
    "edit",
    [
        lambda m: m.__setitem__(0, b"\xa0"),
        lambda m: m.__setitem__(1, {1: 2}),
        lambda m: m.__setitem__(2, "text"),
        lambda m: m.__setitem__(3, []),
        lambda m: m.__setitem__(3, [m[3][0], m[3][0]]),
        lambda m: m.__setitem__(3, {}),
        lambda m: m[3].__setitem__(0, m[3][0][:2]),
        lambda m: m[3][0].__setitem__(0, b""),
        lambda m: m[3][0].__setitem__(0, cbor2.dumps({1: -65601}, canonical=True)),
        lambda m: m[3][0].__setitem__(1, {4: b""}),
        lambda m: m[3][0].__setitem__(2, bytes(666)),
        lambda m: m[3][0].__setitem__(2, m[3][0][2][:-1]),
        lambda m: m[3][0].__setitem__(2, m[3][0][2] + b"\0"),
        lambda m: m[3][0].__setitem__(2, 7),
        lambda m: m.append(1),
        lambda m: m.pop(),
    ],
)
def test_another_message(bundle: Bundle, edit: Callable[[Any], object]) -> None:
    with pytest.raises(InvalidBundleError):
        parse_bundle(edited(bundle, edit))


def test_every_flipped_bit_of_every_byte(bundle: Bundle) -> None:
    data = bytearray(bundle.encoded)
    for i, bit in itertools.product(range(len(data)), (1, 128)):
        data[i] ^= bit
        with pytest.raises(InvalidBundleError):
            parse_bundle(bytes(data))
        data[i] ^= bit


def test_every_length(bundle: Bundle) -> None:
    data = bundle.encoded
    for i in range(len(data)):
        with pytest.raises(InvalidBundleError):
            parse_bundle(data[:i])
    for more in (b"\0", data, bytes(MAX_BUNDLE_SIZE), bytes(1 << 20)):
        with pytest.raises(InvalidBundleError):
            parse_bundle(data + more)
        with pytest.raises(InvalidBundleError):
            parse_bundle(more + data)


def test_names() -> None:
    for name in ("a", "plc-7", "Line_1.press", "0", "n" * 64):
        assert check_name(name) == name
    for name in ("", "-a", ".a", "_a", "a b", "a/b", "a\n", "ä", "n" * 65, "a" * 10_000):
        with pytest.raises(InvalidInputError) as caught:
            check_name(name)
        assert len(str(caught.value)) < 200
        assert caught.value.hint


def test_fingerprints_as_people_handle_them() -> None:
    value = bytes(range(32))
    text = format_fingerprint(value)
    assert text.startswith("0001 0203 0405")
    assert len(text.split()) == 16
    for typed in (text, text.upper(), value.hex(), text.replace(" ", ":"), f" {value.hex()}\n"):
        assert parse_fingerprint(typed) == value
    for typed in ("", value.hex()[:-1], value.hex() + "0", "plc-7", "g" * 64, "x" * 10_000):
        with pytest.raises(InvalidInputError) as caught:
            parse_fingerprint(typed)
        assert len(str(caught.value)) < 200


def test_a_bundle_does_not_change(bundle: Bundle) -> None:
    with pytest.raises(AttributeError):
        bundle.name = "other"  # type: ignore[misc]
