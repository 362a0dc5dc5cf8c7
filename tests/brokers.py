"""A real mosquitto for tests, and one event loop per test that must end clean."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import getpass
import shutil
import signal as signals
import socket
import subprocess
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, ParamSpec

from pqc_iiot.transports import Transport

P = ParamSpec("P")

LOG_THREAD = "mosquitto's log"

TIME_LIMIT = 30
"""Seconds after which a test is taken for hung; no test depends on being faster."""


def in_loop(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run an async test in its own event loop; it must leave no task and no thread."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        async def guarded() -> None:
            await asyncio.wait_for(test(*args, **kwargs), TIME_LIMIT)
            left = asyncio.all_tasks() - {asyncio.current_task()}
            assert not left, f"tasks left behind: {left}"

        asyncio.run(guarded())
        threads = [t for t in threading.enumerate() if t.name != LOG_THREAD]
        assert threads == [threading.main_thread()]

    return run


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop run until something holds that has no event of its own."""
    while not condition():
        await asyncio.sleep(0.001)


async def payloads(transport: Transport, count: int, *, ack: bool = True) -> list[bytes]:
    """What the next `count` deliveries carry, acknowledged unless told otherwise."""
    received: list[bytes] = []
    while len(received) < count:
        for delivery in await transport.receive(count - len(received)):
            received.append(delivery.payload)
            if ack:
                delivery.ack()
    return received


class Mosquitto:
    """A broker on a free loopback port; `lines` are added to its configuration."""

    def __init__(self, folder: Path, *lines: str) -> None:
        program = shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin")
        assert program, "mosquitto is missing: run `make test`, or `apt-get install mosquitto`"
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        self._config = folder / f"mosquitto-{self.port}.conf"
        self._command = [program, "-c", str(self._config)]
        self._config.write_text(
            "\n".join(
                (
                    f"user {getpass.getuser()}",
                    "log_dest stderr",
                    "log_type all",
                    "persistence true",
                    f"persistence_location {folder}/",
                    f"listener {self.port} 127.0.0.1",
                    *(lines or ("allow_anonymous true",)),
                    "",
                )
            )
        )
        self.start()

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}"

    @property
    def tls_url(self) -> str:
        return f"mqtts://localhost:{self.port}"

    def start(self) -> None:
        """Start it, again if need be, and return once it accepts connections."""
        self._process = subprocess.Popen(
            self._command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert self._process.stdout is not None
        said = []
        for line in self._process.stdout:
            said.append(line)
            if line.rstrip().endswith("running"):
                break
        else:
            raise AssertionError(f"mosquitto did not start: {''.join(said)}")
        self._log = threading.Thread(target=self._process.stdout.read, name=LOG_THREAD, daemon=True)
        self._log.start()
        # It says so a moment before it is: it runs when it hangs up on nonsense.
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as probe:
            probe.sendall(bytes(8))
            with contextlib.suppress(ConnectionError):
                while probe.recv(64):
                    pass

    def signal(self, number: signals.Signals) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        """A power cut."""
        self._end(signals.SIGKILL)

    def stop(self) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signals.SIGCONT)
            self._end(signals.SIGTERM)

    def _end(self, number: signals.Signals) -> None:
        self._process.send_signal(number)
        self._process.wait(10)
        self._log.join(10)
        assert self._process.stdout is not None
        self._process.stdout.close()


Start = Callable[..., Mosquitto]
"""Starts a broker with lines for its configuration; it is stopped after the test."""
