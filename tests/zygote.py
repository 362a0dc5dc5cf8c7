"""A process with everything loaded that forks children for the jobs of tests that kill.

As a module: `Zygote` starts one and gives it jobs. As a program: the zygote itself. Jobs are
functions below, by name; they say what they did in a journal, one line after each thing done.
"""

from __future__ import annotations

import ctypes
import importlib
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from pqc_iiot import Incoming, Node, ReplayError, StateError
from pqc_iiot._core import self_test
from pqc_iiot.envelope import parse
from pqc_iiot.freshness import Freshness

KILLED = -signal.SIGKILL
OUT_OF_REACH = 7
"""Status of a job that came to its end without having reached the call that was to fail."""


class Journal:
    """Lines of a file that survive the process that wrote them."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def write(self, *words: object) -> None:
        """One line, at once or not at all."""
        os.write(self._fd, (" ".join(map(str, words)) + "\n").encode())


def entries(path: Path) -> list[list[str]]:
    """The words of each line; none where there is no journal yet."""
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


class Zygote:
    """Runs jobs in forked children, one at a time."""

    def __init__(self, preload: Path | None = None) -> None:
        environment = dict(os.environ) | ({"LD_PRELOAD": str(preload)} if preload else {})
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", __file__, str(preload or "")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def start(self, job: str, *arguments: object, **inject: int | tuple[int, ...]) -> int:
        """Starts a job in a child: its process id. `inject` are functions of the preloaded
        library and their arguments, such as `crash_at=7`; with any of them, what is durable
        of the job's first argument, a folder, is kept in `mirror` beside it."""
        assert self._process.stdin is not None
        call = [job, inject, *map(str, arguments)]
        self._process.stdin.write(json.dumps(call) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def wait_until_open(self) -> bool:
        """Whether the child has opened its device; False where it has ended before."""
        return bool(self._answer())

    def wait(self) -> int:
        """The exit status of the child; minus the signal that ended it."""
        return self._answer()

    def run(self, job: str, *arguments: object, **inject: int | tuple[int, ...]) -> int:
        """Starts a job and waits for its end."""
        self.start(job, *arguments, **inject)
        self.wait_until_open()
        return self.wait()

    def kill(self, rng: random.Random, job: str, *arguments: object) -> None:
        """Starts a job that does not end by itself, and kills it at a random moment: one
        time in four while it opens its device, else while it works."""
        child = self.start(job, *arguments)
        early = rng.randrange(4) == 0
        if not early:
            assert self.wait_until_open(), "the job failed, see its traceback"
        time.sleep(rng.uniform(0, 0.01))
        os.kill(child, signal.SIGKILL)
        if early:
            self.wait_until_open()
        assert self.wait() == KILLED, "the job failed, see its traceback"

    def close(self) -> None:
        """Ends the zygote."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        assert self._process.wait() == 0
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _answer(self) -> int:
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())


# Jobs


_ready = -1


def opened(folder: str) -> Node:
    """Opens a device, and lets `Zygote.wait_until_open` know."""
    node = Node.open(folder)
    os.write(_ready, b"1")
    return node


def seal_for_ever(folder: str, journal: str, frames: str) -> None:
    """Seals frames, keeping each number and each frame, until it is killed."""
    numbers, kept = Journal(Path(journal)), Journal(Path(frames))
    node = opened(folder)
    while True:
        frame = node.seal(b"21.5", to="plc", context="line1/temp")
        numbers.write(parse(frame).sequence)
        kept.write(frame.hex())


def open_for_ever(folder: str, journal: str, frames: str) -> None:
    """Takes the frames of a file again and again, keeping each that is accepted."""
    accepted = Journal(Path(journal))
    node = opened(folder)
    lines = Path(frames).read_text().split()
    while True:
        for line in lines:
            try:
                message = node.open(bytes.fromhex(line), context="line1/temp")
            except ReplayError:
                continue
            accepted.write(message.sequence)


def live(folder: str, journal: str, frames: str, bundle: str) -> None:
    """One life of a device, with everything in it that changes its state."""
    done = Journal(Path(journal))
    node = Node.open(folder)
    done.write("opened")
    for line in Path(frames).read_text().split():
        message = node.open(bytes.fromhex(line), context="line1/temp")
        done.write("accepted", message.sequence)
        for _ in range(2):
            frame = node.seal(b"x", to="sensor")
            done.write("sealed", parse(frame).sequence)
    peer = node.peers.add_approved(Path(bundle).read_bytes())
    done.write("approved", peer.name)
    node.peers.revoke(peer.name)
    done.write("revoked", peer.name)
    done.write("rotated", node.rotate().fingerprint.hex())
    node.retire()
    done.write("retired")
    node.close()
    done.write("closed")


def endure(folder: str, journal: str, frames: str, bundle: str) -> None:
    """A life on a disk that fails: every refusal is a typed one, is tried once more, and then
    the device goes on with what comes next."""
    done = Journal(Path(journal))

    def attempt(word: str, step: Callable[[], object]) -> object:
        for _ in range(2):
            try:
                result = step()
            except StateError as error:
                done.write("refused", error.code)
            except ReplayError as error:
                # Its number came onto the disk in spite of what the disk said.
                done.write("refused", error.code)
                return None
            else:
                done.write(word, result)
                return result
        return None

    node: list[Node] = []
    attempt("opened", lambda: node.append(Node.open(folder)))
    if not node:
        return
    device = node[0]
    for line in Path(frames).read_text().split():
        incoming = Incoming(bytes.fromhex(line), "line1/temp")
        attempt("accepted", lambda: device.open(incoming.frame, context="line1/temp").sequence)  # noqa: B023
        attempt("sealed", lambda: parse(device.seal(b"x", to="sensor")).sequence)
    attempt("outbox", lambda: device.outbox.put(b"x", to="sensor").number)
    if attempt("approved", lambda: device.peers.add_approved(Path(bundle).read_bytes()).name):
        attempt("revoked", lambda: device.peers.revoke("press")[0].name)
    attempt("rotated", lambda: str(device.rotate().fingerprint.hex()))
    attempt("closed", device.close)


def travel_in_time(folder: str, journal: str, frames: str, bundle: str) -> None:
    """A life with a clock that stands at 1970 and later jumps."""
    library = ctypes.CDLL(None)
    library.shift_clock(ctypes.c_long(-int(time.time())))
    assert time.time() < 86400
    write, jumps = Journal.write, itertools.cycle((4_000_000_000, -1_000_000_000, 50))

    def then_jump(self: Journal, *words: object) -> None:
        write(self, *words)
        library.shift_clock(ctypes.c_long(next(jumps)))

    Journal.write = then_jump  # type: ignore[method-assign]
    live(folder, journal, frames, bundle)


def deliver_first(folder: str, journal: str, frames: str, bundle: str) -> None:
    """A wrong order on purpose: a message is handed over, then its number is committed."""
    late: list[Freshness] = []
    commit = Freshness.commit

    def put_off(self: Freshness) -> None:
        late.append(self)

    Freshness.commit = put_off  # type: ignore[method-assign]
    write = Journal.write

    def then_commit(self: Journal, *words: object) -> None:
        write(self, *words)
        while late:
            commit(late.pop())

    Journal.write = then_commit  # type: ignore[method-assign]
    live(folder, journal, frames, bundle)


def rename_before_sync(folder: str, journal: str, frames: str, bundle: str) -> None:
    """A mistake on purpose: files are renamed over others before their content is synced."""
    os.fsync = lambda _: None  # type: ignore[assignment]
    live(folder, journal, frames, bundle)


def live_with_queues(folder: str, journal: str, frames: str, kind: str) -> None:
    """One life of a device with inbox and outbox; see there."""
    import queue_lives

    queue_lives.live(folder, Journal(Path(journal)).write, frames, kind)


def create(folder: str, journal: str) -> None:
    """Makes a device."""
    Node.create(folder, name="new", provider="software:insecure-plaintext-keys", suite=3).close()
    Journal(Path(journal)).write("created")


def recover(folder: str, journal: str) -> None:
    """Recovers a device."""
    node = Node.recover(folder)
    Journal(Path(journal)).write("recovered", node.bundle.fingerprint.hex())
    node.close()


def restore(folder: str, journal: str, backup: str, passphrase: str) -> None:
    """Restores a device."""
    from pqc_iiot.providers import passphrase as source
    from pqc_iiot.providers import software

    software._PASSPHRASE_COST = software._RANDOM_COST  # one process for each crash point
    data, secret = Path(backup).read_bytes(), source.from_file(passphrase)
    node = Node.restore(folder, data, secret, provider="software:insecure-plaintext-keys")
    Journal(Path(journal)).write("restored", node.bundle.fingerprint.hex())
    node.close()


JOBS: dict[str, Callable[..., None]] = {
    job.__name__: job
    for job in (
        seal_for_ever,
        open_for_ever,
        live,
        live_with_queues,
        create,
        recover,
        restore,
        endure,
        travel_in_time,
        deliver_first,
        rename_before_sync,
    )
}


def main() -> None:
    """Forks a child for each line of standard input; answers its id, whether it opened its
    device, and its status."""
    global _ready
    # Once, for all children: what the first opening of a device loads and tests.
    for module in ("pqc_iiot.providers.software", "pqc_iiot.store.sqlite", "importlib.metadata"):
        importlib.import_module(module)
    self_test()
    library = ctypes.CDLL(sys.argv[1]) if sys.argv[1] else None
    for line in sys.stdin:
        job, inject, *arguments = json.loads(line)
        heard, _ready = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                if library and inject:
                    mirror = Path(arguments[0]).with_name("mirror")
                    library.keep_durable(arguments[0].encode(), str(mirror).encode())
                    for function, values in inject.items():
                        numbers = values if isinstance(values, list) else [values]
                        getattr(library, function)(*map(ctypes.c_long, numbers))
                JOBS[job](*arguments)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(
                OUT_OF_REACH if library and "fail_at" in inject and not library.failed() else 0
            )
        print(child, flush=True)
        os.close(_ready)
        print(len(os.read(heard, 1)), flush=True)
        os.close(heard)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
