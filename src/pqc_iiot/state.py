"""The state of an open device: folder, log, keys, store, allow-list and numbers; and what
changes it as a whole."""

from __future__ import annotations

import os
import weakref
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from .account import account
from .audit import AuditLog
from .bundle import Bundle
from .errors import CustodyTooLowError
from .folder import StateFolder
from .freshness import Freshness
from .identity import Identity, note_key, note_signer
from .keystore import Keystore
from .policy import Policy
from .queues import Queues
from .store import META, Row, Store
from .suites import get_suite
from .trail import AUDIT_FILE, emit_key_event, read_settings

if TYPE_CHECKING:
    from .audit.sinks import Sinks

STORE_FILE = "state.db"
DEFAULT_STORE = f"sqlite:{STORE_FILE}"
MEMORY = "memory:"
POLICY, GENERATION = b"policy", b"generation"
"""The keys of these rows of `META`."""


@dataclass(frozen=True, eq=False)
class State:
    """Everything of an open device."""

    folder: StateFolder
    audit: AuditLog
    identity: Identity
    store: Store
    keystore: Keystore
    freshness: Freshness
    queues: Queues
    sinks: Sinks | None = None

    def __post_init__(self) -> None:
        _open_states.add(self)

    def abandon(self) -> None:
        """In a forked child: folder and store are the parent's."""
        self.folder.close()
        self.queues.abandon()
        self.store.abandon()

    def close(self) -> None:
        """Ends cleanly: numbers and log are durable, the folder is free."""
        try:
            self.queues.close()
            self.freshness.close()
        finally:
            self.store.close()
            self.audit.emit("stopped")
            self.audit.close()  # signs a last checkpoint
            self.identity.close()
            self.folder.close()


_open_states: weakref.WeakSet[State] = weakref.WeakSet()


def _abandon_all() -> None:
    for state in list(_open_states):
        state.abandon()


os.register_at_fork(after_in_child=_abandon_all)


def rotate_keys(state: State, suite_id: int | None) -> State:
    """The same state with new keys, signed by the current ones, written."""
    policy, old = state.keystore.policy, state.identity
    suite = get_suite(suite_id) if suite_id is not None else old.current.bundle.suite
    policy.require_suite(suite)
    identity = old.rotated(suite, policy.min_custody)
    identity.write(state.folder)
    store_generation(state.store, identity)
    identity.discard(old.previous)
    predecessor = old.fingerprint.hex()
    emit_key_event(
        state.audit, "key_rotated", identity, predecessor=predecessor, operator=account()
    )
    state.audit.sign_with(note_signer(identity.current), [note_key(old.current.bundle)])
    state.keystore.own = identity.fingerprint
    state.keystore.own_bundles = own_bundles(identity)
    return replace(state, identity=identity)


def retire_keys(state: State) -> State:
    """The same state without the keys before the last rotation, written."""
    retired, identity = state.identity.previous, state.identity.retired()
    identity.write(state.folder)
    store_generation(state.store, identity)
    identity.discard(retired)
    return replace(state, identity=identity)


def store_policy(state: State, policy: Policy) -> None:
    """Makes a policy durable and lets it be heard of. `PolicyError` where the device's own
    keys are not in the custody that it demands."""
    old = state.keystore.policy
    require_custody(state.identity, policy)
    with state.store.transaction():
        state.store.put(META, Row(POLICY, policy.encode()))
    state.keystore.policy = policy
    for setting in old.__slots__:
        before, after = getattr(old, setting), getattr(policy, setting)
        if before != after:
            state.audit.emit(
                "policy_changed",
                setting=setting,
                old=str(before),
                new=str(after),
                operator=account(),
            )


def reload_sinks(state: State) -> Sinks:
    """The sinks that `audit.json` has now, in place of the state's. Errors as `open_log`."""
    from .audit.sinks import AuditSettings, Sinks

    settings = read_settings(state.folder) or AuditSettings()
    if state.sinks is not None:
        state.sinks.close()
    path = state.folder.path / AUDIT_FILE
    return Sinks(settings, state.audit, path, state.folder.path)


def store_generation(store: Store, identity: Identity) -> None:
    """Has the store know the newest identity file: an older one is refused from now on."""
    with store.transaction():
        store.put(META, Row(GENERATION, identity.generation.to_bytes(8, "big")))


def own_bundles(identity: Identity) -> tuple[Bundle, ...]:
    """Those of the current keys, and of the ones before while they still open."""
    return tuple(own.bundle for own in (identity.current, identity.previous) if own)


def require_custody(identity: Identity, policy: Policy) -> None:
    """`CustodyTooLowError` unless the current keys are held as policy demands."""
    custody = identity.current.keys.custody
    if custody < policy.min_custody:
        raise CustodyTooLowError(
            f"the keys are in custody {custody.name}, policy demands {policy.min_custody.name}",
            hint="make the device with another provider: pqc-iiot init --provider",
        )
