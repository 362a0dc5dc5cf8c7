"""Being a service: telling the service manager how it goes, and reading settings again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..errors import InvalidInputError, PqcIiotError

if TYPE_CHECKING:
    from ..node import Node
    from .base import Shell


def notify(*assignments: str) -> None:
    """Tells a service manager that asked for it (`NOTIFY_SOCKET`), as sd_notify(3) does.

    `InvalidInputError` where it cannot be told.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            # "@" stands for the NUL byte of the abstract namespace.
            manager.connect(address.replace("@", "\0", 1) if address[0] == "@" else address)
            manager.sendall("\n".join(assignments).encode())
    except OSError as error:
        raise InvalidInputError(f"NOTIFY_SOCKET cannot be used: {error.strerror}") from error


@contextlib.contextmanager
def serving(shell: Shell, node: Node) -> Iterator[None]:
    """While it is open, the service manager knows that the device is ready, and SIGHUP lets
    it read the settings of its sinks again. Within an event loop."""
    loop = asyncio.get_running_loop()
    reloading: set[asyncio.Task[None]] = set()

    async def reload() -> None:
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        notify("RELOADING=1", f"MONOTONIC_USEC={now}")
        try:
            await loop.run_in_executor(None, node.reload)
            shell.note("the settings of the sinks were read again")
        except PqcIiotError as error:
            shell.warn(error.code, f"nothing was changed: {error}", error.hint)
        notify("READY=1")

    def begin() -> None:
        if not reloading:
            task = loop.create_task(reload())
            reloading.add(task)
            task.add_done_callback(reloading.discard)

    loop.add_signal_handler(signal.SIGHUP, begin)
    notify("READY=1")
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGHUP)
        notify("STOPPING=1")
