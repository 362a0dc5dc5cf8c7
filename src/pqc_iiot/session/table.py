"""All sessions of a device: by id for what arrives, by peer for what goes out.

Without I/O, and without a clock of its own: every call brings `now`, monotonic seconds.
What comes of it (frames to send, deliveries, reports) is collected by `take`.

Before a handshake message costs anything: its size, whether its sender is trusted, a
token of the claimed sender's and one of all. What belongs to a session costs a look into
a table before it is opened.
"""

from __future__ import annotations

import heapq
import os
from collections.abc import Callable

from ..bundle import KID_SIZE
from ..errors import InvalidFrameError, PqcIiotError, TransportError, UnknownPeerError
from ..identity import OwnKeys
from ..keystore import Peer
from ..message import Message
from . import frames
from .channel import NEVER, Channel
from .frames import ID_SIZE, Frame, Kind
from .handshakes import Holder, Initiating, Responding
from .limits import Bucket, Limits
from .outcome import Outcome, Refused
from .peer import Link

_BUCKETS = 4096
_SHORTEST_WAIT, _LONGEST_WAIT = 60.0, 3600.0
"""Seconds for which a peer that did not answer is left alone, at first and at most."""
_PACKET, _ID_END = bytes((Kind.PACKET,)), 1 + ID_SIZE
_MESSAGE_1, _KID_END = bytes((Kind.MESSAGE_1,)), 1 + KID_SIZE
_NO_SESSION = Refused(InvalidFrameError("no session here has this id"), b"")
_ANOTHER_STEP = Refused(InvalidFrameError("the session with this id is at another step"), b"")
_STRANGER = Refused(UnknownPeerError("no peer here has the key id in message 1"), b"")
_TOO_MANY = Refused(TransportError("too many handshakes at once"), b"")


class Sessions:
    """`own` gives this device's current keys; `trusted` the peer with a key id, None
    for a stranger, or raises `RevokedPeerError` or `PolicyError`. Not thread-safe."""

    def __init__(
        self,
        own: Callable[[], OwnKeys],
        trusted: Callable[[bytes], Peer | None],
        limits: Limits | None = None,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self.limits = limits or Limits()
        self.own, self._trusted, self._random = own, trusted, random
        self._links: dict[bytes, Link] = {}
        self._by_id: dict[bytes, Holder] = {}
        self._buckets: dict[bytes, Bucket] = {}
        self._total = Bucket(self.limits.total_rate, self.limits.total_burst)
        self._outcomes: list[Outcome] = []
        self.emit = self._outcomes.append
        """See `Hub`."""
        self._patience: dict[bytes, tuple[float, float]] = {}
        self._due: list[tuple[float, int, Link]] = []
        self._scheduled: dict[int, float] = {}
        self.half_open = 0

    # What comes of it

    def take(self) -> list[Outcome]:
        """Everything since the last time, in order."""
        outcomes = self._outcomes.copy()
        self._outcomes.clear()
        return outcomes

    @property
    def due(self) -> float:
        """When `tick` has something to do; infinite if never."""
        return self._due[0][0] if self._due else NEVER

    def count(self) -> int:
        """Peers with a session that is ready to send."""
        return sum(link.current is not None for link in self._links.values())

    def has(self, fingerprint: bytes) -> bool:
        """Whether there is a session with this peer that is ready to send."""
        link = self._links.get(fingerprint)
        return link is not None and link.current is not None

    def current(self, fingerprint: bytes) -> Channel | None:
        """The session that is used to send to this peer."""
        link = self._links.get(fingerprint)
        return None if link is None else link.current

    def peers(self) -> list[Peer]:
        """Everybody with a session, a handshake, or messages that wait."""
        return [link.peer for link in self._links.values()]

    # Calls

    def send(self, now: float, peer: Peer, context: str, payload: bytes, token: int) -> None:
        """Hands a message over. Its `Report` comes with `token`; a session is set up where
        there is none. `TransportError` where too many wait: then it was not taken."""
        link = self._link(peer)
        link.send(now, context, payload, token)
        self._schedule(link)

    def seal(
        self, now: float, fingerprint: bytes, context: str, payload: bytes, token: int
    ) -> bytes | None:
        """The packet with a message for this peer, which the caller sends at once, or None
        where no session would take it now. Its `Report` comes with `token`."""
        link = self._links.get(fingerprint)
        if link is None:
            return None
        calm = link.current is not None and link.current.due != NEVER
        packet = link.seal(now, context, payload, token)
        if not calm:
            self._schedule(link)
        return packet

    def want(self, now: float, peer: Peer, patient: bool = True) -> None:
        """There is something for this peer: sets a session up where there is none. Who is
        `patient` leaves a peer alone that did not answer, ever longer."""
        if patient and now < self._patience.get(peer.fingerprint, (0.0, 0.0))[0]:
            return
        link = self._link(peer)
        link.want(now)
        self._schedule(link)

    def receive(self, now: float, data: bytes, context: str | None) -> None:
        """Takes what arrived, under a topic or, with None, in this device's inbox. What is
        refused has changed nothing, and is among the outcomes."""
        if context is None or data[:1] != _PACKET:
            if (refused := self.receive_inbox(now, data)) is not None:
                self._outcomes.append(refused)
        else:
            self._outcomes += self.receive_many(now, [context], [data])

    def receive_many(
        self, now: float, contexts: list[str], packets: list[bytes]
    ) -> list[Message | Refused]:
        """Takes packets that arrived under topics: for each, in order, the message or the
        refusal. Trains of one session are opened in one go."""
        results: list[Message | Refused] = []
        begin, count = 0, len(packets)
        while begin < count:
            head = packets[begin][:_ID_END]
            end = begin + 1
            while end < count and packets[end][:_ID_END] == head:
                end += 1
            holder = self._by_id.get(head[1:]) if head[:1] == _PACKET else None
            if holder is None:
                results += [_NO_SESSION] * (end - begin)
            elif not isinstance(holder.role, Channel):
                results += [_ANOTHER_STEP] * (end - begin)
            else:
                link = holder.link
                train = contexts[begin:end], packets[begin:end]
                try:
                    results += link.on_packets(now, holder.role, *train)
                except PqcIiotError as error:
                    results += [Refused(error, link.peer.fingerprint)] * (end - begin)
                self._schedule(link)
            begin = end
        return results

    def receive_inbox(self, now: float, data: bytes) -> Refused | None:
        """Takes what arrived in this device's inbox; the refusal, if it is one."""
        # The commonest first, and forgeries without an exception.
        kind = data[:1]
        if kind == _MESSAGE_1:
            caller = self._caller(now, data[1:_KID_END])
            if isinstance(caller, Refused):
                return caller
            return self._guarded(caller, lambda: self._begun(now, caller, data))
        holder = self._by_id.get(data[1:_ID_END])
        if holder is None:
            return _NO_SESSION
        return self._guarded(holder.link, lambda: self._dispatch(now, holder, frames.parse(data)))

    def _guarded(self, link: Link, work: Callable[[], Refused | None]) -> Refused | None:
        """Does what concerns a link; what it refuses has changed nothing."""
        try:
            refused = work()
        except PqcIiotError as error:
            refused = Refused(error, link.peer.fingerprint)
        if link.idle:
            self._links.pop(link.peer.fingerprint, None)
        else:
            self._schedule(link)
        return refused

    def _begun(self, now: float, link: Link, data: bytes) -> None:
        link.handshakes.on_message_1(now, frames.parse(data).message)

    def tick(self, now: float) -> None:
        """Does what is due: repeats, asks, answers, gives up, wipes."""
        while self._due and self._due[0][0] <= now:
            at, _, link = heapq.heappop(self._due)
            if self._scheduled.get(id(link)) != at:
                continue
            del self._scheduled[id(link)]
            again = link.tick(now)
            if link.gave_up:
                self._be_patient(now, link)
            if link.idle:
                self._links.pop(link.peer.fingerprint, None)
            else:
                self._schedule(link, max(again, now + 1e-3))

    def end(self, fingerprint: bytes) -> None:
        """Ends everything with this peer, in both directions, before it returns: also what
        arrived and was not taken yet."""
        link = self._links.pop(fingerprint, None)
        if link is not None:
            link.end()
            self._scheduled.pop(id(link), None)
            self._outcomes[:] = [
                each
                for each in self._outcomes
                if not (isinstance(each, Message) and each.fingerprint == fingerprint)
            ]

    def close(self) -> None:
        """Ends everything with everybody."""
        for fingerprint in list(self._links):
            self.end(fingerprint)

    # Inside

    def _link(self, peer: Peer) -> Link:
        link = self._links.get(peer.fingerprint)
        if link is None:
            link = self._links[peer.fingerprint] = Link(self, peer)
        return link

    def _be_patient(self, now: float, link: Link) -> None:
        link.gave_up = False
        wait = min(
            2 * self._patience.pop(link.peer.fingerprint, (0.0, _SHORTEST_WAIT / 2))[1],
            _LONGEST_WAIT,
        )
        if len(self._patience) >= _BUCKETS:
            del self._patience[next(iter(self._patience))]
        self._patience[link.peer.fingerprint] = now + wait, wait

    def _dispatch(self, now: float, holder: Holder, frame: Frame) -> Refused | None:
        link, role = holder.link, holder.role
        match frame.kind, role:
            case Kind.PACKET, Channel():
                return self._control(now, link, role, frame.message)
            case Kind.MESSAGE_2, Initiating():
                link.handshakes.on_message_2(now, role, frame.message)
            case Kind.MESSAGE_4, Initiating():
                holder.role = link.on_message_4(now, role, frame.message)
            case Kind.MESSAGE_3, Responding():
                holder.role = link.on_message_3(now, frame.who, role, frame.message)
            case Kind.MESSAGE_3, Channel():
                link.handshakes.on_message_3_again(role, frame.message)
            case Kind.MESSAGE_4, Channel():
                role.ask(now)  # Message 4 came twice: the peer has not heard from us yet.
            case _:
                return _ANOTHER_STEP
        if isinstance(holder.role, Channel):
            self._patience.pop(link.peer.fingerprint, None)  # It answers.
        return None

    def _control(self, now: float, link: Link, channel: Channel, packet: bytes) -> Refused | None:
        carried = link.on_control(now, channel, packet)
        if carried is None:
            return channel.forged
        if carried:
            inner = frames.parse(carried)
            if inner.kind is not Kind.MESSAGE_1 or inner.who != link.peer.bundle.kid:
                raise InvalidFrameError("the packet carries another handshake message")
            link.handshakes.on_message_1(now, inner.message)
        return None

    def _caller(self, now: float, kid: bytes) -> Link | Refused:
        """Whoever message 1 claims to be from, if it may cost something."""
        bucket = self._buckets.get(kid)
        if bucket is not None and not bucket.take(now):
            return _TOO_MANY
        try:
            peer = self._trusted(kid)
        except PqcIiotError as error:
            return Refused(error, b"")
        if peer is None:
            return _STRANGER
        if bucket is None:
            if len(self._buckets) >= _BUCKETS:
                del self._buckets[next(iter(self._buckets))]
            bucket = self._buckets[kid] = Bucket(self.limits.sender_rate, self.limits.sender_burst)
            if not bucket.take(now):
                return _TOO_MANY
        if not self._total.take(now):
            return _TOO_MANY
        return self._link(peer)

    def _schedule(self, link: Link, at: float | None = None) -> None:
        if at is None:
            current = link.current
            at = link.next() if link.busy or current is None else current.due
        known = self._scheduled.get(id(link), NEVER)
        if at < known:
            self._scheduled[id(link)] = at
            heapq.heappush(self._due, (at, id(link), link))

    # For the links

    def claim(self, holder: Holder) -> bytes:
        """See `Hub`."""
        while True:
            session_id = self._random(ID_SIZE)
            if session_id not in self._by_id:
                self._by_id[session_id] = holder
                return session_id

    def release(self, session_id: bytes) -> None:
        """See `Hub`."""
        self._by_id.pop(session_id, None)
