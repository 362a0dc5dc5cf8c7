"""A TPM 2.0: keys sealed to this machine and, for suite 6, halves that never leave the chip.

`tpm:` takes a URI that `tpm_uri` explains. At rest, every key is encrypted under a key that
the TPM unseals (SEALED); of suite 6, the ECDH and ECDSA halves are in the TPM (SPLIT). Its
NV memory holds the counter against rollback, and it quotes PCRs.
"""

from __future__ import annotations

from typing import Any

from .. import cose
from .._core import self_test
from ..errors import ProviderError
from . import tpm_attest
from .base import Assurance, Capability, Custody, Evidence, ProviderRequest, unusable_uri
from .sealed import KekProvider
from .tpm_counter import TpmCounter, new_place, remove_counter
from .tpm_device import Device, maker
from .tpm_keys import KeyMaker, TpmEcdh, TpmEcdsa
from .tpm_objects import Storage, StoredObject
from .tpm_probe import probe
from .tpm_sealing import Sealing
from .tpm_secrets import Auth
from .tpm_uri import EXAMPLE, UriError, parse_uri

_VERSION = 1
_EMULATORS = ("IBM SW", "MSFT", "xCG")
"""How swtpm and the reference simulators begin: manufacturer and vendor string."""


class TpmProvider(KekProvider):
    """The provider of the `tpm:` scheme."""

    scheme = "tpm"
    custody = Custody.SEALED

    def __init__(self, request: ProviderRequest) -> None:
        try:
            self._uri = parse_uri(request.path)
        except UriError as cause:
            raise unusable_uri(request.header)(
                f"the URI tpm:{request.path} cannot be used: {cause}", hint=f"such as {EXAMPLE}"
            ) from cause
        self_test()
        self._pin, self._owner, self._auth = Auth(), Auth(), Auth()
        self._device = Device(self._uri)
        try:
            if self._uri.pin_file:
                self._pin.read(self._uri.pin_file, "PIN file")
            if self._uri.owner_auth_file:
                self._owner.read(self._uri.owner_auth_file, "file with the owner's password")
            super().__init__(self._open(request.header))
        except BaseException:
            self._let_go()
            raise
        finally:
            self._pin.wipe()
        self._counter: TpmCounter | None = None
        self._found: tuple[Capability, ...] | None = None

    def _open(self, header: bytes | None) -> Any:
        name = maker(self._device.properties())
        emulated = self._uri.emulated or name.startswith(_EMULATORS)
        self.assurance = Assurance.EMULATOR if emulated else Assurance.CLAIMED
        if header is None:
            self._storage = Storage(self._device, self._owner, None)
            sealing = Sealing(self._device, self._storage, self._uri.pcrs, self._pin)
            self._sealed, kek = sealing.make(self._auth)
            self._keys = KeyMaker(self._device, self._storage, self._auth)
            self._attestation = self._keys.attestation()
            self._place = new_place()
        else:
            storage, self._sealed, self._attestation, self._place = _parse_header(header)
            self._storage = Storage(self._device, self._owner, storage)
            sealing = Sealing(self._device, self._storage, self._uri.pcrs, self._pin)
            kek = sealing.open(self._sealed, self._auth)
            self._keys = KeyMaker(self._device, self._storage, self._auth)
        return kek

    @property
    def header(self) -> bytes:
        """The storage key's Name, the sealed key, the attestation key, the counter's place."""
        parts = (*self._sealed.encode(), *self._attestation.encode())
        return cose.dumps([_VERSION, self._storage.name, *parts, *self._place])

    def capabilities(self) -> tuple[Capability, ...]:
        """Found by making a key of each kind in the TPM, using it and trying to get it out."""
        if self._found is None:
            self._key()
            sealing = Sealing(self._device, self._storage, self._uri.pcrs, Auth())
            self._found = probe(
                self._device, self._keys, lambda: sealing.try_without_policy(self._sealed),
                self.assurance,
            )  # fmt: skip
        return self._found

    def make_ecdh(self) -> tuple[TpmEcdh, bytes]:
        """A key that agrees on secrets inside the TPM, for suite 6."""
        key = self._keys.ecdh()
        key.require_fixed()
        return key, key.reference

    def load_ecdh(self, reference: bytes) -> TpmEcdh:
        """The key that `make_ecdh` made; `IntegrityFailedError` where it is not this TPM's."""
        return self._keys.load_ecdh(reference)

    def make_ecdsa(self) -> tuple[TpmEcdsa, bytes]:
        """A key that signs inside the TPM, for suite 6."""
        key = self._keys.ecdsa()
        key.require_fixed()
        return key, key.reference

    def load_ecdsa(self, reference: bytes) -> TpmEcdsa:
        """The key that `make_ecdsa` made; `IntegrityFailedError` where it is not this TPM's."""
        return self._keys.load_ecdsa(reference)

    def counter(self) -> TpmCounter:
        """The device's counter in NV memory; made where there is none yet. One that was
        removed begins again above all of its values, so that the state looks old then."""
        if self._counter is None:
            self._key()
            self._counter = TpmCounter(self._device, self._storage, self._auth, self._place)
        return self._counter

    def quote(self, nonce: bytes) -> Evidence:
        """The PCRs of the URI, or 0 to 7, with `nonce`; checked by `tpm_quote.verify`."""
        self._key()
        pcrs = self._uri.pcrs or tpm_attest.DEFAULT_PCRS
        return tpm_attest.quote(
            self._device, self._storage, self._auth, self._attestation, pcrs, nonce
        )

    def erase(self) -> None:
        """Removes the counter: all of a device that is in the TPM. What is stored would
        open again, with a new counter that is ahead of it."""
        self._counter = None
        remove_counter(self._device, self._storage, self._place)

    def close(self) -> None:
        """Ends the connection and wipes what was read for it."""
        super().close()
        self._let_go()

    def _let_go(self) -> None:
        self._device.close()
        self._auth.wipe()
        self._owner.wipe()


def _parse_header(header: bytes) -> tuple[bytes, StoredObject, StoredObject, tuple[int, bytes]]:
    match cose.loads(header, 1024, "the provider's header", ProviderError):
        case [
            1,
            bytes(storage),
            bytes(sealed_private),
            bytes(sealed_public),
            bytes(key_private),
            bytes(key_public),
            int(index),
            bytes(mark),
        ] if len(storage) == 34 and index >> 24 == 1 and len(mark) == 32:
            return (
                storage,
                StoredObject.parse(sealed_private, sealed_public),
                StoredObject.parse(key_private, key_public),
                (index, mark),
            )
    raise ProviderError("the provider's header has another shape")
