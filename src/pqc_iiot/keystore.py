"""Which peers are trusted, and with which keys. Nothing here touches the network.

The rules, in order, for a bundle that arrives (`add`):
 1. its own signature verified (a `Bundle` exists only then), its suite allowed;
 2. keys that were revoked stay refused, and so do their successors;
 3. keys that are known already change nothing;
 4. a name in use by other keys: their signed successor with a higher serial replaces
    them (the old keys stay valid for an overlap), anything else is refused, always;
 5. otherwise strict policy lets it wait; TOFU pins it, up to so many.
Names here are ours: a peer may be approved under another name than its bundle's, so a
successor is known by the keys that it names as the ones before.
"""

from __future__ import annotations

import enum
import warnings
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from . import cose
from ._core import KemPublicKey, SigPublicKey
from .bundle import (
    Bundle,
    check_name,
    endorsed_by,
    format_fingerprint,
    parse_bundle,
    parse_fingerprint,
)
from .errors import (
    ClonedIdentityError,
    InvalidInputError,
    PeerKeyChangedError,
    RevokedPeerError,
    StateTamperedError,
    UnknownPeerError,
)
from .policy import Policy, Trust
from .store import PEERS, PENDING, Row, Store

_CACHE = 4096


class TofuWarning(UserWarning):
    """A key was trusted on first use: nobody compared its fingerprint."""


class PeerState(enum.Enum):
    """What a peer's key set is to this device."""

    APPROVED = "approved"
    PINNED = "pinned"
    SUPERSEDED = "superseded"
    REVOKED = "revoked"


_STATES = frozenset(state.value for state in PeerState)


@dataclass(frozen=True, slots=True, eq=False)
class Peer:
    """A key set of the allow-list. `name` is ours for it; `successor` is the fingerprint
    of the key set that replaced it, or empty."""

    name: str
    state: PeerState
    bundle: Bundle
    sig_key: SigPublicKey
    kem_key: KemPublicKey
    successor: bytes = b""

    @property
    def fingerprint(self) -> bytes:
        """32 bytes."""
        return self.bundle.fingerprint


Listener = Callable[[str, Peer | Bundle, str], None]
"""Hears what became of whom: waiting, seen (and waiting already), evicted, added, approved,
pinned, rotated or revoked; and by which transport a bundle came that caused it."""


class Keystore:
    """The allow-list and the pending list. Not thread-safe: the node takes turns."""

    def __init__(self, store: Store, policy: Policy, own: bytes, listener: Listener) -> None:
        self._store, self.policy, self.own, self._listener = store, policy, own, listener
        self.own_bundles: tuple[Bundle, ...] = ()
        """This device's current bundle, and the one before where its keys are still kept."""
        self._transport = ""
        self._states: tuple[int, Counter[str]] | None = None
        self.changes = 0
        """Grows with every change of trust: equal means that what was found still holds."""
        self._by_kid: OrderedDict[bytes, Peer] = OrderedDict()
        self._by_name: dict[str, bytes] = {}

    # Looking up

    def sender(self, kid: bytes) -> Peer:
        """The trusted peer with this key id. `UnknownPeerError` (with the command that
        approves, where its bundle waits) or `RevokedPeerError` otherwise."""
        peer = self._by_kid.get(kid)
        if peer is None:
            peer = self._load(self._store.find(PEERS, kid=kid))
            if peer is None:
                raise self._unknown(kid)
            self._remember(peer)
        if peer.state is PeerState.REVOKED:
            raise RevokedPeerError(f"{peer.name} was revoked", peer=peer.fingerprint.hex(), hint="")
        return peer

    def recipient(self, name: str) -> Peer:
        """The current key set of the peer with this name; errors as `sender`."""
        kid = self._by_name.get(name)
        if kid is not None and (peer := self._by_kid.get(kid)) is not None:
            return peer
        peers = [self._peer(row) for row in self._store.find(PEERS, name=name)]
        trusted = [p for p in peers if p.state in (PeerState.APPROVED, PeerState.PINNED)]
        if trusted:
            self._remember(trusted[-1])
            self._by_name[name] = trusted[-1].bundle.kid
            return trusted[-1]
        if any(peer.state is PeerState.REVOKED for peer in peers):
            raise RevokedPeerError(f"{name} was revoked", peer=peers[-1].fingerprint.hex(), hint="")
        waiting = self._store.find(PENDING, name=name)
        raise UnknownPeerError(
            f"{name!r} is not on the allow-list",
            hint=_approve_hint(waiting[-1].key) if waiting else _add_hint(),
        )

    def find(self, what: str) -> Peer:
        """A peer in any state by name or fingerprint; `UnknownPeerError` otherwise."""
        rows = self._rows(PEERS, what)
        if not rows:
            raise UnknownPeerError(f"{what!r} is not known here", hint="pqc-iiot peer list")
        return self._peer(rows[-1])

    def peers(self) -> Iterator[Peer]:
        """Every key set of the list, oldest change first."""
        return (self._peer(row) for row in self._store.rows(PEERS))

    def key_ids(self) -> frozenset[bytes]:
        """The key ids of the list, in any state."""
        return frozenset(row.kid for row in self._store.rows(PEERS))

    def pending(self) -> list[Bundle]:
        """The bundles that wait for approval, oldest first."""
        return [parse_bundle(row.value) for row in self._store.rows(PENDING)]

    def counts(self) -> tuple[int, int]:
        """Key sets on the list (in any state), and bundles that wait."""
        return self._store.count(PEERS), self._store.count(PENDING)

    def states(self) -> Counter[str]:
        """How many key sets are in which state, by the states' values. Reads all rows, again
        only after a change."""
        if self._states is None or self._states[0] != self.changes:
            states = Counter(_state_of(row) for row in self._store.rows(PEERS))
            self._states = self.changes, states
        return self._states[1]

    # Changing

    def add(self, bundle: Bundle, transport: str = "") -> Peer | None:
        """Applies the rules above; None where the bundle waits for approval."""
        self._transport = transport
        try:
            peer = self._settle(bundle)
            if peer is not None:
                return peer
            if self._may_pin(bundle):
                return self._pin(bundle)
            self._wait(bundle)
            return None
        finally:
            self._transport = ""

    def add_approved(self, bundle: Bundle, name: str = "") -> Peer:
        """Trusts a bundle whose fingerprint the caller has compared; errors as `approve`."""
        peer = self._settle(bundle)
        if peer is None or peer.state is PeerState.PINNED:
            name = name or (peer.name if peer else bundle.name)
            return self._trust(bundle, PeerState.APPROVED, "added", name)
        return peer

    def approve(self, what: str, name: str = "") -> Peer:
        """Trusts a bundle that waits, or one that was pinned, by fingerprint or name, under
        `name` if one is given.

        `UnknownPeerError` where there is none, `PeerKeyChangedError` where the name belongs
        to other keys that are not revoked.
        """
        found = [(row.name, parse_bundle(row.value)) for row in self._rows(PENDING, what)]
        peers = [self._peer(row) for row in self._rows(PEERS, what)]
        found += [(peer.name, peer.bundle) for peer in peers if peer.state is PeerState.PINNED]
        if len(found) != 1:
            raise UnknownPeerError(
                f"{len(found) or 'no'} bundles wait as {what!r}",
                hint="pqc-iiot peer pending shows fingerprints" if found else _add_hint(),
            )
        ((known_as, bundle),) = found
        self.policy.require_suite(bundle.suite)
        return self._trust(bundle, PeerState.APPROVED, "approved", name or known_as)

    def revoke(self, what: str) -> list[Peer]:
        """Refuses a peer, with every key set of its name, from now on, both ways."""
        name = self.find(what).name
        affected = [self._peer(row) for row in self._store.find(PEERS, name=name)]
        revoked = [
            replace(peer, state=PeerState.REVOKED)
            for peer in affected
            if peer.state is not PeerState.REVOKED
        ]
        with self._store.transaction():
            for peer in revoked:
                self._put(peer)
        self._forget(name)
        for peer in revoked:
            self._tell("revoked", peer)
        return revoked

    def _settle(self, bundle: Bundle) -> Peer | None:
        """Rules 1 to 4: the peer that these keys are, or become; None for new ones."""
        self.policy.require_suite(bundle.suite)
        if bundle.fingerprint == self.own:
            raise InvalidInputError("this is the device's own bundle")
        self._refuse_own_successor(bundle)
        known, before = self._get(bundle.fingerprint), self._get(bundle.previous or b"")
        for peer in (known, before):
            if peer is not None and peer.state is PeerState.REVOKED:
                raise RevokedPeerError(f"{peer.name} was revoked", peer=bundle.fingerprint.hex())
        if known is not None:
            return known
        current = self._current(before.name if before else bundle.name)
        return None if current is None else self._succeed(current, bundle)

    def _refuse_own_successor(self, bundle: Bundle) -> None:
        if bundle.fingerprint in {own.fingerprint for own in self.own_bundles}:
            return
        if any(endorsed_by(bundle, own) for own in self.own_bundles):
            raise ClonedIdentityError(
                f"another device has new keys for {bundle.name} that this device's keys signed",
                hint="a backup was restored or the state folder was copied, and both are"
                " alive: stop one of them",
                peer=bundle.fingerprint.hex(),
            )

    def _current(self, name: str) -> Peer | None:
        peers = [self._peer(row) for row in self._store.find(PEERS, name=name)]
        trusted = [p for p in peers if p.state in (PeerState.APPROVED, PeerState.PINNED)]
        return trusted[-1] if trusted else None

    def _succeed(self, current: Peer, bundle: Bundle) -> Peer:
        if not endorsed_by(bundle, current.bundle):
            raise PeerKeyChangedError(
                f"{bundle.name} came with other keys than the ones trusted under that name",
                hint="if the device was replaced: compare the fingerprint"
                f" {format_fingerprint(bundle.fingerprint)}, then pqc-iiot peer revoke"
                f" {current.name}, and add and approve the new bundle",
                peer=bundle.fingerprint.hex(),
            )
        peer = _peer(current.name, current.state, bundle)
        with self._store.transaction():
            old = replace(current, state=PeerState.SUPERSEDED, successor=bundle.fingerprint)
            self._put(old)
            self._put(peer)
            self._store.delete(PENDING, bundle.fingerprint)
        self._forget(current.name)
        self._tell("rotated", peer)
        return peer

    def _may_pin(self, bundle: Bundle) -> bool:
        """Names come from the network: no more of them are kept than policy says."""
        policy = self.policy
        return (
            policy.trust is Trust.TOFU
            and not self._store.find(PEERS, name=bundle.name)
            and self.states()[PeerState.PINNED.value] < policy.max_pinned
        )

    def _pin(self, bundle: Bundle) -> Peer:
        peer = self._trust(bundle, PeerState.PINNED, "pinned", bundle.name)
        warnings.warn(
            f"trusted on first use: {bundle.name} {format_fingerprint(bundle.fingerprint)}",
            TofuWarning,
            stacklevel=4,
        )
        return peer

    def _trust(self, bundle: Bundle, state: PeerState, event: str, name: str) -> Peer:
        current = self._current(check_name(name))
        if current is not None and current.fingerprint != bundle.fingerprint:
            raise PeerKeyChangedError(
                f"the name {name} belongs to other keys",
                hint="approve it under another name (--name), or revoke the old one first",
                peer=bundle.fingerprint.hex(),
            )
        peer = _peer(name, state, bundle)
        with self._store.transaction():
            self._put(peer)
            self._store.delete(PENDING, bundle.fingerprint)
        self._forget(name)
        self._tell(event, peer)
        return peer

    def _wait(self, bundle: Bundle) -> None:
        if self._store.get(PENDING, bundle.fingerprint) is not None:
            self._tell("seen", bundle)
            return
        rows = list(self._store.rows(PENDING))
        # Bounded by dropping the oldest: a real device announces itself again, and a
        # flood must not shut the door for good.
        evicted = rows[: max(0, len(rows) + 1 - self.policy.max_pending)]
        with self._store.transaction():
            for row in evicted:
                self._store.delete(PENDING, row.key)
            self._store.put(
                PENDING, Row(bundle.fingerprint, bundle.encoded, bundle.kid, bundle.name)
            )
        for row in evicted:
            self._tell("evicted", parse_bundle(row.value))
        self._tell("waiting", bundle)

    def _tell(self, what: str, subject: Peer | Bundle) -> None:
        self._listener(what, subject, self._transport)

    # Rows

    def _get(self, fingerprint: bytes) -> Peer | None:
        row = self._store.get(PEERS, fingerprint)
        return None if row is None else self._peer(row)

    def _rows(self, table: str, what: str) -> list[Row]:
        """The rows with this fingerprint or name."""
        try:
            row = self._store.get(table, parse_fingerprint(what))
        except InvalidInputError:
            return self._store.find(table, name=what)
        return [] if row is None else [row]

    def _put(self, peer: Peer) -> None:
        value = cose.dumps([peer.state.value, peer.successor, peer.bundle.encoded])
        self._store.put(PEERS, Row(peer.fingerprint, value, peer.bundle.kid, peer.name))

    def _peer(self, row: Row) -> Peer:
        match cose.loads(row.value, 32768, "a peer's row", StateTamperedError):
            case [str(state), bytes(successor), bytes(encoded)] if state in _STATES:
                peer = _peer(row.name, PeerState(state), parse_bundle(encoded), successor)
                if peer.fingerprint == row.key and peer.bundle.kid == row.kid:
                    return peer
        raise StateTamperedError("a peer's row has another shape")

    def _load(self, rows: list[Row]) -> Peer | None:
        return self._peer(rows[-1]) if rows else None

    def _remember(self, peer: Peer) -> None:
        self._by_kid[peer.bundle.kid] = peer
        while len(self._by_kid) > _CACHE:
            _, dropped = self._by_kid.popitem(last=False)
            self._by_name.pop(dropped.name, None)

    def _forget(self, name: str) -> None:
        self.changes += 1
        self._by_name.pop(name, None)
        for kid in [kid for kid, peer in self._by_kid.items() if peer.name == name]:
            del self._by_kid[kid]

    def _unknown(self, kid: bytes) -> UnknownPeerError:
        waiting = self._store.find(PENDING, kid=kid)
        if waiting:
            row = waiting[-1]
            return UnknownPeerError(
                f"{row.name} ({format_fingerprint(row.key)}) waits for approval",
                hint=_approve_hint(row.key),
                peer=row.key.hex(),
            )
        return UnknownPeerError(f"no peer here has the key id {kid.hex()}", hint=_add_hint())


def _state_of(row: Row) -> str:
    match cose.loads(row.value, 32768, "a peer's row", StateTamperedError):
        case [str(state), bytes(), bytes()]:
            return state
    raise StateTamperedError("a peer's row has another shape")


def _peer(name: str, state: PeerState, bundle: Bundle, successor: bytes = b"") -> Peer:
    suite = bundle.suite
    return Peer(
        name,
        state,
        bundle,
        SigPublicKey(suite.sig.id, bundle.sig_public_key),
        KemPublicKey(suite.kem.id, bundle.kem_public_key),
        successor,
    )


def _approve_hint(fingerprint: bytes) -> str:
    command = f"pqc-iiot peer approve {fingerprint.hex()}"
    return f"compare the fingerprint with the device's own, then: {command}"


def _add_hint() -> str:
    return "get the device's bundle (pqc-iiot id export there), then: pqc-iiot peer add FILE"
