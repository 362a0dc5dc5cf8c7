"""This device: its name, its keys (and those before), its bundle.

The identity file holds everything that is needed to use the keys but the passphrase (or
the hardware): the provider's header and blobs, and the sealed storage key under which the
file itself, the store's rows and the anchor are authenticated.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, replace
from pathlib import Path

from . import cose
from ._core import Secret
from .audit.checkpoint import NoteKey, Signer
from .bundle import MAX_BUNDLE_SIZE, Bundle, check_name, make_bundle, parse_bundle
from .errors import (
    InvalidBundleError,
    PolicyError,
    PqcIiotError,
    ProviderError,
    StateError,
    StateTamperedError,
)
from .folder import StateFolder, check_permissions
from .providers import (
    Custody,
    KeySet,
    PassphraseSource,
    SecurityProvider,
    SigningKey,
    open_provider,
)
from .suites import Suite

IDENTITY_FILE = "identity"
BUNDLE_FILE = "bundle"
"""The same public bundle again, for reading it without keys."""

_VERSION = 1
_MAX_SIZE = 131072


@dataclass(frozen=True, slots=True, eq=False)
class OwnKeys:
    """One key set of this device: usable keys, their bundle, and their stored blob."""

    keys: KeySet
    bundle: Bundle
    blob: bytes


@dataclass(frozen=True, slots=True, eq=False)
class Identity:
    """A device's keys, open for use. `previous` are the keys before the last rotation,
    with which frames are still opened, or None. `generation` grows with every change."""

    uri: str
    provider: SecurityProvider
    storage_key: Secret
    sealed_storage_key: bytes
    current: OwnKeys
    previous: OwnKeys | None = None
    generation: int = 1

    @classmethod
    def create(
        cls,
        folder: StateFolder,
        name: str,
        suite: Suite,
        uri: str,
        passphrase: PassphraseSource | None,
        custody: Custody,
        serial: int = 1,
    ) -> Identity:
        """Makes a new identity and writes it. `PolicyError` below `custody`."""
        identity = cls.make(name, suite, uri, passphrase, custody, serial)
        try:
            identity.write(folder)
        except BaseException:
            _undo(identity.provider)
            raise
        return identity

    @classmethod
    def make(
        cls,
        name: str,
        suite: Suite,
        uri: str,
        passphrase: PassphraseSource | None,
        custody: Custody,
        serial: int = 1,
        previous: tuple[Bundle, SigningKey] | None = None,
    ) -> Identity:
        """A new identity, not yet written, signed by the keys that it succeeds, if any.
        `PolicyError` below `custody`."""
        check_name(name)
        provider = open_provider(uri, None, passphrase)
        try:
            provider.require(suite, custody)
            storage_key = Secret.random(32)
            keys, blob = provider.generate(suite)
            own = OwnKeys(keys, make_bundle(name, keys, serial, previous), blob)
            sealed = provider.seal(_purpose(name, provider), storage_key)
            return cls(uri, provider, storage_key, sealed, own)
        except BaseException:
            _undo(provider)
            raise

    @classmethod
    def load(cls, folder: StateFolder, passphrase: PassphraseSource | None) -> Identity:
        """Opens the identity of a folder.

        `StateError` where there is none, `StateTamperedError` where it was changed,
        `WrongPassphraseError` and other `ProviderError`s from the provider.
        """
        data = folder.read(IDENTITY_FILE, _MAX_SIZE)
        if data is None:
            raise StateError(
                f"there is no device in {folder.path}",
                hint="put the identity file back from a backup, or make a new device in"
                " another folder: pqc-iiot init",
            )
        value, mac = data[:-32], data[-32:]
        try:
            parts = cose.loads(value, _MAX_SIZE, "the identity file", StateTamperedError)
        except StateTamperedError as cause:
            raise _tampered() from cause
        match parts:
            case [
                1,
                int(generation),
                str(uri),
                bytes(header),
                bytes(sealed),
                tuple(stored),
            ] if 1 <= len(stored) <= 2:
                pass
            case [int(version), *_] if version != _VERSION:
                raise StateError(
                    f"the identity file has version {version}, this program knows {_VERSION}",
                    hint="use the program that wrote it, or a newer one",
                )
            case _:
                raise _tampered()
        bundles = [_stored_bundle(entry) for entry in stored]
        provider = open_provider(uri, header, passphrase)
        try:
            storage_key = provider.unseal(_purpose(bundles[0].name, provider), sealed)
            if not storage_key.verify_mac(b"identity" + value, mac):
                raise _tampered()
            own = [
                _load_keys(provider, bundle, entry)
                for bundle, entry in zip(bundles, stored, strict=True)
            ]
        except BaseException:
            provider.close()
            raise
        if _public_copy(folder) != own[0].bundle.encoded:
            # Changed from outside, or `write` was interrupted.
            folder.write(BUNDLE_FILE, own[0].bundle.encoded)
        previous = own[1] if own[1:] else None
        return cls(uri, provider, storage_key, sealed, own[0], previous, generation)

    def write(self, folder: StateFolder) -> None:
        """Replaces the identity file and the public copy of the bundle."""
        stored = [[own.bundle.encoded, own.blob] for own in (self.current, self.previous) if own]
        value = cose.dumps(
            [
                _VERSION,
                self.generation,
                self.uri,
                self.provider.header,
                self.sealed_storage_key,
                stored,
            ]
        )
        folder.write(IDENTITY_FILE, value + self.storage_key.mac(b"identity" + value))
        if _public_copy(folder) != self.current.bundle.encoded:  # its age is the keys' age
            folder.write(BUNDLE_FILE, self.current.bundle.encoded)

    def rotated(self, suite: Suite, custody: Custody) -> Identity:
        """The same device with new keys, signed by the old ones; not yet written."""
        self.provider.require(suite, custody)
        keys, blob = self.provider.generate(suite)
        old = self.current
        bundle = make_bundle(old.bundle.name, keys, old.bundle.serial + 1, (old.bundle, old.keys))
        return self._changed(OwnKeys(keys, bundle, blob), old)

    def retired(self) -> Identity:
        """The same device without the keys before the last rotation; not yet written."""
        return self._changed(self.current, None)

    def discard(self, own: OwnKeys | None) -> None:
        """Lets the hardware forget keys that are no longer in the identity file. Where it
        cannot now, they stay in it, unused."""
        if own is not None:
            with contextlib.suppress(ProviderError):
                self.provider.discard(own.bundle.suite, own.blob)

    def _changed(self, current: OwnKeys, previous: OwnKeys | None) -> Identity:
        generation = self.generation + 1
        return replace(self, current=current, previous=previous, generation=generation)

    @property
    def name(self) -> str:
        """The device's name."""
        return self.current.bundle.name

    @property
    def fingerprint(self) -> bytes:
        """Of the current key set; 32 bytes."""
        return self.current.bundle.fingerprint

    def own_keys(self, kid: bytes) -> OwnKeys | None:
        """The key set, current or previous, with this key id."""
        if self.current.bundle.kid == kid:
            return self.current
        if self.previous is not None and self.previous.bundle.kid == kid:
            return self.previous
        return None

    def derive(self, purpose: bytes) -> Secret:
        """A key for one purpose from the storage key."""
        return self.storage_key.derive(b"pqc-iiot " + purpose)

    def close(self) -> None:
        """Lets go of the provider; the keys go with the last reference to them."""
        self.provider.close()


def _undo(provider: SecurityProvider) -> None:
    """Leaves nothing behind of a device that never was."""
    with contextlib.suppress(ProviderError):
        provider.erase()
    provider.close()


def note_key(bundle: Bundle) -> NoteKey:
    """The signature key of a bundle, as checkpoints of audit logs name it."""
    return NoteKey(bundle.name, bundle.suite.sig.id, bundle.sig_public_key)


def note_signer(own: OwnKeys) -> Signer:
    """What signs checkpoints of audit logs with these keys."""
    return Signer(note_key(own.bundle), own.keys.sign)


def public_name(folder: StateFolder) -> str:
    """The name in the public copy of the bundle, to label a log before the keys are open;
    empty where there is none."""
    try:
        return parse_bundle(_public_copy(folder)).name
    except PqcIiotError:
        return ""


def _public_copy(folder: StateFolder) -> bytes:
    try:
        return folder.read(BUNDLE_FILE, MAX_BUNDLE_SIZE) or b""
    except StateError:
        return b""


def public_bundle(path: str | os.PathLike[str]) -> Bundle:
    """The public bundle of the device in a folder, without its keys and also while a
    process owns it. `UnsafePermissionsError` where others could have put another there,
    `StateError` where there is none."""
    check_permissions(Path(path))
    try:
        with Path(path, BUNDLE_FILE).open("rb") as file:
            return parse_bundle(file.read(MAX_BUNDLE_SIZE + 1))
    except (OSError, InvalidBundleError) as cause:
        reason = cause.strerror if isinstance(cause, OSError) else cause
        raise StateError(
            f"the public bundle in {path} cannot be read: {reason}",
            hint="any command that opens the device writes it again, such as: pqc-iiot status",
        ) from cause


def _purpose(name: str, provider: SecurityProvider) -> bytes:
    """What the storage key is sealed to: this device's name, and the counter that its store
    is kept with."""
    counter = provider.counter()
    return cose.dumps(["storage key", name, counter.name if counter else b""])


def _stored_bundle(entry: object) -> Bundle:
    match entry:
        case [bytes(encoded), bytes()]:
            try:
                return parse_bundle(encoded)
            except (InvalidBundleError, PolicyError) as cause:
                raise _tampered() from cause
    raise _tampered()


def _load_keys(provider: SecurityProvider, bundle: Bundle, entry: object) -> OwnKeys:
    match entry:
        case [bytes(), bytes(blob)]:
            keys = provider.load(bundle.suite, blob)
            if (keys.kem_public_key, keys.sig_public_key) != (
                bundle.kem_public_key,
                bundle.sig_public_key,
            ):
                raise ProviderError("the keys that were loaded are not those of the bundle")
            return OwnKeys(keys, bundle, blob)
        case _:
            raise _tampered()


def _tampered() -> StateTamperedError:
    return StateTamperedError(
        "the identity file is damaged or was changed", hint="put it back from a backup"
    )
