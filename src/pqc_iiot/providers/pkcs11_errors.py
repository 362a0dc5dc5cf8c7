"""What a module's return codes mean here, and what to do about them: one table."""

from __future__ import annotations

import contextlib
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from pkcs11.exceptions import PKCS11Error

from ..errors import (
    AuthFailedError,
    BusyError,
    IntegrityFailedError,
    KeyNotFoundError,
    LockedOutError,
    NotSupportedError,
    ProviderError,
    ProviderInputError,
    UnavailableError,
)
from .pkcs11_calls import CallError


class KeyMissingError(Exception):
    """No object, or more than one, has the id that the state names."""


@dataclass(frozen=True, slots=True)
class _Meaning:
    error: type[ProviderError]
    says: str
    hint: str


_GONE = _Meaning(
    UnavailableError,
    "the token is not there",
    "plug it in or start its service; the next call finds it again",
)
_BROKEN = _Meaning(
    UnavailableError,
    "the token failed",
    "is it there, writable and not full? `pkcs11-tool --module MODULE -L` shows its state",
)
PIN = _Meaning(
    AuthFailedError,
    "the PIN is not the token's",
    "correct it and start again; it was tried once and will not be tried again",
)
LOCKED = _Meaning(
    LockedOutError,
    "the token's PIN is locked",
    "its security officer unlocks it: pkcs11-tool --module MODULE --login --login-type so"
    " --init-pin",
)
_NO_PIN = _Meaning(
    AuthFailedError,
    "the token has no user PIN yet",
    "its security officer sets one: pkcs11-tool --module MODULE --login --login-type so --init-pin",
)
_READ_ONLY = _Meaning(
    NotSupportedError,
    "the token is read-only",
    "new keys need a token that can be written; existing ones work on",
)
_CHANGED = _Meaning(
    IntegrityFailedError,
    "what is stored does not open under the token's key",
    "it belongs to another token, or the file is damaged: restore it",
)
_CANNOT = _Meaning(
    NotSupportedError,
    "the token cannot do this",
    "`pqc-iiot provider test` shows what it can",
)
_REFUSED = _Meaning(ProviderInputError, "the token refused an argument", "")
_FULL = _Meaning(BusyError, "the token has no room or session left", "try again")
_TAKEN = _Meaning(
    BusyError,
    "something else in this process uses the token's module",
    "let it name the module by the same path, or run in another process",
)
_MISSING = _Meaning(
    KeyNotFoundError,
    "a key of this device is not in the token",
    "is it the right token? Keys that were removed are lost: make a new device",
)

# CKR number (PKCS #11 section 5, "return values"), python-pkcs11's class, meaning.
_ROWS: tuple[tuple[int, str, _Meaning], ...] = (
    (0x02, "HostMemory", _FULL),
    (0x03, "SlotIDInvalid", _GONE),
    (0x05, "GeneralError", _BROKEN),
    (0x06, "FunctionFailed", _BROKEN),
    (0x07, "ArgumentsBad", _REFUSED),
    (0x13, "AttributeValueInvalid", _CANNOT),
    (0x20, "DataInvalid", _REFUSED),
    (0x21, "DataLenRange", _REFUSED),
    (0x30, "DeviceError", _BROKEN),
    (0x31, "DeviceMemory", _FULL),
    (0x32, "DeviceRemoved", _GONE),
    (0x40, "EncryptedDataInvalid", _CHANGED),
    (0x41, "EncryptedDataLenRange", _CHANGED),
    (0x54, "FunctionNotSupported", _CANNOT),
    (0x60, "KeyHandleInvalid", _GONE),
    (0x63, "KeyTypeInconsistent", _CANNOT),
    (0x68, "KeyFunctionNotPermitted", _CANNOT),
    (0x70, "MechanismInvalid", _CANNOT),
    (0x71, "MechanismParamInvalid", _CANNOT),
    (0x82, "ObjectHandleInvalid", _GONE),
    (0xA0, "PinIncorrect", PIN),
    (0xA1, "PinInvalid", PIN),
    (0xA2, "PinLenRange", PIN),
    (0xA3, "PinExpired", PIN),
    (0xA4, "PinLocked", LOCKED),
    (0xB0, "SessionClosed", _GONE),
    (0xB1, "SessionCount", _FULL),
    (0xB3, "SessionHandleInvalid", _GONE),
    (0xB5, "SessionReadOnly", _READ_ONLY),
    (0xD0, "TemplateIncomplete", _CANNOT),
    (0xD1, "TemplateInconsistent", _CANNOT),
    (0xE0, "TokenNotPresent", _GONE),
    (0xE1, "TokenNotRecognised", _GONE),
    (0xE2, "TokenWriteProtected", _READ_ONLY),
    (0x101, "UserNotLoggedIn", _GONE),
    (0x102, "UserPinNotInitialized", _NO_PIN),
    (0x190, "CryptokiNotInitialized", _GONE),
    (0x191, "CryptokiAlreadyInitialized", _TAKEN),
)
_BY_NUMBER = {number: (name, meaning) for number, name, meaning in _ROWS}
_BY_NAME = {name: (f"{name} (0x{number:x})", meaning) for number, name, meaning in _ROWS}
_UNKNOWN = _Meaning(
    ProviderError, "the token's module reports an error that is not known here", "see its manual"
)
_NONSENSE = _Meaning(
    ProviderError, "the token's module gives an answer that makes no sense", "see its manual"
)
_ALREADY_LOGGED_IN = 0x100
_UNMAPPED = re.compile(r"error code 0x([0-9a-f]+)", re.IGNORECASE)

_Native = PKCS11Error | CallError | KeyMissingError


def is_lost(error: _Native) -> bool:
    """Whether a new session may help: the token was away, or its module is confused.

    SoftHSM answers a search on a token that is gone with nothing, hence the missing key.
    """
    meaning = _look_up(error)[1]
    return meaning in (_GONE, _BROKEN, _MISSING)


def is_lost_for_sure(error: _Native) -> bool:
    """The same, but for codes that some tokens also give to data they do not like."""
    return _look_up(error)[1] is _GONE


def is_wrong_pin(error: CallError) -> bool:
    """Whether the token counted a try."""
    return _look_up(error)[1] in (PIN, LOCKED)


def is_already_logged_in(error: CallError) -> bool:
    """Whether another session of this process had logged in."""
    return error.rv == _ALREADY_LOGGED_IN


def failure(meaning: _Meaning, where: str, native: str = "") -> ProviderError:
    """The error for a meaning; `where` names the token."""
    return meaning.error(f"{meaning.says}: {where}", hint=meaning.hint, native=native)


@contextlib.contextmanager
def translated(where: str) -> Iterator[None]:
    """Makes every error of a module one of this package that names the token and keeps the
    module's own code."""
    try:
        yield
    except (PKCS11Error, CallError, KeyMissingError) as cause:
        native, meaning = _look_up(cause)
        raise failure(meaning, where, native) from cause
    except (struct.error, UnicodeDecodeError, AttributeError) as cause:
        # An attribute of another size, or a key that does not do what it was made for.
        raise failure(_NONSENSE, where) from cause


def changed(where: str, cause: CallError) -> ProviderError:
    """The error where the token's key does not open what is stored. Some tokens say so with
    a code that has other meanings elsewhere."""
    return failure(_CHANGED, where, _look_up(cause)[0])


def _look_up(error: _Native) -> tuple[str, _Meaning]:
    if isinstance(error, KeyMissingError):
        return "", _MISSING
    if isinstance(error, CallError):
        number = error.rv
    elif found := _UNMAPPED.search(str(error)):
        number = int(found[1], 16)
    elif "not initialized" in str(error):
        number = 0x190
    elif "already initialized" in str(error):
        number = 0x191
    else:
        name = type(error).__name__
        return _BY_NAME.get(name, (f"{name} {error}".strip(), _UNKNOWN))
    name, meaning = _BY_NUMBER.get(number, ("", _UNKNOWN))
    return f"{name} (0x{number:x})".strip(), meaning
