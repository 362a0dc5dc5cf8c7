"""Everything that can be wrong with a module, a token or a PIN: a typed error that says what
to do, and a device's folder that stays as it was."""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from command import pqc
from devices import make
from pqc_iiot import InvalidInputError, Node, PqcIiotError, ProviderError
from pqc_iiot.errors import (
    AuthFailedError,
    BusyError,
    KeyNotFoundError,
    LockedOutError,
    UnavailableError,
    UnsafePermissionsError,
)
from pqc_iiot.providers import open_provider
from pqc_iiot.suites import get_suite

from .pkcs11_fixture import HERE, PIN, SOFTHSM, Shim, SoftHsm, Softokn, make_softhsm

WRITE_PROTECTED, FINAL_TRY, LOCKED = 0x2, 0x20000, 0x40000


def content(folder: Path) -> dict[str, bytes]:
    """Every file of a folder but the lock and the audit log, which says what was refused."""
    files = (file for file in folder.rglob("*") if file.is_file())
    return {f.name: f.read_bytes() for f in files if not f.name.startswith(("audit.", "lock"))}


def refused(folder: Path, token: SoftHsm, error: type[PqcIiotError], uri: str = "") -> PqcIiotError:
    """A device that cannot be made, nor opened if it is there: the same error, and nothing
    is written."""
    device = folder / "device"
    before = content(device)
    with pytest.raises(error) as opened:
        Node.open(device)
    assert content(device) == before
    made = folder / "made"
    with pytest.raises(PqcIiotError) as caught:
        Node.create(made, name="d", suite=6, provider=uri or token.uri)
    assert content(made) == {}
    for found in (opened.value, caught.value):
        assert found.hint
        assert PIN not in f"{found} {found.hint}"
    return opened.value


@pytest.fixture
def device(softhsm: SoftHsm, tmp_path: Path) -> Path:
    """A folder with a closed device of the token."""
    Node.create(tmp_path / "device", name="device", suite=6, provider=softhsm.uri).close()
    softhsm.restart()
    return tmp_path


@pytest.fixture
def shimmed(shim: Shim, tmp_path: Path) -> Path:
    """The same behind the module that can be told to fail."""
    Node.create(tmp_path / "device", name="device", suite=6, provider=shim.uri).close()
    (shim.told / "C_Login.calls").unlink()
    return tmp_path


def test_a_device_comes_back(device: Path, softhsm: SoftHsm) -> None:
    with Node.open(device / "device") as node:
        assert node.bundle.suite.id == 6
    softhsm.restart()
    Node.open(device / "device").close()


def test_the_custody_that_is_demanded(softhsm: SoftHsm, tmp_path: Path) -> None:
    line = f"--state {tmp_path}/device init device --suite %d --min-custody %s --provider '%s'"
    refused = pqc(line % (7, "native", softhsm.uri))
    assert refused.code == 3
    assert "cannot decrypt with ML-KEM-768 in custody NATIVE" in refused.err
    assert "it offers SEALED" in refused.err
    assert content(tmp_path / "device") == {}
    assert pqc(line % (6, "split", softhsm.uri)).code == 0
    assert "SPLIT" in pqc(f"--state {tmp_path}/device status").out


def test_no_token(device: Path, softhsm: SoftHsm) -> None:
    shutil.move(softhsm.folder / "tokens", softhsm.folder / "away")
    (softhsm.folder / "tokens").mkdir()
    softhsm.restart()
    error = refused(device, softhsm, UnavailableError)
    assert "tokens that are there: none" in error.hint
    shutil.rmtree(softhsm.folder / "tokens")
    shutil.move(softhsm.folder / "away", softhsm.folder / "tokens")
    softhsm.restart()
    Node.open(device / "device").close()


def test_another_label(device: Path, softhsm: SoftHsm) -> None:
    with pytest.raises(UnavailableError, match="no token 'plamt'") as caught:
        open_provider(softhsm.uri.replace("token=plant", "token=plamt"))
    assert "'plant'" in caught.value.hint


def test_two_tokens_of_one_label(device: Path, softhsm: SoftHsm) -> None:
    make_softhsm(softhsm.folder, "plant")
    softhsm.restart()
    error = refused(device, softhsm, KeyNotFoundError)
    assert "serial=" in error.hint


def test_the_token_of_another(device: Path, softhsm: SoftHsm) -> None:
    softhsm.other().restart()
    with pytest.raises(KeyNotFoundError) as caught:
        Node.open(device / "device")
    assert "right token" in caught.value.hint
    softhsm.restart()
    Node.open(device / "device").close()


@pytest.mark.parametrize("kind", ["missing", "folder", "text", "library"])
def test_what_is_no_module(kind: str, tmp_path: Path) -> None:
    module = tmp_path / "module.so"
    if kind == "folder":
        module.mkdir()
    elif kind == "text":
        module.write_text("no library")
    elif kind == "library":
        source = tmp_path / "empty.c"
        source.write_text("int nothing;\n")
        subprocess.run(["cc", "-shared", "-o", module, source], check=True)
    with pytest.raises(InvalidInputError, match=r"is no PKCS#11 module") as typed:
        open_provider(f"pkcs11:module={module}")
    assert "full path" in typed.value.hint
    with pytest.raises(ProviderError, match=r"header"):
        open_provider(f"pkcs11:module={module}", b"stored")


@pytest.mark.parametrize("instead", [None, b"no library"])
def test_the_module_of_a_device_is_gone(
    softhsm: SoftHsm, tmp_path: Path, instead: bytes | None
) -> None:
    module = tmp_path / "module.so"
    shutil.copy(SOFTHSM, module)
    uri = softhsm.uri.replace(str(SOFTHSM), str(module))
    softhsm.run("make_device", uri, tmp_path / "device", 6)
    before = content(tmp_path / "device")
    module.unlink()
    if instead:
        module.write_bytes(instead)
    said = softhsm.run("device_refused", tmp_path / "device")
    assert said.startswith("provider ")
    assert "is no PKCS#11 module" in said
    assert "full path" in said
    assert content(tmp_path / "device") == before
    shutil.copy(SOFTHSM, module)
    assert softhsm.run("device_refused", tmp_path / "device") == ""


def test_a_module_that_others_can_replace(tmp_path: Path) -> None:
    module = tmp_path / "module.so"
    module.touch()
    module.chmod(0o666)
    with pytest.raises(UnsafePermissionsError) as caught:
        open_provider(f"pkcs11:module={module}")
    assert "chmod go-w" in caught.value.hint


def _no_file(token: SoftHsm) -> None:
    token.pin_file.unlink()


def _empty(token: SoftHsm) -> None:
    token.write_pin("")


def _empty_line(token: SoftHsm) -> None:
    token.write_pin("\n")


def _long(token: SoftHsm) -> None:
    token.write_pin("1" * 256)


def _folder(token: SoftHsm) -> None:
    token.pin_file.unlink()
    token.pin_file.mkdir()


@pytest.mark.parametrize("spoil", [_no_file, _empty, _empty_line, _long, _folder])
def test_a_pin_file_that_is_none(
    device: Path, softhsm: SoftHsm, spoil: Callable[[SoftHsm], None]
) -> None:
    spoil(softhsm)
    refused(device, softhsm, InvalidInputError)


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o660])
def test_a_pin_file_that_others_can_read(device: Path, softhsm: SoftHsm, mode: int) -> None:
    softhsm.pin_file.chmod(mode)
    error = refused(device, softhsm, UnsafePermissionsError)
    assert error.hint == f"chmod 600 {softhsm.pin_file}"


def test_a_wrong_pin_is_tried_once(shimmed: Path, shim: Shim) -> None:
    shim.write_pin("user-9999")
    with pytest.raises(AuthFailedError) as caught:
        Node.open(shimmed / "device")
    assert shim.logins == 1
    assert caught.value.native == "PinIncorrect (0xa0)"
    error = refused(shimmed, shim, AuthFailedError)
    assert shim.logins == 3  # one for each command
    assert "user-9999" not in f"{error} {error.hint}"
    shim.write_pin(PIN)
    Node.open(shimmed / "device").close()


@pytest.mark.parametrize(
    "command",
    [
        "status",
        "doctor",
        "seal --to peer --context c",
        "id rotate",
        "peer list",
        "provider list",
        "provider test {uri}",
        "init another --suite 6 --provider {uri}",
    ],
)
def test_a_wrong_pin_is_tried_once_by_every_command(
    shimmed: Path, shim: Shim, command: str
) -> None:
    shim.write_pin("user-9999")
    state = shimmed / ("new" if command.startswith("init") else "device")
    line = command.format(uri=f"'{shim.uri}'")
    result = pqc(f"--state {state} {line}", b"x")
    assert shim.logins == 1
    assert "user-9999" not in result.out + result.err
    assert "was tried once" in result.out + result.err
    assert result.code == 1


def test_a_module_that_this_process_uses_otherwise(softhsm: SoftHsm, tmp_path: Path) -> None:
    module = tmp_path / "again.so"
    module.symlink_to(SOFTHSM)
    with pytest.raises(BusyError) as caught:
        open_provider(softhsm.uri.replace(str(SOFTHSM), str(module)))
    assert "same path" in caught.value.hint


def test_a_pin_that_became_wrong_is_tried_once_by_a_running_device(
    shimmed: Path, shim: Shim
) -> None:
    provider = open_provider(shim.uri)
    keys, _ = provider.generate(get_suite(6))
    tried = shim.logins
    shim.write_pin("user-9999")
    shim.restart()  # what an unplugged token amounts to
    for _ in range(5):
        with pytest.raises(AuthFailedError):
            keys.sign(b"m")
    assert shim.logins == tried + 1
    provider.close()


def test_a_locked_pin(shimmed: Path, shim: Shim) -> None:
    shim.tell("C_Login", 0xA4)
    error = refused(shimmed, shim, LockedOutError)
    assert "--init-pin" in error.hint
    assert error.native == "PinLocked (0xa4)"  # type: ignore[attr-defined]


def test_a_token_that_says_it_is_locked_is_not_tried(shimmed: Path, shim: Shim) -> None:
    shim.tell("flags", LOCKED)
    refused(shimmed, shim, LockedOutError)
    assert shim.logins == 0


def test_the_last_try_is_never_ours(shimmed: Path, shim: Shim) -> None:
    shim.tell("flags", FINAL_TRY)
    error = refused(shimmed, shim, LockedOutError)
    assert "its own tool" in error.hint
    assert shim.logins == 0


def test_a_read_only_token(softokn: Softokn, tmp_path: Path) -> None:
    make(tmp_path, "peer", 1).close()
    softokn.run("make_device", softokn.uri, softokn.folder / "device", 3)
    read_only = softokn.read_only()
    assert "NotSupportedError" in read_only.run("refused", read_only.uri, 3)
    # What it holds works on.
    read_only.run("use_device", softokn.folder / "device", tmp_path / "peer")


def test_no_pin_and_nobody_to_ask(softhsm: SoftHsm) -> None:
    uri = softhsm.uri.partition(";pin-file")[0]
    done = subprocess.run(
        [sys.executable, HERE / "pkcs11_jobs.py", "refused", uri, "6"],
        start_new_session=True,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "ProviderError" in done.stdout
    assert "pqc-iiot-pin" in done.stdout


def test_a_credential_of_the_service(
    softhsm: SoftHsm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "credentials"
    folder.mkdir()
    shutil.copy2(softhsm.pin_file, folder / "pqc-iiot-pin")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(folder))
    open_provider(softhsm.uri.partition(";pin-file")[0]).close()


def test_a_pin_that_is_typed_is_not_shown(softhsm: SoftHsm) -> None:
    uri = softhsm.uri.partition(";pin-file")[0]
    child, terminal = pty.fork()
    if not child:
        os.execv(sys.executable, [sys.executable, str(HERE / "pkcs11_jobs.py"), "open_only", uri])
    shown = b""
    while b"PIN of token 'plant'" not in shown:
        shown += os.read(terminal, 4096)
    os.write(terminal, f"{PIN}\n".encode())
    try:
        while more := os.read(terminal, 4096):
            shown += more
    except OSError:  # Linux's end of a terminal
        pass
    os.close(terminal)
    assert os.waitpid(child, 0)[1] == 0
    assert b"opened" in shown
    assert PIN.encode() not in shown
