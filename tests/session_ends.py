"""Two ends of one session, without devices around them."""

from __future__ import annotations

from pqc_iiot import Message
from pqc_iiot._core import HandshakeInitiator, HandshakeResponder, Session
from pqc_iiot.session import Limits, Outcome, Refused, Send
from pqc_iiot.session.channel import Channel
from pqc_iiot.session.frames import credential
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


def ends(limits: Limits | None = None) -> tuple[End, End]:
    """Both ends of a session that was just made."""
    limits = limits or Limits()
    a, b = keys("a"), keys("b")
    of_a, of_b = credential(a.bundle), credential(b.bundle)
    initiator = HandshakeInitiator(b.bundle.suite.edhoc, b"of a", of_a, of_b)
    responder = HandshakeResponder(b.bundle.suite.edhoc, initiator.message_1, b"of b", of_b)
    message_2 = responder.message_2(b.keys.sign(responder.to_be_signed))
    to_be_signed = initiator.read_message_2(message_2, as_peer("b").sig_key)
    message_4, session_of_b = responder.read_message_3(
        initiator.message_3(a.keys.sign(to_be_signed)), of_a, as_peer("a").sig_key, limits.window
    )
    session_of_a = initiator.read_message_4(message_4, limits.window)
    return End(session_of_a, b"of a", "b", limits), End(session_of_b, b"of b", "a", limits)
