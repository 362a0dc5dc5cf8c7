"""What a TPM's response codes mean, and what to do about them.

Codes: TPM 2.0 Library Specification, Part 2, section 6.6; the layers of tpm2-tss put theirs
into bits 16 to 23 (TSS 2.0 Overview, section 3).
"""

from __future__ import annotations

from ..errors import (
    AuthFailedError,
    BusyError,
    IntegrityFailedError,
    KeyNotFoundError,
    LockedOutError,
    NotSupportedError,
    PolicyMismatchError,
    ProviderError,
    ProviderInputError,
    UnavailableError,
)

_LAYER_TPM = (0x00, 0x0B)
"""The TPM itself, and a resource manager that answers in its place."""
_LOST = {0xA000A, 0xA0008, 0x70007, 0x7000A, 0x80007}
"""IO_ERROR, NO_CONNECTION, and the bad sequence that a context is left in by them."""
_GONE = range(0x910, 0x920)
"""REFERENCE_H0 and on: what was loaded is not there any more, since the TPM was reset."""
_FORMAT_1 = 0x080

INITIALIZE = 0x100
LOCKOUT = 0x921
BAD_AUTH = 0x0A2
AUTH_FAIL = 0x08E
_OBJECT_MEMORY, _SESSION_MEMORY, _MEMORY = 0x902, 0x903, 0x904
NO_ROOM = frozenset({_OBJECT_MEMORY, _SESSION_MEMORY})
_RETRY = {0x908, 0x909, 0x922, 0x923}  # YIELDED, CANCELED, RETRY, NV_UNAVAILABLE
NV_SPACE = 0x14B
NV_DEFINED = 0x14C

_TPM_HINT = "whoever owns the TPM may have cleared it (TPM2_Clear): make new keys in a new folder"

_MEANINGS: dict[int, tuple[type[ProviderError], str, str]] = {
    LOCKOUT: (
        LockedOutError,
        "the TPM is locked: too many wrong authorisations, of this or another program",
        "wait until it forgets (tpm2_getcap properties-variable: TPM2_PT_LOCKOUT_INTERVAL), or"
        " let the TPM's owner run: tpm2_dictionarylockout --clear-lockout",
    ),
    0x920: (BusyError, "the TPM delays writing to its memory", "try again a little later"),
    NV_SPACE: (
        BusyError,
        "the TPM has no room left for a counter",
        "see tpm2_getcap handles-nv-index, and remove what nobody needs: tpm2_nvundefine",
    ),
    NV_DEFINED: (BusyError, "the TPM's place for the counter is taken", "run it again"),
    INITIALIZE: (
        UnavailableError,
        "the TPM was not started up",
        "the firmware or the resource manager does that: tpm2_startup --clear",
    ),
    0x101: (UnavailableError, "the TPM has failed its self-test", "switch the machine off and on"),
    0x143: (
        NotSupportedError,
        "the TPM does not implement a command",
        "pqc-iiot provider test shows what it can",
    ),
    0x12F: (
        PolicyMismatchError,
        "the TPM wants the key's policy and got none",
        "open the device with the URI that it was made with",
    ),
    0x128: (
        PolicyMismatchError,
        "a PCR changed while the key was in use",
        "run it again; if a PCR keeps changing, choose others",
    ),
    0x09D: (
        PolicyMismatchError,
        "the machine is not in the state that the keys were sealed to: a PCR has changed",
        "if firmware, boot loader or system were changed on purpose, go back to what they were,"
        " or make new keys (pqc-iiot init in a new folder); if not, find out who changed them",
    ),
    0x09F: (
        IntegrityFailedError,
        "the TPM does not know this blob: it is another TPM's",
        _TPM_HINT,
    ),
    0x08B: (KeyNotFoundError, "the TPM has nothing there any more", _TPM_HINT),
    0x0A7: (ProviderInputError, "the TPM refused a point: it is not on the curve", ""),
    0x095: (ProviderInputError, "the TPM refused a length", ""),
    0x084: (ProviderInputError, "the TPM refused a value", ""),
}


def base_code(rc: int) -> int:
    """A code of the TPM without the number of the handle, parameter or session."""
    return rc & 0x0BF if rc & _FORMAT_1 else rc


def is_lost(rc: int) -> bool:
    """Whether the connection to the TPM is gone, so that only a new one helps."""
    return rc in _LOST or rc == INITIALIZE or rc in _GONE


def meaning(rc: int, doing: str) -> ProviderError:
    """The error of this package for a response code; `doing` says what was tried."""
    native = f"0x{rc:x}"
    layer = rc >> 16 & 0xFF
    if rc in _LOST or rc in _GONE:
        return UnavailableError(
            f"the TPM does not answer while {doing}",
            hint="is its service running, and may this user use it? (ls -l /dev/tpmrm0; the"
            " group is often tss)",
            native=native,
        )
    code = base_code(rc & 0xFFFF) if layer in _LAYER_TPM else -1
    if code in (BAD_AUTH, AUTH_FAIL):
        return AuthFailedError(
            f"the TPM refused the authorisation while {doing}",
            hint="another program protects the TPM's storage key with a password, or the state"
            " is of another device",
            native=native,
        )
    if code in NO_ROOM or code == _MEMORY or code in _RETRY:
        return BusyError(
            f"the TPM has no room or no time while {doing}",
            hint="other programs hold its few slots: use a resource manager (/dev/tpmrm0), or"
            " free what dead ones left: tpm2_flushcontext -t, tpm2_flushcontext -l",
            native=native,
        )
    if code in _MEANINGS:
        kind, what, hint = _MEANINGS[code]
        return kind(f"{what} (while {doing})", hint=hint, native=native)
    return ProviderError(
        f"the TPM answered {native} while {doing}", hint=f"tpm2_rc_decode {native}", native=native
    )
