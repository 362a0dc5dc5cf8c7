"""Asking a TPM to state which PCR values it has, signed by a key that signs nothing else."""

from __future__ import annotations

from typing import Any

from tpm2_pytss.types import TPM2B_DATA

from ..errors import BusyError
from .base import Evidence
from .tpm_device import Device, session
from .tpm_keys import raw_signature
from .tpm_objects import Storage, StoredObject
from .tpm_quote import KIND, PCR
from .tpm_sealing import selection
from .tpm_secrets import Auth

DEFAULT_PCRS = tuple(range(8))
"""Firmware, its configuration and the boot loader (PC Client Platform Firmware Profile)."""
_ATTEMPTS = 5


def quote(
    device: Device,
    storage: Storage,
    auth: Auth,
    key: StoredObject,
    pcrs: tuple[int, ...],
    nonce: bytes,
) -> Evidence:
    """A statement over `nonce` and the values of `pcrs` in the SHA-256 bank."""

    def ask(esys: Any) -> Evidence | None:
        before = _values(esys, pcrs)
        with key.loaded(esys, storage, auth) as handle, session(esys) as authorised:
            attest, signature = esys.quote(
                handle, selection(pcrs), TPM2B_DATA(nonce), session1=authorised
            )
        if _values(esys, pcrs) != before:
            return None
        more = tuple((f"{PCR}{number}", value) for number, value in before.items())
        _, public = key.encode()
        return Evidence(KIND, public, bytes(attest), raw_signature(signature), more)

    for _ in range(_ATTEMPTS):
        if evidence := device.run("quoting PCRs", ask):
            return evidence
    raise BusyError("the PCRs change all the time", hint="choose others: ;pcrs= in the URI")


def _values(esys: Any, pcrs: tuple[int, ...]) -> dict[int, bytes]:
    """The TPM reads at most eight registers at once."""
    found: dict[int, bytes] = {}
    for start in range(0, len(pcrs), 8):
        part = pcrs[start : start + 8]
        _, _, values = esys.pcr_read(selection(part))
        for i, number in enumerate(part):
            value = values[i]
            found[number] = bytes(value)
    return found
