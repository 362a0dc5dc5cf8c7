"""How a device's state comes to be: created, loaded, recovered, or put in place from a backup."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

from .account import account
from .anchor import Anchor
from .audit import AuditLog
from .audit.clock import clock_state
from .bundle import Bundle
from .errors import PqcIiotError, StateError, StateRollbackError, UnsafePermissionsError
from .folder import StateFolder
from .freshness import Freshness
from .identity import Identity, OwnKeys, note_key, note_signer, public_name
from .keystore import Keystore
from .place import check_place
from .policy import Policy
from .providers import Counter, PassphraseSource
from .queues import Queues
from .state import (
    DEFAULT_STORE,
    GENERATION,
    MEMORY,
    POLICY,
    STORE_FILE,
    State,
    own_bundles,
    require_custody,
    store_generation,
)
from .store import META, Row, Store, open_store
from .store.journal import Journal, segments
from .suites import get_suite
from .trail import (
    AUDIT_FILE,
    emit_failure,
    emit_key_event,
    emit_permissions,
    open_log,
    run_self_test,
    trust_listener,
    warn_of_lock_limit,
)

if TYPE_CHECKING:
    from .audit.sinks import Sinks


def create_state(
    path: str | os.PathLike[str],
    name: str,
    suite_id: int,
    uri: str,
    policy: Policy,
    passphrase: PassphraseSource | None,
    store_url: str = DEFAULT_STORE,
) -> State:
    """Makes a device's state folder; see `Node.create`."""
    suite = get_suite(suite_id)
    policy.require_suite(suite)
    folder = StateFolder(path, create=True)
    with _begun(folder, name) as (audit, _):
        identity = Identity.create(folder, name, suite, uri, passphrase, policy.min_custody)
        with _closed_on_failure(identity):
            emit_key_event(audit, "key_made", identity, operator=account())
            store = _new_store(folder, identity, policy, store_url)
            return _assemble(folder, audit, identity, store, store_url)


def load_state(
    path: str | os.PathLike[str],
    passphrase: PassphraseSource | None,
    store_url: str = DEFAULT_STORE,
) -> State:
    """Opens a device's state folder; see `Node.load`."""
    folder = _enter(path)
    with _begun(folder) as (audit, sinks):
        identity = Identity.load(folder, passphrase)
        with _closed_on_failure(identity):
            emit_key_event(audit, "key_loaded", identity)
            store = _open_store(folder, identity, store_url, create=False)
            return _assemble(folder, audit, identity, store, store_url, sinks)


def recover_state(
    path: str | os.PathLike[str],
    passphrase: PassphraseSource | None,
    store_url: str = DEFAULT_STORE,
) -> State:
    """New keys and an empty store for a device whose state is not to be trusted."""
    folder = _enter(path)
    with _begun(folder) as (audit, sinks):
        old = Identity.load(folder, passphrase)
        with _closed_on_failure(old):
            identity = old.rotated(old.current.bundle.suite, old.current.keys.custody)
            # Without the old keys: what was seen under them is unknown.
            identity = identity.retired()
            policy = _surviving_policy(folder, old, store_url)
            _set_aside(folder)
            identity.write(folder)
            store = _new_store(folder, identity, policy, store_url)
            identity.discard(old.current)
            identity.discard(old.previous)
            emit_key_event(audit, "key_made", identity, operator=account())
            audit.emit("state_recovered", path=str(folder.path), operator=account())
            return _assemble(folder, audit, identity, store, store_url, sinks, before=old.current)


def put_state(
    path: str | os.PathLike[str],
    identity: Identity,
    policy: Policy,
    rows: Iterable[tuple[str, Row]],
    edge: int,
    before: Bundle,
) -> State:
    """Makes the folder of a device that is restored: its rows, its numbers above `edge`,
    and the bundle `before` of the keys that its new ones succeed.

    The identity file comes last: a restoration cut short leaves no device.
    """
    folder = StateFolder(path, create=True)
    with _begun(folder, identity.name) as (audit, _):
        store = _new_store(folder, identity, policy, DEFAULT_STORE, edge)
        try:
            with store.transaction():
                for table, row in rows:
                    store.put(table, row)
            identity.write(folder)
        except BaseException:
            store.close()
            raise
        emit_key_event(audit, "key_made", identity, operator=account())
        predecessor = before.fingerprint.hex()
        audit.emit(
            "state_restored", path=str(folder.path), predecessor=predecessor, operator=account()
        )
        return _assemble(folder, audit, identity, store, DEFAULT_STORE)


def _enter(path: str | os.PathLike[str]) -> StateFolder:
    try:
        return StateFolder(path)
    except UnsafePermissionsError as error:
        emit_permissions(path, AUDIT_FILE, error)
        raise


@contextlib.contextmanager
def _begun(folder: StateFolder, name: str = "") -> Iterator[tuple[AuditLog, Sinks | None]]:
    """Its log is open, and the self-test has passed; all of it is closed where what is done
    inside fails. `name` is the device's, where the folder does not say it yet."""
    with _closed_on_failure(folder), _open_log(folder, name or public_name(folder)) as opened:
        run_self_test(opened[0])
        yield opened


@contextlib.contextmanager
def _closed_on_failure(opened: StateFolder | Identity) -> Iterator[None]:
    try:
        yield
    except BaseException:
        opened.close()
        raise


@contextlib.contextmanager
def _open_log(folder: StateFolder, name: str) -> Iterator[tuple[AuditLog, Sinks | None]]:
    """The log, which stays open unless what is done inside fails; then it says so."""
    audit, sinks = open_log(folder, name)
    try:
        yield audit, sinks
    except BaseException as error:
        if isinstance(error, PqcIiotError):
            emit_failure(audit, error, folder.path)
        audit.close()
        raise


def _new_store(
    folder: StateFolder, identity: Identity, policy: Policy, url: str, edge: int = 0
) -> Store:
    store = _open_store(folder, identity, url, create=True)
    try:
        anchor, counter = _anchor(folder, identity, url), _counter(identity, url)
        Freshness.initialise(store, anchor, counter, edge)
        with store.transaction():
            store.put(META, Row(POLICY, policy.encode()))
        store_generation(store, identity)
    except BaseException:
        store.close()
        raise
    return store


def _surviving_policy(folder: StateFolder, identity: Identity, url: str) -> Policy:
    """The policy in a store that is otherwise not to be trusted, if its row is authentic:
    an operator set it, now or earlier. The default where it cannot be read."""
    try:
        store = _open_store(folder, identity, url, create=False)
    except StateError:
        return Policy()
    try:
        return _load_policy(store)
    except StateError:
        return Policy()
    finally:
        store.close()


def _set_aside(folder: StateFolder) -> None:
    for segment in segments(folder.path):
        folder.set_aside(segment.name)
    for suffix in ("", "-wal", "-shm"):
        folder.set_aside(STORE_FILE, suffix)


def _assemble(
    folder: StateFolder,
    audit: AuditLog,
    identity: Identity,
    store: Store,
    url: str,
    sinks: Sinks | None = None,
    *,
    before: OwnKeys | None = None,
) -> State:
    """`before` are the keys that this device had until now, if these are new ones."""
    from importlib.metadata import version  # slow to import

    try:
        _check_generation(store, identity)
        policy = _load_policy(store)
        require_custody(identity, policy)
        warn_of_lock_limit(audit)
        keystore = Keystore(store, policy, identity.fingerprint, trust_listener(audit))
        keystore.own_bundles = own_bundles(identity)
        # First: a folder that is refused for its age stays as it is.
        anchor, counter = _anchor(folder, identity, url), _counter(identity, url)
        freshness = Freshness(store, anchor, counter, block=policy.sequence_block)
        _check_place(folder, audit, identity, store, url)
        queues = Queues(_journal(folder, identity, store, url), freshness)
    except BaseException:
        store.close()
        raise
    audit.emit(
        "started",
        version=version("pqc-iiot"),
        fingerprint=identity.fingerprint.hex(),
        suite=identity.current.bundle.suite.id,
        serial=identity.current.bundle.serial,
        provider=identity.provider.scheme,
        **asdict(clock_state()),
    )
    before = before or identity.previous
    known = [note_key(before.bundle)] if before else []
    audit.sign_with(note_signer(identity.current), known)
    return State(folder, audit, identity, store, keystore, freshness, queues, sinks)


def _open_store(folder: StateFolder, identity: Identity, url: str, *, create: bool) -> Store:
    return open_store(url, folder.path, identity.derive(b"store"), create=create)


def _journal(folder: StateFolder, identity: Identity, store: Store, url: str) -> Journal:
    return Journal(None if url == MEMORY else folder.path, identity.derive(b"journal"), store)


def _anchor(folder: StateFolder, identity: Identity, url: str) -> Anchor | None:
    # A store that keeps nothing has nothing to be behind of.
    return None if url == MEMORY else Anchor(folder, identity.derive(b"anchor"))


def _counter(identity: Identity, url: str) -> Counter | None:
    """The provider's, if it protects against what the anchor cannot."""
    counter = None if url == MEMORY else identity.provider.counter()
    return counter if counter and counter.rollback_protected else None


def _check_generation(store: Store, identity: Identity) -> None:
    """The identity file is written before the store hears of it, so it is never older."""
    row = store.get(META, GENERATION)
    stored = int.from_bytes(row.value, "big") if row else 0
    if identity.generation < stored:
        raise StateRollbackError(
            "the identity file is older than this device's last keys: it was restored from a copy",
            hint="put the newest one back, or make new keys with: pqc-iiot recover",
        )
    if identity.generation > stored:
        store_generation(store, identity)


def _check_place(
    folder: StateFolder, audit: AuditLog, identity: Identity, store: Store, url: str
) -> None:
    if url != DEFAULT_STORE:  # One that keeps nothing, or that an operator placed.
        return
    file, key = folder.path / STORE_FILE, identity.derive(b"place")
    if check_place(store, file, key, identity.generation):
        audit.emit("state_copied", path=str(folder.path))


def _load_policy(store: Store) -> Policy:
    row = store.get(META, POLICY)
    if row is None:
        raise StateError("the policy is missing", hint="pqc-iiot recover")
    return Policy.decode(row.value)
