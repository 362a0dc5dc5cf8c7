"""The key-encryption key of a device, which only the token opens.

An AES-256 key that cannot leave the token encrypts it (AES-GCM, bound to its purpose). It
is drawn, told to the token and moved into locked memory in one buffer that is wiped; the
same on its way back. So a copy of the disk is useless without the token, and whoever reads
this process's memory while it runs has what the token sealed: custody `SEALED`.
"""

from __future__ import annotations

from pkcs11 import ObjectClass

from .._core import Secret
from .pkcs11_calls import NONCE_SIZE, TAG_SIZE, CallError, draw, wipe
from .pkcs11_errors import changed, is_lost_for_sure
from .pkcs11_objects import make_aes_key, probe_kept
from .pkcs11_token import Live, Token, handle_of

KEK_SIZE = 32
SEALED_SIZE = NONCE_SIZE + KEK_SIZE + TAG_SIZE

_PURPOSE = b"pqc-iiot key-encryption key v1"


def make_kek(token: Token) -> tuple[Secret, bytes, bytes]:
    """A new key-encryption key, the id of the token's key, and what that key made of it."""
    kek = bytearray(KEK_SIZE)

    def make(live: Live) -> tuple[bytes, bytes]:
        draw(kek)
        key, key_id = make_aes_key(live)
        try:
            probe_kept(key)
            sealed = live.calls.encrypt(live.handle, handle_of(key), _PURPOSE, kek)
        except BaseException:
            key.destroy()
            raise
        return key_id, sealed

    try:
        key_id, sealed = token.run(make)
        return Secret.take(kek), key_id, sealed
    finally:
        wipe(kek)


def open_kek(token: Token, key_id: bytes, sealed: bytes) -> Secret:
    """Undoes `make_kek`. `KeyNotFoundError` where the token has no such key,
    `IntegrityFailedError` where it is another or `sealed` was changed."""
    kek = bytearray(KEK_SIZE)

    def decrypt(live: Live) -> None:
        key = live.find(ObjectClass.SECRET_KEY, key_id)
        probe_kept(key)
        try:
            live.calls.decrypt(live.handle, handle_of(key), _PURPOSE, sealed, kek)
        except CallError as cause:
            if is_lost_for_sure(cause):
                raise
            raise changed(str(token.uri), cause) from cause

    try:
        token.run(decrypt)
        return Secret.take(kek)
    finally:
        wipe(kek)
