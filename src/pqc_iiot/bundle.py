"""A device's public face: name, suite, keys and serial, signed by the keys themselves.

A bundle is a `COSE_Sign` (RFC 9052 section 4.1) over a CWT Claims Set (RFC 8392) with
`COSE_Key`s of type AKP (RFC 9964). It carries one signature by its own signature key and,
after a key rotation, a second one by the key before. Its fingerprint is a SHA-256
thumbprint in the manner of RFC 9679, over both keys.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass

from . import cose
from ._core import KemPublicKey, SigPublicKey
from .errors import InvalidBundleError, InvalidInputError, PolicyError
from .providers import KeySet, SigningKey
from .suites import ENVELOPE_ALG_BASE, Suite, get_suite

MAX_BUNDLE_SIZE = 16384
"""Bytes; the largest real one (suite 5, after a rotation) has about 14 kB."""
KID_SIZE = 8
"""Bytes of the fingerprint that identify a key set in frames."""
MAX_SERIAL = 1 << 32

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_DOMAIN = b"pqc-iiot bundle v1"

# CWT claims: `sub` (RFC 8392), and private-use ones (below -65536).
_SUB, _SERIAL, _KEYS, _PREVIOUS = 2, -65537, -65538, -65539


@dataclass(frozen=True, slots=True)
class Bundle:
    """A verified bundle: its own signature was checked before this object existed.

    `fingerprint` and `previous` (of the key set before, or None) are 32 bytes.
    """

    name: str
    suite: Suite
    serial: int
    kem_public_key: bytes
    sig_public_key: bytes
    previous: bytes | None
    fingerprint: bytes
    encoded: bytes

    @property
    def kid(self) -> bytes:
        """The 8 bytes that stand for this key set in frames."""
        return self.fingerprint[:KID_SIZE]


def check_name(name: str) -> str:
    """`name`, if it may be a device's: 1 to 64 of letters, digits, `.`, `_` and `-`."""
    if not _NAME.fullmatch(name):
        raise InvalidInputError(
            f"{name[:80]!r} cannot be a device's name",
            hint="1 to 64 letters, digits, dots, dashes and underscores, no leading sign",
        )
    return name


def fingerprint(suite: Suite, kem_public_key: bytes, sig_public_key: bytes) -> bytes:
    """SHA-256 over the deterministic encoding of both COSE_Keys; 32 bytes.

    Both hold just the members that RFC 9679 section 4 counts. The KEM key's algorithm
    names the suite, so the same keys in another suite are another identity.
    """
    keys = [
        cose.akp_key(suite.sig.id, sig_public_key),
        cose.akp_key(suite.alg, kem_public_key),
    ]
    return hashlib.sha256(cose.dumps(keys)).digest()


def format_fingerprint(value: bytes) -> str:
    """A fingerprint as people compare it: hexadecimal in groups of four."""
    text = value.hex()
    return " ".join(text[i : i + 4] for i in range(0, len(text), 4))


def parse_fingerprint(text: str) -> bytes:
    """The 32 bytes of a fingerprint as typed or pasted; `InvalidInputError` otherwise."""
    digits = re.sub(r"[\s:-]", "", text).lower()
    if not re.fullmatch(r"[0-9a-f]{64}", digits):
        raise InvalidInputError(
            f"{text[:80]!r} is not a fingerprint", hint="64 hexadecimal digits, spaces allowed"
        )
    return bytes.fromhex(digits)


def make_bundle(
    name: str, keys: KeySet, serial: int, previous: tuple[Bundle, SigningKey] | None = None
) -> Bundle:
    """Makes and signs a bundle; with `previous`, the key set before signs as well."""
    own = fingerprint(keys.suite, keys.kem_public_key, keys.sig_public_key)
    claims: dict[int, object] = {
        _SUB: check_name(name),
        _SERIAL: serial,
        _KEYS: [
            cose.akp_key(keys.suite.sig.id, keys.sig_public_key),
            cose.akp_key(keys.suite.alg, keys.kem_public_key),
        ],
    }
    if previous:
        claims[_PREVIOUS] = previous[0].fingerprint
    payload = cose.dumps(claims)
    signatures = [_signature(keys, own, payload)]
    if previous:
        signatures.append(_signature(previous[1], previous[0].fingerprint, payload))
    message = cose.dumps([b"", {}, payload, signatures])
    return parse_bundle(cose.TAG_SIGN + message)


def _signature(keys: SigningKey, own: bytes, payload: bytes) -> list[object]:
    protected = cose.dumps({cose.ALG: keys.suite.sig.id, cose.KID: own[:KID_SIZE]})
    return [protected, {}, keys.sign(_to_be_signed(protected, payload))]


def _to_be_signed(protected: bytes, payload: bytes) -> bytes:
    """Sig_structure of RFC 9052 section 4.4, for one signer of a COSE_Sign."""
    return cose.dumps(["Signature", b"", protected, _DOMAIN, payload])


def parse_bundle(data: bytes) -> Bundle:
    """Decodes and verifies a bundle. `InvalidBundleError` for anything that is not one
    or does not verify; the second signature is `endorsed_by`'s matter."""
    payload, signatures = _parse_message(data)
    match cose.loads(payload, MAX_BUNDLE_SIZE, "the bundle's claims", InvalidBundleError):
        case {
            2: str(name),
            -65537: int(serial),
            -65538: [Mapping() as sig_key, Mapping() as kem_key],
            **rest,
        }:
            pass
        case _:
            raise InvalidBundleError("the bundle lacks a claim")
    previous = rest.pop(_PREVIOUS, None)
    if rest or not (previous is None or (isinstance(previous, bytes) and len(previous) == 32)):
        raise InvalidBundleError("the bundle has a claim that is not known here")
    if not _NAME.fullmatch(name) or not 1 <= serial <= MAX_SERIAL:
        raise InvalidBundleError("the bundle's name or serial is out of range")
    suite, kem_public_key, sig_public_key = _parse_keys(kem_key, sig_key)
    own = fingerprint(suite, kem_public_key, sig_public_key)
    bundle = Bundle(name, suite, serial, kem_public_key, sig_public_key, previous, own, data)
    if len(signatures) != (1 if previous is None else 2):
        raise InvalidBundleError("the bundle has another number of signatures than it needs")
    try:
        KemPublicKey(suite.kem.id, kem_public_key)
        key = SigPublicKey(suite.sig.id, sig_public_key)
    except InvalidInputError as cause:
        raise InvalidBundleError("the bundle holds a key that is not valid") from cause
    if not _verifies(signatures[0], suite, own, key, payload):
        raise InvalidBundleError("the bundle's own signature does not verify")
    return bundle


def endorsed_by(bundle: Bundle, previous: Bundle) -> bool:
    """Whether `bundle` is signed by the keys of `previous` as their successor: the same
    device with a higher serial."""
    if (bundle.previous, bundle.name) != (previous.fingerprint, previous.name):
        return False
    if bundle.serial <= previous.serial:
        return False
    payload, signatures = _parse_message(bundle.encoded)
    key = SigPublicKey(previous.suite.sig.id, previous.sig_public_key)
    return _verifies(signatures[1], previous.suite, previous.fingerprint, key, payload)


def _parse_message(data: bytes) -> tuple[bytes, tuple[object, ...]]:
    if not data.startswith(cose.TAG_SIGN):
        raise InvalidBundleError("these bytes are not a bundle")
    message = data[len(cose.TAG_SIGN) :]
    match cose.loads(message, MAX_BUNDLE_SIZE, "the bundle", InvalidBundleError):
        case [b"", Mapping() as unprotected, bytes(payload), tuple(signatures)] if not unprotected:
            return payload, signatures
    raise InvalidBundleError("these bytes are not a bundle")


def _parse_keys(
    kem_key: Mapping[object, object], sig_key: Mapping[object, object]
) -> tuple[Suite, bytes, bytes]:
    match kem_key, sig_key:
        case (
            {1: cose.KTY_AKP, 3: int(alg), -1: bytes(kem_public_key)},
            {1: cose.KTY_AKP, 3: int(sig_alg), -1: bytes(sig_public_key)},
        ) if len(kem_key) == len(sig_key) == 3:
            try:
                suite = get_suite(ENVELOPE_ALG_BASE - alg)
            except PolicyError as cause:
                raise InvalidBundleError("the bundle's suite is not known here") from cause
            if sig_alg == suite.sig.id:
                return suite, kem_public_key, sig_public_key
    raise InvalidBundleError("the bundle's keys do not make a suite")


def _verifies(
    signature: object, suite: Suite, own: bytes, key: SigPublicKey, payload: bytes
) -> bool:
    expected = cose.dumps({cose.ALG: suite.sig.id, cose.KID: own[:KID_SIZE]})
    match signature:
        case [bytes(protected), Mapping() as unprotected, bytes(value)]:
            return (
                protected == expected
                and not unprotected
                and key.verify(_to_be_signed(protected, payload), value)
            )
        case _:
            return False
