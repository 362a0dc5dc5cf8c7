"""A token that goes away and comes back, many threads, forks, and a process that is killed."""

from __future__ import annotations

import gc
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from devices import make
from pqc_iiot import Node, ProviderError
from pqc_iiot._core import KemPublicKey, SigPublicKey
from pqc_iiot.errors import (
    BusyError,
    ForkedProcessError,
    KeyNotFoundError,
    NotSupportedError,
    UnavailableError,
)
from pqc_iiot.providers import KeySet, SecurityProvider, open_provider
from pqc_iiot.suites import get_suite

from .pkcs11_fixture import HERE, Shim, SoftHsm

SPLIT = get_suite(6)


class Use:
    """Keys in use."""

    def __init__(self, keys: KeySet) -> None:
        self.keys = keys
        self._sig = SigPublicKey(SPLIT.sig.id, keys.sig_public_key)
        self._kem = KemPublicKey(SPLIT.kem.id, keys.kem_public_key)

    def sign(self, message: bytes = b"m") -> None:
        """A signature that verifies."""
        assert self._sig.verify(message, self.keys.sign(message))

    def decrypt(self, message: bytes = b"m") -> None:
        """A message that opens."""
        enc, sealed = self._kem.hpke_seal(b"", b"", message)
        assert self.keys.decrypt(enc, b"", b"", sealed) == message

    def both(self) -> None:
        """One of each."""
        self.sign()
        self.decrypt()


@pytest.fixture
def provider(shim: Shim) -> Iterator[SecurityProvider]:
    """A new provider on the token that can be told to fail."""
    provider = open_provider(shim.uri)
    yield provider
    provider.close()


@pytest.fixture
def use(provider: SecurityProvider) -> Use:
    """Its keys, used once."""
    use = Use(provider.generate(SPLIT)[0])
    use.both()
    return use


# Away and back


GONE = {
    "DeviceError": 0x30,
    "DeviceRemoved": 0x32,
    "KeyHandleInvalid": 0x60,
    "SessionClosed": 0xB0,
    "SessionHandleInvalid": 0xB3,
    "TokenNotPresent": 0xE0,
    "UserNotLoggedIn": 0x101,
    "CryptokiNotInitialized": 0x190,
    "GeneralError": 0x5,
}


@pytest.mark.parametrize("function", ["C_SignInit", "C_Sign", "C_DeriveKey"])
@pytest.mark.parametrize("code", GONE.values(), ids=GONE)
def test_a_call_that_the_token_was_lost_in_is_made_again(
    use: Use, shim: Shim, function: str, code: int
) -> None:
    tried = shim.logins
    shim.tell(f"{function}.once", code)
    use.both()
    assert shim.logins == tried + 1
    use.both()
    assert shim.logins == tried + 1


@pytest.mark.parametrize("code", GONE.values(), ids=GONE)
def test_a_token_that_is_gone_is_found_again(use: Use, shim: Shim, code: int) -> None:
    shim.tell("gone", code)
    for operation in (use.sign, use.decrypt, use.sign):
        with pytest.raises(UnavailableError) as caught:
            operation()
        assert "plug it in" in caught.value.hint
    shim.forget("gone")
    use.both()


@pytest.mark.parametrize("function", ["C_OpenSession", "C_Login", "C_FindObjectsInit"])
def test_a_token_that_fails_while_it_comes_back(use: Use, shim: Shim, function: str) -> None:
    shim.tell("C_SignInit.once", 0x32)
    shim.tell(f"{function}.once", 0x32)
    with pytest.raises(UnavailableError):
        use.sign()
    use.both()
    gc.collect()


def test_the_folder_of_a_token_moved_away_and_back(softhsm: SoftHsm) -> None:
    provider = open_provider(softhsm.uri)
    use = Use(provider.generate(SPLIT)[0])
    shutil.move(softhsm.folder / "tokens", softhsm.folder / "away")
    for operation in (use.sign, use.decrypt):
        with pytest.raises(ProviderError):
            operation()
    shutil.move(softhsm.folder / "away", softhsm.folder / "tokens")
    use.both()
    provider.close()


def test_another_token_in_its_place(softhsm: SoftHsm) -> None:
    provider = open_provider(softhsm.uri)
    use = Use(provider.generate(SPLIT)[0])
    other = softhsm.other()
    shutil.move(softhsm.folder / "tokens", softhsm.folder / "away")
    shutil.move(other.folder / "tokens", softhsm.folder / "tokens")
    for operation in (use.sign, use.decrypt):
        with pytest.raises(KeyNotFoundError):
            operation()
    shutil.rmtree(softhsm.folder / "tokens")
    shutil.move(softhsm.folder / "away", softhsm.folder / "tokens")
    use.both()
    provider.close()


def test_a_frame_that_the_token_was_away_for_opens_later(shim: Shim, tmp_path: Path) -> None:
    with (
        Node.create(tmp_path / "device", name="device", suite=6, provider=shim.uri) as device,
        make(tmp_path, "peer") as peer,
    ):
        device.peers.add_approved(peer.bundle)
        peer.peers.add_approved(device.bundle)
        frame = peer.seal(b"in", to="device")
        shim.tell("gone")
        with pytest.raises(UnavailableError):
            device.open(frame)
        with pytest.raises(UnavailableError):
            device.seal(b"out", to="peer")
        shim.forget("gone")
        assert device.open(frame).payload == b"in"
        assert peer.open(device.seal(b"out", to="peer")).payload == b"out"


@pytest.mark.parametrize(
    ("function", "code", "error"),
    [
        ("C_GenerateKeyPair", 0xE2, NotSupportedError),
        ("C_GenerateKeyPair", 0x31, BusyError),
        ("C_GenerateKeyPair", 0x54, NotSupportedError),
        ("C_GenerateKeyPair", 0x30, UnavailableError),
        ("C_GenerateKeyPair", 0x80001234, ProviderError),
    ],
)
def test_new_keys_that_cannot_be_made(
    provider: SecurityProvider, shim: Shim, function: str, code: int, error: type[ProviderError]
) -> None:
    provider.capabilities()
    shim.tell(function, code)
    with pytest.raises(error) as caught:
        provider.generate(SPLIT)
    assert f"0x{code:x}" in caught.value.native
    assert caught.value.hint
    shim.forget(function)
    Use(provider.generate(SPLIT)[0]).both()


def test_a_token_that_went_away_is_not_one_that_cannot(shim: Shim) -> None:
    """Or keys would silently be made in weaker custody."""
    provider = open_provider(shim.uri)
    shim.tell("C_GenerateKeyPair", 0x32)
    shim.tell("C_OpenSession", 0xE0)
    with pytest.raises(UnavailableError):
        provider.generate(SPLIT)
    shim.forget("C_GenerateKeyPair")
    shim.forget("C_OpenSession")
    provider.generate(SPLIT)


# One process, many users


def test_two_providers_of_one_token(softhsm: SoftHsm) -> None:
    one, other = open_provider(softhsm.uri), open_provider(softhsm.uri)
    uses = [Use(each.generate(SPLIT)[0]) for each in (one, other)]
    softhsm.restart()  # both lose their sessions
    for use in uses * 3:
        use.both()
    one.close()
    with pytest.raises(ProviderError, match="closed"):
        uses[0].sign()
    uses[1].both()
    other.close()
    other.close()


def test_eight_threads(use: Use, shim: Shim) -> None:
    shim.tell("C_Sign.once", 0x32)
    shim.tell("C_DeriveKey.once", 0xB3)
    gate = threading.Barrier(8)

    def work(number: int) -> None:
        gate.wait()
        for turn in range(20):
            use.sign(b"%d %d" % (number, turn))
            use.decrypt(b"%d %d" % (number, turn))

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(8))) == [None] * 8


def test_a_wrong_pin_leaves_no_session_behind(shim: Shim) -> None:
    shim.write_pin("user-9999")
    for _ in range(3):
        with pytest.raises(ProviderError):
            open_provider(shim.uri)
    assert shim.calls("C_OpenSession") == shim.calls("C_CloseSession") == 3


def test_after_a_fork(softhsm: SoftHsm) -> None:
    done = subprocess.run(
        [sys.executable, HERE / "pkcs11_jobs.py", "fork", softhsm.uri],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["ForkedProcessError"] * 3 + ["True"]
    assert ForkedProcessError.code == "forked_process"


@pytest.mark.parametrize("after", [1, 2, 5, 20])
def test_killed_in_the_middle(softhsm: SoftHsm, tmp_path: Path, after: int) -> None:
    make(tmp_path, "peer").close()
    Node.create(tmp_path / "device", name="device", suite=6, provider=softhsm.uri).close()
    worker = subprocess.Popen(
        [sys.executable, HERE / "pkcs11_jobs.py", "work", tmp_path / "device", tmp_path / "peer"],
        stdout=subprocess.PIPE,
    )
    assert worker.stdout is not None
    sent = [int(worker.stdout.readline()) for _ in range(after)]
    worker.send_signal(signal.SIGKILL)
    sent += [int(line) for line in worker.stdout.read().split(b"\n")[:-1]]
    worker.wait()
    worker.stdout.close()
    softhsm.restart()
    with Node.open(tmp_path / "device") as device, Node.open(tmp_path / "peer") as peer:
        for _ in range(3):
            message = peer.open(device.seal(b"out", to="peer"))
            assert message.sequence > max(sent)
            assert device.open(peer.seal(b"in", to="device")).payload == b"in"


@pytest.mark.parametrize("kill", range(6))
def test_killed_while_keys_are_made(softhsm: SoftHsm, tmp_path: Path, kill: int) -> None:
    """The token may then hold keys that nobody needs; the next ones are made all the same."""
    worker = subprocess.Popen(
        [sys.executable, HERE / "pkcs11_jobs.py", "rotate", softhsm.uri, tmp_path / "device"],
        stdout=subprocess.PIPE,
    )
    assert worker.stdout is not None
    for _ in range(kill + 1):
        worker.stdout.readline()
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    worker.stdout.close()
    softhsm.restart()
    with Node.open(tmp_path / "device") as device:
        before = device.bundle.serial
        assert before >= kill
        assert device.rotate().serial == before + 1


# What frames cost


def test_frames_of_a_sealed_device_cost_the_token_nothing(shim: Shim, tmp_path: Path) -> None:
    with (
        Node.create(tmp_path / "device", name="device", suite=3, provider=shim.uri) as device,
        make(tmp_path, "peer") as peer,
    ):
        device.peers.add_approved(peer.bundle)
        peer.peers.add_approved(device.bundle)
        shim.tell("gone")
        assert peer.open(device.seal(b"out", to="peer")).payload == b"out"
        assert device.open(peer.seal(b"in", to="device")).payload == b"in"
        shim.forget("gone")


def test_frames_of_a_split_device_cost_one_call_each(shim: Shim, tmp_path: Path) -> None:
    with (
        Node.create(tmp_path / "device", name="device", suite=6, provider=shim.uri) as device,
        make(tmp_path, "peer") as peer,
    ):
        device.peers.add_approved(peer.bundle)
        peer.peers.add_approved(device.bundle)
        device.audit.flush()
        before = shim.calls("C_SignInit"), shim.calls("C_DeriveKey")
        for _ in range(5):
            assert peer.open(device.seal(b"out", to="peer")).payload == b"out"
        assert shim.calls("C_SignInit") - before[0] == 5
        assert shim.calls("C_DeriveKey") == before[1]
        for _ in range(5):
            assert device.open(peer.seal(b"in", to="device")).payload == b"in"
        assert shim.calls("C_DeriveKey") - before[1] == 5
