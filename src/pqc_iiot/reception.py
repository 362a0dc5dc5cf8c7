"""Whether a frame that comes in is taken: every rule, in order.

 1. it is a frame of this protocol, and not too large;
 2. its recipient is a key set of this device;
 3. its suite is allowed by policy;
 4. its sender is trusted: approved or pinned, not revoked, and if its keys were replaced,
    still within the overlap;
 5. its sequence number is above the last one seen;
 6. it decrypts and its signature verifies, for this context;
 7. under the lock, 4 and 5 still hold;
 8. the number is durable. Only then is the message handed over (`Node.open_many`).

Nothing changes before 7.
"""

from __future__ import annotations

import threading
from typing import NamedTuple

from . import envelope
from .bundle import KID_SIZE
from .errors import (
    DuplicateError,
    InvalidFrameError,
    ReplayError,
    RevokedPeerError,
    WrongRecipientError,
)
from .freshness import frame_digest
from .identity import OwnKeys
from .keystore import Peer, PeerState
from .message import Incoming, Message
from .state import State


class Admitted(NamedTuple):
    """A frame that passed rules 1 to 6."""

    header: envelope.Header
    peer: Peer
    digest: bytes
    payload: bytes
    context: str
    trust: int
    """The keystore's count of changes when `peer` was found trusted."""
    transport: str


class Reception:
    """The rules for one open state; `identity` is replaced when keys are rotated."""

    def __init__(self, state: State, lock: threading.RLock) -> None:
        self.identity = state.identity
        self._keystore, self._freshness, self._lock = state.keystore, state.freshness, lock

    def admit(self, incoming: Incoming) -> Admitted:
        """Rules 1 to 6; changes nothing."""
        frame, policy = incoming.frame, self._keystore.policy
        if len(frame) > policy.max_payload + envelope.MAX_OVERHEAD:  # 1
            raise InvalidFrameError(f"the frame has {len(frame)} bytes, more than policy allows")
        header = envelope.parse(frame)
        context = envelope.encode_context(incoming.context)
        digest = frame_digest(frame, context)
        stale = False
        with self._lock:
            trust = self._keystore.changes
            own = self._own(header)  # 2
            policy.require_suite(header.suite)  # 3
            peer = self._trusted(header)  # 4
            try:
                self._freshness.check(peer.fingerprint, header.sequence, digest)  # 5
            except DuplicateError:
                raise
            except ReplayError:
                if not incoming.redelivered:
                    raise
                stale = True
        payload = envelope.open_(header, own, peer, context)  # 6
        if len(payload) > policy.max_payload:  # 1, exactly
            raise InvalidFrameError(f"the payload has {len(payload)} bytes, more than allowed")
        if stale:
            # A retained message may be older than the frames that are remembered. It is
            # authentic, and the sender uses no number twice: it is the identical one.
            raise DuplicateError(
                f"frame {header.sequence} came again, unchanged", peer=peer.fingerprint.hex()
            )
        return Admitted(header, peer, digest, payload, incoming.context, trust, incoming.transport)

    def accept(self, item: Admitted) -> Message:
        """Rule 7, under the lock; the message counts once its number is committed."""
        header, peer, digest, payload, context, trust, _ = item
        sender, sequence = peer.bundle.fingerprint, header.sequence
        if trust != self._keystore.changes or peer.state is PeerState.SUPERSEDED:
            peer = self._trusted(header)  # 7
        self._freshness.check(sender, sequence, digest)
        self._freshness.stage(sender, sequence, digest)
        return Message(peer.name, sequence, payload, context, sender)

    def _own(self, header: envelope.Header) -> OwnKeys:
        own = self.identity.own_keys(header.recipient)
        if own is None or own.bundle.suite is not header.suite:
            raise WrongRecipientError("the frame is addressed to other keys than this device's")
        return own

    def _trusted(self, header: envelope.Header) -> Peer:
        peer = self._keystore.sender(header.sender)
        self._keystore.policy.require_suite(peer.bundle.suite)
        if peer.state is PeerState.SUPERSEDED:
            successor = self._keystore.sender(peer.successor[:KID_SIZE])
            first, last = self._freshness.seen(peer.successor)
            if successor.state is PeerState.SUPERSEDED or (
                last and last >= first + self._keystore.policy.rotation_overlap
            ):
                raise RevokedPeerError(
                    f"{peer.name} has new keys, and the overlap for the old ones is over",
                    peer=peer.fingerprint.hex(),
                )
        return peer


def described(item: Incoming | Admitted) -> dict[str, str | int]:
    """What a refusal's event says of a frame: its claims, never its payload."""
    known: dict[str, str | int] = {"context": item.context}
    if item.transport:
        known["transport"] = item.transport
    if isinstance(item, Admitted):
        header = item.header
    else:
        known["length"] = len(item.frame)
        try:
            header = envelope.parse(item.frame)
        except InvalidFrameError:
            return known
    return known | {
        "key": header.recipient.hex(),
        "sender": header.sender.hex(),
        "sequence": header.sequence,
        "suite": header.suite.id,
    }
