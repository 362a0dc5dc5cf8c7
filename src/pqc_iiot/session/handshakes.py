"""Handshakes with one peer: this side's one, and the peer's that wait for message 3.

A message that comes again is answered the same again; what is forged changes nothing.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from .._core import HandshakeInitiator, HandshakeResponder
from ..errors import AuthenticationError, InvalidFrameError, PqcIiotError, TransportError
from ..identity import OwnKeys
from ..keystore import Peer
from . import frames
from .channel import NEVER, Channel
from .frames import Control, Kind
from .limits import Limits
from .outcome import Outcome, Send

if TYPE_CHECKING:
    from .peer import Link


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

    @property
    def emit(self) -> Callable[[Outcome], None]:
        """Takes something for the caller."""


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


def _digest(message: bytes) -> bytes:
    return hashlib.sha256(message).digest()


class Handshakes:
    """Those of one link; `link` is whom session ids are claimed for."""

    def __init__(self, hub: Hub, link: Link, peer: Peer) -> None:
        self._hub, self._link, self.peer = hub, link, peer
        self._credential = frames.credential(peer.bundle)
        self.initiating: Initiating | None = None
        self.responding: OrderedDict[bytes, Responding] = OrderedDict()

    # This side begins

    def begin(self, now: float, inside: Channel | None, since: float | None = None) -> None:
        """Message 1; inside a session, where one is in order, no flood can stop it."""
        own, suite = self._hub.own(), self.peer.bundle.suite
        holder = Holder(self._link)
        own_id = self._hub.claim(holder)
        handshake = HandshakeInitiator(
            suite.edhoc, own_id, frames.credential(own.bundle), self._credential
        )
        frame = frames.make(Kind.MESSAGE_1, own.bundle.kid, handshake.message_1)
        started = now if since is None else since
        self.initiating = holder.role = Initiating(handshake, own_id, started, frame)
        self._repeat(now, self.initiating, inside)

    def _repeat(self, now: float, initiating: Initiating, inside: Channel | None) -> None:
        if inside and not initiating.taken and initiating.tries % 2 == 0:
            inside.control(Control.HANDSHAKE, initiating.frame)
        else:
            self._hub.emit(Send(self.peer.bundle.kid, None, initiating.frame))
        wait = self._hub.limits.answer_within * 2.0**initiating.tries
        initiating.tries += 1
        initiating.due = now + min(wait, self._hub.limits.repeat_at_most)

    def drop(self) -> None:
        """Gives up this side's."""
        if self.initiating is not None:
            self._hub.release(self.initiating.own_id)
            self.initiating = None

    def on_message_2(self, now: float, initiating: Initiating, message: bytes) -> None:
        """Message 3 for message 2; the same again for the same again."""
        digest = _digest(message)
        if initiating.taken:
            if initiating.taken == digest:
                self._hub.emit(Send(self.peer.bundle.kid, None, initiating.frame))
            return
        to_be_signed = initiating.handshake.read_message_2(message, self.peer.sig_key)
        own = self._hub.own()
        message_3 = initiating.handshake.message_3(own.keys.sign(to_be_signed))
        initiating.frame = frames.make(Kind.MESSAGE_3, initiating.handshake.c_r, message_3)
        initiating.taken, initiating.tries = digest, 0
        self._repeat(now, initiating, None)

    def on_message_4(self, now: float, initiating: Initiating, message: bytes) -> Channel:
        """The session; the peer has its keys."""
        session = initiating.handshake.read_message_4(message, self._hub.limits.window)
        channel = Channel(
            session, initiating.own_id, self.peer, now, self._hub.limits, self._hub.emit
        )
        self.initiating = None
        return channel

    # The peer begins

    def on_message_1(self, now: float, message: bytes) -> None:
        """Message 2 for message 1; the same again for the same again."""
        digest = _digest(message)
        for known in self.responding.values():
            if known.digest == digest:
                self._hub.emit(Send(self.peer.bundle.kid, None, known.frame))
                return
        own = self._hub.own()
        if self.initiating is not None and own.bundle.kid < self.peer.bundle.kid:
            return
        if self._hub.half_open >= self._hub.limits.half_open:
            raise TransportError("too many handshakes are half open")
        holder = Holder(self._link)
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
        until = now + self._hub.limits.give_up
        holder.role = self.responding[own_id] = Responding(handshake, digest, frame, until)
        self._hub.half_open += 1
        if len(self.responding) > self._hub.limits.half_open_per_peer:
            self._forget(next(iter(self.responding)))
        self._hub.emit(Send(self.peer.bundle.kid, None, frame))

    def on_message_3(
        self, now: float, own_id: bytes, responding: Responding, message: bytes
    ) -> Channel:
        """The session, of which message 4 tells the peer."""
        message_4, session = responding.handshake.read_message_3(
            message, self._credential, self.peer.sig_key, self._hub.limits.window
        )
        del self.responding[own_id]
        self._hub.half_open -= 1
        channel = Channel(session, own_id, self.peer, now, self._hub.limits, self._hub.emit)
        channel.began = False
        channel.question = _digest(message)
        c_i = responding.handshake.c_i
        channel.answer = frames.make(Kind.MESSAGE_4, c_i, message_4)
        if self._hub.own().bundle.kid > self.peer.bundle.kid:
            self.drop()
        self._hub.emit(Send(self.peer.bundle.kid, None, channel.answer))
        return channel

    def on_message_3_again(self, channel: Channel, message: bytes) -> None:
        """The same message 4 for the same message 3."""
        if channel.question != _digest(message):
            raise AuthenticationError("authentication failed")
        self._hub.emit(Send(self.peer.bundle.kid, None, channel.answer))

    def _forget(self, own_id: bytes) -> None:
        del self.responding[own_id]
        self._hub.half_open -= 1
        self._hub.release(own_id)

    # Time

    def tick(self, now: float, inside: Channel | None) -> None:
        """Repeats, starts afresh and forgets what is due."""
        for own_id in [i for i, each in self.responding.items() if each.until <= now]:
            self._forget(own_id)
        initiating = self.initiating
        if initiating is None or initiating.due > now:
            return
        if initiating.tries > self._hub.limits.attempts or (
            initiating.taken and initiating.tries > 2
        ):
            # Perhaps the peer has lost what it answered: from the beginning.
            since = initiating.since
            self.drop()
            self.begin(now, inside, since)
        else:
            self._repeat(now, initiating, inside)

    def times(self) -> list[float]:
        """When `tick` has something to do."""
        times = [each.until for each in self.responding.values()]
        return times if self.initiating is None else [*times, self.initiating.due]

    def end(self) -> None:
        """Forgets everything."""
        self.drop()
        for own_id in list(self.responding):
            self._forget(own_id)
