"""Inbox and outbox: what it costs that nothing is lost.

`durable receive` counts the envelope's verification in and leaves it out. Without it are all
the rules from the check of the number on, the commit of message and number, and the
acknowledgement, which rides along with the next commit. Bytes are those that the kernel
counts as caused to be written by this process (`/proc/self/io`), pages and all.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import time
from pathlib import Path

from pqc_iiot import Incoming, Message, Node
from pqc_iiot.bench import CONTEXT, PAYLOAD, Row, pair, row, timed

from .peers import fill

SENDERS = 1000
BATCH = 1024
"""Messages in a commit, as a bus takes them when they have arrived."""
WAITING = 100_000
_PROVIDER = "software:insecure-plaintext-keys"
_DIGEST = bytes(8)


def measure_durability(folder: Path) -> list[Row]:
    """Rates, fsyncs, bytes written, and the start after a crash."""
    folder.mkdir(parents=True, exist_ok=True)
    return [
        *_without_envelope(folder / "without"),
        *_with_envelope(folder / "with"),
        *_one_by_one(folder / "one"),
        *_sending(folder / "sending"),
        *_start(folder / "start"),
    ]


def _written() -> int:
    """Bytes that this process has caused to be sent to the disk, counted in pages."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("write_bytes"))


def _senders(count: int) -> list[tuple[str, bytes]]:
    return [(f"sensor-{n}", hashlib.sha256(b"%d" % n).digest()) for n in range(count)]


def _without_envelope(folder: Path, rounds: int = 12, commits: int = 24) -> list[Row]:
    """From the check of the numbers on, with acknowledgements."""
    rates, fsyncs, wear, fsync_share = [], [], [], []
    senders = _senders(SENDERS)
    sequence = 0
    with Node.create(folder, name="hub", provider=_PROVIDER) as node:
        before: list[Message] = []
        for _ in range(rounds):
            batches = []
            for _ in range(commits):
                batch = []
                for _ in range(BATCH):
                    sequence += 1
                    name, fingerprint = senders[sequence % SENDERS]
                    batch.append(Message(name, sequence, PAYLOAD, CONTEXT, fingerprint))
                batches.append(batch)
            status, written, start = node.status().queues, _written(), time.perf_counter()
            for batch in batches:
                _take(node, batch)
                node.inbox.ack_later(*before)
                before = batch
            took, count = time.perf_counter() - start, commits * BATCH
            after = node.status().queues
            rates.append(count / took)
            fsyncs.append((after.fsyncs - status.fsyncs) / count)
            wear.append((_written() - written) / count)
            fsync_share.append(_fsync(folder, after.written // after.commits) * commits / took)
    limit = 3 * len(PAYLOAD) + 64
    return [
        row(
            f"durable receive with inbox and ack, 64 B, {SENDERS:,} senders, without envelope",
            rates, "msg/s", (">=", 50_000),
        ),
        row("  … of it waiting for the disk", [100 * each for each in fsync_share], "%"),
        row("  … fsyncs per message", fsyncs, "", ("<=", 0.01)),
        row(
            "  … bytes written per message of 64 B (3 x the payload + 64)",
            wear, "B", ("<=", limit),
        ),
    ]  # fmt: skip


def _take(node: Node, batch: list[Message]) -> None:
    state = node._state
    assert state is not None
    for message in batch:
        state.freshness.check(message.fingerprint, message.sequence, _DIGEST)
        state.freshness.stage(message.fingerprint, message.sequence, _DIGEST)
    state.queues.put((message, _DIGEST) for message in batch)


def _fsync(folder: Path, size: int) -> float:
    """Seconds of appending so many bytes to a file and syncing it, alone."""
    fd = os.open(folder / "alone", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        begin = time.perf_counter()
        for _ in range(5):
            os.write(fd, bytes(size))
            os.fdatasync(fd)
        return (time.perf_counter() - begin) / 5
    finally:
        os.close(fd)
        (folder / "alone").unlink()


def _with_envelope(folder: Path, senders: int = 64, rounds: int = 12) -> list[Row]:
    """All rules, against the same without disk and inbox, in turns."""
    ratio, work, rate, fsyncs, wear = [], [], [], [], []
    with contextlib.ExitStack() as stack:
        durable, volatile = (
            stack.enter_context(
                Node.create(folder / name, name=name, provider=_PROVIDER, store=store)
            )
            for name, store in (("durable", "sqlite:state.db"), ("volatile", "memory:"))
        )
        nodes = []
        for index in range(senders):
            node = Node.create(
                folder / f"s{index}", name=f"s{index}", provider=_PROVIDER, store="memory:"
            )
            nodes.append(stack.enter_context(node))
            for receiver in (durable, volatile):
                node.peers.add_approved(receiver.bundle)
                receiver.peers.add_approved(node.bundle)
        count = 16 * senders
        size = 0

        def frames(receiver: Node) -> list[Incoming]:
            return [
                Incoming(node.seal(PAYLOAD, to=receiver.name, context=CONTEXT), CONTEXT)
                for _ in range(16)
                for node in nodes
            ]

        def receive(batch: list[Incoming]) -> None:
            durable.inbox.ack_later(*durable.inbox.messages())
            durable.open_many(batch, durable=True)

        receive(frames(durable))  # makes the journal
        for _ in range(rounds):
            batches = {receiver: frames(receiver) for receiver in (durable, volatile)}
            size = len(batches[durable][0].frame)
            before, written = durable.status().queues, _written()
            busy = time.thread_time()
            on_disk = timed(lambda b=batches: receive(b[durable]), 1)  # type: ignore[misc]
            wear.append((_written() - written) / count)
            between = time.thread_time()
            in_memory = timed(lambda b=batches: volatile.open_many(b[volatile]), 1)  # type: ignore[misc]
            ratio.append(in_memory / on_disk)
            work.append((time.thread_time() - between) / (between - busy))
            rate.append(count / on_disk * 1e6)
            fsyncs.append((durable.status().queues.fsyncs - before.fsyncs) / count)
    return [
        row(f"durable receive with inbox, {senders} senders, with the envelope", rate, "msg/s"),
        row("  … rate against the envelope's own", ratio, "x", (">=", 0.9)),
        row("  … the same in processor time", work, "x"),
        row("  … fsyncs per message", fsyncs, "", ("<=", 0.01)),
        row(
            f"  … bytes written per frame of {size:,} B (3 x the frame + 64)",
            wear, "B", ("<=", 3 * size + 64),
        ),
    ]  # fmt: skip


def _one_by_one(folder: Path, rounds: int = 60) -> list[Row]:
    """A message now and then: what durability adds, against one fsync of the same bytes."""
    fsyncs, added, alone = [], [], []
    with (
        pair(folder / "durable", "sqlite:state.db") as (sender, durable),
        Node.create(folder / "v", name="v", provider=_PROVIDER, store="memory:") as volatile,
    ):
        sender.peers.add_approved(volatile.bundle)
        volatile.peers.add_approved(sender.bundle)

        def frame(to: Node) -> list[Incoming]:
            return [Incoming(sender.seal(PAYLOAD, to=to.name, context=CONTEXT), CONTEXT)]

        durable.open_many(frame(durable), durable=True)
        for _ in range(rounds):
            one, other = frame(durable), frame(volatile)
            before = durable.status().queues
            on_disk = timed(lambda f=one: durable.open_many(f, durable=True), 1)  # type: ignore[misc]
            in_memory = timed(lambda f=other: volatile.open_many(f), 1)  # type: ignore[misc]
            after = durable.status().queues
            fsyncs.append(float(after.fsyncs - before.fsyncs))
            added.append(on_disk - in_memory)
            alone.append(_fsync(folder, after.written - before.written) * 1e6)
    ratio = [each / one for each, one in zip(added, alone, strict=True)]
    return [
        row("a single durable message: fsyncs", fsyncs, "", ("<=", 1)),
        row("  … time that durability adds", added, "µs"),
        row("  … against one fsync of the same bytes", ratio, "x"),
    ]


def _sending(folder: Path, rounds: int = 8, count: int = 256) -> list[Row]:
    """Accepted by the outbox in batches, and sent."""
    from pqc_iiot.outbox import Order

    rates, ratio, wear = [], [], []
    size = 0
    with (
        Node.create(folder / "a", name="a", provider=_PROVIDER) as node,
        Node.create(folder / "b", name="b", provider=_PROVIDER, store="memory:") as peer,
    ):
        node.peers.add_approved(peer.bundle)
        orders = [Order(PAYLOAD, "b", CONTEXT)] * count
        for _ in range(rounds):
            sealing = timed(lambda: node.seal(PAYLOAD, to="b", context=CONTEXT), count) * count
            written = _written()
            took = timed(lambda: node.outbox.put_many(orders), 1)
            entries = node.outbox.waiting()
            size = len(entries[0].frame)
            node.outbox.sent(*entries)
            wear.append((_written() - written) / count)
            rates.append(count / took * 1e6)
            ratio.append(sealing / took)
    return [
        row(f"durable send, {count} at once", rates, "msg/s"),
        row("  … rate against sealing alone", ratio, "x"),
        row(
            f"  … bytes written per frame of {size:,} B (3 x the frame + 64)",
            wear, "B", ("<=", 3 * size + 64),
        ),
    ]  # fmt: skip


def _start(folder: Path, count: int = WAITING, rounds: int = 3) -> list[Row]:
    """After a crash, with so many peers and so many messages in the inbox."""
    known = fill(folder, count)
    with Node.open(folder) as node:
        fingerprints = dict(node_fingerprints(node, known))
        names = list(fingerprints)
        for at in range(0, count, BATCH):
            _take(
                node,
                [
                    Message(name, 2, PAYLOAD, CONTEXT, fingerprints[name])
                    for name in names[at : at + BATCH]
                ],
            )
        shutil.copytree(folder, folder.with_name("crashed"))
    crashed = folder.with_name("crashed")
    starts, work = [], []
    for number in range(rounds):
        life = folder.with_name(f"life{number}")
        shutil.copytree(crashed, life)
        begin, busy = time.perf_counter(), time.process_time()
        node = Node.open(life)
        starts.append(time.perf_counter() - begin)
        work.append(time.process_time() - busy)
        assert len(node.inbox) == count
        node.close()
    named = f"{count:,} peers and {count:,} messages"
    return [
        row(f"start-up after a crash, {named}", starts, "s", ("<=", 2)),
        row("  … of it processor time", work, "s"),
    ]


def node_fingerprints(node: Node, known: list[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
    """Names with the fingerprints of their key sets."""
    keystore = node._keystore
    return [(name, keystore.sender(kid).fingerprint) for name, kid in known]
