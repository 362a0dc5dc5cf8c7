"""Everything between this device and one peer: handshakes, sessions, messages that wait.

The rules:
 1. A session begins to be used to send when it is certain that the peer has its keys: by
    message 4, or by the first packet on it. The one before still receives for a while.
 2. Whoever has a message and no session begins a handshake, and repeats what was not
    answered, ever more slowly. An answer that comes twice is answered the same again.
 3. Where both begin at once, the lower key id goes on and ignores the other's message 1;
    the higher one answers, and drops its own once the other has proved itself.
 4. A peer that lost its keys does not answer: after some questions a new handshake is
    begun. Nothing but a handshake, or revocation, ends a session that is in use.
 5. A session is replaced before its limits are reached; the first message 1 for that
    travels inside it, so that no flood of forged ones can stand in its way.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import Protocol

from .._core import HandshakeInitiator, HandshakeResponder
from ..errors import (
    AuthenticationError,
    InvalidFrameError,
    PqcIiotError,
    TransportError,
)
from ..identity import OwnKeys
from ..keystore import Peer
from . import frames
from .channel import NEVER, Channel
from .frames import Control, Kind
from .limits import Limits
from .outcome import Ended, Established, Fate, Outcome, Report, Send

_OLD = 3
"""Replaced sessions that still receive; each side may use another one for a moment."""


class Hub(Protocol):
    """What all links of a device share."""

    limits: Limits
    half_open: int
    """Handshakes of others that wait for message 3."""

    def own(self) -> OwnKeys:
        """This device's current keys."""

    def claim(self, holder: Holder) -> bytes:
        """A session id of 4 bytes that is not in use, for what `holder` stands for."""

    def release(self, session_id: bytes) -> None:
        """Gives it back."""

    def emit(self, outcome: Outcome) -> None:
        """Something for the caller."""


@dataclass(slots=True, eq=False)
class Holder:
    """Whom a session id belongs to, and what it is now."""

    link: Link
    role: Initiating | Responding | Channel | None = None


@dataclass(slots=True, eq=False)
class Initiating:
    """A handshake that this side began."""

    handshake: HandshakeInitiator
    own_id: bytes
    since: float
    frame: bytes
    due: float = NEVER
    tries: int = 0
    taken: bytes = b""
    """Digest of the message 2 that was accepted."""


@dataclass(slots=True, eq=False)
class Responding:
    """A handshake that waits for message 3."""

    handshake: HandshakeResponder
    digest: bytes
    frame: bytes
    until: float


@dataclass(frozen=True, slots=True)
class _Waiting:
    token: int
    context: str
    payload: bytes
    until: float


def _digest(message: bytes) -> bytes:
    return hashlib.sha256(message).digest()


class Link:
    """All that concerns one key set of a peer."""

    def __init__(self, hub: Hub, peer: Peer) -> None:
        self._hub, self.peer, self._limits = hub, peer, hub.limits
        self._names = (peer.bundle.kid, peer.fingerprint)
        self._credential = frames.credential(peer.bundle)
        self.current: Channel | None = None
        self._candidate: Channel | None = None
        self._old: list[Channel] = []
        self._initiating: Initiating | None = None
        self.responding: OrderedDict[bytes, Responding] = OrderedDict()
        self._waiting: deque[_Waiting] = deque()
        self._not_before = 0.0

    # Out

    def send(self, now: float, context: str, payload: bytes, token: int) -> None:
        """Sends now, or as soon as there is a session. `TransportError` where too many
        messages wait already."""
        channel = self.current
        if channel is not None and not self._waiting and self._is_ready(channel, now):
            if len(channel.unconfirmed) >= self._limits.unconfirmed:
                raise TransportError(f"{self.peer.name} does not say what it receives")
            channel.send(now, context, payload, token)
            if self._initiating is None and self._is_due(channel, now):
                self._initiate(now)
            return
        if len(self._waiting) >= self._limits.waiting:
            raise TransportError(f"too many messages wait for a session with {self.peer.name}")
        self._waiting.append(_Waiting(token, context, payload, now + self._limits.give_up))
        self._drive(now)

    def _is_over(self, channel: Channel, now: float) -> bool:
        return self._limits.is_over(channel.session, now - channel.born)

    def _is_due(self, channel: Channel, now: float) -> bool:
        # The side that answered waits a little longer: so seldom do both begin at once.
        age = now - channel.born
        return self._limits.is_due(channel.session, age if channel.began else 0.9 * age)

    def _is_ready(self, channel: Channel, now: float) -> bool:
        return (not channel.asking or now - channel.heard < self._limits.answer_within) and not (
            self._is_over(channel, now) or now - channel.heard > self._limits.silence
        )

    def _drive(self, now: float) -> None:
        """Brings what waits on its way, as far as it goes."""
        channel = self.current
        if channel is not None and self._is_over(channel, now):
            channel = None
        if channel is not None and self._waiting:
            if now - channel.heard > self._limits.silence:
                channel.ask(now)
            while self._waiting and self._is_ready(channel, now):
                if len(channel.unconfirmed) >= self._limits.unconfirmed:
                    break
                each = self._waiting.popleft()
                channel.send(now, each.context, each.payload, each.token)
        if channel is None:
            wanted = bool(self._waiting)
        else:
            wanted = channel.doubtful or self._is_due(channel, now)
        if wanted and self._initiating is None and now >= self._patience:
            self._initiate(now)

    @property
    def _patience(self) -> float:
        """Until when no handshake is begun: the peer's own is about to end well."""
        if self._candidate is None:
            return self._not_before
        return self._candidate.born + 8 * self._limits.answer_within

    # Handshake, this side begins

    def _initiate(self, now: float, since: float | None = None) -> None:
        own, suite = self._hub.own(), self.peer.bundle.suite
        holder = Holder(self)
        own_id = self._hub.claim(holder)
        handshake = HandshakeInitiator(
            suite.edhoc, own_id, frames.credential(own.bundle), self._credential
        )
        frame = frames.make(Kind.MESSAGE_1, own.bundle.kid, handshake.message_1)
        started = now if since is None else since
        self._initiating = holder.role = Initiating(handshake, own_id, started, frame)
        self._repeat(now, self._initiating)

    def _repeat(self, now: float, initiating: Initiating) -> None:
        channel = self.current
        inside = channel and not channel.asking and not self._is_over(channel, now)
        if channel and inside and not initiating.taken and initiating.tries % 2 == 0:
            channel.control(Control.HANDSHAKE, initiating.frame)
        else:
            self._hub.emit(Send(self._names[0], None, initiating.frame))
        wait = self._limits.answer_within * 2.0**initiating.tries
        initiating.tries += 1
        initiating.due = now + min(wait, self._limits.repeat_at_most)

    def _drop_initiating(self) -> None:
        if self._initiating is not None:
            self._hub.release(self._initiating.own_id)
            self._initiating = None

    def on_message_2(self, now: float, initiating: Initiating, message: bytes) -> None:
        """Message 3 for message 2; the same again for the same again."""
        digest = _digest(message)
        if initiating.taken:
            if initiating.taken == digest:
                self._hub.emit(Send(self._names[0], None, initiating.frame))
            return
        to_be_signed = initiating.handshake.read_message_2(message, self.peer.sig_key)
        own = self._hub.own()
        message_3 = initiating.handshake.message_3(own.keys.sign(to_be_signed))
        initiating.frame = frames.make(Kind.MESSAGE_3, initiating.handshake.c_r, message_3)
        initiating.taken, initiating.tries = digest, 0
        self._repeat(now, initiating)

    def on_message_4(self, now: float, initiating: Initiating, message: bytes) -> Channel:
        """The session, used from now on."""
        session = initiating.handshake.read_message_4(message, self._limits.window)
        channel = Channel(
            session, initiating.own_id, self._names, now, self._limits, self._hub.emit
        )
        self._initiating = None
        self._use(channel)
        self._drive(now)
        if not channel.unconfirmed:
            channel.ask(now)  # The peer must see a packet to know that we have the keys.
        return channel

    # Handshake, the peer begins

    def on_message_1(self, now: float, message: bytes) -> None:
        """Message 2 for message 1; the same again for the same again."""
        digest = _digest(message)
        for known in self.responding.values():
            if known.digest == digest:
                self._hub.emit(Send(self._names[0], None, known.frame))
                return
        own = self._hub.own()
        if self._initiating is not None and own.bundle.kid < self.peer.bundle.kid:
            return
        if self._hub.half_open >= self._limits.half_open:
            raise TransportError("too many handshakes are half open")
        holder = Holder(self)
        own_id = self._hub.claim(holder)
        try:
            handshake = HandshakeResponder(
                own.bundle.suite.edhoc, message, own_id, frames.credential(own.bundle)
            )
        except PqcIiotError as error:
            self._hub.release(own_id)
            raise InvalidFrameError(f"message 1 is not one for this device: {error}") from error
        message_2 = handshake.message_2(own.keys.sign(handshake.to_be_signed))
        frame = frames.make(Kind.MESSAGE_2, handshake.c_i, message_2)
        until = now + self._limits.give_up
        holder.role = self.responding[own_id] = Responding(handshake, digest, frame, until)
        self._hub.half_open += 1
        if len(self.responding) > self._limits.half_open_per_peer:
            self._forget(next(iter(self.responding)))
        self._hub.emit(Send(self._names[0], None, frame))

    def on_message_3(
        self, now: float, own_id: bytes, responding: Responding, message: bytes
    ) -> Channel:
        """Message 4 for message 3, and a session that is used once the peer uses it."""
        message_4, session = responding.handshake.read_message_3(
            message, self._credential, self.peer.sig_key, self._limits.window
        )
        del self.responding[own_id]
        self._hub.half_open -= 1
        channel = Channel(session, own_id, self._names, now, self._limits, self._hub.emit)
        channel.began = False
        channel.question = _digest(message)
        c_i = responding.handshake.c_i
        channel.answer = frames.make(Kind.MESSAGE_4, c_i, message_4)
        if self._hub.own().bundle.kid > self.peer.bundle.kid:
            self._drop_initiating()
        self._close(self._candidate)
        self._candidate = channel
        self._hub.emit(Send(self._names[0], None, channel.answer))
        return channel

    def on_message_3_again(self, channel: Channel, message: bytes) -> None:
        """The same message 4 for the same message 3."""
        if channel.question != _digest(message):
            raise AuthenticationError("authentication failed")
        self._hub.emit(Send(self._names[0], None, channel.answer))

    def _forget(self, own_id: bytes) -> None:
        del self.responding[own_id]
        self._hub.half_open -= 1
        self._hub.release(own_id)

    # Packets

    def on_packet(self, now: float, channel: Channel, packet: bytes, context: str | None) -> bytes:
        """Opens a packet; the handshake frame that it carries, or nothing."""
        carried = channel.open(now, packet, context)
        if channel is self._candidate:
            self._candidate = None
            self._use(channel)
        if self._waiting or carried or self._is_due(channel, now):
            self._drive(now)
        return carried

    def _use(self, channel: Channel) -> None:
        if self.current is not None:
            self._old.append(self.current)
        while len(self._old) > _OLD:
            self._close(self._old.pop(0))
        self.current = channel
        self._hub.emit(Established(self._names[1], channel.own_id, channel.began))

    def _close(self, channel: Channel | None) -> None:
        if channel is not None:
            channel.close()
            self._hub.release(channel.own_id)
            self._hub.emit(Ended(self._names[1], channel.own_id))

    # Time

    def tick(self, now: float) -> float:
        """Does what is due; when to come again."""
        limits = self._limits
        while self._waiting and self._waiting[0].until <= now:
            self._hub.emit(Report(self._waiting.popleft().token, Fate.UNSENT))
        for own_id in [i for i, each in self.responding.items() if each.until <= now]:
            self._forget(own_id)
        self._tick_channels(now)
        initiating = self._initiating
        if initiating is not None and initiating.due <= now:
            if now - initiating.since >= limits.give_up and not self._waiting:
                self._drop_initiating()
                self._not_before = now + limits.repeat_at_most
            elif initiating.tries > limits.attempts or (initiating.taken and initiating.tries > 2):
                # Perhaps the peer has lost what it answered: from the beginning.
                since = initiating.since
                self._drop_initiating()
                self._initiate(now, since)
            else:
                self._repeat(now, initiating)
        self._drive(now)
        return self.next()

    def _tick_channels(self, now: float) -> None:
        for channel in [c for c in (self.current, self._candidate, *self._old) if c]:
            channel.tick(now)
            gone = now - channel.heard >= self._limits.grace and not channel.unconfirmed
            if channel is self.current:
                if channel.silent or self._is_over(channel, now):
                    self.current = None
                    self._close(channel)
            elif channel is self._candidate:
                if now - channel.born >= self._limits.give_up:
                    self._candidate = None
                    self._close(channel)
            elif gone or channel.silent or self._is_over(channel, now):
                self._old.remove(channel)
                self._close(channel)

    def next(self) -> float:
        """When `tick` has something to do."""
        limits = self._limits
        times = [each.until for each in self.responding.values()]
        times += [channel.due for channel in (self.current, self._candidate) if channel]
        times += [c.due if c.unconfirmed else c.heard + limits.grace for c in self._old]
        if self._waiting:
            times.append(self._waiting[0].until)
            if self.current is None and self._initiating is None:
                times.append(self._patience)
        if self._candidate is not None:
            times.append(self._candidate.born + limits.give_up)
        if self._initiating is not None:
            times.append(self._initiating.due)
        return min(times, default=NEVER)

    @property
    def busy(self) -> bool:
        """Whether more than one session's packets is under way."""
        return bool(self._waiting or self._initiating or self._candidate or self.responding)

    @property
    def idle(self) -> bool:
        """Whether nothing at all is held for this peer."""
        return not (
            self.current or self._candidate or self._old or self._initiating
            or self.responding or self._waiting
        )  # fmt: skip

    def end(self) -> None:
        """Wipes every key now; what was handed over and is open gets its fate."""
        self._drop_initiating()
        for own_id in list(self.responding):
            self._forget(own_id)
        for channel in (self.current, self._candidate, *self._old):
            self._close(channel)
        self.current = self._candidate = None
        self._old.clear()
        while self._waiting:
            self._hub.emit(Report(self._waiting.popleft().token, Fate.UNSENT))
