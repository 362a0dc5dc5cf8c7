"""ECDH and ECDSA P-256 keys inside a token: the classical halves of suite 6."""

from __future__ import annotations

from hashlib import sha256

from pkcs11 import KDF, Attribute, KeyType, MechanismFlag, Object, ObjectClass
from pkcs11.mechanisms import Mechanism

from .._core import Secret, ecdsa_verify
from ..errors import ProviderError, ProviderInputError
from .pkcs11_calls import wipe
from .pkcs11_objects import P256, READABLE, destroy, make_pair, probe_kept, read_secret
from .pkcs11_token import Live, Token
from .pkcs11_uri import Numbers

POINT_SIZE = 65
_SHARE_SIZE = 32
_SIGNATURE_SIZE = 64
_DIGEST_SIZE = 32

_EC = Numbers(KeyType.EC, Mechanism.EC_KEY_PAIR_GEN, 0)
EC_MECHANISMS = frozenset({Mechanism.EC_KEY_PAIR_GEN, Mechanism.ECDH1_DERIVE, Mechanism.ECDSA})
"""What a token needs for both."""


class _EcKey:
    """A P-256 key of a token, by its id."""

    def __init__(self, token: Token, key_id: bytes, public_key: bytes) -> None:
        self._token, self._id = token, key_id
        self.public_key = public_key
        """The point: 65 bytes, uncompressed (SEC 1)."""

    def _private(self, live: Live) -> Object:
        return live.find(ObjectClass.PRIVATE_KEY, self._id)


class TokenEcdh(_EcKey):
    """An ECDH key that cannot leave the token."""

    def agree(self, point: bytes) -> Secret:
        """See `keys.Ecdh`. `ProviderInputError` for another length, which no token sees."""
        _check_length("the point", point, POINT_SIZE)
        share = bytearray(_SHARE_SIZE)
        try:
            self._token.run(lambda live: _derive(live, self._private(live), point, share))
            return Secret.take(share)
        finally:
            wipe(share)


class TokenEcdsa(_EcKey):
    """An ECDSA key that cannot leave the token."""

    def sign_digest(self, digest: bytes) -> bytes:
        """See `keys.Ecdsa`. `ProviderInputError` for another length, which no token sees."""
        _check_length("the digest", digest, _DIGEST_SIZE)
        return self._token.run(lambda live: _sign(self._private(live), digest))


def make_ecdh(token: Token) -> tuple[TokenEcdh, bytes]:
    """A new ECDH key, and its id."""
    key_id, point = token.run(lambda live: _make(live, MechanismFlag.DERIVE))
    return TokenEcdh(token, key_id, point), key_id


def make_ecdsa(token: Token) -> tuple[TokenEcdsa, bytes]:
    """A new ECDSA key, and its id."""
    key_id, point = token.run(lambda live: _make(live, MechanismFlag.SIGN | MechanismFlag.VERIFY))
    return TokenEcdsa(token, key_id, point), key_id


def load_point(token: Token, key_id: bytes) -> bytes:
    """The public key of a key that `make_ecdh` or `make_ecdsa` made, whose private key is
    there and kept. `KeyNotFoundError` where it is not."""

    def load(live: Live) -> bytes:
        probe_kept(live.find(ObjectClass.PRIVATE_KEY, key_id))
        return _point(live.find(ObjectClass.PUBLIC_KEY, key_id))

    return token.run(load)


def probe_ecdh(live: Live) -> str:
    """Makes two keys for the moment, and lets them agree."""
    use = MechanismFlag.DERIVE
    (one, one_private, _), (other, other_private, _) = (
        make_pair(live, _EC, use, public={Attribute.EC_PARAMS: P256}, store=False) for _ in "ab"
    )
    shares = bytearray(_SHARE_SIZE), bytearray(_SHARE_SIZE)
    try:
        evidence = probe_kept(one_private)
        _derive(live, one_private, _point(other), shares[0])
        _derive(live, other_private, _point(one), shares[1])
        if shares[0] != shares[1] or not any(shares[0]):
            raise ProviderError("the token's ECDH does not agree with itself")
    finally:
        for share in shares:
            wipe(share)
        for key in (one, one_private, other, other_private):
            key.destroy()
    return evidence


def probe_ecdsa(live: Live) -> str:
    """Makes a key for the moment, and verifies what it signs."""
    use = MechanismFlag.SIGN | MechanismFlag.VERIFY
    public, private, _ = make_pair(live, _EC, use, public={Attribute.EC_PARAMS: P256}, store=False)
    try:
        evidence = probe_kept(private)
        message = b"pqc-iiot probe"
        if not ecdsa_verify(_point(public), message, _sign(private, sha256(message).digest())):
            raise ProviderError("the token's ECDSA signature does not verify")
    finally:
        public.destroy()
        private.destroy()
    return evidence


def _make(live: Live, use: MechanismFlag) -> tuple[bytes, bytes]:
    public, private, key_id = make_pair(
        live,
        _EC,
        use,
        public={Attribute.EC_PARAMS: P256},
        private={Attribute.SIGN: bool(use & MechanismFlag.SIGN)},
    )
    try:
        probe_kept(private)
        return key_id, _point(public)
    except BaseException:
        destroy(live, key_id)
        raise


def _derive(live: Live, private: Object, point: bytes, into: bytearray) -> None:
    secret = private.derive_key(  # type: ignore[attr-defined]
        KeyType.GENERIC_SECRET,
        8 * _SHARE_SIZE,
        mechanism=Mechanism.ECDH1_DERIVE,
        mechanism_param=(KDF.NULL, None, point),
        template=READABLE,
    )
    read_secret(live, secret, into)


def _sign(private: Object, digest: bytes) -> bytes:
    signature: bytes = private.sign(digest, mechanism=Mechanism.ECDSA)  # type: ignore[attr-defined]
    _check_length("the token's signature", signature, _SIGNATURE_SIZE)
    return signature


def _point(public: Object) -> bytes:
    """CKA_EC_POINT is a DER octet string; some tokens leave its two bytes of header out."""
    said: bytes = public[Attribute.EC_POINT]
    point = said[2:] if said[:2] == bytes((4, POINT_SIZE)) else said
    _check_length("the token's point", point, POINT_SIZE)
    return point


def _check_length(what: str, value: bytes, length: int) -> None:
    if len(value) != length:
        raise ProviderInputError(f"{what} has {len(value)} bytes instead of {length}")
