"""The key-encryption key, sealed by the TPM under a policy.

The policy is PolicyAuthValue (the PIN, or nothing), and PolicyPCR where the URI names PCRs:
the TPM gives the key to whoever has both, on this machine alone. With it comes the
authorisation value of our other objects, so that those depend on the same.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from tpm2_pytss import TSS2_Exception
from tpm2_pytss.constants import ESYS_TR, TPM2_PT, TPM2_SE, TPMA_OBJECT, TPMA_SESSION
from tpm2_pytss.types import TPML_PCR_SELECTION

from .._core import Secret
from ..errors import AuthFailedError, IntegrityFailedError, LockedOutError
from .tpm_device import Device, flushed, overwritten, session
from .tpm_errors import AUTH_FAIL, BAD_AUTH, base_code
from .tpm_objects import Storage, StoredObject, sealed_template
from .tpm_secrets import (
    AUTH_SIZE,
    KEK_SIZE,
    Auth,
    fill_random,
    native_buffer,
    sensitive,
    view,
)

STRONG_PIN = 16
"""Bytes from which on nobody guesses a PIN. A shorter one is guarded: wrong ones lock the TPM
for a while, and so may power cuts, since the TPM counts those as well (Part 1, 19.8.6)."""


def selection(pcrs: tuple[int, ...]) -> Any:
    """PCRs of the SHA-256 bank, as the TPM takes them."""
    return TPML_PCR_SELECTION.parse("sha256:" + ",".join(map(str, pcrs)))


@contextlib.contextmanager
def _policy(
    esys: Any, kind: Any, parent: Any, pcrs: tuple[int, ...], attributes: Any
) -> Iterator[Any]:
    """A session that says what the policy demands."""
    with session(esys, kind, parent, attributes) as handle:
        if pcrs:
            esys.policy_pcr(handle, None, selection(pcrs))
        esys.policy_auth_value(handle)
        yield handle


def _unseal(esys: Any, handle: Any, policy: Any) -> Any:
    try:
        with overwritten(esys):
            return esys.unseal(handle, session1=policy)
    except TSS2_Exception as cause:
        if base_code(int(cause.rc)) not in (AUTH_FAIL, BAD_AUTH):
            raise
        raise AuthFailedError(
            "the TPM refused the PIN, or the lack of one",
            hint="check the file that pin-file= in the URI names; too many wrong ones lock the TPM",
            native=f"0x{int(cause.rc):x}",
        ) from cause


class Sealing:
    """Makes and opens the sealed key of one device."""

    def __init__(self, device: Device, storage: Storage, pcrs: tuple[int, ...], pin: Auth) -> None:
        self._device, self._storage, self._pcrs, self._pin = device, storage, pcrs, pin

    def make(self, auth: Auth) -> tuple[StoredObject, Secret]:
        """A new key, sealed; a new value goes into `auth`."""

        def create(esys: Any, content: memoryview) -> StoredObject:
            with self._storage.key(esys) as parent:
                with _policy(esys, TPM2_SE.TRIAL, ESYS_TR.NONE, self._pcrs, 0) as trial:
                    policy = bytes(esys.policy_get_digest(trial))
                template = sealed_template(policy, guarded=0 < len(self._pin) < STRONG_PIN)
                with (
                    session(esys, salt_key=parent) as encrypted,
                    sensitive(self._pin, content) as secret,
                ):
                    private, public, *_ = esys.create(parent, secret, template, session1=encrypted)
            return StoredObject(private, public)

        with native_buffer(KEK_SIZE + AUTH_SIZE) as content:
            fill_random(content)
            content[-1] |= 1  # a TPM cuts zeros at the end of an authorisation value off
            stored = self._device.run("sealing a key", lambda esys: create(esys, content))
            return stored, self._split(content, auth)

    def open(self, stored: StoredObject, auth: Auth) -> Secret:
        """Unseals it: the key, and the value for `auth`.

        `PolicyMismatchError` after a PCR has changed, `AuthFailedError` for a wrong PIN, of
        which the TPM sees one per call, `LockedOutError` where one more would lock it.
        """
        if guarded := not stored.attributes & int(TPMA_OBJECT.NODA):
            if not self._pin:
                raise AuthFailedError(
                    "the keys were made with a PIN", hint="add ;pin-file=/full/path to the URI"
                )
            self._leave_a_try()

        def unseal(esys: Any) -> Secret:
            with self._storage.key(esys) as parent:
                handle = esys.load(parent, stored.private, stored.public)
                with flushed(esys, handle):
                    esys.tr_set_auth(handle, self._pin.native)
                    with _policy(
                        esys, TPM2_SE.POLICY, parent, self._pcrs, TPMA_SESSION.ENCRYPT
                    ) as policy:
                        data = _unseal(esys, handle, policy)
            if len(data) != KEK_SIZE + AUTH_SIZE:
                raise IntegrityFailedError("the sealed key has another length")
            content = view(data._cdata.buffer, KEK_SIZE + AUTH_SIZE)
            try:
                return self._split(content, auth)
            finally:
                content[:] = bytes(len(content))

        return self._device.run("unsealing the keys", unseal, again=not guarded)

    def try_without_policy(self, stored: StoredObject) -> None:
        """An attempt that must raise `ProviderError`."""

        def attempt(esys: Any) -> None:
            with self._storage.key(esys) as parent:
                handle = esys.load(parent, stored.private, stored.public)
                with flushed(esys, handle):
                    esys.unseal(handle)

        self._device.run("trying to unseal without the policy", attempt)

    def _leave_a_try(self) -> None:
        """The last try before a lockout is the administrator's."""
        found = self._device.properties()
        used, most = found.get(TPM2_PT.LOCKOUT_COUNTER, 0), found.get(TPM2_PT.MAX_AUTH_FAIL, 0)
        if used + 1 >= most:
            raise LockedOutError(
                f"the TPM has seen {used} wrong authorisations: one more would lock it",
                hint="wait until it forgets one (TPM2_PT_LOCKOUT_INTERVAL), or let the TPM's"
                " owner run: tpm2_dictionarylockout --clear-lockout",
            )

    @staticmethod
    def _split(content: memoryview, auth: Auth) -> Secret:
        auth.take(content[KEK_SIZE:])
        return Secret.take(content[:KEK_SIZE])
