"""The tree on disk, what is signed about it, and what nobody can do to either unnoticed."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from base64 import b64encode
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from notes import make_signer, write
from pqc_iiot._core import merkle_root
from pqc_iiot.audit import AuditLog, AuditRecord, VerifyReport, tail, verify
from pqc_iiot.audit import notary as notary_module
from pqc_iiot.audit import tiles as tiles_module
from pqc_iiot.audit.checkpoint import Checkpoint, make_origin
from pqc_iiot.audit.find import find_leaves, find_line
from pqc_iiot.audit.head import Head
from pqc_iiot.audit.journal import (
    CheckpointWriter,
    checkpoints_path,
    last_checkpoint,
    read_checkpoints,
)
from pqc_iiot.audit.merkle import leaf_hash
from pqc_iiot.audit.record import NO_HASH
from pqc_iiot.audit.segments import Retention, closed_files
from pqc_iiot.audit.tiles import Tiles, tile_file, tiles_path
from pqc_iiot.errors import StateError

SIGNER = make_signer()
KEY = SIGNER.key


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of some hundred records in several lives, with checkpoints."""
    folder = tmp_path_factory.mktemp("evidence")
    for counts in ((100, 150), (30, 300), (5,)):
        write(folder / "audit.log", SIGNER, *counts)
    return folder


@pytest.fixture
def log(template: Path, tmp_path: Path) -> Path:
    shutil.copytree(template, tmp_path, dirs_exist_ok=True)
    return tmp_path / "audit.log"


def lines(log: Path) -> list[bytes]:
    return log.read_bytes().splitlines()


def newest(log: Path) -> Checkpoint:
    last = last_checkpoint(log)
    assert last is not None
    return last


def kinds(report: VerifyReport) -> set[str]:
    return {problem.kind for problem in report.problems}


def test_the_tree_is_that_of_the_lines(log: Path) -> None:
    leaves = [leaf_hash(line) for line in lines(log)]
    checkpoints = list(read_checkpoints(log))
    count = len(checkpoints)
    assert count in (8, 9), "the first may come before the first event"
    for checkpoint in checkpoints:
        assert checkpoint.root == merkle_root(b"".join(leaves[: checkpoint.size]))
        assert checkpoint.signed_by([KEY]) == KEY
    assert newest(log).size == len(leaves), "the last one covers everything"
    first = AuditRecord.parse(lines(log)[0])
    assert first is not None
    assert newest(log).origin == make_origin("press-4", str(first.detail["log"]))
    report = verify(log, keys=[KEY])
    assert report.ok
    assert report.coverage.root == newest(log).root.hex()
    assert (report.coverage.checkpoints, report.coverage.signed_seq) == (count, len(leaves))


def test_tiles_are_laid_out_as_the_specification_says(log: Path) -> None:
    folder = tiles_path(log)
    leaves = b"".join(leaf_hash(line) for line in lines(log))
    size = newest(log).size
    assert (folder / "tile/0/000").read_bytes() == leaves[:8192]
    assert (folder / f"tile/0/{size // 256:03d}.p/{size % 256}").read_bytes() == (
        leaves[size // 256 * 8192 :]
    )
    width = size // 256
    assert (folder / f"tile/1/000.p/{width}").read_bytes() == b"".join(
        merkle_root(leaves[i * 8192 : i * 8192 + 8192]) for i in range(width)
    )
    assert not (folder / "tile/0/000.p").exists(), "a full tile makes partial ones superfluous"
    assert (folder / "checkpoint").read_bytes() == newest(log).encode()
    assert tile_file(Path("t"), 0, 1_234_067, 256) == Path("t/0/x001/x234/067")
    assert tile_file(Path("t"), 2, 5, 17) == Path("t/2/005.p/17")
    modes = {path.stat().st_mode & 0o77 for path in log.parent.rglob("*")}
    assert modes == {0}


def test_checkpoints_come_in_time_after_many_records_and_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "audit.log"
    with AuditLog(log, device="press-4") as writer:
        writer.emit("started")
        assert writer.checkpoint() is None, "nobody signs yet"
        writer.sign_with(SIGNER)
        assert writer.flush()
        assert [each.size for each in read_checkpoints(log)] == [2], "the first comes at once"
        monkeypatch.setattr(notary_module, "MAX_UNSIGNED", 50)
        for _ in range(60):
            writer.emit("started")
        assert writer.flush()
        assert newest(log).size > 50
        monkeypatch.setattr(notary_module, "SIGN_AFTER", 0.0)
        writer.emit("started")
        assert writer.flush()
        assert writer.flush()
        covered = newest(log).size
        assert covered in (64, 65)
        assert writer.flush()
        assert newest(log).size == covered, "a checkpoint's own record calls for none"
        monkeypatch.setattr(notary_module, "SIGN_AFTER", 60.0)
        writer.emit("stopped")
    assert newest(log).size == verify(log).last_seq
    signed = [record for record in tail(log, 200) if record.event == "checkpoint_signed"]
    assert [record.detail["size"] for record in signed] == [
        each.size for each in read_checkpoints(log)
    ][:-1]
    assert signed[0].detail["root"] == next(read_checkpoints(log)).root.hex()


def test_another_key_signs_from_now_on(log: Path) -> None:
    other = make_signer()
    with AuditLog(log, device="press-4") as writer:
        writer.sign_with(SIGNER)
        writer.emit("key_rotated")
        assert writer.flush()
        writer.sign_with(other, [KEY])
        assert writer.flush()
        assert newest(log).signed_by([other.key]), "at once"
    with AuditLog(log, device="press-4") as writer:
        writer.sign_with(other, [KEY])
    assert verify(log, keys=[other.key, KEY]).ok
    assert verify(log, keys=[other.key]).ok, "the newest is what counts"
    assert kinds(verify(log, keys=[KEY])) == {"checkpoint"}


# What verification finds. Whoever can write the files cannot sign.

Attack = Callable[[Path], object]


def rewrite_lines(change: Callable[[list[bytes]], list[bytes]]) -> Attack:
    """Changes lines, and makes the chain, the head file and the tiles fit."""

    def attack(log: Path) -> None:
        chained: list[bytes] = []
        for line in change(lines(log)):
            record = AuditRecord.parse(line)
            assert record is not None
            prev = sha256(b"\0" + chained[-1]).hexdigest() if chained else NO_HASH
            chained.append(replace(record, seq=len(chained) + 1, prev=prev).encode())
        log.write_bytes(b"".join(line + b"\n" for line in chained))
        log.with_suffix(".head").unlink()
        shutil.rmtree(tiles_path(log))

    return attack


def cut_checkpoints(log: Path) -> None:
    first = next(read_checkpoints(log))
    checkpoints_path(log).write_bytes(first.encode() + b"\n")


ATTACKS: dict[str, Attack] = {
    "edit": rewrite_lines(
        lambda all_: [line.replace(b'"sequence":7}', b'"sequence":8}') for line in all_]
    ),
    "delete": rewrite_lines(lambda all_: all_[:90] + all_[91:]),
    "reorder": rewrite_lines(lambda all_: [*all_[:50], all_[51], all_[50], *all_[52:]]),
    "insert": rewrite_lines(lambda all_: [*all_[:50], all_[20], *all_[50:]]),
    "cut": rewrite_lines(lambda all_: all_[:-1]),
    "cut and filled": rewrite_lines(lambda all_: [*all_[:-20], *[all_[20]] * 40]),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_a_history_that_fits_by_itself_is_not_the_one_that_was_signed(log: Path, name: str) -> None:
    kept = newest(log)
    ATTACKS[name](log)
    assert kinds(verify(log)) == {"checkpoint"}
    cut_checkpoints(log)  # and what nobody else holds may go, too
    checkpoints_path(log).unlink()
    assert verify(log).ok, "nothing is left that contradicts it here"
    assert kinds(verify(log, checkpoints=[kept])) == {"checkpoint"}, "but elsewhere"


def test_the_log_cannot_be_cut_behind_a_checkpoint_that_someone_holds(log: Path) -> None:
    kept = newest(log)
    write(log, SIGNER, 30)
    assert verify(log, checkpoints=[kept]).ok
    last = lines(log)
    log.write_bytes(b"\n".join(last[: kept.size - 1]) + b"\n")
    log.with_suffix(".head").unlink()
    cut_checkpoints(log)
    report = verify(log, checkpoints=[kept])
    assert kinds(report) == {"checkpoint"}
    assert report.problems[0].seq == kept.size
    assert f"the log ends with {kept.size - 1}" in report.problems[0].message


def forge(log: Path, checkpoint: Checkpoint) -> None:
    with checkpoints_path(log).open("ab") as file:
        file.write(checkpoint.encode() + b"\n")


@pytest.mark.parametrize(
    "forged",
    [
        lambda last: replace(last, root=last.root[::-1]),
        lambda last: replace(last, size=last.size - 1),
        lambda last: replace(last, lines=()).signed(make_signer()),
        lambda last: replace(last, root=last.root[::-1], lines=()).signed(SIGNER),
        lambda last: replace(last, size=last.size + 1, lines=()).signed(SIGNER),
        lambda last: replace(last, origin=make_origin("press-4", "0" * 32), lines=()).signed(
            SIGNER
        ),
    ],
)
def test_forged_checkpoints_are_found(
    log: Path, forged: Callable[[Checkpoint], Checkpoint]
) -> None:
    checkpoint = forged(newest(log))
    assert kinds(verify(log, keys=[KEY], checkpoints=[checkpoint])) == {"checkpoint"}
    if checkpoint.signed_by([replace(KEY, device="x")]) is None and checkpoint.lines:
        forge(log, checkpoint)
        report = verify(log, keys=[KEY])
        same = checkpoint.text == newest(log).text  # another key's signature says nothing
        assert same or kinds(report) == {"checkpoint"}


def test_a_file_of_checkpoints_that_is_none_is_said_so(log: Path) -> None:
    checkpoints_path(log).write_bytes(b"junk\n\n" + "— x QUJDREVG\n\n".encode())
    assert kinds(verify(log)) == {"checkpoint"}


def test_the_last_line_is_looked_at_as_a_whole(log: Path) -> None:
    """No line behind it vouches for it, nor does a checkpoint for this one."""
    with AuditLog(log, device="press-4") as writer:
        for _ in range(5):
            writer.emit("started")
    whole = log.read_bytes()
    at = whole.rindex(b'"severity":')
    log.write_bytes(whole[:at] + b'"severely"' + whole[at + 10 :])
    log.with_suffix(".head").unlink()
    assert kinds(verify(log)) == {"unreadable"}


def test_tiles_that_lie_are_found_and_made_again(log: Path) -> None:
    tile = tiles_path(log) / "tile/0/000"
    right = tile.read_bytes()
    tile.write_bytes(right[:-1] + bytes([right[-1] ^ 1]))
    report = verify(log)
    assert kinds(report) == {"tile"}
    assert str(tile) in report.problems[0].message
    tile.write_bytes(right[:100])  # torn
    size = newest(log).size
    assert Tiles(log, size).root(0, 128) == merkle_root(right[: 128 * 32])
    tile.unlink()
    assert Tiles(log, size).root(0, 128) == merkle_root(right[: 128 * 32])
    assert verify(log).ok, "what is missing is made from the log"


@pytest.mark.parametrize("damage", ["torn", "changed", "missing", "all"])
def test_the_writer_makes_damaged_tiles_again(log: Path, damage: str) -> None:
    size = newest(log).size
    tile = tile_file(tiles_path(log) / "tile", 0, *divmod(size, 256))
    if damage == "torn":
        tile.write_bytes(tile.read_bytes()[:40])
    elif damage == "changed":
        tile.write_bytes(bytes(tile.stat().st_size))
    elif damage == "missing":
        tile.unlink()
    else:
        shutil.rmtree(tiles_path(log))
    write(log, SIGNER, 300)
    report = verify(log, keys=[KEY])
    assert report.ok
    assert report.coverage.signed_seq == report.last_seq
    assert "checkpoint_refused" not in [record.event for record in tail(log, 2000)]
    full = tiles_path(log) / f"tile/0/{size // 256:03d}"
    assert full.read_bytes() == find_leaves(log, size // 256 * 256, size // 256 * 256 + 256)


# What the device itself refuses to sign.


def edit_unsigned(log: Path) -> None:
    """Records behind the last checkpoint, as after a kill, one of them changed."""
    with AuditLog(log, device="press-4") as writer:
        for sequence in range(900, 920):
            writer.emit("refused_replay", sequence=sequence)
    log.write_bytes(log.read_bytes().replace(b'"sequence":910}', b'"sequence":911}'))


def edit_first_unsigned(log: Path) -> None:
    size = newest(log).size
    with AuditLog(log, device="press-4") as writer:
        writer.emit("started")
    all_ = lines(log)
    all_[size - 1] = all_[size - 1].replace(b"checkpoint", b"checkpeint")
    first = AuditRecord.parse(all_[size])
    assert first is not None
    prev = sha256(b"\0" + all_[size - 1]).hexdigest()
    chained = [*all_[:size], replace(first, prev=prev).encode()]
    log.write_bytes(b"".join(line + b"\n" for line in chained))
    log.with_suffix(".head").unlink()


def take_over(log: Path) -> None:
    """All of it by somebody else, under another key."""
    for path in log.parent.glob("audit.*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    write(log, make_signer(), 300)


def lose_records(log: Path) -> None:
    kept = lines(log)
    log.write_bytes(b"\n".join(kept[: len(kept) // 2]) + b"\n")
    log.with_suffix(".head").unlink()


@pytest.mark.parametrize(
    "damage",
    [
        lose_records,
        edit_unsigned,
        edit_first_unsigned,
        take_over,
        rewrite_lines(lambda all_: [*all_[:-20], *[all_[20]] * 40]),
        lambda log: forge(
            log, replace(newest(log), size=newest(log).size + 1, lines=()).signed(make_signer())
        ),
        lambda log: checkpoints_path(log).write_bytes(b"x\n\n" + "— x QUJDREVG\n\n".encode()),
    ],
)
def test_no_second_history_is_signed(
    log: Path, damage: Attack, caplog: pytest.LogCaptureFixture
) -> None:
    damage(log)
    before = checkpoints_path(log).read_bytes()
    with AuditLog(log, device="press-4") as writer:
        writer.sign_with(SIGNER)
        writer.emit("started")
        assert writer.checkpoint() is None
    assert checkpoints_path(log).read_bytes() == before
    refused = [record for record in tail(log, 50) if record.event == "checkpoint_refused"]
    assert refused[0].severity.label == "critical"
    assert refused[0].detail["contradiction"]
    assert "no checkpoint" in caplog.text or "no file of checkpoints" in caplog.text


def test_a_stranger_who_signs_the_same_changes_nothing(log: Path) -> None:
    forge(log, replace(newest(log), lines=()).signed(make_signer()))
    write(log, SIGNER, 1)
    assert verify(log, keys=[KEY]).ok


def test_a_disk_that_takes_no_tiles_does_not_stop_the_log(log: Path) -> None:
    before = newest(log).size
    with AuditLog(log, device="press-4") as writer:
        writer.sign_with(SIGNER)
        assert writer.flush()
        shutil.rmtree(tiles_path(log))
        tiles_path(log).write_bytes(b"in the way")
        writer.emit("started")
        assert writer.checkpoint() is None
        for _ in range(600):
            writer.emit("started")
        assert writer.flush()
        assert newest(log).size == before
        tiles_path(log).unlink()
        checkpoint = writer.checkpoint()
        assert checkpoint is not None
        assert checkpoint.size > before + 600
    assert verify(log, keys=[KEY]).ok


def test_a_key_that_fails_does_not_stop_the_log(log: Path) -> None:
    def fail(_: bytes) -> bytes:
        raise StateError("the token is gone")

    with AuditLog(log, device="press-4") as writer:
        writer.sign_with(replace(SIGNER, sign=fail))
        writer.emit("started")
        assert writer.checkpoint() is None
        assert writer.flush()
        writer.sign_with(SIGNER)
        assert writer.checkpoint() is not None
    assert verify(log, keys=[KEY]).ok


# Files that come and go.


def test_the_tree_goes_on_across_closed_and_expired_files(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    kept: list[Checkpoint] = []
    for _ in range(4):
        retention = Retention(file_bytes=60_000, closed_files=3)
        with AuditLog(log, device="press-4", capacity=1 << 16, retention=retention) as writer:
            writer.sign_with(SIGNER)
            for _ in range(12):
                for sequence in range(64):
                    writer.emit("refused_replay", sequence=sequence)
                assert writer.flush()
            assert writer.checkpoint()
        kept.append(newest(log))
    report = verify(log, keys=[KEY], checkpoints=kept)
    assert report.ok, report.problems
    assert report.first_seq > kept[0].size, "records under the first checkpoint expired"
    assert len(closed_files(log)) == 3
    names = {path.name for path in (tiles_path(log) / "tile/0").iterdir()}
    sizes = {each.size // 256 for each in read_checkpoints(log)}
    first = report.first_seq // 256
    gone = {index for index in range(first) if f"{index:03d}" not in names}
    assert gone, "hashes of expired records go"
    assert not gone & sizes, "but for those that proofs of consistency need"
    line = find_line(log, report.first_seq)
    assert line is not None
    assert find_line(log, report.first_seq - 1) is None
    forged = replace(kept[0], root=kept[1].root, lines=()).signed(SIGNER)
    assert kinds(verify(log, keys=[KEY], checkpoints=[forged])) == {"checkpoint"}


def test_records_are_found_wherever_other_programs_moved_them(log: Path) -> None:
    size = newest(log).size
    log.rename(log.with_name("audit.log.1"))
    write(log, SIGNER, 20)
    shutil.rmtree(tiles_path(log))
    write(log, SIGNER, 20)
    assert find_line(log, 5) == log.with_name("audit.log.1").read_bytes().splitlines()[4]
    assert newest(log).size > size + 40
    assert "checkpoint_refused" not in [record.event for record in tail(log, 200)]


def test_garbage_between_records_hides_none(log: Path) -> None:
    with log.open("ab") as file:
        file.write(b"\0" * 200_000 + b'{"v":1,"seq":3,"x')
    write(log, SIGNER, 5)
    last = verify(log).last_seq
    for seq in (1, last - 8, last):
        line = find_line(log, seq)
        assert line is not None
        record = AuditRecord.parse(line)
        assert record is not None
        assert record.seq == seq
    assert find_line(log, last + 1) is None
    assert find_line(log, 0) is None


def test_a_note_cut_short_is_dropped(log: Path) -> None:
    whole = checkpoints_path(log).read_bytes()
    last = newest(log)
    for cut in (1, 2, 40, len(last.encode()) - len(last.text), len(last.encode())):
        checkpoints_path(log).write_bytes(whole[:-cut])
        size = newest(log).size
        assert size < last.size
        with AuditLog(log, device="press-4") as writer:
            writer.sign_with(SIGNER)
        assert verify(log, keys=[KEY]).ok
        assert newest(log).size > last.size


def test_the_newest_is_found_behind_many(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    origin = make_origin("press-4", "0" * 32)
    signature = ((origin, bytes(4) + bytes(5000)),)
    notes = [Checkpoint(origin, size, bytes(32), (), signature) for size in range(400)]
    checkpoints_path(log).write_bytes(b"".join(note.encode() + b"\n" for note in notes))
    assert checkpoints_path(log).stat().st_size > 2 << 20
    assert last_checkpoint(log) == notes[-1]
    assert [each.size for each in read_checkpoints(log)] == list(range(400))
    assert b64encode(bytes(32)) in notes[0].text


def test_a_writer_killed_at_every_point_continues_every_checkpoint_it_told(
    tmp_path: Path,
) -> None:
    script = Path(__file__).with_name("evidence_lives.py")
    done = subprocess.run(
        [sys.executable, script, tmp_path], capture_output=True, check=False, timeout=240
    )
    assert done.returncode == 0, done.stderr.decode()
    assert int(done.stdout) > 60


def test_what_a_checkpoint_covers_is_on_disk_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "audit.log"
    synced: set[Path] = set()
    checked, more = [], threading.Event()
    sync, append = tiles_module._sync, CheckpointWriter.append

    def record(path: Path) -> None:
        synced.add(path)
        sync(path)

    def check_first(self: CheckpointWriter, checkpoint: Checkpoint) -> None:
        top = tiles_path(log)
        tree = {path for path in [top, *top.rglob("*")] if not path.name.startswith("checkpoint")}
        assert tree | {log.parent} <= synced
        head = Head.read(log)
        assert head is not None
        assert head.seq == checkpoint.size, "and so are the records"
        checked.append(checkpoint)
        more.set()
        append(self, checkpoint)

    monkeypatch.setattr(tiles_module, "_sync", record)
    monkeypatch.setattr(CheckpointWriter, "append", check_first)
    write(log, SIGNER, 3, 300)
    write(log, SIGNER, 700)
    monkeypatch.setattr(notary_module, "MAX_UNSIGNED", 50)
    with AuditLog(log, device="press-4") as writer:
        writer.sign_with(SIGNER)
        assert writer.flush()  # the head file is not due again for a second
        more.clear()
        for _ in range(60):
            writer.emit("started")
        assert more.wait(30)
    synced.clear()
    monkeypatch.setattr(tiles_module, "_MANY", 0)
    called: list[Path] = []
    monkeypatch.setattr(tiles_module, "_sync_filesystem", called.append)
    monkeypatch.setattr(CheckpointWriter, "append", append)
    write(log, SIGNER, 10)
    assert set(called) == {tiles_path(log)}


def test_many_tiles_are_made_durable_at_once(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles_module, "_MANY", 0)
    write(log, SIGNER, 600)
    assert verify(log, keys=[KEY]).ok
