"""Devices stopped in front of every single call that changes a file, one after the other.

What a device said it had done is so afterwards, and what it had not done it does then. That
holds for calls that SQLite makes as much as for our own, and it holds twice: with everything
that was written, as after SIGKILL, and with nothing but what was synced, as after the worst
of power cuts. See crash.c."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from devices import Pair, copy, make
from foreign import Foreign
from pqc_iiot import DuplicateError, Node, PeerState, Policy, PqcIiotError, StateError
from pqc_iiot.envelope import parse
from zygote import KILLED, Zygote, entries


@pytest.fixture(scope="module")
def zygote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    compiler = shutil.which("cc")
    assert compiler, "a C compiler is missing: apt-get install gcc libc6-dev"
    library = tmp_path_factory.mktemp("crash") / "crash.so"
    source = Path(__file__).with_name("crash.c")
    options = ["-shared", "-fPIC", "-O1", "-Wall", "-Werror"]
    subprocess.run([compiler, *options, "-o", str(library), str(source)], check=True)
    zygote = Zygote(library)
    yield zygote
    zygote.close()


def points(zygote: Zygote, job: str, folder: Path, *arguments: Path) -> Iterator[Path]:
    """Runs a job to each of its crash points, each time with copies of a folder's content,
    until it has come to its own end. Gives a folder with `device` and `journal` for each
    point, once as the kernel has it and once as the disk has it."""
    status = KILLED
    point = 0
    while status == KILLED:
        point += 1
        life = folder.with_name(f"life{point}")
        shutil.copytree(folder, life)
        (life / "mirror").mkdir()
        status = zygote.run(job, life / "device", life / "journal", *arguments, crash_at=point)
        cut = folder.with_name(f"cut{point}")
        after_power_cut(life, cut)
        for found in (life, cut):
            yield found
            shutil.rmtree(found)
    assert status == 0, "the job failed, see its traceback"


def after_power_cut(life: Path, cut: Path) -> None:
    """Puts together what was durable. The journal is the test's own, and stays."""
    (cut / "device").mkdir(0o700, parents=True)
    if (life / "journal").exists():
        shutil.copy2(life / "journal", cut / "journal")
    for line in (life / "mirror" / "names").read_text().splitlines():
        key, _, name = line.partition(" ")
        file = cut / "device" / name
        file.touch(0o600)
        kept = life / "mirror" / key
        if kept.exists():  # else its name is durable, and no byte of it
            file.write_bytes(kept.read_bytes())


def test_a_life_at_every_point(devices: Path, pair: Pair, tmp_path: Path, zygote: Zygote) -> None:
    frames = [pair.frame(b"%d" % i) for i in range(3)]
    (tmp_path / "frames").write_text("\n".join(frame.hex() for frame in frames))
    (tmp_path / "bundle").write_bytes(Foreign(3, "press").bundle())
    template = tmp_path / "template"
    template.mkdir()
    copy(devices, tmp_path / "made", "plc")
    with Node.open(tmp_path / "made" / "plc") as plc:
        plc.policy = Policy(sequence_block=2)
    (tmp_path / "made" / "plc").rename(template / "device")

    total = 0
    for life in points(zygote, "live", template, tmp_path / "frames", tmp_path / "bundle"):
        total += 1
        done = entries(life / "journal")
        said = {word: [line[-1] for line in done if line[0] == word] for word, *_ in done}
        with Node.open(life / "device") as plc:
            check(plc, frames, said)
    assert total > 200


def check(plc: Node, frames: list[bytes], said: dict[str, list[str]]) -> None:
    """The device keeps what it said, and goes on."""
    if "rotated" in said:
        assert plc.bundle.fingerprint.hex() == said["rotated"][0]
    if "approved" in said:
        assert plc.peers.get("press")
    if "revoked" in said:
        assert plc.peers.get("press").state is PeerState.REVOKED
    number = parse(plc.seal(b"x", to="sensor")).sequence
    assert all(number > int(used) for used in said.get("sealed", []))
    lost = 0
    for frame in frames:
        sequence = str(parse(frame).sequence)
        try:
            plc.open(frame, context="line1/temp")
        except DuplicateError:
            lost += sequence not in said.get("accepted", [])
        except PqcIiotError as error:
            assert error.code == "wrong_recipient", error  # noqa: PT017 - the keys are retired
            assert plc.bundle.serial == 2
        else:
            assert sequence not in said.get("accepted", [])
    assert lost <= 1  # between the disk and the caller: at most once, never twice


def test_a_creation_at_every_point(tmp_path: Path, zygote: Zygote) -> None:
    template = tmp_path / "template"
    template.mkdir()
    ends = set()
    for life in points(zygote, "create", template):
        ends.add(usable(life / "device"))
        if entries(life / "journal"):
            assert usable(life / "device") == "opened"
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


def test_a_recovery_at_every_point(devices: Path, tmp_path: Path, zygote: Zygote) -> None:
    template = tmp_path / "template"
    template.mkdir()
    copy(devices, tmp_path, "plc")
    (tmp_path / "plc").rename(template / "device")
    (template / "device" / "anchor").unlink()
    before = (template / "device" / "bundle").read_bytes()
    for life in points(zygote, "recover", template):
        done = entries(life / "journal")
        if not done:
            assert usable(life / "device") in ("opened", "recovered")
        with Node.open(life / "device") as plc:
            assert plc.bundle.encoded != before
            assert plc.bundle.serial >= 2
            assert not done or plc.bundle.fingerprint.hex() == done[0][1]
            assert plc.peers.counts() == (0, 0)
