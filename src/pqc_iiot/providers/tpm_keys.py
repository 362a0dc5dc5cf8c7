"""The classical halves of suite 6: ECDH and ECDSA P-256 keys that never leave the TPM."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from tpm2_pytss.constants import ESYS_TR, TPM2_ALG, TPM2_CC, TPM2_RH, TPM2_SE, TPM2_ST, TPMA_SESSION
from tpm2_pytss.types import (
    TPM2B_DIGEST,
    TPM2B_ECC_PARAMETER,
    TPM2B_ECC_POINT,
    TPMS_ECC_POINT,
    TPMT_SIG_SCHEME,
    TPMT_SYM_DEF_OBJECT,
    TPMT_TK_HASHCHECK,
)

from .. import cose
from .._core import Secret
from ..errors import CustodyTooLowError, IntegrityFailedError, ProviderError
from .tpm_device import Device, overwritten, session
from .tpm_objects import (
    REQUIRED,
    Storage,
    StoredObject,
    attestation_template,
    ecdh_template,
    ecdsa_template,
)
from .tpm_secrets import Auth, native_buffer, sensitive, view

T = TypeVar("T")
K = TypeVar("K", bound="TpmKey")

_SCALAR_SIZE = 32


class TpmKey:
    """An ECC P-256 key of the TPM. Its private half is nowhere else."""

    def __init__(self, device: Device, storage: Storage, auth: Auth, stored: StoredObject) -> None:
        self._device, self._storage, self._auth, self.stored = device, storage, auth, stored

    @property
    def public_key(self) -> bytes:
        """The point: 65 bytes, uncompressed (SEC 1)."""
        return self.stored.point

    @property
    def reference(self) -> bytes:
        """What finds it again in this TPM: the wrapped key and its public area."""
        return cose.dumps(list(self.stored.encode()))

    def _use(
        self,
        doing: str,
        operation: Callable[[Any, Any, Any], T],
        attributes: Any = TPMA_SESSION.ENCRYPT,
    ) -> T:
        """`operation` gets ESAPI, the key, and a session that authorises it."""

        def use(esys: Any) -> T:
            with (
                self.stored.loaded(esys, self._storage, self._auth) as key,
                session(esys, attributes=attributes) as auth,
            ):
                return operation(esys, key, auth)

        return self._device.run(doing, use)

    def attributes(self) -> tuple[str, ...]:
        """Which of fixedTPM, fixedParent and sensitiveDataOrigin the TPM reads back."""

        def read(esys: Any, key: Any, _: Any) -> int:
            public, *_rest = esys.read_public(key)
            area = public.publicArea
            return int(area.objectAttributes)

        found = self._use("reading the key's attributes", read)
        return tuple(name for name, bit in REQUIRED.items() if found & int(bit))

    def require_fixed(self) -> None:
        """`CustodyTooLowError` unless the TPM itself says that it was made inside and stays."""
        if missing := REQUIRED.keys() - set(self.attributes()):
            raise CustodyTooLowError(f"the TPM's key is not {', '.join(sorted(missing))}")

    def try_duplicate(self) -> None:
        """An attempt to take it out, which must raise `ProviderError`."""

        def attempt(esys: Any, key: Any, _: Any) -> None:
            with session(esys, TPM2_SE.POLICY, attributes=0) as policy:
                esys.policy_command_code(policy, TPM2_CC.Duplicate)
                null = TPMT_SYM_DEF_OBJECT(algorithm=TPM2_ALG.NULL)
                esys.duplicate(key, ESYS_TR.NULL, None, null, session1=policy)

        self._use("trying to duplicate a key", attempt)


class TpmEcdh(TpmKey):
    """See `keys.Ecdh`."""

    def agree(self, point: bytes) -> Secret:
        """The x-coordinate, 32 bytes, of ECDH with a point (65 bytes) on the curve."""
        x, y = point[1:33], point[33:65]

        def agree(esys: Any, key: Any, auth: Any) -> Secret:
            peer = TPM2B_ECC_POINT(
                TPMS_ECC_POINT(x=TPM2B_ECC_PARAMETER(x), y=TPM2B_ECC_PARAMETER(y))
            )
            with overwritten(esys):
                shared = esys.ecdh_zgen(key, peer, session1=auth)
            found = shared._cdata.point
            whole = view(found.x.buffer, len(found.x.buffer)), view(found.y.buffer, 32)
            try:
                size = int(found.x.size)
                if size > _SCALAR_SIZE:
                    raise ProviderError("the TPM gave a coordinate of another size")
                with native_buffer(_SCALAR_SIZE) as share:
                    share[_SCALAR_SIZE - size :] = whole[0][:size]
                    return Secret.take(share)
            finally:
                for buffer in whole:
                    buffer[:] = bytes(len(buffer))

        return self._use("agreeing on a secret", agree)


class TpmEcdsa(TpmKey):
    """See `keys.Ecdsa`."""

    def sign_digest(self, digest: bytes) -> bytes:
        """r || s, 64 bytes, over a SHA-256 digest."""

        def sign(esys: Any, key: Any, auth: Any) -> bytes:
            scheme = TPMT_SIG_SCHEME(scheme=TPM2_ALG.NULL)
            ticket = TPMT_TK_HASHCHECK(
                tag=TPM2_ST.HASHCHECK, hierarchy=TPM2_RH.NULL, digest=TPM2B_DIGEST(b"")
            )
            return raw_signature(esys.sign(key, digest, scheme, ticket, session1=auth))

        return self._use("signing", sign, attributes=0)


def raw_signature(signature: Any) -> bytes:
    """r || s of an ECDSA signature, 64 bytes."""
    inner = signature.signature
    ecdsa = inner.ecdsa
    r, s = ecdsa.signatureR, ecdsa.signatureS
    return bytes(r).rjust(_SCALAR_SIZE, b"\0") + bytes(s).rjust(_SCALAR_SIZE, b"\0")


class KeyMaker:
    """Makes and finds the keys of one device."""

    def __init__(self, device: Device, storage: Storage, auth: Auth) -> None:
        self._parts = device, storage, auth

    def _make(self, template: Any) -> StoredObject:
        device, storage, auth = self._parts

        def create(esys: Any) -> StoredObject:
            with (
                storage.key(esys) as parent,
                session(esys, salt_key=parent) as encrypted,
                sensitive(auth) as secret,
            ):
                private, public, *_ = esys.create(parent, secret, template, session1=encrypted)
            return StoredObject(private, public)

        return device.run("making a key", create)

    def ecdh(self) -> TpmEcdh:
        """A new key that agrees on secrets."""
        return TpmEcdh(*self._parts, self._make(ecdh_template()))

    def ecdsa(self) -> TpmEcdsa:
        """A new key that signs."""
        return TpmEcdsa(*self._parts, self._make(ecdsa_template()))

    def attestation(self) -> StoredObject:
        """A new key that signs the TPM's own statements, and nothing else."""
        return self._make(attestation_template())

    def load_ecdh(self, reference: bytes) -> TpmEcdh:
        """The key of a reference, as the TPM itself describes it."""
        return self._checked(TpmEcdh(*self._parts, _parse(reference)), ecdh_template())

    def load_ecdsa(self, reference: bytes) -> TpmEcdsa:
        """The key of a reference, as the TPM itself describes it."""
        return self._checked(TpmEcdsa(*self._parts, _parse(reference)), ecdsa_template())

    @staticmethod
    def _checked(key: K, template: Any) -> K:
        wanted = template.publicArea
        if key.stored.attributes != int(wanted.objectAttributes):
            raise IntegrityFailedError("a stored TPM key is of another kind")
        # Loads it: the TPM checks that both parts belong together and to it.
        key.require_fixed()
        return key


def _parse(reference: bytes) -> StoredObject:
    match cose.loads(reference, 4096, "a key's reference", ProviderError):
        case [bytes(private), bytes(public)]:
            return StoredObject.parse(private, public)
    raise ProviderError("a key's reference has another shape")
