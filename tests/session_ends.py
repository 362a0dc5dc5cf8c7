"""Ends of sessions and handshakes without devices around them."""

from __future__ import annotations

from pqc_iiot import Message
from pqc_iiot._core import HandshakeInitiator, HandshakeResponder, Session
from pqc_iiot.session import Limits, Outcome, Refused, Send, frames
from pqc_iiot.session.channel import Channel
from pqc_iiot.session.frames import Kind, credential
from session_network import as_peer, keys

NOW = 1000.0
NUMBERS = 1 << 20


class End:
    """One end, and what it emitted."""

    def __init__(self, session: Session, own_id: bytes, peer: str, limits: Limits) -> None:
        self.emitted: list[Outcome] = []
        self.tokens = 0
        self.channel = Channel(session, own_id, as_peer(peer), NOW, limits, self.emitted.append)

    def take(self) -> list[bytes]:
        """The packets without a topic that it sends now."""
        sent = [each.frame for each in self.emitted if isinstance(each, Send)]
        self.emitted.clear()
        return sent

    def messages(self, count: int, now: float = NOW) -> list[bytes]:
        """Packets with messages."""
        self.tokens += count
        tokens = range(self.tokens - count, self.tokens)
        return [self.channel.seal(now, "t", b"", token) for token in tokens]

    def hear(self, packets: list[bytes], now: float = NOW) -> list[Message | Refused]:
        """Takes packets with messages."""
        return self.channel.open_many(now, ["t"] * len(packets), packets)


class Caller:
    """A's part of a handshake with B, by hand: frames for B's inbox."""

    def __init__(self) -> None:
        a, b = keys("a"), keys("b")
        self.handshake = HandshakeInitiator(
            b.bundle.suite.edhoc, b"of a", credential(a.bundle), credential(b.bundle)
        )
        self.message_1 = frames.make(Kind.MESSAGE_1, a.bundle.kid, self.handshake.message_1)

    def message_3(self, message_2: bytes) -> bytes:
        """What answers B's frame with message 2."""
        to_be_signed = self.handshake.read_message_2(
            frames.parse(message_2).message, as_peer("b").sig_key
        )
        message_3 = self.handshake.message_3(keys("a").keys.sign(to_be_signed))
        return frames.make(Kind.MESSAGE_3, self.handshake.c_r, message_3)

    def session(self, message_4: bytes, window: int = 0) -> Session:
        """A's end, after B's frame with message 4."""
        return self.handshake.read_message_4(frames.parse(message_4).message, window)


def ends(limits: Limits | None = None) -> tuple[End, End]:
    """Both ends of a session that was just made."""
    limits = limits or Limits()
    caller, b = Caller(), keys("b")
    responder = HandshakeResponder(
        b.bundle.suite.edhoc, caller.handshake.message_1, b"of b", credential(b.bundle)
    )
    message_2 = responder.message_2(b.keys.sign(responder.to_be_signed))
    message_3 = caller.message_3(frames.make(Kind.MESSAGE_2, b"of a", message_2))
    message_4, session_of_b = responder.read_message_3(
        frames.parse(message_3).message,
        credential(keys("a").bundle),
        as_peer("a").sig_key,
        limits.window,
    )
    session_of_a = caller.session(frames.make(Kind.MESSAGE_4, b"of a", message_4), limits.window)
    return End(session_of_a, b"of a", "b", limits), End(session_of_b, b"of b", "a", limits)
