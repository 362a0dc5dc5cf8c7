"""What a disk holds after a power cut: see crash.c for what is kept while a device runs.

Three disks, from the same moment: `life`, where everything that was written is there; `cut`,
where nothing is but what was synced; `torn`, where of what was not synced some sectors are
there and some are not, some names are the new ones and some the old ones. Which ones is
decided by a seed, so that a run can be repeated.
"""

from __future__ import annotations

import ctypes
import random
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from zygote import KILLED, Zygote

SECTOR = 512


@dataclass(frozen=True)
class Moment:
    """One disk after one crash point: `folder` has `device` and `journal`; `durable` is what
    was synced of the audit log."""

    point: int
    disk: str
    folder: Path
    durable: bytes


class Power(Zygote):
    """Runs jobs to each of their crash points."""

    def __init__(self, folder: Path) -> None:
        compiler = shutil.which("cc")
        assert compiler, "a C compiler is missing: apt-get install gcc libc6-dev"
        library = folder / "crash.so"
        source = Path(__file__).with_name("crash.c")
        options = ["-shared", "-fPIC", "-O1", "-Wall", "-Werror"]
        subprocess.run([compiler, *options, "-o", str(library), str(source)], check=True)
        super().__init__(library)
        self._library = ctypes.CDLL(str(library))  # only asked here, not preloaded
        self.points = 0

    def moments(
        self, job: str, template: Path, *arguments: Path, seeds: int = 1, **inject: int
    ) -> Iterator[Moment]:
        """Every disk after every crash point of a job that gets a copy of `template` each
        time, until it has come to its own end. `inject` as for `Zygote.start`."""
        status, self.points = KILLED, 0
        while status == KILLED:
            self.points += 1
            life = template.with_name("life")
            shutil.rmtree(life, ignore_errors=True)  # where a check has failed
            shutil.copytree(template, life)
            (life / "mirror").mkdir()
            inject["crash_at"] = self.points
            status = self.run(job, life / "device", life / "journal", *arguments, **inject)
            yield from self._disks(life, f"{job} {self.points}", seeds)
        assert status == 0, "the job failed, see its traceback"

    def _disks(self, life: Path, seed: str, seeds: int) -> Iterator[Moment]:
        kept = life / "mirror"
        self._library.list_names(bytes(life / "device"), bytes(kept / "now"))
        before, now = names(kept / "names"), names(kept / "now")
        files = {key: (life / "device" / name).read_bytes() for name, key in now.items()}
        synced = {key: content(kept / key) for key in {*before.values(), *now.values()}}
        durable = synced.get(before.get("audit.log", ""), b"")
        disks = {"cut": {name: synced[key] for name, key in before.items()}}
        for number in range(seeds):
            rng = random.Random(f"{seed} {number}")
            disks[f"torn {number}"] = {
                name: torn(synced[key], files.get(key, synced[key]), rng)
                for name, key in some_names(before, now, rng).items()
            }
        yield Moment(self.points, "life", life, durable)
        for disk, wanted in disks.items():
            folder = life.with_name("disk")
            (folder / "device").mkdir(0o700, parents=True)
            if (life / "journal").exists():  # the test's own, not the device's
                shutil.copy2(life / "journal", folder / "journal")
            for name, data in wanted.items():
                (folder / "device" / name).touch(0o600)
                (folder / "device" / name).write_bytes(data)
            yield Moment(self.points, disk, folder, durable)
            shutil.rmtree(folder)
        shutil.rmtree(life)


def names(listed: Path) -> dict[str, str]:
    """Names with the keys of their files."""
    lines = listed.read_text().splitlines() if listed.exists() else []
    return {name: key for key, _, name in (line.partition(" ") for line in lines)}


def content(kept: Path) -> bytes:
    """What was synced of a file; where its name is durable and no byte of it, nothing."""
    return kept.read_bytes() if kept.exists() else b""


def some_names(before: dict[str, str], now: dict[str, str], rng: random.Random) -> dict[str, str]:
    """Each change of a name that was not synced has happened, or has not."""
    found = {}
    for name in sorted({*before, *now}):
        key = rng.choice((before, now)).get(name)
        if key is not None:
            found[name] = key
    return found


def torn(synced: bytes, written: bytes, rng: random.Random) -> bytes:
    """Each sector that was not synced is there, or is not; a file that has grown may have
    grown to any of its sectors."""
    if synced == written:
        return synced
    ends = {len(synced), len(written), *range(len(synced), len(written), SECTOR)}
    size = rng.choice(sorted(ends))
    data = bytearray()
    for at in range(0, size, SECTOR):
        chosen = rng.choice((synced, written))[at : at + SECTOR]
        data += chosen.ljust(SECTOR, b"\0")
    return bytes(data[:size])
