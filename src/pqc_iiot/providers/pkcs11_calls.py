"""The PKCS#11 calls that a secret goes into or comes out of, made directly.

A binding that hands out `bytes` leaves copies of a secret behind in memory that nobody
wipes. Here it goes between the token and one `bytearray` of the caller's, which wipes it or
gives it to `Secret.take`. Everything else goes through python-pkcs11, whose sessions and
objects these calls share: whoever calls holds the lock of `pkcs11_token`.

Structures are those of PKCS#11 2.40 on Linux: CK_ULONG is `unsigned long`, nothing is packed.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Final

NONCE_SIZE: Final = 12
TAG_SIZE: Final = 16

_USER: Final = 1  # CKU_USER
_VALUE: Final = 0x11  # CKA_VALUE
_AES_GCM: Final = 0x1087  # CKM_AES_GCM

# Positions in CK_FUNCTION_LIST, of which the first word is the version.
_LOGIN, _GET_ATTRIBUTE_VALUE = 19, 25
_FIND_OBJECTS_INIT, _FIND_OBJECTS_FINAL = 27, 29
_ENCRYPT_INIT, _ENCRYPT, _DECRYPT_INIT, _DECRYPT = 30, 31, 34, 35

_Bytes = ctypes.POINTER(ctypes.c_ubyte)
_Word = ctypes.c_ulong
_LOGIN_TYPE = ctypes.CFUNCTYPE(_Word, _Word, _Word, ctypes.c_void_p, _Word)
_INIT_TYPE = ctypes.CFUNCTYPE(_Word, _Word, ctypes.c_void_p, _Word)
_CRYPT_TYPE = ctypes.CFUNCTYPE(
    _Word, _Word, ctypes.c_void_p, _Word, ctypes.c_void_p, ctypes.POINTER(_Word)
)
_GET_TYPE = ctypes.CFUNCTYPE(_Word, _Word, _Word, ctypes.c_void_p, _Word)
_FIND_TYPE = ctypes.CFUNCTYPE(_Word, _Word, ctypes.c_void_p, _Word)
_END_TYPE = ctypes.CFUNCTYPE(_Word, _Word)


class _Mechanism(ctypes.Structure):
    _fields_ = (("mechanism", _Word), ("parameter", ctypes.c_void_p), ("length", _Word))


class _GcmParams(ctypes.Structure):
    _fields_ = (
        ("iv", ctypes.c_void_p),
        ("iv_length", _Word),
        ("iv_bits", _Word),
        ("aad", ctypes.c_char_p),
        ("aad_length", _Word),
        ("tag_bits", _Word),
    )


class _Attribute(ctypes.Structure):
    _fields_ = (("type", _Word), ("value", ctypes.c_void_p), ("length", _Word))


class NotAModuleError(Exception):
    """A file that cannot be loaded, or is no PKCS#11 module."""


class CallError(Exception):
    """A call returned something else than CKR_OK: the number, as `rv`."""

    def __init__(self, rv: int) -> None:
        super().__init__(f"0x{rv:x}")
        self.rv = rv


class Calls:
    """The calls of one module. Sessions, keys and objects are their handles."""

    def __init__(self, module: Path) -> None:
        try:
            library = ctypes.CDLL(str(module))
            get_function_list = library.C_GetFunctionList
        except OSError as cause:
            raise NotAModuleError(str(cause)) from cause
        except AttributeError as cause:
            raise NotAModuleError("it is a library, but has no C_GetFunctionList") from cause
        get_function_list.restype = _Word
        table = ctypes.POINTER(ctypes.c_void_p)()
        _check(get_function_list(ctypes.byref(table)))
        self._login = _LOGIN_TYPE(table[_LOGIN])
        self._get_attribute_value = _GET_TYPE(table[_GET_ATTRIBUTE_VALUE])
        self._find = _FIND_TYPE(table[_FIND_OBJECTS_INIT]), _END_TYPE(table[_FIND_OBJECTS_FINAL])
        self._encrypt = _INIT_TYPE(table[_ENCRYPT_INIT]), _CRYPT_TYPE(table[_ENCRYPT])
        self._decrypt = _INIT_TYPE(table[_DECRYPT_INIT]), _CRYPT_TYPE(table[_DECRYPT])

    def login(self, session: int, pin: bytearray, length: int) -> None:
        """Logs the user in with the first `length` bytes of `pin`."""
        _check(self._login(session, _USER, _address(pin), length))

    def check_search(self, session: int) -> None:
        """Begins a search for everything and ends it."""
        begin, end = self._find
        _check(begin(session, None, 0))
        _check(end(session))

    def encrypt(self, session: int, key: int, aad: bytes, plaintext: bytearray) -> bytes:
        """AES-GCM: nonce, ciphertext and tag. A token that makes its own nonces may."""
        nonce = bytearray(NONCE_SIZE)
        draw(nonce)
        sealed = bytearray(len(plaintext) + TAG_SIZE)
        self._crypt(self._encrypt, session, key, nonce, aad, plaintext, sealed)
        return bytes(nonce + sealed)

    def decrypt(self, session: int, key: int, aad: bytes, sealed: bytes, into: bytearray) -> None:
        """Undoes `encrypt`; `into` has the plaintext's length, and is wiped on failure."""
        nonce, ciphertext = bytearray(sealed[:NONCE_SIZE]), bytearray(sealed[NONCE_SIZE:])
        # Some modules want room for the tag as well.
        room = bytearray(len(ciphertext))
        try:
            self._crypt(self._decrypt, session, key, nonce, aad, ciphertext, room, len(into))
            # Not as a slice: that would make a copy on the way.
            ctypes.memmove(_address(into), _address(room), len(into))
        finally:
            wipe(room)

    def read_value(self, session: int, handle: int, into: bytearray) -> None:
        """Reads CKA_VALUE of an object that lets itself be read and is this long."""
        attribute = _Attribute(_VALUE, _address(into), len(into))
        try:
            _check(self._get_attribute_value(session, handle, ctypes.byref(attribute), 1))
            if attribute.length != len(into):
                raise CallError(0x150)  # CKR_BUFFER_TOO_SMALL is what a longer one gives
        except CallError:
            wipe(into)
            raise

    def _crypt(
        self,
        calls: tuple[Callable[..., int], Callable[..., int]],
        session: int,
        key: int,
        nonce: bytearray,
        aad: bytes,
        data: bytearray,
        into: bytearray,
        length: int | None = None,
    ) -> None:
        params = _GcmParams(
            _address(nonce), len(nonce), 8 * len(nonce), aad, len(aad), 8 * TAG_SIZE
        )
        mechanism = _Mechanism(
            _AES_GCM, ctypes.cast(ctypes.byref(params), ctypes.c_void_p), ctypes.sizeof(params)
        )
        init, run = calls
        _check(init(session, ctypes.byref(mechanism), key))
        written = _Word(len(into))
        _check(run(session, _address(data), len(data), _address(into), ctypes.byref(written)))
        if written.value != (len(into) if length is None else length):
            raise CallError(0x30)  # CKR_DEVICE_ERROR


def draw(buffer: bytearray) -> None:
    """Fills a buffer with the kernel's randomness, of which no copy stays anywhere."""
    with Path("/dev/urandom").open("rb", buffering=0) as source:
        if source.readinto(buffer) != len(buffer):
            raise OSError("the kernel's randomness has an end")


def wipe(buffer: bytearray) -> None:
    """Overwrites a buffer in place."""
    ctypes.memset(_address(buffer), 0, len(buffer))


def _address(buffer: bytearray) -> int:
    return ctypes.addressof(ctypes.c_ubyte.from_buffer(buffer)) if buffer else 0


def _check(rv: int) -> None:
    if rv:
        raise CallError(rv)
