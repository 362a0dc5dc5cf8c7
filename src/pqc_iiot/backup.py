"""An encrypted backup of who a device is and whom it trusts, safe to restore.

A copy of a state folder is not: its numbers would be given out again, and what it has not
seen would be accepted again. So a backup holds no key that opens a frame. It holds the
bundle, the signature key (only to sign the bundle of new keys with it), the policy, the
allow-list with the last numbers, and what is known of peers' logs. A restored device has
new keys: no frame that went to the old ones means anything to it, and no number that it
gives out was ever used with them. Its numbers start above any that the device can have
used, so that not even a name and a number together come twice. See
docs/decisions/0018-backups-hold-no-decryption-key.md.

The file, in CBOR: the words `pqc-iiot backup`, the version, the header of a `software:`
provider (salt and costs of Argon2id), a random key sealed by it, and the content, encrypted
under that key with everything in front of it as associated data.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from . import cose
from ._core import Secret
from .account import account
from .bundle import Bundle, parse_bundle
from .errors import (
    AuthenticationError,
    InvalidBundleError,
    InvalidInputError,
    PolicyError,
    ProviderError,
    WrongPassphraseError,
)
from .freshness import MAX_SEQUENCE
from .identity import Identity
from .policy import Policy
from .providers import PassphraseSource, SecurityProvider, SigningKey, open_provider
from .starting import put_state
from .state import State
from .store import META, PEERS, SEEN, Row, Store
from .suites import Suite
from .witness import PEER_LOGS

MAX_BACKUP_SIZE = 1 << 29
"""Bytes; a peer takes about 2.5 kB."""

JUMP = 1 << 48
"""Numbers left out by a restored device: at 10 million a second, a year."""

_MAGIC, _VERSION = "pqc-iiot backup", 1
_PURPOSE = b"backup"
_SIGNATURE_KEY = b"pqc-iiot backup signature key"
_ROW = b"backup"
_TABLES = (META, PEERS, SEEN)


@dataclass(frozen=True, slots=True)
class _Content:
    bundle: Bundle
    signer: tuple[object, ...]
    policy: Policy
    edge: int
    rows: tuple[tuple[str, Row], ...]


@dataclass(frozen=True, slots=True)
class _Signer:
    suite: Suite
    sign: Callable[[bytes], bytes]


def make_backup(state: State, passphrase: PassphraseSource | None) -> bytes:
    """See `Node.backup`; at most `MAX_BACKUP_SIZE` bytes.

    Keys in hardware stay there: then the backup holds what the hardware sealed, and is
    restored beside the same hardware only. `ProviderError` without a passphrase.
    """
    protection, key = _protection(None, passphrase), Secret.random(32)
    front = [_MAGIC, _VERSION, protection.header, protection.seal(_PURPOSE, key)]
    protection.close()
    rows = [(table, row) for table in _TABLES for row in _kept(state.store, table)]
    content = [
        state.identity.current.bundle.encoded,
        _signer_of(state.identity, key),
        state.keystore.policy.encode(),
        state.freshness.mark.edge,
        [[_TABLES.index(table), row.key, row.value, row.kid, row.name] for table, row in rows],
    ]
    data = cose.dumps([*front, key.encrypt(cose.dumps(front), cose.dumps(content))])
    if len(data) > MAX_BACKUP_SIZE:
        raise InvalidInputError(f"the backup would have {len(data)} bytes, too many")
    with state.store.transaction():
        state.store.put(META, Row(_ROW, _digest(state)))
    state.audit.emit("backup_made", operator=account())
    return data


def restore_backup(
    path: str | os.PathLike[str],
    data: bytes,
    backup_passphrase: PassphraseSource | None,
    provider: str,
    passphrase: PassphraseSource | None,
) -> State:
    """See `Node.restore`."""
    protection, content, key = _open(data, backup_passphrase)
    old = content.bundle
    previous = old, _signer(content, key, passphrase)
    identity = Identity.make(
        old.name,
        old.suite,
        provider,
        passphrase,
        content.policy.min_custody,
        old.serial + 1,
        previous,
    )
    protection.close()
    edge = content.edge + JUMP
    if edge >= MAX_SEQUENCE:
        raise InvalidInputError(
            "no sequence numbers are left above those of the backup",
            hint="make a new device: pqc-iiot init",
        )
    return put_state(path, identity, content.policy, content.rows, edge, old)


def backup_age(state: State) -> str:
    """Whether the last backup still holds what would be lost: `none` was ever made, `current`,
    or `outdated`: since then keys, policy or the allow-list were changed."""
    row = state.store.get(META, _ROW)
    if row is None:
        return "none"
    return "current" if row.value == _digest(state) else "outdated"


def _digest(state: State) -> bytes:
    """Of what a backup is for. Not of numbers: they change with every message."""
    what = state.identity.fingerprint + state.keystore.policy.encode() + state.store.version(PEERS)
    return hashlib.sha256(what).digest()


def _kept(store: Store, table: str) -> Iterable[Row]:
    rows = store.rows(table)
    return (row for row in rows if table != META or row.key.startswith(PEER_LOGS))


def _protection(header: bytes | None, passphrase: PassphraseSource | None) -> SecurityProvider:
    return open_provider("software:", header, passphrase)


def _signer_of(identity: Identity, key: Secret) -> list[object]:
    own = identity.current
    try:
        return [own.keys.wrap_signature_key(key, _SIGNATURE_KEY)]
    except PolicyError:
        return [identity.uri, identity.provider.header, own.blob]


def _signer(content: _Content, key: Secret, passphrase: PassphraseSource | None) -> SigningKey:
    suite = content.bundle.suite
    match content.signer:
        case [bytes(wrapped)]:
            private = key.unwrap_sig(_SIGNATURE_KEY, suite.sig.id, wrapped)
            public, sign = private.public_key, private.sign
        case [str(uri), bytes(header), bytes(blob)]:
            keys = open_provider(uri, header, passphrase).load(suite, blob)
            public, sign = keys.sig_public_key, keys.sign
        case _:
            raise _no_backup()
    if public != content.bundle.sig_public_key:
        raise ProviderError("the signature key in the backup is not that of its bundle")
    return _Signer(suite, sign)


def _open(
    data: bytes, passphrase: PassphraseSource | None
) -> tuple[SecurityProvider, _Content, Secret]:
    match cose.loads(data, MAX_BACKUP_SIZE, "the backup", InvalidInputError):
        case ["pqc-iiot backup", 1, bytes(header), bytes(sealed), bytes(encrypted)]:
            pass
        case ["pqc-iiot backup", int(version), *_] if version != _VERSION:
            raise InvalidInputError(
                f"the backup has version {version}, this program knows {_VERSION}",
                hint="use the program that wrote it, or a newer one",
            )
        case _:
            raise _no_backup()
    protection = _protection(header, passphrase)
    try:
        key = protection.unseal(_PURPOSE, sealed)
        front = cose.dumps([_MAGIC, _VERSION, header, sealed])
        plain = key.decrypt(front, encrypted)
    except (WrongPassphraseError, AuthenticationError, InvalidInputError) as cause:
        raise WrongPassphraseError(
            "the backup does not open with this passphrase",
            hint="check the passphrase; if it is right, the file is damaged",
        ) from cause
    return protection, _parse(plain), key


def _parse(plain: bytes) -> _Content:
    match cose.loads(plain, MAX_BACKUP_SIZE, "the backup", InvalidInputError):
        case [bytes(encoded), tuple(signer), bytes(policy), int(edge), tuple(rows)] if edge >= 0:
            try:
                bundle = parse_bundle(encoded)
            except InvalidBundleError as cause:
                raise _no_backup() from cause
            rows = tuple(map(_row, rows))
            return _Content(bundle, signer, Policy.decode(policy), edge, rows)
    raise _no_backup()


def _row(entry: object) -> tuple[str, Row]:
    match entry:
        case [int(table), bytes(key), bytes(value), bytes(kid), str(name)] if 0 <= table < 3:
            return _TABLES[table], Row(key, value, kid, name)
    raise _no_backup()


def _no_backup() -> InvalidInputError:
    return InvalidInputError("this is no backup of a device")
