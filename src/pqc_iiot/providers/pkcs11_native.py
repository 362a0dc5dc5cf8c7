"""Post-quantum keys inside a token that performs ML-KEM or ML-DSA (PKCS #11 v3.2), or a
vendor's mechanism: the private key never leaves it, decapsulation and signing happen there.

A vendor's numbers come from the URI. Whether an algorithm is what its name says is found by
running it against this program's own: see `probe_kem` and `probe_sig`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from pkcs11 import Attribute, KeyType, MechanismFlag, Object, ObjectClass
from pkcs11.mechanisms import Mechanism

from .._core import KemPublicKey, Secret, SigPublicKey, hpke_open_with
from ..errors import AuthenticationError, PqcIiotError, ProviderError, ProviderInputError
from ..suites import ML_DSA_65, ML_DSA_87, ML_KEM_768, ML_KEM_1024, Kem, Sig
from .pkcs11_calls import wipe
from .pkcs11_objects import READABLE, destroy, make_pair, member, probe_kept, read_secret
from .pkcs11_token import Live, Token
from .pkcs11_uri import Numbers

_SECRET_SIZE = 32

STANDARD: Mapping[str, Numbers] = MappingProxyType(
    {
        ML_KEM_768.name: Numbers(0x49, 0x0F, 0x17, 2),
        ML_KEM_1024.name: Numbers(0x49, 0x0F, 0x17, 3),
        ML_DSA_65.name: Numbers(0x4A, 0x1C, 0x1D, 2),
        ML_DSA_87.name: Numbers(0x4A, 0x1C, 0x1D, 3),
    }
)
"""The numbers of PKCS #11 v3.2. It has none for Falcon."""

_DECAPSULATE = MechanismFlag.ENCAPSULATE | MechanismFlag.DECAPSULATE
_SIGN = MechanismFlag.SIGN | MechanismFlag.VERIFY


class TokenKem:
    """A KEM key that cannot leave the token."""

    def __init__(self, token: Token, kem: Kem, numbers: Numbers, made: tuple[bytes, bytes]) -> None:
        self._token, self._kem, self._numbers = token, kem, numbers
        self._id, self.public_key = made

    def decapsulate(self, enc: bytes) -> Secret:
        """See `keys.Decapsulator`. `ProviderInputError` for another length, which no token
        sees."""
        if len(enc) != self._kem.ciphertext_size:
            raise ProviderInputError(
                f"the KEM ciphertext has {len(enc)} bytes instead of {self._kem.ciphertext_size}"
            )
        shared = bytearray(_SECRET_SIZE)

        def run(live: Live) -> None:
            private = live.find(ObjectClass.PRIVATE_KEY, self._id)
            _decapsulate(live, private, self._numbers, enc, shared)

        try:
            self._token.run(run)
            return Secret.take(shared)
        finally:
            wipe(shared)


class TokenSig:
    """A signature key that cannot leave the token."""

    def __init__(self, token: Token, sig: Sig, numbers: Numbers, made: tuple[bytes, bytes]) -> None:
        self._token, self._sig, self._numbers = token, sig, numbers
        self._id, self.public_key = made

    def sign(self, message: bytes) -> bytes:
        """See `keys.Signer`."""
        return self._token.run(
            lambda live: _sign(
                live.find(ObjectClass.PRIVATE_KEY, self._id), self._sig, self._numbers, message
            )
        )


def make_kem(token: Token, kem: Kem, numbers: Numbers) -> tuple[TokenKem, bytes]:
    """A new KEM key inside the token that works, and its id."""
    made = token.run(lambda live: _make_stored(live, kem, numbers))
    return TokenKem(token, kem, numbers, made), made[0]


def make_sig(token: Token, sig: Sig, numbers: Numbers) -> tuple[TokenSig, bytes]:
    """A new signature key inside the token that works, and its id."""
    made = token.run(lambda live: _make_stored(live, sig, numbers))
    return TokenSig(token, sig, numbers, made), made[0]


def load_kem(token: Token, kem: Kem, numbers: Numbers, key_id: bytes) -> TokenKem:
    """The key that `make_kem` made: there, kept, and working. `KeyNotFoundError` where it is
    not there."""
    public_key = token.run(lambda live: _load(live, kem, numbers, key_id))
    return TokenKem(token, kem, numbers, (key_id, public_key))


def load_sig(token: Token, sig: Sig, numbers: Numbers, key_id: bytes) -> TokenSig:
    """The key that `make_sig` made, as `load_kem` finds its own."""
    public_key = token.run(lambda live: _load(live, sig, numbers, key_id))
    return TokenSig(token, sig, numbers, (key_id, public_key))


def probe(live: Live, algorithm: Kem | Sig, numbers: Numbers) -> str:
    """Makes a key for the moment, uses it, and checks the result here: the evidence."""
    public, private, _ = _make(live, algorithm, numbers, store=False)
    try:
        evidence = probe_kept(private)
        _check(live, public, private, algorithm, numbers)
    finally:
        public.destroy()
        private.destroy()
    return evidence


def _make_stored(live: Live, algorithm: Kem | Sig, numbers: Numbers) -> tuple[bytes, bytes]:
    public, private, key_id = _make(live, algorithm, numbers, store=True)
    try:
        probe_kept(private)
        return key_id, _check(live, public, private, algorithm, numbers)
    except BaseException:
        destroy(live, key_id)
        raise


def _load(live: Live, algorithm: Kem | Sig, numbers: Numbers, key_id: bytes) -> bytes:
    private = live.find(ObjectClass.PRIVATE_KEY, key_id)
    probe_kept(private)
    public = live.find(ObjectClass.PUBLIC_KEY, key_id)
    return _check(live, public, private, algorithm, numbers)


def _make(
    live: Live, algorithm: Kem | Sig, numbers: Numbers, *, store: bool
) -> tuple[Object, Object, bytes]:
    if isinstance(algorithm, Kem):
        uses = {Attribute.ENCAPSULATE: True}, {Attribute.DECAPSULATE: True}
        return make_pair(live, numbers, _DECAPSULATE, public=uses[0], private=uses[1], store=store)
    return make_pair(live, numbers, _SIGN, store=store)


def _check(
    live: Live, public: Object, private: Object, algorithm: Kem | Sig, numbers: Numbers
) -> bytes:
    """The public key, if what the token does with the private one is right."""
    encoded: bytes = public[Attribute.VALUE]
    message = b"pqc-iiot probe"
    try:
        if isinstance(algorithm, Kem):
            enc, sealed = KemPublicKey(algorithm.id, encoded).hpke_seal(b"", b"", message)
            shared = bytearray(_SECRET_SIZE)
            _decapsulate(live, private, numbers, enc, shared)
            hpke_open_with(algorithm.id, Secret.take(shared), enc, b"", b"", sealed)
        else:
            signature = _sign(private, algorithm, numbers, message)
            if not SigPublicKey(algorithm.id, encoded).verify(message, signature):
                raise AuthenticationError("the signature does not verify")
    except PqcIiotError as cause:
        raise ProviderError(
            f"what the token calls {algorithm.name} is something else",
            hint="correct its numbers in the URI, or leave them out",
        ) from cause
    return encoded


def _decapsulate(
    live: Live, private: Object, numbers: Numbers, enc: bytes, into: bytearray
) -> None:
    secret = private.decapsulate_key(  # type: ignore[attr-defined]
        enc,
        KeyType.GENERIC_SECRET,
        None,  # NSS and the standard know its length; some refuse to be told
        mechanism=member(Mechanism, numbers.use),
        template=READABLE,
    )
    read_secret(live, secret, into)


def _sign(private: Object, sig: Sig, numbers: Numbers, message: bytes) -> bytes:
    signature: bytes = private.sign(  # type: ignore[attr-defined]
        message, mechanism=member(Mechanism, numbers.use)
    )
    if len(signature) != sig.signature_size:
        raise ProviderInputError(
            f"the token's signature has {len(signature)} bytes instead of {sig.signature_size}"
        )
    return signature
