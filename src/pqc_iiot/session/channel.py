"""One established session: packets out and in, and who knows what has arrived.

The receiver tells now and then which packets it has opened, in packets of its own. The
sender asks where it hears nothing. So every message has a fate, and a peer that lost its
keys is noticed by its silence: nothing that anybody could forge ends a session.
"""

from __future__ import annotations

from collections.abc import Callable

from .._core import Session
from ..envelope import encode_context
from ..errors import AuthenticationError, InvalidFrameError
from ..keystore import Peer
from ..message import Message
from . import frames
from .fates import Unconfirmed
from .frames import Control
from .limits import Limits
from .outcome import Fate, Outcome, Refused, Report, Send

NEVER = float("inf")
_CONTROL = b""
"""Associated data of what has no topic; an encoded topic is never empty."""
_AT_EASE, _EASE = 64, 0.25
"""How many packets, and for how many seconds, may follow one that was looked at closely."""


class Channel:
    """`own_id` is where packets arrive, `peer` the one at the other end."""

    __slots__ = (
        "_answer_at",
        "_ask_at",
        "_asked",
        "_ease",
        "_ease_until",
        "_emit",
        "_number",
        "_untold",
        "answer",
        "began",
        "born",
        "forged",
        "heard",
        "limits",
        "own_id",
        "peer",
        "question",
        "session",
        "unconfirmed",
    )  # fmt: skip

    def __init__(
        self,
        session: Session,
        own_id: bytes,
        peer: Peer,
        now: float,
        limits: Limits,
        emit: Callable[[Outcome], None],
    ) -> None:
        self.session, self.own_id, self.limits, self._emit = session, own_id, limits, emit
        self.peer = peer
        self.born = self.heard = now
        self.began = True
        self.question = self.answer = b""
        """Digest of message 3 and the frame of message 4, to answer a repetition."""
        self.forged = Refused(
            AuthenticationError("authentication failed", peer=peer.fingerprint.hex()),
            peer.fingerprint,
        )
        """What is said of every packet that is not genuine."""
        self.unconfirmed = Unconfirmed()
        self._ask_at, self._asked = NEVER, 0
        self._answer_at, self._untold = NEVER, 0
        self._ease, self._ease_until = 0, now
        self._number = session.sealed

    # Out

    def seal(self, now: float, context: str, payload: bytes, token: int) -> bytes:
        """The packet of one message. `StateError` where the numbers are used up."""
        number = self._number
        frame = self.session.seal(encode_context(context), payload)
        self._number = number + 1
        self.unconfirmed.add(number, token, now)
        if self._ask_at == NEVER:
            self._ask_at = now + self.limits.answer_within + self.limits.confirm_within
        return frame

    def send(self, now: float, context: str, payload: bytes, token: int) -> None:
        """Seals and emits one message."""
        self._emit(Send(self.peer.bundle.kid, context, self.seal(now, context, payload, token)))

    def be_at_ease(self, now: float) -> None:
        """The caller has found everything in order: the next packets may go unasked."""
        if not self._asked:
            self._ease, self._ease_until = _AT_EASE, now + _EASE

    def be_careful(self) -> None:
        """Undoes `be_at_ease`."""
        self._ease = 0

    def at_ease(self, now: float) -> bool:
        """Whether one more packet may go unasked, with no timer to set for it."""
        if self._ease and now < self._ease_until and self._ask_at != NEVER:
            self._ease -= 1
            return True
        return False

    def ask(self, now: float) -> None:
        """Asks what has arrived, unless it is being asked already."""
        if not self._asked:
            self._repeat(now)

    def control(self, kind: Control, body: bytes = b"") -> None:
        """Seals and emits something without a topic."""
        packet = self.session.seal(_CONTROL, b"%c%b" % (kind, body))
        self._number += 1
        self._emit(Send(self.peer.bundle.kid, None, packet))

    @property
    def asking(self) -> bool:
        """Whether a question is open."""
        return self._asked > 0

    @property
    def doubtful(self) -> bool:
        """Whether two questions went unanswered."""
        return self._asked > 2

    @property
    def silent(self) -> bool:
        """Whether questions went unanswered as often as they may."""
        return self._asked > self.limits.attempts

    def _repeat(self, now: float) -> None:
        self._asked += 1
        self._ease = 0
        wait = self.limits.answer_within * 2.0 ** (self._asked - 1)
        self._ask_at = now + min(wait, self.limits.repeat_at_most)
        if not self.silent and self.session.sealed < (1 << 20):
            self.control(Control.ASK)

    # In

    def open_many(
        self, now: float, contexts: list[str], packets: list[bytes]
    ) -> list[Message | Refused]:
        """Opens packets that came under topics, in order: a message or the refusal each."""
        session, name, fingerprint = self.session, self.peer.name, self.peer.fingerprint
        before = session.opened
        results: list[Message | Refused] = []
        refused = self.forged
        opened = session.open_many([*map(encode_context, contexts)], packets)
        for context, packet, payload in zip(contexts, packets, opened, strict=True):
            if isinstance(payload, bytes):
                number = frames.packet_number(packet)
                results.append(Message(name, number, payload, context, fingerprint, self.own_id))
            elif payload is None:
                results.append(self.forged)
            else:
                if payload is not refused.error:
                    refused = Refused(payload, fingerprint)
                results.append(refused)
        if genuine := session.opened - before:
            self.heard = now
            self._untold += genuine
            if self._untold >= self.limits.confirm_every:
                self._tell()
            elif self._answer_at == NEVER:
                self._answer_at = now + self.limits.confirm_within
        return results

    def open_control(self, now: float, packet: bytes) -> bytes | None:
        """Opens a packet without a topic: the handshake frame that it carries, or nothing;
        None where it is not genuine.

        Other errors as `Session.open`; nothing has changed then.
        """
        body = self.session.open_genuine(_CONTROL, packet)
        if body is None:
            return None
        self.heard = now
        match body[:1]:
            case b"\x01":
                self._take(now, *frames.parse_received(body[1:]))
            case b"\x02":
                self._tell()
            case b"\x03":
                return body[1:]
            case _:
                raise InvalidFrameError("the packet holds nothing that is known here")
        return b""

    def _tell(self) -> None:
        self._untold, self._answer_at = 0, NEVER
        if self.session.sealed < (1 << 20):
            self.control(Control.RECEIVED, frames.received(*self.session.received()))

    def _take(self, now: float, next_expected: int, oldest: int, seen: int) -> None:
        given_up = now - self.limits.give_up
        for tokens, fate in self.unconfirmed.take(next_expected, oldest, seen, given_up):
            self._emit(Report(tokens, fate, self.peer.name))
        self._asked = 0
        waits = self.limits.answer_within + self.limits.confirm_within
        self._ask_at = now + waits if self.unconfirmed else NEVER

    # Time

    @property
    def due(self) -> float:
        """When `tick` has something to do."""
        return min(self._ask_at, self._answer_at)

    def tick(self, now: float) -> None:
        """Answers and asks what is due."""
        if self._answer_at <= now:
            self._tell()
        if self._ask_at <= now:
            self._repeat(now)

    def close(self) -> None:
        """Wipes the keys; what is open stays unconfirmed."""
        self.session.close()
        self._ask_at = self._answer_at = NEVER
        for tokens, fate in self.unconfirmed.clear(Fate.UNCONFIRMED):
            self._emit(Report(tokens, fate, self.peer.name))
