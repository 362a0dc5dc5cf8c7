"""A socket between a program and its TPM, which counts commands and cuts the power at one."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable

from .tpm_fixture import Swtpm

_FLUSH_CONTEXT = 0x165
FAILURE, SESSION_MEMORY = 0x101, 0x903


class Proxy:
    """Passes commands on until the one that it was armed for.

    There it calls `strike`: before the TPM sees the command, or with `after` when it has done
    it and nobody has heard the answer. With `refuse`, it answers with that code instead.
    """

    def __init__(self, tpm: Swtpm) -> None:
        self.path = f"{tpm.folder}/p"
        self.count = self.flushes = 0
        self.refused_flush = False
        self.heard = bytearray()
        """Every command and every answer: what goes over the bus."""
        self.strike: Callable[[], None] = tpm.kill
        self._at, self._after, self._refuse = -1, False, 0
        self._tpm = tpm
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen(8)
        control = tpm.folder / "p.ctrl"
        control.symlink_to(tpm.folder / "s.ctrl")
        self._serving = threading.Thread(target=self._serve, daemon=True)
        self._serving.start()

    @property
    def uri(self) -> str:
        """The TPM behind it."""
        return f"tpm:swtpm:path={self.path}"

    def arm(self, at: int, *, after: bool = False, refuse: int = 0) -> None:
        """For the command with this number from now on: 0 is the next, -1 is none."""
        self.count, self.refused_flush = 0, False
        self._at, self._after, self._refuse = at, after, refuse

    def close(self) -> None:
        """Ends it."""
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread: closing would not
        self._serving.join()
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._pass_on, args=(client,), daemon=True).start()

    def _pass_on(self, client: socket.socket) -> None:
        with client, socket.socket(socket.AF_UNIX) as tpm:
            connected = False
            try:
                while command := _message(client):
                    self.heard += command
                    struck = self.count == self._at
                    self.count += 1
                    flush = int.from_bytes(command[6:10], "big") == _FLUSH_CONTEXT
                    self.flushes += flush
                    if struck and self._refuse:
                        self.refused_flush = flush
                        client.sendall(bytes.fromhex(f"80010000000a{self._refuse:08x}"))
                        continue
                    if struck and not self._after:
                        self.strike()
                        return
                    if not connected:
                        tpm.connect(f"{self._tpm.folder}/s")
                        connected = True
                    tpm.sendall(command)
                    answer = _message(tpm)
                    self.heard += answer
                    if struck:
                        self.strike()
                        return
                    client.sendall(answer)
            except OSError:
                return


def _message(peer: socket.socket) -> bytes:
    """One command or response: tag, size, the rest; b'' at the end."""
    data = b""
    size = 6
    while len(data) < size:
        part = peer.recv(size - len(data))
        if not part:
            return b""
        data += part
        if len(data) == 6:
            size = int.from_bytes(data[2:6], "big")
    return data
