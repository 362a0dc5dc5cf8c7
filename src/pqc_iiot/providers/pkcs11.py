"""Keys in a PKCS#11 token: a smart card, an HSM, a program such as SoftHSM.

Each key has the best custody that the token was found able to give it: `NATIVE` where it
performs the post-quantum operation itself, `SPLIT` for suite 6 where it performs ECDH and
ECDSA P-256, else `SEALED`. Both need a token that keeps its keys: one that wraps them for
whoever knows its PIN performs them all the same, but custody is `SEALED`. A key set is
worth what its weaker key is.

There is no counter here that its owner cannot set back, and nothing proves which device a
token is: `counter` and `quote` give None.
"""

from __future__ import annotations

import contextlib
from typing import ClassVar, TypeVar

from .. import cose
from .._core import self_test
from ..errors import ProviderError
from ..suites import FALCON_512_ECDSA_P256, ML_KEM_768_P256, Kem, Sig, Suite
from .base import Capability, Custody, KeySet, ProviderRequest, unusable_uri
from .keys import Keys
from .pkcs11_calls import NotAModuleError
from .pkcs11_native import (
    STANDARD,
    TokenKem,
    TokenSig,
    load_kem,
    load_sig,
    make_kem,
    make_sig,
)
from .pkcs11_objects import ID_SIZE, destroy, probe_wrapping
from .pkcs11_pin import pin_source
from .pkcs11_probe import assurance, probe
from .pkcs11_seal import SEALED_SIZE, make_kek, open_kek
from .pkcs11_split import (
    TokenEcdh,
    TokenEcdsa,
    load_point,
    make_ecdh,
    make_ecdsa,
)
from .pkcs11_token import LOCK, Token
from .pkcs11_uri import EXAMPLE, Numbers, UriError, parse_uri
from .sealed import KekProvider, memory_capabilities, references

_VERSION = 1

_T = TypeVar("_T")


class Pkcs11Provider(KekProvider):
    """The provider of the `pkcs11:` scheme."""

    scheme: ClassVar[str] = "pkcs11"
    custody = Custody.SEALED

    def __init__(self, request: ProviderRequest) -> None:
        try:
            uri = parse_uri(request.path)
        except UriError as cause:
            raise unusable_uri(request.header)(
                f"the URI cannot be used: {cause}", hint=f"its form: {EXAMPLE}"
            ) from cause
        stored = None if request.header is None else _parse_header(request.header)
        self_test()
        try:
            self._token = Token(uri, pin_source(uri.pin_file, str(uri)))
        except NotAModuleError as cause:
            raise unusable_uri(request.header)(
                f"{uri.module} is no PKCS#11 module: {cause}",
                hint="module= is the full path of the library that came with the token",
            ) from cause
        self._numbers = {**STANDARD, **uri.numbers}
        self._found: tuple[Capability, ...] | None = None
        self._made: list[bytes] = []
        try:
            self.assurance = self._token.run(assurance)
            self._wraps = self._token.run(probe_wrapping)
            if stored is None:
                kek, key_id, sealed = make_kek(self._token)
            else:
                key_id, sealed = stored
                kek = open_kek(self._token, key_id, sealed)
        except BaseException:
            self._token.close()
            raise
        self._key_id = key_id
        self._header = cose.dumps([_VERSION, key_id, sealed])
        super().__init__(kek)

    @property
    def header(self) -> bytes:
        """The id of the token's AES key, and the key-encryption key sealed with it."""
        return self._header

    def capabilities(self) -> tuple[Capability, ...]:
        """What the token was found able to do, by doing it once with keys that are not
        stored, and the rest in locked memory."""
        if self._found is None:
            evidence = "the key-encryption key opens with an AES key of the token only"
            rows = memory_capabilities(self.custody, evidence, self.assurance)
            self._found = (*rows, *probe(self._token, self._numbers, self.assurance, self._wraps))
        return self._found

    def generate(self, suite: Suite) -> tuple[KeySet, bytes]:
        """New keys, in the token where it performs them. Nothing stays in the token where
        this raises."""
        with LOCK:
            self._made.clear()
            try:
                keys, blob = super().generate(suite)
                return self._honest(keys), blob
            except BaseException:
                with contextlib.suppress(ProviderError):
                    self._destroy(self._made)
                raise

    def load(self, suite: Suite, blob: bytes) -> KeySet:
        """See `KekProvider`; what is in the token is there, and kept."""
        return self._honest(super().load(suite, blob))

    def discard(self, suite: Suite, blob: bytes) -> None:
        """Removes the objects of these keys from the token."""
        self._destroy([reference for reference in references(blob) if reference])

    def erase(self) -> None:
        """Removes the token's AES key: what is sealed under it is lost."""
        self._destroy([self._key_id])

    def close(self) -> None:
        """Drops the key-encryption key and the session."""
        super().close()
        self._token.close()

    # What the token performs (see `KekProvider`); references are the ids of objects.

    def make_ecdh(self) -> tuple[TokenEcdh, bytes] | None:
        """See `KekProvider`."""
        if not self._performs(ML_KEM_768_P256):
            return None
        return self._noted(*make_ecdh(self._token))

    def load_ecdh(self, reference: bytes) -> TokenEcdh:
        """See `KekProvider`."""
        return TokenEcdh(self._token, reference, load_point(self._token, reference))

    def make_ecdsa(self) -> tuple[TokenEcdsa, bytes] | None:
        """See `KekProvider`."""
        if not self._performs(FALCON_512_ECDSA_P256):
            return None
        return self._noted(*make_ecdsa(self._token))

    def load_ecdsa(self, reference: bytes) -> TokenEcdsa:
        """See `KekProvider`."""
        return TokenEcdsa(self._token, reference, load_point(self._token, reference))

    def make_kem(self, kem: Kem) -> tuple[TokenKem, bytes] | None:
        """See `KekProvider`."""
        if kem.name not in self._numbers or not self._performs(kem):
            return None
        return self._noted(*make_kem(self._token, kem, self._numbers[kem.name]))

    def load_kem(self, kem: Kem, reference: bytes) -> TokenKem:
        """See `KekProvider`."""
        return load_kem(self._token, kem, self._known(kem), reference)

    def make_sig(self, sig: Sig) -> tuple[TokenSig, bytes] | None:
        """See `KekProvider`."""
        if sig.name not in self._numbers or not self._performs(sig):
            return None
        return self._noted(*make_sig(self._token, sig, self._numbers[sig.name]))

    def load_sig(self, sig: Sig, reference: bytes) -> TokenSig:
        """See `KekProvider`."""
        return load_sig(self._token, sig, self._known(sig), reference)

    def _honest(self, keys: KeySet) -> KeySet:
        if not self._wraps or not isinstance(keys, Keys):
            return keys
        for key in (keys.kem, keys.sig):
            key.custody = self.custody
        return Keys(keys.suite, keys.kem, keys.sig)

    def _performs(self, algorithm: Kem | Sig) -> bool:
        """Whether the token does, whatever custody that amounts to."""
        return any(
            c.algorithm == algorithm.name and c.seconds is not None for c in self.capabilities()
        )

    def _noted(self, key: _T, key_id: bytes) -> tuple[_T, bytes]:
        self._made.append(key_id)
        return key, key_id

    def _known(self, algorithm: Kem | Sig) -> Numbers:
        if algorithm.name not in self._numbers:
            raise ProviderError(
                f"the token has a key of {algorithm.name}, whose numbers are not known",
                hint="the URI named them when the key was made: it is another URI now",
            )
        return self._numbers[algorithm.name]

    def _destroy(self, key_ids: list[bytes]) -> None:
        for key_id in key_ids:
            self._token.run(lambda live, key_id=key_id: destroy(live, key_id))  # type: ignore[misc]


def _parse_header(header: bytes) -> tuple[bytes, bytes]:
    match cose.loads(header, 1024, "the provider's header", ProviderError):
        case [1, bytes(key_id), bytes(sealed)] if (
            len(key_id) == ID_SIZE and len(sealed) == SEALED_SIZE
        ):
            return key_id, sealed
    raise ProviderError("the provider's header has another shape")
