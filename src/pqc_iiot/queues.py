"""What waits in a device: messages for its application, frames for the network.

Both are in one journal, so that one fsync serves whatever is done together: messages and
their sequence numbers, what the application has acknowledged, frames to be sent, and what
the broker has. The journal is replayed when the device is opened. From time to time what
still waits is written anew, the numbers go to the store, and the older journal goes.
"""

from __future__ import annotations

import gc
import hashlib
import itertools
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, TypeVar

from . import cose
from .errors import StateTamperedError
from .freshness import Freshness
from .message import ENTRY_SIZE, Message, Outgoing
from .store.journal import Journal

SEGMENT = 16 << 20
"""Bytes after which the journal goes on in a new file."""
SEGMENTS = 8
"""Files with which a new one begins with what still waits, and replaces them all."""
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_MAX_RECORD = 1 << 31
_Values: TypeAlias = "list[int | str | bytes]"


@dataclass(frozen=True, slots=True)
class QueueStatus:
    """What waits, for how many seconds the oldest of it, and what it cost since the device
    was opened: commits of the journal with their mean and longest time in microseconds and all
    of it in seconds, fsyncs, bytes written. `expired` and `refused` count what was given up."""

    inbox: int
    inbox_bytes: int
    inbox_age: int
    outbox: int
    outbox_bytes: int
    outbox_age: int
    expired: int
    refused: int
    messages: int
    commits: int
    commit_mean: int
    commit_max: int
    commit_total: float
    fsyncs: int
    fsyncs_per_message: float
    written: int


@dataclass(frozen=True, slots=True)
class Waiting:
    """A message in the inbox. `place` grows with each; `since` is by `Clock`; `digest` is
    of its frame, empty where it has no sequence number."""

    message: Message
    digest: bytes
    place: int
    since: int

    @property
    def size(self) -> int:
        """Bytes for which it counts."""
        return len(self.message.payload) + len(self.message.context) + ENTRY_SIZE


_Key = TypeVar("_Key", bytes, int)
_Entry = TypeVar("_Entry", Waiting, Outgoing)


class Clock:
    """Seconds for which this device was up since its journal began: no wall clock, so that
    one that jumps expires nothing. Time between an unclean end of the machine and its next
    start is not known, and not counted."""

    def __init__(self) -> None:
        try:
            boot = BOOT_ID.read_bytes()
        except OSError:
            boot = b""
        self._boot = hashlib.sha256(boot).digest()[:8]
        self._offset = -self._since_boot()

    @staticmethod
    def _since_boot() -> int:
        return int(time.clock_gettime(time.CLOCK_BOOTTIME))

    def now(self) -> int:
        """Now."""
        return self._since_boot() + self._offset

    def state(self) -> list[int | bytes]:
        """What `resume` needs."""
        return [self.now(), self._since_boot(), self._boot]

    def resume(self, clock: int, since_boot: int, boot: bytes) -> None:
        """Goes on where another process was."""
        if boot == self._boot and since_boot <= self._since_boot():
            self._offset = clock - since_boot
        else:
            self._offset = clock - self._since_boot()


class Queues:
    """Inbox and outbox of one device. What commits takes turns: the node has a lock."""

    def __init__(self, journal: Journal, freshness: Freshness) -> None:
        """`StateTamperedError` where the journal is not what the device has written."""
        self._journal, self._freshness = journal, freshness
        self.clock = Clock()
        # What is taken off is taken off by any thread, also while another one commits.
        self._mutex = threading.Lock()
        self._inbox: dict[bytes, Waiting] = {}
        self._outbox: dict[int, Outgoing] = {}
        self._inbox_bytes = self._outbox_bytes = 0
        self._acks: list[bytes] = []
        self._gone: list[int] = []
        self._place = 0
        self._messages = self._commits = 0
        self._expired = self._refused = 0
        self._total = self._longest = 0.0
        # What is made here stays: looking again and again for garbage in it takes longer
        # than everything else.
        collecting = gc.isenabled()
        gc.disable()
        try:
            for record in journal.replay():
                if record:
                    self._replay(record)
        finally:
            if collecting:
                gc.enable()

    # What waits

    def since(self, place: int) -> list[Waiting]:
        """Messages that were put in after the one with this place, in order; with 0 all."""
        with self._mutex:
            return _last(self._inbox, lambda waiting: waiting.place > place)

    def outgoing(self, number: int) -> list[Outgoing]:
        """Frames with higher numbers than this one that no broker has yet, in order."""
        with self._mutex:
            return _last(self._outbox, lambda entry: entry.number > number)

    def sends(self, number: int) -> bool:
        """Whether the frame with this number still waits."""
        return number in self._outbox

    def outbox_length(self) -> int:
        """How many frames wait."""
        return len(self._outbox)

    def inbox_length(self) -> int:
        """How many messages wait."""
        return len(self._inbox)

    def older(self, age: int) -> list[Outgoing]:
        """Frames that have waited for so many seconds, in the order in which they came."""
        latest = self.clock.now() - age
        with self._mutex:
            entries = self._outbox.values()
            return list(itertools.takewhile(lambda entry: entry.since <= latest, entries))

    def inbox_reaches(self, messages: int, size: int) -> bool:
        """Whether so many messages or bytes wait already."""
        return len(self._inbox) >= messages or self._inbox_bytes >= size

    def outbox_reaches(self, messages: int, size: int) -> bool:
        """Whether so many frames or bytes wait already."""
        return len(self._outbox) >= messages or self._outbox_bytes >= size

    # Changes

    def put(self, messages: Iterable[tuple[Message, bytes]]) -> None:
        """Makes messages durable, and with each its number as staged in freshness where it
        has the digest of its frame. `StateError` where that fails: nothing was put in."""
        now = self.clock.now()
        new = {}
        for message, digest in messages:
            self._place += 1
            new[message.id] = Waiting(message, digest, self._place, now)
        if new:
            self._commit([_received(waiting) for waiting in new.values()], [])
        self._freshness.settle()
        with self._mutex:
            self._inbox.update(new)
            self._inbox_bytes += sum(waiting.size for waiting in new.values())
        self._messages += len(new)

    def acknowledge(self, ids: Iterable[bytes]) -> None:
        """Takes messages out; durable after the next commit. Any thread may call it."""
        with self._mutex:
            for each in ids:
                waiting = self._inbox.pop(each, None)
                if waiting is not None:
                    self._inbox_bytes -= waiting.size
                    self._acks.append(each)

    def send(self, entries: list[Outgoing]) -> None:
        """Makes frames durable. `StateError` where that fails: none was put in."""
        self._commit([], [_sending(entry) for entry in entries])
        with self._mutex:
            for entry in entries:
                self._outbox[entry.number] = entry
                self._outbox_bytes += entry.size
        self._messages += len(entries)

    def sent(self, numbers: Iterable[int]) -> None:
        """Takes frames out; durable after the next commit. Any thread may call it."""
        with self._mutex:
            for number in numbers:
                entry = self._outbox.pop(number, None)
                if entry is not None:
                    self._outbox_bytes -= entry.size
                    self._gone.append(number)

    def count_lost(self, *, expired: int = 0, refused: int = 0) -> None:
        """For the status: frames that were given up."""
        self._expired += expired
        self._refused += refused

    def flush(self) -> None:
        """Makes durable what was taken out. `StateError` where that fails."""
        if self._acks or self._gone:
            self._commit([], [])

    def _commit(self, received: list[_Values], sending: list[_Values]) -> None:
        begin = time.perf_counter()
        if self._is_long():
            self._checkpoint()
        with self._mutex:
            acks, self._acks = self._acks, []
            gone, self._gone = self._gone, []
        try:
            self._journal.append(cose.dumps([self.clock.state(), received, acks, sending, gone]))
        except BaseException:
            with self._mutex:
                self._acks[:0], self._gone[:0] = acks, gone
            raise
        took = time.perf_counter() - begin
        self._commits += 1
        self._total += took
        self._longest = max(self._longest, took)

    def _is_long(self) -> bool:
        journal = self._journal
        if journal.length >= SEGMENT:
            return True
        # Each opening begins a file: a device that restarts often would have ever more of them.
        size = SEGMENT + 2 * (self._inbox_bytes + self._outbox_bytes)
        return journal.begins and (journal.segments >= SEGMENTS or journal.size >= size)

    def _checkpoint(self) -> None:
        """The numbers go to the store. What waits is written anew, unless it is most of
        what the journal has."""
        with self._mutex:
            live = self._inbox_bytes + self._outbox_bytes
            inbox, outbox = list(self._inbox.values()), list(self._outbox.values())
        snapshot = None
        if 2 * live <= self._journal.size or self._journal.segments >= SEGMENTS:
            received, sending = map(_received, inbox), map(_sending, outbox)
            snapshot = cose.dumps([self.clock.state(), [*received], [], [*sending], []])
        self._journal.checkpoint(self._freshness.put_ahead, snapshot)
        self._freshness.forget_ahead()

    def close(self) -> None:
        """Makes everything durable, the numbers in the store."""
        self.flush()
        empty = not self._inbox and not self._outbox
        self._journal.close(self._freshness.put_ahead, empty=empty)
        self._freshness.forget_ahead()

    def abandon(self) -> None:
        """In a forked child: the parent goes on writing."""
        self._journal.abandon()

    def status(self) -> QueueStatus:
        """What waits, and what it cost."""
        now, stats = self.clock.now(), self._journal.stats()
        with self._mutex:
            received = next(iter(self._inbox.values()), None)
            sending = next(iter(self._outbox.values()), None)
            return QueueStatus(
                inbox=len(self._inbox),
                inbox_bytes=self._inbox_bytes,
                inbox_age=now - received.since if received else 0,
                outbox=len(self._outbox),
                outbox_bytes=self._outbox_bytes,
                outbox_age=now - sending.since if sending else 0,
                expired=self._expired,
                refused=self._refused,
                messages=self._messages,
                commits=stats.commits,
                commit_mean=round(self._total / max(self._commits, 1) * 1e6),
                commit_max=round(self._longest * 1e6),
                commit_total=round(self._total, 6),
                fsyncs=stats.fsyncs,
                fsyncs_per_message=stats.fsyncs / max(self._messages, 1),
                written=stats.written,
            )

    # What the journal says

    def _replay(self, record: bytes) -> None:
        match cose.loads(record, _MAX_RECORD, "a record", StateTamperedError):
            case [[int(clock), int(boottime), bytes(boot)], tuple(received), tuple(acks),
                  tuple(sending), tuple(gone)]:  # fmt: skip
                self.clock.resume(clock, boottime, boot)
            case _:
                raise _other_shape()
        self._replay_inbox(received, acks)
        self._replay_outbox(sending, gone)

    def _replay_inbox(self, received: Iterable[object], acks: Iterable[bytes]) -> None:
        for values in received:
            match values:
                case [bytes(fingerprint), int(sequence), bytes(digest), str(sender), str(context),
                      bytes(payload), bytes(session), int(since)]:  # fmt: skip
                    pass
                case _:
                    raise _other_shape()
            if digest:
                self._freshness.replay(fingerprint, sequence, digest)
            message = Message(sender, sequence, payload, context, fingerprint, session)
            self._place += 1
            waiting = Waiting(message, digest, self._place, since)
            if self._inbox.setdefault(message.id, waiting) is waiting:  # else written anew
                self._inbox_bytes += waiting.size
        self.acknowledge(acks)
        self._acks.clear()  # they are durable

    def _replay_outbox(self, sending: Iterable[object], gone: Iterable[int]) -> None:
        for values in sending:
            match values:
                case [int(number), str(to), str(context), bytes(frame), int(qos), int(retain),
                      int(since)]:  # fmt: skip
                    entry = Outgoing(number, to, context, frame, qos, bool(retain), since)
                case _:
                    raise _other_shape()
            if self._outbox.setdefault(number, entry) is entry:
                self._outbox_bytes += entry.size
        self.sent(gone)
        self._gone.clear()


def _last(entries: dict[_Key, _Entry], wanted: Callable[[_Entry], bool]) -> list[_Entry]:
    """The last of them that are wanted, in their order; the others come before them all."""
    found = list(itertools.takewhile(wanted, reversed(entries.values())))
    found.reverse()
    return found


def _received(waiting: Waiting) -> _Values:
    message = waiting.message
    return [
        message.fingerprint,
        message.sequence,
        waiting.digest,
        message.sender,
        message.context,
        message.payload,
        message.session,
        waiting.since,
    ]


def _sending(entry: Outgoing) -> _Values:
    return [
        entry.number,
        entry.to,
        entry.context,
        entry.frame,
        entry.qos,
        int(entry.retain),
        entry.since,
    ]


def _other_shape() -> StateTamperedError:
    return StateTamperedError("a record of the journal has another shape")
