"""Sessions as a node has them: the rules of trust and policy around `pqc_iiot.session`.

No I/O here either: whoever has a network brings the time (monotonic seconds) and what
arrived, and carries out what `take` returns.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from .bundle import KID_SIZE
from .envelope import MAX_OVERHEAD
from .errors import InvalidFrameError, InvalidInputError, PqcIiotError, RevokedPeerError
from .identity import OwnKeys
from .keystore import Keystore, Peer, PeerState
from .message import Message
from .session import Delivered, Limits, Outcome, Refused, Sessions
from .state import State
from .trail import require_log

_TRUSTED = (PeerState.APPROVED, PeerState.PINNED)


@dataclass(frozen=True, slots=True)
class SessionStatus:
    """Sessions now: `ready` to send, `known` peers with a session, a handshake or messages
    that wait, and handshakes of others that are `half_open`."""

    ready: int
    known: int
    half_open: int


@dataclass(frozen=True, slots=True)
class PeerSession:
    """`node.session(name)`: the session with one peer, whichever one that is at the time."""

    sessions: NodeSessions
    name: str

    def send(self, now: float, payload: bytes, *, context: str) -> int:
        """See `NodeSessions.send`."""
        return self.sessions.send(now, payload, to=self.name, context=context)

    @property
    def ready(self) -> bool:
        """See `NodeSessions.ready`."""
        return self.sessions.ready(self.name)


class NodeSessions:
    """`node.sessions`: a session with each peer that is spoken to. Thread-safe.

    Sessions live in memory alone: after a restart no old packet opens again.
    """

    def __init__(
        self,
        state: Callable[[], State],
        lock: threading.RLock,
        refused: Callable[[PqcIiotError], None],
        limits: Limits | None = None,
    ) -> None:
        self._state, self._lock, self._refused = state, lock, refused
        self._sessions = Sessions(self._own, self._find, limits)
        self._changes = -1
        self._kids: frozenset[bytes] = frozenset()
        self._token = 0

    def send(self, now: float, payload: bytes, *, to: str, context: str) -> int:
        """Hands a message over to the session with the peer named `to`, which is set up if
        there is none: a token, whose `Report` tells what became of the message.

        Errors as `Node.seal`; `TransportError` where too many messages wait already. Then
        it was not taken.
        """
        with self._lock:
            state = self._state()
            policy = state.keystore.policy
            try:
                require_log(state.audit, policy)
                if len(payload) > policy.max_payload:
                    raise InvalidInputError(
                        f"the payload has {len(payload)} bytes, policy allows {policy.max_payload}"
                    )
                peer = state.keystore.recipient(to)
                policy.require_suite(peer.bundle.suite)
                policy.require_suite(state.identity.current.bundle.suite)
            except PqcIiotError as error:
                self._refused(error)
                raise
            self._token += 1
            self._sessions.send(now, peer, context, bytes(payload), self._token)
            return self._token

    def receive(self, now: float, frame: bytes, context: str | None) -> None:
        """Takes a frame that arrived on a topic or, with None, in this device's inbox. Each
        refusal leaves one audit event, and is among the outcomes."""
        with self._lock:
            state = self._state()
            require_log(state.audit, state.keystore.policy)
            if len(frame) > state.keystore.policy.max_payload + MAX_OVERHEAD:
                self._refused(InvalidFrameError(f"the frame has {len(frame)} bytes, too many"))
                return
            self._sessions.receive(now, frame, context)

    def tick(self, now: float) -> None:
        """Does what is due; call it at `due`."""
        with self._lock:
            self._state()
            self._sessions.tick(now)

    @property
    def due(self) -> float:
        """When `tick` has something to do; infinite if never."""
        return self._sessions.due

    def take(self) -> list[Outcome | Message]:
        """What came of it, in order: frames to send, messages, reports, refusals, sessions
        that begin and end."""
        with self._lock:
            keystore = self._state().keystore
            outcomes: list[Outcome | Message] = []
            for outcome in self._sessions.take():
                each: Outcome | Message = outcome
                if isinstance(each, Delivered):
                    try:
                        each = _message(each, keystore)
                    except PqcIiotError as error:  # revoked since it arrived
                        each = Refused(error, each.fingerprint)
                if isinstance(each, Refused):
                    self._refused(each.error)
                outcomes.append(each)
            return outcomes

    def ready(self, name: str) -> bool:
        """Whether messages to the peer named so leave at once. Errors as `Node.seal`."""
        with self._lock:
            return self._sessions.has(self._state().keystore.recipient(name).fingerprint)

    def status(self) -> SessionStatus:
        """Counts for people and monitoring."""
        with self._lock:
            sessions = self._sessions
            return SessionStatus(sessions.count(), len(sessions.peers()), sessions.half_open)

    def refresh(self) -> None:
        """Ends sessions with whoever is not trusted or allowed any more, both ways, before
        it returns. The node calls it whenever trust or policy changed."""
        with self._lock:
            for peer in self._sessions.peers():
                try:
                    kept = self._find(peer.bundle.kid)
                except PqcIiotError:
                    kept = None
                if kept is None:
                    self._sessions.end(peer.fingerprint)

    def close(self) -> None:
        """Ends every session and wipes its keys."""
        with self._lock:
            self._sessions.close()

    # What the sessions ask

    def _own(self) -> OwnKeys:
        return self._state().identity.current

    def _find(self, kid: bytes) -> Peer | None:
        keystore = self._state().keystore
        if self._changes != keystore.changes:
            # In memory, so that floods of strangers ask no database.
            self._kids = keystore.key_ids()
            self._changes = keystore.changes
        if kid not in self._kids:
            return None
        peer = keystore.sender(kid)
        if peer.state not in _TRUSTED:
            raise RevokedPeerError(f"{peer.name} has new keys", peer=peer.fingerprint.hex())
        keystore.policy.require_suite(peer.bundle.suite)
        return peer


def _message(delivered: Delivered, keystore: Keystore) -> Message:
    sender = keystore.sender(delivered.fingerprint[:KID_SIZE]).name
    return Message(
        sender, delivered.number, delivered.payload, delivered.context, delivered.fingerprint
    )
