"""Does a log say what was written into it? See `record.py` for what that can prove."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, Final, Literal, TypeAlias

from .._core import merkle_follow
from ..errors import StateError
from .checkpoint import Checkpoint, NoteKey
from .covered import Coverage, Covered
from .head import Head
from .merkle import HASH_SIZE
from .record import MAX_LINE, NO_HASH, AuditRecord, leaf_hash
from .segments import open_oldest_first

_LIMIT: Final = MAX_LINE + 1
_BLOCK_FIRST: Final = 16 * 1024
_BLOCK_LAST: Final = 1024 * 1024
_OTHER_RECORD: Final = "it is not the record that the head file names"

MAX_PROBLEMS: Final = 100
"""Problems that a report lists; `problem_count` counts them all."""

ProblemKind: TypeAlias = Literal[
    "file",
    "start",
    "unreadable",
    "missing",
    "repeated",
    "changed",
    "torn",
    "head",
    "checkpoint",
    "tile",
]
"""What is wrong:

`file`: the log cannot be read; `start`: it does not begin as a log does; `unreadable`: a
line is no record; `missing`: sequence numbers are left out, or the bytes that a torn tail
describes; `repeated`: a sequence number comes again or goes back (a copied, inserted or
moved line); `changed`: a record does not follow the one before it, so one of the two was
changed; `torn`: the file ends within a line; `head`: the head file is damaged, or names a
record that the log does not have; `checkpoint`: the log is not what was signed, or the
signature is not the device's; `tile`: a file of the tree's hashes does not have those of
the records.
"""


@dataclass(frozen=True, slots=True)
class Problem:
    """One contradiction: `line` counts from 1 (0: the whole file), `seq` is 0 if unknown."""

    kind: ProblemKind
    line: int
    seq: int
    message: str


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What `verify` found.

    `events` counts records; `first_seq` and `last_seq` are 0 in a log without any. `log` is
    the log's id, `last_hash` the hash of its last record: keep both elsewhere, and nobody
    can change the log up to there unnoticed. `torn_tails` counts interrupted writes that
    the log itself recorded. `head_seq` is None without a head file: a lost end of the log
    shows nowhere then. `coverage` is what checkpoints prove.
    """

    events: int
    first_seq: int
    last_seq: int
    last_hash: str
    log: str
    torn_tails: int
    head_seq: int | None
    problem_count: int
    problems: tuple[Problem, ...]
    coverage: Coverage = field(default_factory=Coverage)

    @property
    def ok(self) -> bool:
        """Whether nothing contradicts anything."""
        return self.problem_count == 0


def verify(
    path: str | os.PathLike[str],
    *,
    keys: Sequence[NoteKey] = (),
    checkpoints: Sequence[Checkpoint] = (),
) -> VerifyReport:
    """Check a log, also one that is being written, up to the end it has now.

    Reads the closed files that the log has left beside it and then the log, once and in
    constant memory, and raises nothing: whatever is wrong with it is a `Problem`. The log
    may begin where an earlier file ended (`audit_rotated`) that is no longer there.

    `keys` are the device's, and of witnesses: with them signatures are verified, and the
    newest checkpoint must be signed by one of them. `checkpoints` come from elsewhere: the
    log must continue each.
    """
    check = _Check(Path(path), keys, checkpoints)
    check.run()
    return check.report()


class _Check:
    def __init__(
        self, path: Path, keys: Sequence[NoteKey], checkpoints: Sequence[Checkpoint]
    ) -> None:
        self._path = path
        self._problems: list[Problem] = []
        self._problem_count = 0
        self._tree = Covered(path, keys, checkpoints, self._add_tree)
        self._coverage = Coverage()
        self._head: Head | None = None
        self._line = self._events = self._first_seq = self._seq = self._torn_tails = 0
        self._hash = NO_HASH
        self._log = ""
        self._garbage: _Garbage | None = None  # lines since the last record
        self._within_line = False

    def run(self) -> None:
        try:
            self._head = Head.read(self._path)  # before the log: it may lag, but not be ahead
        except StateError as error:
            self._add("head", str(error))
        try:
            for file in open_oldest_first(self._path):
                self._check_lines(file, os.fstat(file.fileno()).st_size)
            self._check_end()
        except OSError as error:
            self._add("file", f"the log cannot be read: {error}")

    def report(self) -> VerifyReport:
        return VerifyReport(
            events=self._events,
            first_seq=self._first_seq,
            last_seq=self._seq,
            last_hash=self._hash if self._events else "",
            log=self._log,
            torn_tails=self._torn_tails,
            head_seq=self._head.seq if self._head else None,
            problem_count=self._problem_count,
            problems=tuple(self._problems),
            coverage=self._coverage,
        )

    def _check_lines(self, file: BinaryIO, size: int) -> None:
        """Every line; most take the short way, in the core.

        A line with the expected `seq` and `prev` is the one that was written if the next
        line's `prev` is its hash, so it needs no parsing. Any other line takes the long
        way, as do `audit_torn_tail` and the last line of a file.
        """
        follows = False
        block = _BLOCK_FIRST
        while (position := file.tell()) < size:
            if follows:
                taken = self._follow(file, size, block)
                file.seek(position + taken)
                # What often ends is not worth reading far ahead.
                block = min(4 * block, _BLOCK_LAST) if taken > block // 2 else _BLOCK_FIRST
            line = file.readline(_LIMIT)
            if not line.endswith(b"\n") and file.tell() >= size:
                line += _rest(file, _LIMIT - len(line))
            if not line:
                break
            follows = self._check_line(line)

    def _follow(self, file: BinaryIO, size: int, block: int) -> int:
        """Takes the lines that follow; how many bytes they have."""
        begin = file.tell()
        data = file.read(min(block, size - begin))
        if begin + len(data) >= size:
            data = data[: data.rfind(b"\n", 0, -1) + 1]  # all but the last line
        taken, leaves = merkle_follow(data, self._seq, bytes.fromhex(self._hash))
        count = len(leaves) // HASH_SIZE
        if not count:
            return 0
        self._tree.add(self._seq + 1, leaves)
        head = self._head
        if head and self._seq < head.seq <= self._seq + count:
            at = (head.seq - self._seq) * HASH_SIZE
            if leaves[at - HASH_SIZE : at].hex() != head.hash:
                line = self._line + head.seq - self._seq
                self._add("head", _OTHER_RECORD, line=line, seq=head.seq)
        self._line += count
        self._events += count
        self._seq += count
        self._hash = leaves[-HASH_SIZE:].hex()
        return taken

    def _check_line(self, raw: bytes) -> bool:
        """One line, or a piece of one that is too long; whether it is a record."""
        is_line = raw.endswith(b"\n") and not self._within_line
        self._line += not self._within_line
        self._within_line = not raw.endswith(b"\n")
        line = raw[:-1]
        record = AuditRecord.parse(line) if is_line else None
        if record is None:
            if self._garbage is None:
                self._garbage = _Garbage(self._line)
            self._garbage.add(raw)
            return False
        self._check_garbage(record)
        self._check_record(record, leaf_hash(line))
        return True

    def _check_garbage(self, record: AuditRecord) -> None:
        """Whether there is garbage in front of a record exactly if the record says so."""
        garbage, self._garbage = self._garbage, None
        if record.event == "audit_torn_tail":
            if garbage is not None and garbage.is_described_by(record):
                self._torn_tails += 1
            else:
                self._add_at("missing", record, "the bytes that it describes are not there")
        elif garbage is not None:
            self._add("unreadable", garbage.message, line=garbage.line)

    def _check_record(self, record: AuditRecord, digest: str) -> None:
        if not self._events:
            self._check_start(record)
        elif record.seq > self._seq + 1:
            count = record.seq - self._seq - 1
            self._add_at("missing", record, f"{count} records before it are missing")
        elif record.seq <= self._seq:
            self._add_at("repeated", record, f"it stands behind record {self._seq}")
        elif record.prev != self._hash:
            self._add_at("changed", record, "it does not follow the record before it")
        self._events += 1
        self._seq, self._hash = record.seq, digest
        self._tree.add(record.seq, bytes.fromhex(digest))
        if self._head and self._head.seq == record.seq and self._head.hash != digest:
            self._add("head", _OTHER_RECORD, line=self._line, seq=record.seq)

    def _check_start(self, record: AuditRecord) -> None:
        created = record.event in ("audit_opened", "audit_torn_tail") and (
            (record.seq, record.prev) == (1, NO_HASH)
        )
        self._first_seq = record.seq
        self._tree.start(record.seq)
        self._log = str(record.detail.get("log", ""))
        if not created and record.event != "audit_rotated":
            self._add_at("start", record, "no log begins with it: records before it are missing")

    def _check_end(self) -> None:
        if self._garbage is not None:
            kind: ProblemKind = "torn" if self._within_line else "unreadable"
            self._add(kind, self._garbage.message, line=self._garbage.line)
        if not self._events:
            self._add("start", "the log holds no record")
        if self._head and self._head.seq > self._seq:
            message = f"the log ends with record {self._seq}, the head file names {self._head.seq}"
            self._add("head", message, seq=self._head.seq)
        if self._head and self._log and self._head.log != self._log:
            self._add("head", f"the head file is of log {self._head.log}, this is {self._log}")

        self._coverage = self._tree.end(self._log, self._seq)

    def _add_tree(self, kind: Literal["checkpoint", "tile"], message: str, seq: int) -> None:
        self._add(kind, message, seq=seq)

    def _add_at(self, kind: ProblemKind, record: AuditRecord, message: str) -> None:
        message = f"record {record.seq} ({record.event}): {message}"
        self._add(kind, message, line=self._line, seq=record.seq)

    def _add(self, kind: ProblemKind, message: str, *, line: int = 0, seq: int = 0) -> None:
        self._problem_count += 1
        if len(self._problems) < MAX_PROBLEMS:
            self._problems.append(Problem(kind, line, seq, message))


class _Garbage:
    """Lines that are no records, counted and hashed as `audit_torn_tail` has it."""

    def __init__(self, line: int) -> None:
        self.line = line
        self._length = 0
        self._hash = sha256()
        self._line_end = b""  # the last one does not count: it was added when recovering

    @property
    def message(self) -> str:
        return f"{self._length} bytes are no record"

    def add(self, raw: bytes) -> None:
        content = raw.removesuffix(b"\n")
        added = self._line_end + content
        self._hash.update(added)
        self._length += len(added)
        self._line_end = raw[len(content) :]

    def is_described_by(self, record: AuditRecord) -> bool:
        measured = (self._length, self._hash.hexdigest())
        return (record.detail.get("length"), record.detail.get("sha256")) == measured


def _rest(file: BinaryIO, limit: int) -> bytes:
    """What a writer that is at work still adds to the last line, in a moment."""
    rest = b""
    for _ in range(3):
        if rest.endswith(b"\n"):
            break
        time.sleep(0.01)
        rest += file.readline(limit - len(rest))
    return rest
