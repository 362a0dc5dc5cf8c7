"""One established session: packets out and in, and who knows what has arrived.

The receiver tells now and then which packets it has opened, in packets of its own. The
sender asks where it hears nothing. So every message has a fate, and a peer that lost its
keys is noticed by its silence: nothing that anybody could forge ends a session.
"""

from __future__ import annotations

from collections.abc import Callable

from .._core import Session
from ..envelope import encode_context
from ..errors import InvalidFrameError
from . import frames
from .frames import MAX_SEEN, Control
from .limits import Limits
from .outcome import Delivered, Fate, Outcome, Report, Send

NEVER = float("inf")
_CONTROL = b""
"""Associated data of what has no topic; an encoded topic is never empty."""
_SEEN = (1 << MAX_SEEN) - 1


class Channel:
    """`own_id` is where packets arrive, `kid` and `fingerprint` are the peer's."""

    __slots__ = (
        "_answer_at",
        "_ask_at",
        "_asked",
        "_emit",
        "_seen",
        "_told",
        "_untold",
        "answer",
        "began",
        "born",
        "fingerprint",
        "heard",
        "kid",
        "limits",
        "own_id",
        "question",
        "session",
        "unconfirmed",
    )  # fmt: skip

    def __init__(
        self,
        session: Session,
        own_id: bytes,
        peer: tuple[bytes, bytes],
        now: float,
        limits: Limits,
        emit: Callable[[Outcome], None],
    ) -> None:
        self.session, self.own_id, self.limits, self._emit = session, own_id, limits, emit
        self.kid, self.fingerprint = peer
        self.born = self.heard = now
        self.began = True
        self.question = self.answer = b""
        """Digest of message 3 and the frame of message 4, to answer a repetition."""
        self.unconfirmed: dict[int, tuple[int, float]] = {}
        self._ask_at, self._asked = NEVER, 0
        self._answer_at, self._untold = NEVER, 0
        self._seen = self._told = 0

    # Out

    def send(self, now: float, context: str, payload: bytes, token: int) -> None:
        """Seals and emits one message. `StateError` where the numbers are used up."""
        number = self.session.sealed
        frame = self.session.seal(encode_context(context), payload)
        self.unconfirmed[number] = (token, now)
        if self._ask_at == NEVER:
            self._ask_at = now + self.limits.answer_within + self.limits.confirm_within
        self._emit(Send(self.kid, context, frame))

    def ask(self, now: float) -> None:
        """Asks what has arrived, unless it is being asked already."""
        if not self._asked:
            self._repeat(now)

    def control(self, kind: Control, body: bytes = b"") -> None:
        """Seals and emits something without a topic."""
        packet = self.session.seal(_CONTROL, b"%c%b" % (kind, body))
        self._emit(Send(self.kid, None, packet))

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
        wait = self.limits.answer_within * 2.0 ** (self._asked - 1)
        self._ask_at = now + min(wait, self.limits.repeat_at_most)
        if not self.silent and self.session.sealed < (1 << 20):
            self.control(Control.ASK)

    # In

    def open(self, now: float, packet: bytes, context: str | None) -> bytes | None:
        """Opens a packet: the handshake frame that it carries, or nothing; None where it is
        not genuine.

        Other errors as `Session.open`; nothing has changed then.
        """
        if context is not None:
            payload = self.session.open_genuine(encode_context(context), packet)
            if payload is None:
                return None
            number = frames.packet_number(packet)
            self._note(number)
            self.heard = now
            self._untold += 1
            if self._untold >= self.limits.confirm_every:
                self._tell()
            elif self._answer_at == NEVER:
                self._answer_at = now + self.limits.confirm_within
            self._emit(Delivered(self.fingerprint, context, payload, self.own_id, number))
            return b""
        body = self.session.open_genuine(_CONTROL, packet)
        if body is None:
            return None
        self._note(frames.packet_number(packet))
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

    def _note(self, number: int) -> None:
        """Bit i of `_seen` stands for the number `_told - 1 - i`."""
        if number >= self._told:
            self._seen = (self._seen << min(number + 1 - self._told, MAX_SEEN)) & _SEEN | 1
            self._told = number + 1
        elif self._told - 1 - number < MAX_SEEN:
            self._seen |= 1 << (self._told - 1 - number)

    def _tell(self) -> None:
        self._untold, self._answer_at = 0, NEVER
        if self.session.sealed < (1 << 20):
            oldest = max(0, self._told - self.limits.window)
            self.control(Control.RECEIVED, frames.received(self._told, oldest, self._seen))

    def _take(self, now: float, next_expected: int, oldest: int, seen: int) -> None:
        for number, (_, sent) in list(self.unconfirmed.items()):
            if number >= next_expected:
                break
            distance = next_expected - 1 - number
            if distance < MAX_SEEN and seen >> distance & 1:
                self._settle(number, Fate.CONFIRMED)
            elif number < oldest and distance < MAX_SEEN:
                self._settle(number, Fate.LOST)
            elif distance >= MAX_SEEN or now > sent + self.limits.give_up:
                self._settle(number, Fate.UNCONFIRMED)
        self._asked = 0
        waits = self.limits.answer_within + self.limits.confirm_within
        self._ask_at = now + waits if self.unconfirmed else NEVER

    def _settle(self, number: int, fate: Fate) -> None:
        self._emit(Report(self.unconfirmed.pop(number)[0], fate))

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
        for number in list(self.unconfirmed):
            self._settle(number, Fate.UNCONFIRMED)
