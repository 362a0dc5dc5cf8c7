"""Sessions as a node has them: the rules of trust and policy around `pqc_iiot.session`.

No I/O here either: whoever has a network brings the time (monotonic seconds) and what
arrived, and carries out what `take` returns.
"""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from os import getpid
from typing import Protocol, cast

from .envelope import MAX_OVERHEAD
from .errors import InvalidFrameError, PolicyError, PqcIiotError, RevokedPeerError
from .identity import OwnKeys
from .keystore import Peer, PeerState
from .message import Message
from .policy import SessionUse
from .sending import require_recipient
from .session import Ended, Established, Fate, Limits, Outcome, Refused, Report, Sessions
from .session.channel import Channel
from .session.frames import Kind
from .state import State
from .trail import require_log

PACKET = bytes((Kind.PACKET,))
"""The first byte of a packet; no frame of another kind begins with it."""

_TOO_LONG = Refused(InvalidFrameError("the frame has too many bytes"), b"")
_TRUSTED = (PeerState.APPROVED, PeerState.PINNED)
_CHANNELS = 4096
"""Peers whose trust is remembered until it may have changed."""


class _OnRefused(Protocol):
    """Takes an error, what is known beside it, and how many were refused like this."""

    def __call__(
        self, error: PqcIiotError, known: dict[str, str | int] | None = None, count: int = ...
    ) -> None: ...


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

    Sessions live in memory alone: after a restart no old packet opens again. There is a
    lock of their own, taken after the node's where both are needed: packets never wait for
    a disk.
    """

    def __init__(
        self,
        state: Callable[[], State],
        lock: threading.RLock,
        refused: _OnRefused,
        limits: Limits | None = None,
    ) -> None:
        self._state, self._lock, self._refused = state, lock, refused
        self._own_lock = threading.RLock()
        self._sessions = Sessions(self._own, self._find, limits)
        self._changes = -1
        self._kids: frozenset[bytes] = frozenset()
        self._channels: dict[str, Channel] = {}
        self._pid = getpid()
        self._token = 0
        self._owner: object | None = None
        self._follow_policy()

    # Out

    def send(self, now: float, payload: bytes, *, to: str, context: str) -> int:
        """Hands a message over to the session with the peer named `to`, which is set up if
        there is none: a token, whose `Report` tells what became of the message.

        Errors as `Node.seal`; `PolicyError` where policy allows no sessions, and
        `TransportError` where too many messages wait already. Then it was not taken.
        """
        with self._lock:
            peer = self._recipient(to, len(payload), context)
            with self._own_lock:
                self._token += 1
                self._sessions.send(now, peer, context, bytes(payload), self._token)
                return self._token

    def seal_at_ease(
        self, now: float, payload: bytes, to: str, context: str
    ) -> tuple[bytes, int] | None:
        """As `seal`, and only where that changes no timer and asks nothing: mostly."""
        with self._own_lock:
            channel = self._channels.get(to)
            # A forked child would use numbers again.
            if channel is None or len(payload) > self._max_payload or getpid() != self._pid:
                return None
            if not channel.at_ease(now):
                return None
            token = self._token = self._token + 1
            return channel.seal(now, context, payload, token), token

    def seal(
        self, now: float, payload: bytes, *, to: str, context: str
    ) -> tuple[bytes, int] | None:
        """The packet with a message, which has to be sent at once and in this order, and the
        message's token; None where no session would take it now. Errors as `send`."""
        with self._own_lock:
            self._state()
            channel = self._channels.get(to)
        if channel is None or len(payload) > self._max_payload:
            with self._lock:
                fingerprint = self._recipient(to, len(payload), context).fingerprint
                return self._seal(now, payload, to, context, fingerprint)
        return self._seal(now, payload, to, context, channel.peer.fingerprint)

    def _seal(
        self, now: float, payload: bytes, to: str, context: str, fingerprint: bytes
    ) -> tuple[bytes, int] | None:
        with self._own_lock:
            self._token += 1
            packet = self._sessions.seal(now, fingerprint, context, payload, self._token)
            self._remember(to, fingerprint)
            return None if packet is None else (packet, self._token)

    def _remember(self, to: str, fingerprint: bytes) -> None:
        """Messages to this peer need not ask whether it is trusted, until that may change."""
        channel = self._sessions.current(fingerprint)
        if channel is None or self._state().keystore.policy.audit_required:
            self._channels.pop(to, None)
        elif channel is not self._channels.get(to):
            if len(self._channels) >= _CHANNELS:
                self._channels.clear()
            self._channels[to] = channel

    def want(self, now: float, *, to: str, patient: bool = True) -> None:
        """There is something for the peer named `to`: sets a session up where there is none.
        Who is `patient` leaves a peer alone that did not answer, ever longer. Errors as
        `send`."""
        with self._lock:
            peer = self._recipient(to, 0, "")
            with self._own_lock:
                self._sessions.want(now, peer, patient)

    def _recipient(self, to: str, size: int, context: str) -> Peer:
        state = self._state()
        try:
            peer = require_recipient(state, to, size)
            if state.keystore.policy.sessions is SessionUse.NEVER:
                raise PolicyError(
                    "policy allows no sessions", hint="pqc-iiot policy set --sessions auto"
                )
        except PqcIiotError as error:
            self._refused(error, {"name": to, "context": context})
            raise
        return peer

    # In

    def receive(self, now: float, frame: bytes, context: str | None) -> None:
        """Takes a frame that arrived on a topic or, with None, in this device's inbox. Each
        refusal leaves one audit event, and is among the outcomes."""
        with self._lock, self._own_lock:
            policy = self._listening_state().keystore.policy
            if policy.sessions is SessionUse.NEVER:
                self._refused(PolicyError("policy allows no sessions"))
            elif len(frame) > policy.max_payload + MAX_OVERHEAD:
                self._refused(_TOO_LONG.error)
            else:
                self._sessions.receive(now, frame, context)

    def receive_many(
        self, now: float, contexts: list[str], packets: list[bytes]
    ) -> list[Message | PqcIiotError]:
        """Takes packets that arrived on topics: for each, in order, the message or the
        refusal, which leaves one audit event. Never waits for a disk."""
        with self._own_lock:
            self._listening_state()
            results = self._sessions.receive_many(now, contexts, packets)
        refused = [each for each in results if isinstance(each, Refused)]
        if not refused:
            return cast("list[Message | PqcIiotError]", results)
        self._audit(refused)
        return [each.error if isinstance(each, Refused) else each for each in results]

    def receive_inbox(self, now: float, frames: list[bytes]) -> None:
        """Takes frames that arrived in this device's inbox. Each refusal leaves one audit
        event, and is not among the outcomes."""
        packets = all(frame[:1] == PACKET for frame in frames)
        with contextlib.nullcontext() if packets else self._lock, self._own_lock:
            limit = self._listening_state().keystore.policy.max_payload + MAX_OVERHEAD
            refused = [
                self._sessions.receive_inbox(now, frame) if len(frame) <= limit else _TOO_LONG
                for frame in frames
            ]
        self._audit([each for each in refused if each is not None])

    def _listening_state(self) -> State:
        state = self._state()
        require_log(state.audit, state.keystore.policy)
        return state

    def _audit(self, refused: list[Refused]) -> None:
        # Outside of the lock, and alike ones at once: a flood shall cost others little.
        errors = {id(each): each.error for each in refused}
        for each, count in Counter(map(id, refused)).items():
            self._refused(errors[each], count=count)

    def tick(self, now: float) -> None:
        """Does what is due; call it at `due`."""
        with self._own_lock:
            self._state()
            self._sessions.tick(now)

    @property
    def due(self) -> float:
        """When `tick` has something to do; infinite if never."""
        return self._sessions.due

    @property
    def patience(self) -> float:
        """Seconds after which a session that did not come about is given up."""
        return self._sessions.limits.give_up

    def take(self) -> list[Outcome]:
        """What came of it, in order: frames to send, messages, reports, refusals, sessions
        that begin and end."""
        with self._own_lock:
            state, outcomes = self._state(), self._sessions.take()
        for each in outcomes:
            if isinstance(each, Refused):
                self._refused(each.error)
            elif isinstance(each, Established):
                state.audit.emit(
                    "session_established",
                    peer=each.fingerprint.hex(),
                    name=each.name,
                    session=each.session.hex(),
                    began=each.began,
                )
            elif isinstance(each, Ended):
                state.audit.emit(
                    "session_ended",
                    peer=each.fingerprint.hex(),
                    name=each.name,
                    session=each.session.hex(),
                )
            elif isinstance(each, Report) and each.fate is not Fate.CONFIRMED:
                state.audit.emit(
                    "messages_lost", name=each.name, count=len(each.tokens), fate=each.fate.value
                )
        return outcomes

    # About them

    def ready(self, name: str) -> bool:
        """Whether messages to the peer named so leave at once. Errors as `Node.seal`."""
        with self._lock, self._own_lock:
            return self._sessions.has(self._state().keystore.recipient(name).fingerprint)

    def status(self) -> SessionStatus:
        """Counts for people and monitoring."""
        with self._own_lock:
            sessions = self._sessions
            return SessionStatus(sessions.count(), len(sessions.peers()), sessions.half_open)

    def claim(self, owner: object) -> bool:
        """Makes `owner` the one who carries frames out; False where somebody else is."""
        with self._own_lock:
            if self._owner is None:
                self._owner = owner
            return self._owner is owner

    def release(self, owner: object) -> None:
        """Undoes `claim`."""
        with self._own_lock:
            if self._owner is owner:
                self._owner = None

    def refresh(self) -> None:
        """Ends sessions with whoever is not trusted or allowed any more, both ways, before
        it returns. The node calls it whenever trust or policy changed."""
        with self._lock, self._own_lock:
            self._follow_policy()
            for peer in self._sessions.peers():
                try:
                    kept = self._find(peer.bundle.kid)
                except PqcIiotError:
                    kept = None
                if kept is None:
                    self._sessions.end(peer.fingerprint)

    def close(self) -> None:
        """Ends every session and wipes its keys."""
        with self._own_lock:
            self._channels.clear()
            self._sessions.close()

    def _follow_policy(self) -> None:
        policy = self._state().keystore.policy
        self._channels.clear()
        self._max_payload = policy.max_payload
        self._sessions.limits = replace(self._sessions.limits, window=policy.session_window)

    # What the sessions ask

    def _own(self) -> OwnKeys:
        return self._state().identity.current

    def _find(self, kid: bytes) -> Peer | None:
        keystore = self._state().keystore
        if keystore.policy.sessions is SessionUse.NEVER:
            return None
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
