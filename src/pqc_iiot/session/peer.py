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

from collections import deque
from dataclasses import dataclass

from ..errors import TransportError
from ..keystore import Peer
from ..message import Message
from .channel import NEVER, Channel
from .handshakes import Handshakes, Hub, Initiating, Responding
from .outcome import Ended, Established, Fate, Refused, Report

_OLD = 3
"""Replaced sessions that still receive; each side may use another one for a moment."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    token: int
    context: str
    payload: bytes
    until: float


class Link:
    """All that concerns one key set of a peer."""

    def __init__(self, hub: Hub, peer: Peer) -> None:
        self._hub, self.peer, self._limits = hub, peer, hub.limits
        self.handshakes = Handshakes(hub, self, peer)
        self.current: Channel | None = None
        self._candidate: Channel | None = None
        self._old: list[Channel] = []
        self._waiting: deque[_Waiting] = deque()
        self._not_before = self._wanted_until = 0.0
        self.gave_up = False
        """Whether the peer did not answer for too long."""

    # Out

    def send(self, now: float, context: str, payload: bytes, token: int) -> None:
        """Sends now, or as soon as there is a session. `TransportError` where too many
        messages wait already."""
        channel = self.current
        if channel is not None and not self._waiting and self._is_ready(channel, now):
            if channel.unconfirmed.runs >= self._limits.unconfirmed:
                raise TransportError(f"{self.peer.name} does not say what it receives")
            channel.send(now, context, payload, token)
            if self._is_due(channel, now):
                self._drive(now)
            return
        if len(self._waiting) >= self._limits.waiting:
            raise TransportError(f"too many messages wait for a session with {self.peer.name}")
        self._waiting.append(_Waiting(token, context, payload, now + self._limits.give_up))
        self._drive(now)

    def seal(self, now: float, context: str, payload: bytes, token: int) -> bytes | None:
        """The packet to send now, or None: there is no session that would take it at once."""
        channel = self.current
        if channel is None:
            return None
        if not channel.at_ease(now):
            if self._waiting or not self._is_ready(channel, now):
                return None
            if channel.unconfirmed.runs >= self._limits.unconfirmed:
                return None
            if self._is_due(channel, now):
                self._drive(now)
            channel.be_at_ease(now)
        return channel.seal(now, context, payload, token)

    def want(self, now: float) -> None:
        """There is something to send: begins a handshake where there is no session, and
        asks a peer that was silent for long."""
        self._wanted_until = now + self._limits.give_up
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
        wanted = bool(self._waiting) or now < self._wanted_until
        if channel is not None and wanted:
            if now - channel.heard > self._limits.silence:
                channel.ask(now)
            while self._waiting and self._is_ready(channel, now):
                if channel.unconfirmed.runs >= self._limits.unconfirmed:
                    break
                each = self._waiting.popleft()
                channel.send(now, each.context, each.payload, each.token)
        if channel is not None:
            wanted = channel.doubtful or self._is_due(channel, now)
        if wanted and self.handshakes.initiating is None and now >= self._patience:
            self.handshakes.begin(now, self._inside(now))

    @property
    def _patience(self) -> float:
        """Until when no handshake is begun: the peer's own is about to end well."""
        if self._candidate is None:
            return self._not_before
        return self._candidate.born + 8 * self._limits.answer_within

    # Handshakes

    def _inside(self, now: float) -> Channel | None:
        """The session, if a handshake may be begun inside it."""
        channel = self.current
        fit = channel and not channel.asking and not self._is_over(channel, now)
        return channel if fit else None

    def on_message_3(
        self, now: float, own_id: bytes, responding: Responding, message: bytes
    ) -> Channel:
        """A session that is used once the peer uses it."""
        channel = self.handshakes.on_message_3(now, own_id, responding, message)
        self._close(self._candidate)
        self._candidate = channel
        return channel

    def on_message_4(self, now: float, initiating: Initiating, message: bytes) -> Channel:
        """A session that is used from now on."""
        channel = self.handshakes.on_message_4(now, initiating, message)
        self._use(channel)
        self._drive(now)
        if not channel.unconfirmed:
            channel.ask(now)  # The peer must see a packet to know that we have the keys.
        return channel

    # Packets

    def on_packets(
        self, now: float, channel: Channel, contexts: list[str], packets: list[bytes]
    ) -> list[Message | Refused]:
        """Opens packets of one session; as `Channel.open_many`."""
        before = channel.session.opened
        results = channel.open_many(now, contexts, packets)
        if channel.session.opened != before:
            self._opened(now, channel)
        return results

    def on_control(self, now: float, channel: Channel, packet: bytes) -> bytes | None:
        """Opens a packet without a topic; as `Channel.open_control`."""
        carried = channel.open_control(now, packet)
        if carried is not None:
            self._opened(now, channel, bool(carried))
        return carried

    def _opened(self, now: float, channel: Channel, driven: bool = False) -> None:
        if channel is self._candidate:
            self._candidate = None
            self._use(channel)
        if self._waiting or driven or self._is_due(channel, now):
            self._drive(now)

    def _use(self, channel: Channel) -> None:
        if self.current is not None:
            self.current.be_careful()
            self._old.append(self.current)
        while len(self._old) > _OLD:
            self._close(self._old.pop(0))
        self.current = channel
        self._wanted_until = 0.0
        self._hub.emit(
            Established(self.peer.fingerprint, self.peer.name, channel.own_id, channel.began)
        )

    def _close(self, channel: Channel | None) -> None:
        if channel is not None:
            channel.close()
            self._hub.release(channel.own_id)
            self._hub.emit(Ended(self.peer.fingerprint, self.peer.name, channel.own_id))

    # Time

    def tick(self, now: float) -> float:
        """Does what is due; when to come again."""
        limits = self._limits
        while self._waiting and self._waiting[0].until <= now:
            self._unsent()
        if self._wanted_until <= now:
            self._wanted_until = 0.0
        self._tick_channels(now)
        initiating = self.handshakes.initiating
        if initiating and not self._waiting and now - initiating.since >= limits.give_up:
            self.handshakes.drop()
            self._not_before = now + limits.repeat_at_most
            self.gave_up = True
        self.handshakes.tick(now, self._inside(now))
        self._drive(now)
        return self.next()

    def _unsent(self) -> None:
        token = self._waiting.popleft().token
        self._hub.emit(Report(range(token, token + 1), Fate.UNSENT, self.peer.name))

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
        times = self.handshakes.times()
        if self.current is not None:
            times.append(self.current.born + 2 * limits.rekey_after)
        times += [channel.due for channel in (self.current, self._candidate) if channel]
        times += [c.due for c in self._old]
        times += [c.heard + limits.grace for c in self._old if not c.unconfirmed]
        if self._waiting:
            times.append(self._waiting[0].until)
        wanted = self._waiting or self._wanted_until
        if wanted and self.current is None and self.handshakes.initiating is None:
            times.append(self._patience)
        if self._candidate is not None:
            times.append(self._candidate.born + limits.give_up)
        return min(times, default=NEVER)

    @property
    def busy(self) -> bool:
        """Whether more than one session's packets is under way."""
        return bool(self._waiting or self._candidate or self._old or self.handshakes.times())

    @property
    def idle(self) -> bool:
        """Whether nothing at all is held for this peer."""
        return not (self.current or self.busy)

    def end(self) -> None:
        """Wipes every key now; what was handed over and is open gets its fate."""
        self.handshakes.end()
        for channel in (self.current, self._candidate, *self._old):
            self._close(channel)
        while self._waiting:
            self._unsent()
