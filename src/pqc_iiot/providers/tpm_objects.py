"""Objects in a TPM: the storage key above ours, our own, and how they are loaded for a moment.

Everything of ours is created fixedTPM and fixedParent, so that it cannot be duplicated, and
is stored by us, wrapped by the storage key (TPM 2.0 Library Specification, Part 1, 23 and 27).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from tpm2_pytss import TSS2_Exception
from tpm2_pytss.constants import ESYS_TR, TPM2_ALG, TPMA_OBJECT
from tpm2_pytss.types import (
    TPM2B_DIGEST,
    TPM2B_PRIVATE,
    TPM2B_PUBLIC,
    TPMS_KEYEDHASH_PARMS,
    TPMT_KEYEDHASH_SCHEME,
    TPMT_PUBLIC,
    TPMU_PUBLIC_PARMS,
)

from ..errors import AuthFailedError, IntegrityFailedError, ProviderError
from .tpm_device import Device, flushed, session
from .tpm_errors import AUTH_FAIL, BAD_AUTH, NO_ROOM, base_code, is_lost
from .tpm_secrets import Auth

STORAGE_KEY = 0x81000001
"""Where TCG's provisioning guidance puts the shared storage key (section 7.8)."""

_FIXED = TPMA_OBJECT.FIXEDTPM | TPMA_OBJECT.FIXEDPARENT
_MADE_INSIDE = _FIXED | TPMA_OBJECT.SENSITIVEDATAORIGIN | TPMA_OBJECT.USERWITHAUTH
_STORAGE = _MADE_INSIDE | TPMA_OBJECT.RESTRICTED | TPMA_OBJECT.DECRYPT | TPMA_OBJECT.NODA
_KEY = _MADE_INSIDE | TPMA_OBJECT.NODA

REQUIRED = {
    "fixedTPM": TPMA_OBJECT.FIXEDTPM,
    "fixedParent": TPMA_OBJECT.FIXEDPARENT,
    "sensitiveDataOrigin": TPMA_OBJECT.SENSITIVEDATAORIGIN,
}
"""What a key's public area must say for SPLIT: it was made inside, and stays there."""


def _template(alg: str, attributes: Any) -> Any:
    return TPM2B_PUBLIC(TPMT_PUBLIC.parse(alg=alg, objectAttributes=attributes))


def storage_template() -> Any:
    """ECC P-256 and AES-128-CFB, as `tpm2_createprimary` makes it by default."""
    return _template("ecc256:aes128cfb", _STORAGE)


def ecdsa_template() -> Any:
    """Signs what it is given. Its authorisation is 256 random bits: no dictionary attack
    needs to be held off (noDA), so that nobody can lock it either."""
    return _template("ecc256:ecdsa-sha256", _KEY | TPMA_OBJECT.SIGN_ENCRYPT)


def ecdh_template() -> Any:
    """Agrees on secrets; otherwise as the signing key."""
    return _template("ecc256:ecdh", _KEY | TPMA_OBJECT.DECRYPT)


def attestation_template() -> Any:
    """Restricted: signs only what the TPM states itself (Part 1, 25.2)."""
    attributes = _KEY | TPMA_OBJECT.SIGN_ENCRYPT | TPMA_OBJECT.RESTRICTED
    return _template("ecc256:ecdsa-sha256:null", attributes)


def sealed_template(policy: bytes, *, guarded: bool) -> Any:
    """Data under a policy, and under nothing else. `guarded` against guessing: for a PIN."""
    return TPM2B_PUBLIC(
        TPMT_PUBLIC(
            type=TPM2_ALG.KEYEDHASH,
            nameAlg=TPM2_ALG.SHA256,
            objectAttributes=_FIXED if guarded else _FIXED | TPMA_OBJECT.NODA,
            authPolicy=TPM2B_DIGEST(policy),
            parameters=TPMU_PUBLIC_PARMS(
                keyedHashDetail=TPMS_KEYEDHASH_PARMS(
                    scheme=TPMT_KEYEDHASH_SCHEME(scheme=TPM2_ALG.NULL)
                )
            ),
        )
    )


class StoredObject:
    """An object that we store: wrapped private part and public area, as the TPM gave them."""

    def __init__(self, private: Any, public: Any) -> None:
        self.private, self.public = private, public
        self._context: Any = None

    @classmethod
    def parse(cls, private: bytes, public: bytes) -> StoredObject:
        """`ProviderError` for bytes that are no such thing."""
        try:
            parts = TPM2B_PRIVATE.unmarshal(private), TPM2B_PUBLIC.unmarshal(public)
        except TSS2_Exception as cause:
            raise ProviderError("a stored TPM object has another shape") from cause
        if (parts[0][1], parts[1][1]) != (len(private), len(public)):
            raise ProviderError("a stored TPM object has another shape")
        return cls(parts[0][0], parts[1][0])

    def encode(self) -> tuple[bytes, bytes]:
        """The two parts, marshalled."""
        return bytes(self.private.marshal()), bytes(self.public.marshal())

    @property
    def name(self) -> bytes:
        """The object's Name: the hash of its public area (Part 1, 16)."""
        return bytes(self.public.get_name())

    @property
    def attributes(self) -> int:
        """TPMA_OBJECT, as stored: the TPM vouches for them once it has loaded the object."""
        area = self.public.publicArea
        return int(area.objectAttributes)

    @property
    def point(self) -> bytes:
        """The public point of an ECC key: 65 bytes, uncompressed."""
        area = self.public.publicArea
        unique = area.unique
        ecc = unique.ecc
        return b"\x04" + bytes(ecc.x).rjust(32, b"\0") + bytes(ecc.y).rjust(32, b"\0")

    @contextlib.contextmanager
    def loaded(self, esys: Any, storage: Storage, auth: Auth) -> Iterator[Any]:
        """A handle for a moment: from a saved context if the TPM still knows that."""
        handle = self._from_context(esys)
        if handle is None:
            with storage.key(esys) as parent:
                handle = esys.load(parent, self.private, self.public)
        with flushed(esys, handle):
            if self._context is None:
                self._context = esys.context_save(handle)
            esys.tr_set_auth(handle, auth.native)
            yield handle

    def _from_context(self, esys: Any) -> Any:
        if self._context is None:
            return None
        try:
            return esys.context_load(self._context)
        except TSS2_Exception as cause:
            rc = int(cause.rc)
            if is_lost(rc) or base_code(rc) in NO_ROOM:
                raise
            self._context = None  # the TPM was reset meanwhile
            return None


class Storage:
    """The storage key that wraps ours, known by its Name."""

    def __init__(self, device: Device, owner: Auth, name: bytes | None) -> None:
        self._device, self._owner = device, owner
        self.name = name or device.run("looking for the storage key", self._choose)

    def _choose(self, esys: Any) -> bytes:
        with contextlib.suppress(TSS2_Exception):
            handle = esys.tr_from_tpmpublic(STORAGE_KEY)
            try:
                public, name, _ = esys.read_public(handle)
                area = public.publicArea
                if int(area.objectAttributes) & int(_STORAGE) == int(_STORAGE):
                    return bytes(name)
            finally:
                esys.tr_close(handle)
        with self._primary(esys) as (_, name):
            return name

    @contextlib.contextmanager
    def key(self, esys: Any) -> Iterator[Any]:
        """A handle of the storage key. `IntegrityFailedError` where it is another one."""
        handle = self._persistent(esys)
        if handle is not None:
            try:
                yield handle
            finally:
                esys.tr_close(handle)
            return
        with self._primary(esys) as (handle, name):
            if name != self.name:
                raise IntegrityFailedError(
                    "this is not the TPM that the keys were made with, or it was cleared"
                    " (TPM2_Clear) since",
                    hint="move the state back to its own machine; after a clearing nothing can"
                    " bring the keys back: make new ones, pqc-iiot init in a new folder",
                )
            yield handle

    def _persistent(self, esys: Any) -> Any:
        try:
            handle = esys.tr_from_tpmpublic(STORAGE_KEY)
        except TSS2_Exception as cause:
            if is_lost(int(cause.rc)):
                raise
            return None
        name = esys.tr_get_name(handle)
        if bytes(name) == self.name:
            return handle
        esys.tr_close(handle)
        return None

    @contextlib.contextmanager
    def _primary(self, esys: Any) -> Iterator[tuple[Any, bytes]]:
        # There is no key yet to salt a session with: a listener may try to guess the password.
        with self.owner(esys, "make its storage key"), session(esys, attributes=0) as auth:
            handle, public, *_ = esys.create_primary(
                None, storage_template(), ESYS_TR.OWNER, session1=auth
            )
        with flushed(esys, handle):
            name = public.get_name()
            yield handle, bytes(name)

    @contextlib.contextmanager
    def owner(self, esys: Any, what: str) -> Iterator[None]:
        """The owner hierarchy's authorisation, for one command."""
        esys.tr_set_auth(ESYS_TR.OWNER, self._owner.native)
        try:
            yield
        except TSS2_Exception as cause:
            if base_code(int(cause.rc)) not in (BAD_AUTH, AUTH_FAIL):
                raise
            raise AuthFailedError(
                f"the TPM has an owner with a password: this device may not {what}",
                hint="put the owner's password into a file (chmod 600) and add"
                " ;owner-auth-file=/full/path to the URI",
                native=f"0x{int(cause.rc):x}",
            ) from cause
        finally:
            esys.tr_set_auth(ESYS_TR.OWNER, None)
