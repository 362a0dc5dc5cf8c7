"""Sequence numbers: never given out twice, never accepted twice.

Out: numbers come from blocks whose upper edge is durable, in the store and then in the
anchor, before the first number of the block is used, and a counter in hardware has moved,
where there is one; a crash skips numbers.
In: the last number seen from each key set is durable before its message is delivered. A
number at or below it is refused: quietly where it is the identical frame again, loudly
where it is another. It is durable in the store, or already in the journal together with its
message and in the store later (`put_ahead`).
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass

from . import cose, counted
from .anchor import Anchor, Mark
from .counted import Count
from .errors import DuplicateError, ReplayError, StateError, StateTamperedError
from .providers import Counter
from .store import META, SEEN, Row, Store

MAX_SEQUENCE = (1 << 62) - 1
RECENT = 32
"""Digests of frames kept per key set, to tell a redelivered frame from another one."""
LATELY = 8192
"""Digests at least that stay in memory beside them, of all key sets together: a sender that
crashed sends again whatever it does not know to have arrived."""
DIGEST_SIZE = 8

_MARK = b"mark"
_CACHE = 4096
"""Key sets whose last numbers stay in memory; the others are read when they speak."""


def frame_digest(frame: bytes, context: bytes) -> bytes:
    """8 bytes that tell a frame in its (encoded) context from others; decides only how
    loud a refusal is."""
    digest = hashlib.sha256(context)
    digest.update(frame)
    return digest.digest()[:DIGEST_SIZE]


@dataclass(slots=True)
class _Seen:
    first: int
    last: int
    recent: OrderedDict[int, bytes]

    def copy(self) -> _Seen:
        return _Seen(self.first, self.last, self.recent.copy())

    def add(self, sequence: int, digest: bytes) -> None:
        self.first = self.first or sequence
        self.last = sequence
        self.recent[sequence] = digest
        while len(self.recent) > RECENT:
            self.recent.popitem(last=False)


class Freshness:
    """The numbers of one device. Not thread-safe: the node takes turns."""

    def __init__(
        self,
        store: Store,
        anchor: Anchor | None,
        counter: Counter | None = None,
        *,
        block: int = 1024,
    ) -> None:
        self._store, self._anchor, self._counter = store, anchor, counter
        self._block = block
        self._mark, stored = self._load_mark()
        if anchor:
            anchor.check(self._mark)
        self._count = counted.check(counter, stored)
        self._next = self._mark.edge + 1
        self._seen: OrderedDict[bytes, _Seen] = OrderedDict()
        self._staged: dict[bytes, _Seen] = {}
        self._staged_frames: list[bytes] = []
        self._lately: set[bytes] = set()
        self._earlier: set[bytes] = set()
        self._ahead: dict[bytes, _Seen] = {}
        self._replayed: dict[bytes, list[tuple[int, bytes]]] = {}
        self._advance(Mark(self._mark.epoch + 1, self._mark.edge))

    @staticmethod
    def initialise(
        store: Store, anchor: Anchor | None, counter: Counter | None = None, edge: int = 0
    ) -> None:
        """The first mark of a new device, whose numbers start above `edge`."""
        with store.transaction():
            store.put(META, _mark_row(Mark(0, edge), counted.start(counter)))
        if anchor:
            anchor.write(Mark(0, edge))

    def _load_mark(self) -> tuple[Mark, Count]:
        row = self._store.get(META, _MARK)
        match row and cose.loads(row.value, 128, "the mark", StateTamperedError):
            case [int(epoch), int(edge)]:
                return Mark(epoch, edge), Count()
            case [int(epoch), int(edge), int(count), bytes(name)]:
                return Mark(epoch, edge), Count(count, name)
        raise StateError(
            "the sequence numbers' state is missing",
            hint="put the state file back, or make new keys with: pqc-iiot recover",
        )

    def _advance(self, mark: Mark) -> None:
        count = self._count.next()
        with self._store.transaction():
            self._store.put(META, _mark_row(mark, count))
        if self._anchor:
            self._anchor.write(mark)
        counted.reach(self._counter, count)
        self._mark, self._count = mark, count

    def outdate(self) -> None:
        """Makes every copy of the store that was made before now too old, where a counter
        in hardware can tell: called when trust was taken back."""
        if self._counter:
            self._advance(Mark(self._mark.epoch + 1, self._mark.edge))

    # Out

    def next_number(self) -> int:
        """A number that this device has never used. `StateError` where none is durable."""
        if self._next > self._mark.edge:
            edge = self._mark.edge + self._block
            if edge > MAX_SEQUENCE:
                raise StateError(
                    "the sequence numbers are used up",
                    hint="start again with new keys: pqc-iiot recover",
                )
            self._advance(Mark(self._mark.epoch, edge))
        number = self._next
        self._next += 1
        return number

    # In

    def check(self, sender: bytes, sequence: int, digest: bytes) -> None:
        """Raises `DuplicateError` or `ReplayError` unless `sequence` is new from the key
        set with fingerprint `sender`. Changes nothing."""
        seen = self._load(sender)
        if sequence > seen.last:
            return
        if seen.recent.get(sequence) == digest or self._remembers(sender + digest):
            raise DuplicateError(f"frame {sequence} came again, unchanged", peer=sender.hex())
        raise ReplayError(
            f"sequence number {sequence} is not above the last one seen, {seen.last}",
            hint="an old or forged frame, or a sender whose state was restored from a copy",
            peer=sender.hex(),
        )

    def stage(self, sender: bytes, sequence: int, digest: bytes) -> None:
        """Takes an authenticated number; durable, and to be relied on, after `commit` (or
        after `settle`, where the journal has it)."""
        seen = self._staged.get(sender)
        if seen is None:
            seen = self._staged[sender] = self._load(sender).copy()
        seen.add(sequence, digest)
        self._staged_frames.append(sender + digest)

    def put_staged(self) -> None:
        """Writes what is staged; call it inside a transaction of the store."""
        for sender, seen in self._staged.items():
            self._put(sender, seen)

    def commit(self) -> None:
        """Makes what is staged durable, or forgets it and raises `StateError`."""
        if not self._staged:
            return
        try:
            with self._store.transaction():
                self.put_staged()
        except BaseException:
            self.forget_staged()
            raise
        for sender, seen in self._staged.items():
            self._ahead.pop(sender, None)
            self._keep(sender, seen)
        self._accepted()

    def forget_staged(self) -> None:
        """Takes back what is staged: those numbers have not been accepted."""
        self._staged.clear()
        self._staged_frames.clear()

    def _accepted(self) -> None:
        self._remember(*self._staged_frames)
        self.forget_staged()

    def _remember(self, *frames: bytes) -> None:
        self._lately.update(frames)
        if len(self._lately) >= LATELY:
            self._earlier, self._lately = self._lately, set()

    def _remembers(self, frame: bytes) -> bool:
        return frame in self._lately or frame in self._earlier

    # In, by way of the journal

    def replay(self, sender: bytes, sequence: int, digest: bytes) -> None:
        """Takes a number that the journal has; before any other is asked for."""
        self._replayed.setdefault(sender, []).append((sequence, digest))
        self._remember(sender + digest)

    def settle(self) -> None:
        """What is staged is durable: the journal has it, the store does not yet."""
        for sender, seen in self._staged.items():
            self._seen.pop(sender, None)
            self._ahead[sender] = seen
        self._accepted()

    def put_ahead(self) -> None:
        """Writes what only the journal has; call it inside a transaction of the store."""
        for sender in list(self._replayed):
            self._load(sender)
        for sender, seen in self._ahead.items():
            self._put(sender, seen)

    def forget_ahead(self) -> None:
        """After `put_ahead` was committed: the store has everything."""
        for sender, seen in self._ahead.items():
            self._keep(sender, seen)
        self._ahead.clear()

    def seen(self, sender: bytes) -> tuple[int, int]:
        """The first and the last number accepted from a key set; zeros without any."""
        seen = self._load(sender)
        return seen.first, seen.last

    def _load(self, sender: bytes) -> _Seen:
        seen = self._staged.get(sender) or self._ahead.get(sender)
        if seen is not None:
            return seen
        seen = self._seen.get(sender)
        if seen is not None:
            self._seen.move_to_end(sender)
            return seen
        row = self._store.get(SEEN, sender)
        seen = _Seen(0, 0, OrderedDict()) if row is None else _parse_seen(row.value)
        replayed = self._replayed.pop(sender, None)
        if replayed is None:
            self._keep(sender, seen)
            return seen
        for sequence, digest in replayed:
            if sequence > seen.last:  # else the store was written after the journal
                seen.add(sequence, digest)
        self._ahead[sender] = seen
        return seen

    def _keep(self, sender: bytes, seen: _Seen) -> None:
        self._seen[sender] = seen
        while len(self._seen) > _CACHE:
            self._seen.popitem(last=False)

    def _put(self, sender: bytes, seen: _Seen) -> None:
        recent = b"".join(number.to_bytes(8, "big") + d for number, d in seen.recent.items())
        self._store.put(SEEN, Row(sender, cose.dumps([seen.first, seen.last, recent])))

    @property
    def rollback_protected(self) -> bool:
        """Whether a counter in hardware would tell that the whole folder was put back."""
        return self._counter is not None

    @property
    def mark(self) -> Mark:
        """Epoch, and the upper edge of the numbers given out."""
        return self._mark

    def close(self) -> None:
        """A clean end: a copy of the store made before it is too old from here on."""
        self.commit()
        self._advance(Mark(self._mark.epoch + 1, self._mark.edge))


def _mark_row(mark: Mark, count: Count) -> Row:
    kept = [count.value, count.name] if count.name else []
    return Row(_MARK, cose.dumps([mark.epoch, mark.edge, *kept]))


def _parse_seen(value: bytes) -> _Seen:
    match cose.loads(value, 4096, "a row of last numbers", StateTamperedError):
        case [int(first), int(last), bytes(recent)] if len(recent) % (8 + DIGEST_SIZE) == 0:
            entries = (
                recent[i : i + 8 + DIGEST_SIZE] for i in range(0, len(recent), 8 + DIGEST_SIZE)
            )
            digests = OrderedDict((int.from_bytes(e[:8], "big"), e[8:]) for e in entries)
            return _Seen(first, last, digests)
    raise StateTamperedError("a row of last numbers has another shape")
