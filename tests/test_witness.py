"""Neighbours: whoever rewrites its own history cannot show the result to one who saw it."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from brokers import until
from devices import PLAINTEXT, Pair, copy, events, introduce
from pqc_iiot import Message, Node
from pqc_iiot.audit import AuditRecord, tail, verify
from pqc_iiot.audit.checkpoint import Checkpoint
from pqc_iiot.audit.journal import last_checkpoint, read_checkpoints
from pqc_iiot.audit.record import leaf_hash
from pqc_iiot.errors import AuthenticationError, InvalidFrameError, StateError
from pqc_iiot.identity import note_key, note_signer
from pqc_iiot.transports.bus import Bus
from pqc_iiot.transports.memory import MemoryBroker
from test_bus import in_loop


def carry(frame: bytes, to: Node) -> Message:
    return to.open(frame, context=to.witness.own_context)


def exchange(device: Node, witness: Node) -> int:
    """A request, and what comes of it; how many answers the witness gave."""
    answers = 0
    request: bytes | None = device.witness.request(witness.name)
    while request is not None:
        answer = witness.witness.receive(carry(request, witness))
        assert answer is not None
        answers += 1
        request = device.witness.receive(carry(answer, device))
    return answers


def names(node: Node) -> list[str]:
    return [record.event for record in events(node)]


def last(node: Node, event: str) -> AuditRecord:
    return [record for record in events(node) if record.event == event][-1]


def log_of(node: Node) -> Path:
    assert node._state is not None
    return node._state.folder.path / "audit.log"


def test_a_checkpoint_is_countersigned_and_kept(pair: Pair) -> None:
    assert exchange(pair.sensor, pair.plc) == 1
    kept = last_checkpoint(log_of(pair.sensor))
    seen = pair.plc.witness.seen("sensor")
    assert seen is not None
    keys = [note_key(pair.sensor.bundle), note_key(pair.plc.bundle)]
    (cosigned,) = [
        each for each in read_checkpoints(log_of(pair.sensor)) if each.cosigned_by(keys[1:])
    ]
    assert cosigned.text == seen.text
    assert cosigned.signed_by(keys[:1])
    assert kept is not None
    assert "checkpoint_cosigned" in names(pair.sensor)
    assert last(pair.plc, "peer_witnessed").detail["size"] == seen.size
    report = verify(log_of(pair.sensor), keys=keys)
    assert report.ok
    assert report.coverage.witnesses == ("plc",)
    assert report.coverage.witnessed_seq == seen.size


def test_it_goes_on_across_restarts_and_rotations(pair: Pair) -> None:
    for _ in range(2):
        exchange(pair.sensor, pair.plc)
        pair.reopen()
    pair.plc.peers.add(pair.sensor.rotate())
    exchange(pair.sensor, pair.plc)
    pair.sensor.peers.add(pair.plc.rotate())
    exchange(pair.sensor, pair.plc)
    pair.reopen()
    exchange(pair.sensor, pair.plc)
    assert names(pair.plc).count("peer_witnessed") == 5
    assert "peer_history_changed" not in names(pair.plc)
    assert verify(log_of(pair.sensor)).ok


def test_a_device_that_forgot_what_the_witness_saw_catches_up(pair: Pair) -> None:
    exchange(pair.sensor, pair.plc)
    pair.sensor.witness._store_shown("plc", 0)
    assert exchange(pair.sensor, pair.plc) == 2
    assert names(pair.plc).count("peer_witnessed") == 2


def rewrite(folder: Path) -> None:
    """What an attacker does who has everything, the device's keys as well: another history,
    longer than before, with a chain that fits. Tiles and checkpoints the device makes anew."""
    log = folder / "audit.log"
    records = tail(log, 1000)
    begin_another_log(folder)
    chained: list[bytes] = []
    for record in [record for record in records if record.event != "key_loaded"] * 3:
        if chained and record.seq == 1:
            continue
        prev = leaf_hash(chained[-1]) if chained else record.prev
        chained.append(replace(record, seq=len(chained) + 1, prev=prev).encode())
    log.write_bytes(b"".join(line + b"\n" for line in chained))
    log.chmod(0o600)


def test_a_device_that_rewrites_its_own_history_is_caught(pair: Pair) -> None:
    exchange(pair.sensor, pair.plc)
    pair.sensor.close()
    rewrite(pair.folder / "sensor")
    pair.sensor = Node.open(pair.folder / "sensor")
    forged = pair.sensor.audit.checkpoint()
    seen = pair.plc.witness.seen("sensor")
    assert forged
    assert seen
    assert verify(log_of(pair.sensor), keys=[note_key(pair.sensor.bundle)]).ok, "by itself it fits"
    assert forged.origin == seen.origin
    assert forged.size > seen.size

    exchange(pair.sensor, pair.plc)

    caught = last(pair.plc, "peer_history_changed")
    assert caught.severity.label == "critical"
    assert caught.peer == pair.sensor.bundle.fingerprint.hex()
    assert caught.detail["last_size"] == seen.size
    assert last(pair.sensor, "witness_refused").severity.label == "critical"
    assert pair.plc.witness.seen("sensor") == seen, "what was seen stays"
    evidence = pair.plc.witness.contradiction("sensor")
    assert evidence
    assert evidence.signed_by([note_key(pair.sensor.bundle)])
    assert not verify(log_of(pair.sensor), checkpoints=[seen]).ok
    pair.reopen()
    exchange(pair.sensor, pair.plc)
    assert names(pair.plc).count("peer_history_changed") == 2, "also after restarts"


def begin_another_log(folder: Path) -> None:
    for path in folder.glob("audit.*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def cut(folder: Path) -> None:
    begin_another_log(folder)
    for path in (folder.parent / "backup").glob("audit.*"):
        target = folder / path.name
        shutil.copytree(path, target) if path.is_dir() else shutil.copy(path, target)


@pytest.mark.parametrize("damage", [begin_another_log, cut])
def test_a_log_that_is_replaced_or_put_back_is_caught(
    pair: Pair, damage: Callable[[Path], None]
) -> None:
    pair.reopen()
    shutil.copytree(pair.folder / "sensor", pair.folder / "backup")
    for _ in range(200):
        pair.sensor.audit.emit("started")
    exchange(pair.sensor, pair.plc)
    pair.sensor.close()
    damage(pair.folder / "sensor")
    pair.sensor = Node.open(pair.folder / "sensor")
    exchange(pair.sensor, pair.plc)
    assert "peer_history_changed" in names(pair.plc)
    assert "witness_refused" in names(pair.sensor)
    if damage is begin_another_log:
        pair.plc.witness.forget("sensor")
        exchange(pair.sensor, pair.plc)
        assert names(pair.plc)[-2:] == ["peer_forgotten", "peer_witnessed"]


def send(pair: Pair, payload: bytes) -> bytes | None:
    context = pair.sensor.witness.context("plc")
    frame = pair.sensor.seal(payload, to="plc", context=context)
    return pair.plc.witness.receive(carry(frame, pair.plc))


def test_nobody_gets_a_cosignature_for_what_is_not_theirs(pair: Pair, tmp_path: Path) -> None:
    own = pair.plc.audit.checkpoint()
    assert own is not None
    with pytest.raises(AuthenticationError):
        send(pair, b"old 0\n\n" + own.encode())
    theirs = pair.sensor.audit.checkpoint()
    assert theirs is not None
    unsigned = Checkpoint(theirs.origin, theirs.size + 1, theirs.root, (), theirs.lines)
    with pytest.raises(AuthenticationError):
        send(pair, b"old 0\n\n" + unsigned.encode())
    with Node.create(tmp_path / "other", name="other", provider=PLAINTEXT) as other:
        introduce(other, pair.plc)
        frame = other.seal(
            b"old 0\n\n" + theirs.encode(), to="plc", context=other.witness.context("plc")
        )
        with pytest.raises(AuthenticationError):
            pair.plc.witness.receive(carry(frame, pair.plc))
    assert pair.plc.witness.seen("sensor") is None
    assert names(pair.plc).count("refused_authentication_failed") == 3


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"old",
        b"old 0\n",
        b"old 0\n\n",
        b"old x\n\nnote",
        b"old 00\n\nnote",
        b"old 0\n!!!!\n\nnote",
        b"old 0\nAAAA\n\nnote",
        b"old 0\n" + b"A" * 43 + b"=\n" * 2 + b"\n",
        b"200\n",
        b"200\njunk",
        b"409\n-1\n",
        b"409\n",
        b"500\n",
        b"\xff" * 50,
    ],
)
def test_junk_is_refused_and_changes_nothing(pair: Pair, payload: bytes) -> None:
    with pytest.raises(InvalidFrameError):
        send(pair, payload)
    assert pair.plc.witness.seen("sensor") is None
    assert names(pair.plc)[-1] == "refused_invalid_frame"


def test_a_message_under_another_context_is_none(pair: Pair) -> None:
    checkpoint = pair.sensor.audit.checkpoint()
    assert checkpoint is not None
    frame = pair.frame(b"old 0\n\n" + checkpoint.encode())
    with pytest.raises(InvalidFrameError):
        pair.plc.witness.receive(pair.plc.open(frame, context="line1/temp"))


@pytest.mark.parametrize(
    "other",
    [
        lambda seen: replace(seen, origin=seen.origin[:-32] + "0" * 32),
        lambda seen: replace(seen, size=seen.size - 1),
        lambda seen: replace(seen, root=seen.root[::-1]),
    ],
)
def test_another_history_cannot_hide_behind_a_proof_from_elsewhere(
    pair: Pair, other: Callable[[Checkpoint], Checkpoint]
) -> None:
    exchange(pair.sensor, pair.plc)
    seen = pair.plc.witness.seen("sensor")
    assert seen is not None
    signer = note_signer(pair.sensor._reception.identity.current)
    forked = replace(other(seen), lines=()).signed(signer)
    for old in (b"0", b"1", b"%d" % seen.size):
        assert send(pair, b"old " + old + b"\n\n" + forked.encode()) is not None
        assert names(pair.plc)[-1] == "peer_history_changed"
    assert pair.plc.witness.contradiction("sensor") == forked


def test_a_forged_cosignature_is_not_kept(pair: Pair) -> None:
    mine = pair.plc.audit.checkpoint()
    assert mine is not None
    for forged in (
        mine,
        mine.cosigned(note_signer(pair.plc._reception.identity.current)),
        pair.sensor.audit.checkpoint(),
    ):
        assert forged is not None
        with pytest.raises(AuthenticationError):
            send(pair, b"200\n" + forged.encode())
    assert "checkpoint_cosigned" not in names(pair.plc)
    assert send(pair, b"409\n123456\n") is None
    assert names(pair.plc)[-1] == "witness_refused"


def test_foreign_lines_of_an_answer_are_left_out(pair: Pair) -> None:
    exchange(pair.sensor, pair.plc)
    checkpoint = pair.plc.audit.checkpoint()
    assert checkpoint is not None
    cosigned = checkpoint.cosigned(note_signer(pair.sensor._reception.identity.current))
    more = cosigned.merged([("elsewhere", b"1234signature")])
    assert send(pair, b"200\n" + more.encode()) is None
    assert cosigned in list(read_checkpoints(log_of(pair.plc)))


def test_a_log_that_cannot_be_signed_is_not_shown(devices: Path, tmp_path: Path) -> None:
    copy(devices, tmp_path, "sensor", "plc")
    (tmp_path / "sensor" / "audit.checkpoints").write_bytes(b"junk\n\n\xe2\x80\x94 x AAAAAAAA\n\n")
    with Node.open(tmp_path / "sensor") as sensor:
        with pytest.raises(StateError):
            sensor.witness.request("plc")
        assert "checkpoint_refused" in names(sensor)


@in_loop
async def test_over_a_bus_one_asks_and_the_other_answers(pair: Pair) -> None:
    broker = MemoryBroker()
    async with (
        Bus(pair.sensor, broker.client()) as sensor,
        Bus(pair.plc, broker.client()) as plc,
    ):
        serving = asyncio.create_task(plc.witness())
        await until(lambda: bool(plc._listeners))
        await sensor.send("plc", pair.plc.witness.own_context, b"junk")
        await sensor.witness("plc")
        serving.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await serving
    cosigned = pair.sensor.witness.cosigned("plc")
    assert cosigned is not None
    assert cosigned.cosigned_by([note_key(pair.plc.bundle)])
    assert "refused_invalid_frame" in names(pair.plc)
