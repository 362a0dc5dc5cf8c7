"""What a person types at a terminal, through a real one."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from command import PROGRAM, TIME_LIMIT, environment, pqc, words
from devices import copy

PASSPHRASE = "correct horse battery staple"


class Terminal:
    """A program on a terminal of its own: what it shows, and what is typed."""

    def __init__(self, line: str, **env: str) -> None:
        self.pid, self._fd = pty.fork()
        if not self.pid:
            try:
                os.execve(PROGRAM, [str(PROGRAM), *words(line)], environment(TERM="xterm", **env))
            finally:
                os._exit(127)
        self.shown = ""

    def wait_for(self, text: str) -> None:
        """Reads until the program has shown `text` since the last call."""
        end = time.monotonic() + TIME_LIMIT
        new = ""
        while text not in new:
            assert time.monotonic() < end, f"{text!r} never came: {new!r}"
            chunk = self._read()
            assert chunk, f"it ended without {text!r}: {new!r}"
            new += chunk
            self.shown += chunk

    def type(self, text: str) -> None:
        """Types, as fast as a person who waits for the prompt."""
        os.write(self._fd, text.encode())

    @property
    def text(self) -> str:
        """What a person reads: without colours."""
        return re.sub(r"\x1b\[[0-9;]*m", "", self.shown)

    @property
    def echoes(self) -> bool:
        """Whether the terminal shows what is typed."""
        return bool(termios.tcgetattr(self._fd)[3] & termios.ECHO)

    def end(self) -> int:
        """Reads on until the program ends: its exit code."""
        while chunk := self._read():
            self.shown += chunk
        _, status = os.waitpid(self.pid, 0)
        self.pid = 0
        return os.waitstatus_to_exitcode(status)

    def close(self) -> None:
        """Ends the program if a test has not, and gives the terminal up."""
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            self.end()
        os.close(self._fd)

    def _read(self) -> str:
        if not select.select([self._fd], [], [], TIME_LIMIT)[0]:
            raise AssertionError(f"nothing more came: {self.shown!r}")
        try:
            return os.read(self._fd, 65536).decode("utf-8", "replace")
        except OSError:  # Linux' way to say that the other end is closed.
            return ""


@contextmanager
def terminal(line: str, **env: str) -> Iterator[Terminal]:
    found = Terminal(line, **env)
    try:
        yield found
    finally:
        found.close()


def ask(found: Terminal, prompt: str, answer: str) -> None:
    """Waits for a prompt, and answers it unseen."""
    found.wait_for(prompt)
    while found.echoes:  # The prompt comes after echo is off, but the kernel may lag.
        time.sleep(0.001)
    found.type(f"{answer}\r")


def test_a_passphrase_is_chosen_and_asked_for(tmp_path: Path) -> None:
    with terminal(f"--state {tmp_path}/dev init dev") as made:
        ask(made, "New passphrase: ", PASSPHRASE)
        ask(made, "The same again: ", PASSPHRASE)
        assert made.end() == 0
        assert "fingerprint" in made.shown
    with terminal(f"--state {tmp_path}/dev status") as opened:
        ask(opened, "Passphrase: ", PASSPHRASE)
        assert opened.end() == 0
    with terminal(f"--state {tmp_path}/dev status") as refused:
        ask(refused, "Passphrase: ", "another one")
        assert refused.end() == 1
        assert "the key file does not open with this passphrase" in refused.shown
    shown = made.shown + opened.shown + refused.shown
    assert PASSPHRASE not in shown
    assert "another one" not in shown


def test_what_is_typed_differs_or_is_too_short(tmp_path: Path) -> None:
    with terminal(f"--state {tmp_path}/dev init dev") as different:
        ask(different, "New passphrase: ", PASSPHRASE)
        ask(different, "The same again: ", PASSPHRASE[:-1])
        assert different.end() == 2
        assert "the two passphrases differ" in different.shown
    with terminal(f"--state {tmp_path}/dev init dev") as short:
        ask(short, "New passphrase: ", "secret")
        assert short.end() == 2
        assert "at least 8 characters" in short.shown
    with terminal(f"--state {tmp_path}/dev init dev") as nothing:
        ask(nothing, "New passphrase: ", "")
        assert nothing.end() == 2
    # And then it works: nothing was left in the way.
    assert pqc(f"--state {tmp_path}/dev init dev --insecure-plaintext-keys").code == 0


def test_interrupted_at_the_prompt_the_terminal_echoes_again(tmp_path: Path) -> None:
    with terminal(f"--state {tmp_path}/dev init dev") as found:
        found.wait_for("New passphrase: ")
        assert not found.echoes
        found.type("\x03")
        assert found.end() == 130
        assert found.echoes
        assert "Traceback" not in found.shown
        assert "panicked" not in found.shown


def test_a_terminal_is_asked_even_in_a_pipe(tmp_path: Path, devices: Path) -> None:
    """The passphrase comes from the terminal, the payload from standard input."""
    secret = tmp_path / "secret"
    secret.write_text(PASSPHRASE)
    secret.chmod(0o600)
    copy(devices, tmp_path, "plc")
    device = f"--state {tmp_path}/dev --passphrase-file {secret}"
    assert pqc(f"{device} init dev").code == 0
    fingerprint = pqc(f"--state {tmp_path}/plc id show --json").data["fingerprint"]
    assert pqc(f"{device} peer add {tmp_path}/plc/bundle --approve {fingerprint}").code == 0
    with terminal(f"--state {tmp_path}/dev seal --to plc {secret} {tmp_path}/frame") as found:
        ask(found, "Passphrase: ", PASSPHRASE)
        assert found.end() == 0
    assert pqc(f"inspect {tmp_path}/frame").code == 0


@pytest.fixture
def pair_folder(devices: Path, tmp_path: Path) -> Path:
    copy(devices, tmp_path, "sensor", "plc")
    return tmp_path


def test_a_frame_is_no_text_for_a_terminal(pair_folder: Path) -> None:
    (pair_folder / "in").write_text("21.5")
    line = f"--state {pair_folder}/sensor seal --to plc {pair_folder}/in"
    with terminal(line) as refused:
        assert refused.end() == 2
        assert "hint: name a file, use a pipe, or give --force" in refused.text
    with terminal(f"{line} --force") as forced:
        assert forced.end() == 0
        assert len(forced.shown) > 1000
    with terminal(f"--state {pair_folder}/sensor id export") as refused:
        assert refused.end() == 2


def test_a_payload_cannot_command_the_terminal(pair_folder: Path) -> None:
    payload = "two\nlines\tand \x1b]0;title\x07\x9b31m\u202e".encode()
    frame = pqc(f"--state {pair_folder}/sensor seal --to plc", payload).raw
    (pair_folder / "frame").write_bytes(frame)
    with terminal(f"--state {pair_folder}/plc open {pair_folder}/frame") as found:
        assert found.end() == 0
        assert found.shown.startswith("two\r\nlines\tand \\x1b]0;title\\x07\\x9b31m\\u202e\r\n")


def test_colours_are_for_terminals_that_want_them(pair_folder: Path) -> None:
    line = f"--state {pair_folder}/plc doctor"
    with terminal(line) as coloured:
        coloured.end()
        assert "\x1b[32mok" in coloured.shown
    with terminal(line, NO_COLOR="1") as plain:
        plain.end()
        assert "\x1b[3" not in plain.shown
    line = f"--state {pair_folder}/plc peer show nobody"
    with terminal(line) as coloured:
        coloured.end()
        assert "\x1b[1;31merror:\x1b[0m " in coloured.shown
    with terminal(line, NO_COLOR="1") as plain:
        plain.end()
        assert "\x1b" not in plain.shown


def test_recovery_asks_a_person(pair_folder: Path) -> None:
    with terminal(f"--state {pair_folder}/plc recover") as declined:
        declined.wait_for("New keys and an empty allow-list? [y/N]")
        declined.type("n\r")
        assert declined.end() == 1
    with terminal(f"--state {pair_folder}/plc recover") as confirmed:
        confirmed.wait_for("[y/N]")
        confirmed.type("y\r")
        assert confirmed.end() == 0
        assert "serial       2" in confirmed.text
