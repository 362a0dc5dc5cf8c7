"""Devices stopped in front of every single call that changes a file, one after the other.

What a device said it had done is so afterwards, and what it had not done it does then. That
holds for calls that SQLite makes as much as for our own, and it holds on three disks: with
everything that was written, as after SIGKILL; with nothing but what was synced; and with
sectors and names of what was not synced mixed, as after the worst of power cuts. See power.py
and crash.c. `PQC_IIOT_TORN=20` mixes twenty times a point.

How many points there were is printed: `pytest -s tests/test_crash_points.py`.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from devices import Pair, copy, make
from foreign import Foreign
from power import Moment, Power
from pqc_iiot import DuplicateError, Node, PeerState, Policy, PqcIiotError
from pqc_iiot.audit import verify
from pqc_iiot.backup import JUMP
from pqc_iiot.envelope import parse
from pqc_iiot.errors import StateError
from pqc_iiot.providers import software
from pqc_iiot.providers.passphrase import from_file
from zygote import Zygote, entries

SEEDS = int(os.environ.get("PQC_IIOT_TORN", "1"))


@pytest.fixture(scope="module")
def power(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Power]:
    power = Power(tmp_path_factory.mktemp("power"))
    yield power
    power.close()


zygote = power  # for other files


def points(zygote: Zygote, job: str, template: Path, *arguments: Path) -> Iterator[Path]:
    """The folder of every disk after every crash point."""
    assert isinstance(zygote, Power)
    for moment in zygote.moments(job, template, *arguments, seeds=SEEDS):
        yield moment.folder


@pytest.fixture
def template(devices: Path, tmp_path: Path) -> Path:
    """A folder with one controller in it, which has made few numbers ready."""
    folder = tmp_path / "template"
    folder.mkdir()
    copy(devices, tmp_path / "made", "plc")
    with Node.open(tmp_path / "made" / "plc") as plc:
        plc.policy = Policy(sequence_block=2)
    (tmp_path / "made" / "plc").rename(folder / "device")
    return folder


def counted(
    power: Power, moments: Iterator[Moment], check: Callable[[Moment], object], what: str
) -> int:
    """Checks every disk, and says how many there were."""
    disks: Counter[str] = Counter()
    for moment in moments:
        try:
            check(moment)
        except (AssertionError, PqcIiotError) as error:
            raise AssertionError(f"{what}, point {moment.point}, disk {moment.disk}") from error
        disks[moment.disk.split()[0]] += 1
    print(f"\n{what}: {power.points} points, {dict(disks)}", end="")
    return power.points


def check_log(moment: Moment) -> None:
    """Every record of the log that was synced is there, and whatever else is wrong with the
    log after a cut lies behind them and is named."""
    log = moment.folder / "device" / "audit.log"
    kept = moment.durable.splitlines(keepends=True)
    if kept and not kept[-1].endswith(b"\n"):
        kept.pop()  # synced in the middle of a line
    assert (log.read_bytes() if log.exists() else b"").startswith(b"".join(kept))
    for problem in verify(log).problems:
        assert problem.line > len(kept), problem
        assert problem.kind in ("torn", "unreadable", "missing", "changed", "repeated", "tile")
        assert problem.kind == "tile" or moment.disk.startswith("torn") or problem.kind == "torn"


def said(moment: Moment) -> dict[str, list[str]]:
    """What the device said that it had done, by word."""
    found: dict[str, list[str]] = {}
    for word, *rest in entries(moment.folder / "journal"):
        found.setdefault(word, []).append(rest[-1] if rest else "")
    return found


# A life


@pytest.fixture
def life(pair: Pair, tmp_path: Path) -> tuple[list[bytes], list[Path]]:
    """Frames for it, and the files that the job takes."""
    frames = [pair.frame(b"%d" % i) for i in range(3)]
    (tmp_path / "frames").write_text("\n".join(frame.hex() for frame in frames))
    (tmp_path / "bundle").write_bytes(Foreign(3, "press").bundle())
    return frames, [tmp_path / "frames", tmp_path / "bundle"]


def test_a_life_at_every_point(
    life: tuple[list[bytes], list[Path]], template: Path, power: Power
) -> None:
    frames, files = life
    moments = power.moments("live", template, *files, seeds=SEEDS)
    assert counted(power, moments, lambda moment: check_life(moment, frames), "a life") > 100


def check_life(moment: Moment, frames: list[bytes]) -> None:
    """The device keeps what it said, and goes on."""
    done = said(moment)
    check_log(moment)
    with Node.open(moment.folder / "device") as plc:
        if "rotated" in done:
            assert plc.bundle.fingerprint.hex() == done["rotated"][0]
        if "approved" in done:
            assert plc.peers.get("press")
        if "revoked" in done:
            assert plc.peers.get("press").state is PeerState.REVOKED
        number = parse(plc.seal(b"x", to="sensor")).sequence
        assert all(number > int(used) for used in done.get("sealed", []))
        lost = 0
        for frame in frames:
            sequence = str(parse(frame).sequence)
            try:
                plc.open(frame, context="line1/temp")
            except DuplicateError:
                lost += sequence not in done.get("accepted", [])
            except PqcIiotError as error:
                assert error.code == "wrong_recipient", error  # noqa: PT017 - the keys are retired
                assert plc.bundle.serial == 2
            else:
                assert sequence not in done.get("accepted", [])
        assert lost <= 1  # between the disk and the caller: at most once, never twice
    check_log(moment)


# The beginning, and the beginning again


def test_a_creation_at_every_point(tmp_path: Path, power: Power) -> None:
    template = tmp_path / "template"
    template.mkdir()
    ends = set()

    def check(moment: Moment) -> None:
        ends.add(usable(moment.folder / "device"))
        if entries(moment.folder / "journal"):
            assert usable(moment.folder / "device") == "opened"

    counted(power, power.moments("create", template, seeds=SEEDS), check, "a creation")
    assert ends == {"created", "recovered", "opened"}


def usable(folder: Path) -> str:
    """How the device comes to life: nobody has to remove anything by hand."""
    try:
        Node.open(folder).close()
    except StateError as error:
        hint = error.hint
    else:
        return "opened"
    if "recover" in hint:
        Node.recover(folder).close()
        return "recovered"
    make(folder.parent, folder.name).close()
    return "created"


def test_a_recovery_at_every_point(template: Path, power: Power) -> None:
    (template / "device" / "anchor").unlink()
    before = (template / "device" / "bundle").read_bytes()

    def check(moment: Moment) -> None:
        done = entries(moment.folder / "journal")
        if not done:
            assert usable(moment.folder / "device") in ("opened", "recovered")
        with Node.open(moment.folder / "device") as plc:
            assert plc.bundle.encoded != before
            assert plc.bundle.serial >= 2
            assert not done or plc.bundle.fingerprint.hex() == done[0][1]
            assert plc.peers.counts() == (0, 0)

    counted(power, power.moments("recover", template, seeds=SEEDS), check, "a recovery")


def test_a_restoration_at_every_point(
    pair: Pair, tmp_path: Path, power: Power, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is there as a whole, or there is no device: the backup is still good for another."""
    monkeypatch.setattr(software, "_PASSPHRASE_COST", software._RANDOM_COST)
    secret, backup, template = (tmp_path / name for name in ("secret", "backup", "template"))
    secret.touch(0o600)
    secret.write_text("correct horse battery")
    backup.write_bytes(pair.plc.backup(from_file(secret)))
    template.mkdir()
    ends = set()

    def check(moment: Moment) -> None:
        done = entries(moment.folder / "journal")
        try:
            with Node.open(moment.folder / "device") as plc:
                assert (plc.bundle.serial, plc.peers.counts()) == (2, (1, 0))
                assert parse(plc.seal(b"x", to="sensor")).sequence > JUMP
                assert not done or plc.bundle.fingerprint.hex() == done[0][1]
                ends.add("restored")
        except StateError as error:
            assert not done
            assert "there is no" in str(error)  # noqa: PT017 - either is right
            ends.add("none")

    moments = power.moments("restore", template, backup, secret, seeds=SEEDS)
    counted(power, moments, check, "a restoration")
    assert ends == {"restored", "none"}


# The harness itself: neither a wrong order passes nor a disk that forgets


@pytest.mark.parametrize("job", ["deliver_first", "rename_before_sync"])
def test_a_mistake_is_found(
    job: str, life: tuple[list[bytes], list[Path]], template: Path, power: Power
) -> None:
    frames, files = life
    moments = power.moments(job, template, *files)
    with pytest.raises(AssertionError, match=job):
        counted(power, moments, lambda moment: check_life(moment, frames), job)


def test_a_disk_that_ignores_fsync_is_found(
    life: tuple[list[bytes], list[Path]], template: Path, power: Power
) -> None:
    frames, files = life
    moments = power.moments("live", template, *files, forget_syncs=1)
    with pytest.raises(AssertionError, match=r"forgetful, point [0-9]+, disk (cut|torn)"):
        counted(power, moments, lambda moment: check_life(moment, frames), "forgetful")
