"""Where a passphrase comes from, and that it goes nowhere else."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from pqc_iiot import InvalidInputError, ProviderError
from pqc_iiot._core import Secret
from pqc_iiot.errors import UnsafePermissionsError
from pqc_iiot.providers.passphrase import default_source, from_credential, from_file

DATA = b"same"


def of(text: bytes) -> bytes:
    """What a passphrase is compared by: its MAC, since nobody can read it."""
    reader, writer = os.pipe()
    os.write(writer, text)
    os.close(writer)
    try:
        return Secret.read_fd(reader).mac(DATA)
    finally:
        os.close(reader)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "passphrase"
    file.touch(0o600)
    return file


@pytest.mark.parametrize("ending", [b"", b"\n", b"\r\n"])
@pytest.mark.parametrize("new", [True, False])
def test_from_a_file(file: Path, ending: bytes, new: bool) -> None:
    file.write_bytes(b"correct horse" + ending)
    assert from_file(file)(new).mac(DATA) == of(b"correct horse")
    assert from_file(str(file))(new).mac(DATA) == of(b"correct horse")


@pytest.mark.parametrize("text", [b"", b"\n", b"short", b"1234567", b"x" * 1025, b"x" * 100_000])
def test_files_that_hold_none(file: Path, text: bytes) -> None:
    file.write_bytes(text)
    with pytest.raises(InvalidInputError) as caught:
        from_file(file)(True)
    assert "x" * 20 not in str(caught.value)


def test_an_old_short_one_still_opens(file: Path) -> None:
    file.write_bytes(b"short")
    assert from_file(file)(False).mac(DATA) == of(b"short")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o777])
def test_files_that_others_can_read(file: Path, mode: int) -> None:
    file.write_bytes(b"correct horse")
    file.chmod(mode)
    with pytest.raises(UnsafePermissionsError) as caught:
        from_file(file)(False)
    assert caught.value.hint == f"chmod 600 {file}"


def test_files_that_are_not_there(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises((InvalidInputError, ProviderError), match="cannot be read"):
            from_file(path)(False)


def test_a_pipe_as_the_shell_makes_it() -> None:
    """`--passphrase-file <(pass show plc-7)`."""
    reader, writer = os.pipe()
    os.write(writer, b"correct horse\n")
    os.close(writer)
    assert from_file(f"/dev/fd/{reader}")(False).mac(DATA) == of(b"correct horse")
    os.close(reader)


def test_a_credential_of_systemd(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    assert from_credential() is None
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert from_credential() is None
    file.write_bytes(b"correct horse")
    file.rename(tmp_path / "pqc-iiot-passphrase")
    for source in (from_credential(), default_source()):
        assert source is not None
        assert source(False).mac(DATA) == of(b"correct horse")


ASK = """
import os, sys
if os.isatty(0):
    os.open(os.ttyname(0), os.O_RDWR)  # a session's first terminal is its controlling one
from pqc_iiot.errors import PqcIiotError
from pqc_iiot.providers.passphrase import from_prompt
source = from_prompt()
if source is None:
    print("no terminal")
else:
    try:
        print(source(sys.argv[1] == "new").mac(b"same").hex())
    except PqcIiotError as error:
        print(type(error).__name__, error)
"""


def ask(mode: str, *answers: bytes) -> tuple[str, str]:
    """What a program says, and what its terminal showed, when it asked and got answers."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", ASK, mode],
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=theirs,
        start_new_session=True,
    ) as program:
        os.close(theirs)
        shown = b""
        for answer in answers:
            while not shown.rstrip(b"\n").endswith(b": "):
                shown += os.read(ours, 1000)
            os.write(ours, answer)
            shown += b"|"
        assert program.stdout is not None
        said = program.stdout.read().decode()
        program.wait()
        while True:
            try:
                shown += os.read(ours, 1000)
            except OSError:
                break
    os.close(ours)
    return said.strip(), shown.decode()


def test_at_a_terminal_without_echo() -> None:
    said, shown = ask("old", b"correct horse\n")
    assert said == of(b"correct horse").hex()
    assert "Passphrase: " in shown
    assert "correct" not in shown
    said, shown = ask("new", b"correct horse\n", b"correct horse\n")
    assert said == of(b"correct horse").hex()
    assert "again" in shown
    assert "correct" not in shown


def test_answers_that_will_not_do() -> None:
    assert ask("new", b"correct horse\n", b"corect horse\n")[0].startswith("InvalidInputError")
    assert ask("new", b"short\n")[0].startswith("InvalidInputError")
    assert ask("old", b"\n")[0] == "InvalidInputError no passphrase was typed"
    assert ask("old", b"\x04")[0] == "InvalidInputError no passphrase was typed"


def test_without_a_terminal() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", ASK, "old"],
        capture_output=True,
        text=True,
        start_new_session=True,
        check=True,
    )
    assert ran.stdout.strip() == "no terminal"
