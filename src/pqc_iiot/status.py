"""What a device says of itself: public facts and counters, no secret."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ._core import memory_stats
from .audit import AuditStats
from .backup import backup_age
from .identity import BUNDLE_FILE
from .place import is_copy
from .presence import is_cloned
from .providers import Custody, Operation
from .queues import QueueStatus
from .sessions import SessionStatus
from .state import State
from .store import StoreStats

if TYPE_CHECKING:
    from .audit.sinks import SinkStatus


@dataclass(frozen=True, slots=True)
class MemoryStatus:
    """Secret memory of this process: bytes locked, bytes not, refusals by the system."""

    locked: int
    unlocked: int
    lock_failures: int


@dataclass(frozen=True, slots=True)
class Status:
    """One device now. `custody` is the weaker of the two keys' custodies,
    `rollback_protected` whether a counter in hardware would tell that the whole folder was
    put back, `numbers_reserved` the upper edge of the numbers given out, `key_age` the
    seconds since the current keys were made (by the age of the bundle's file). `copied`
    tells that the folder became a copy under the current keys, `cloned` that these were seen
    in use elsewhere, `backup` whether the last one
    is `current` or `outdated` (by keys, policy or allow-list), or that there is `none`.
    """

    name: str
    fingerprint: str
    suite: int
    suite_name: str
    serial: int
    key_age: int
    previous_keys: bool
    provider: str
    custody: str
    kem_custody: str
    sig_custody: str
    assurance: str
    rollback_protected: bool
    trust: str
    suites_allowed: str
    peers: int
    pending: int
    epoch: int
    numbers_reserved: int
    store: StoreStats
    queues: QueueStatus
    memory: MemoryStatus
    audit: AuditStats
    sessions: SessionStatus
    sinks: tuple[SinkStatus, ...] = ()
    copied: bool = False
    cloned: bool = False
    backup: str = "none"


@dataclass(frozen=True, slots=True)
class HeldKey:
    """One private key of this device and how it is held. `key` is `current` or `previous`,
    `use` is `kem` or `sig`, `performed` whether hardware performs it or a half of it."""

    key: str
    suite: int
    use: str
    algorithm: str
    custody: str
    performed: bool
    assurance: str
    evidence: str


def held_keys(state: State) -> tuple[HeldKey, ...]:
    """How each key is held, with the evidence that its provider found by running."""
    identity, found = state.identity, []
    capabilities = identity.provider.capabilities()
    for key, own in (("current", identity.current), ("previous", identity.previous)):
        if own is None:
            continue
        keys, suite = own.keys, own.bundle.suite
        for use, operation, algorithm, custody in (
            ("kem", Operation.DECRYPT, suite.kem.name, keys.kem_custody),
            ("sig", Operation.SIGN, suite.sig.name, keys.sig_custody),
        ):
            evidence = [
                row.evidence
                for row in capabilities
                if (row.operation, row.algorithm, row.custody) == (operation, algorithm, custody)
            ]
            found.append(
                HeldKey(
                    key,
                    suite.id,
                    use,
                    algorithm,
                    custody.name.lower(),
                    custody >= Custody.SPLIT,
                    identity.provider.assurance.name.lower(),
                    "; ".join(evidence) or "none: the provider cannot do this now",
                )
            )
    return tuple(found)


def status_of(state: State, sessions: SessionStatus) -> Status:
    """The status of an open state."""
    bundle = state.identity.current.bundle
    policy = state.keystore.policy
    peers, pending = state.keystore.counts()
    return Status(
        name=bundle.name,
        fingerprint=bundle.fingerprint.hex(),
        suite=bundle.suite.id,
        suite_name=bundle.suite.name,
        serial=bundle.serial,
        key_age=_age(state.folder.path / BUNDLE_FILE),
        previous_keys=state.identity.previous is not None,
        provider=state.identity.uri,
        custody=state.identity.current.keys.custody.name,
        kem_custody=state.identity.current.keys.kem_custody.name,
        sig_custody=state.identity.current.keys.sig_custody.name,
        assurance=state.identity.provider.assurance.name,
        rollback_protected=state.freshness.rollback_protected,
        trust=policy.trust.value,
        suites_allowed=policy.suites,
        peers=peers,
        pending=pending,
        epoch=state.freshness.mark.epoch,
        numbers_reserved=state.freshness.mark.edge,
        store=state.store.stats(),
        queues=state.queues.status(),
        memory=MemoryStatus(*memory_stats()),
        audit=state.audit.stats(),
        sinks=state.sinks.status() if state.sinks is not None else (),
        sessions=sessions,
        copied=is_copy(state.store, state.identity.generation),
        cloned=is_cloned(state.store, bundle),
        backup=backup_age(state),
    )


def _age(file: Path) -> int:
    try:
        return max(0, int(time.time() - file.stat().st_mtime))
    except OSError:
        return 0
