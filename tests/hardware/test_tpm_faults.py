"""The TPM dies in the middle: at every command of every operation, before and after it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pqc_iiot._core import KemPublicKey
from pqc_iiot.errors import PqcIiotError, ProviderError, UnavailableError
from pqc_iiot.providers import open_provider
from pqc_iiot.suites import SUITES

from .tpm_fixture import Swtpm
from .tpm_proxy import FAILURE, SESSION_MEMORY, Proxy

SPLIT = SUITES[6]


@dataclass
class Device:
    """A device on a TPM that can be struck at any command."""

    tpm: Swtpm
    proxy: Proxy
    provider: Any
    keys: Any
    blob: bytes
    counter: Any
    frame: tuple[bytes, bytes]

    def operation(self, name: str) -> Callable[[], object]:
        """One of the operations that a TPM takes part in."""
        header, uri = self.provider.header, self.proxy.uri
        operations: dict[str, Callable[[], object]] = {
            "init": lambda: open_provider(uri).header,
            "open": lambda: open_provider(uri, header),
            "generate": lambda: self.provider.generate(SPLIT),
            "load": lambda: self.provider.load(SPLIT, self.blob),
            "sign": lambda: self.keys.sign(b"m"),
            "decrypt": lambda: self.keys.decrypt(self.frame[0], b"", b"", self.frame[1]),
            "count": self.counter.increment,
            "first count": lambda: open_provider(uri).counter(),
            "quote": lambda: self.provider.quote(bytes(32)),
            "capabilities": lambda: open_provider(uri).capabilities(),
        }
        return operations[name]


OPERATIONS = (
    "init", "open", "generate", "load", "sign", "decrypt", "count", "first count", "quote",
    "capabilities",
)  # fmt: skip


@pytest.fixture
def device(tpm: Swtpm) -> Iterator[Device]:
    """A device whose commands go through the proxy."""
    proxy = Proxy(tpm)
    provider: Any = open_provider(proxy.uri)
    keys, blob = provider.generate(SPLIT)
    counter = provider.counter()
    counter.value()
    frame = KemPublicKey(SPLIT.kem.id, keys.kem_public_key).hpke_seal(b"", b"", b"21.5")
    yield Device(tpm, proxy, provider, keys, blob, counter, frame)
    provider.close()
    proxy.close()


def commands(device: Device, operation: Callable[[], object], most: int = 12) -> range:
    """The commands that it takes, by number; of many, some that are evenly apart."""
    device.proxy.arm(-1)
    operation()
    assert device.proxy.count
    return range(0, device.proxy.count, -(-device.proxy.count // most))


def error_of(operation: Callable[[], object]) -> ProviderError | None:
    """What it raises."""
    try:
        operation()
    except ProviderError as error:
        return error
    return None


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_tpm_that_dies_at_any_command_leaves_nothing_broken(device: Device, name: str) -> None:
    operation = device.operation(name)
    last = device.counter.value()
    completed = 0
    for at in commands(device, operation):
        for after in (False, True):
            device.proxy.arm(at, after=after)
            refused = error_of(operation)
            completed += refused is None
            if refused:
                assert isinstance(refused, UnavailableError)
                assert refused.native
                assert refused.hint
            device.proxy.arm(-1)
            device.tpm.start()
            # The next start works; what was there before is there still, and counts on.
            again = open_provider(device.proxy.uri, device.provider.header)
            assert len(again.load(SPLIT, device.blob).sign(b"m")) == SPLIT.sig.signature_size
            now = device.counter.value()
            assert now in ((last, last + 1) if name == "count" else (last,))
            last = device.counter.increment()
            assert last == now + 1
            again.close()
    # Only flushing comes after the work is done, and of that nobody needs to hear.
    assert completed <= device.proxy.flushes
    assert device.tpm.loaded() == (0, 0, 0)


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_tpm_that_is_back_at_once_is_hardly_noticed(device: Device, name: str) -> None:
    """As when a resource manager restarts: the operation is done once more, and succeeds; of
    the few commands where that is not known to be right, it says that it was not done."""
    operation = device.operation(name)
    device.proxy.strike = device.tpm.restart
    noticed = 0
    steps = 0
    for at in commands(device, operation):
        for after in (False, True):
            steps += 1
            before = device.counter.value()
            device.proxy.arm(at, after=after)
            refused = error_of(operation)
            if refused:
                assert refused.hint
                noticed += 1
                device.proxy.arm(-1)
                operation()  # The next time it works
            elif name == "count":
                assert device.counter.value() == before + 1
            device.proxy.arm(-1)
            assert device.tpm.loaded() == (0, 0, 0)
    assert noticed <= steps // 8


@pytest.mark.parametrize("name", OPERATIONS)
def test_no_failure_leaves_anything_loaded(device: Device, name: str) -> None:
    """Each command in turn is refused by the TPM itself, which stays alive."""
    operation = device.operation(name)
    for at in commands(device, operation, 40):
        device.proxy.arm(at, refuse=FAILURE)
        with contextlib.suppress(PqcIiotError):
            operation()
        refused_flush = device.proxy.refused_flush
        device.proxy.arm(-1)
        objects, sessions, _ = device.tpm.loaded()
        # Where it is the flush itself that is refused there is nothing that anybody could do.
        assert objects + sessions <= int(refused_flush), at
        if refused_flush:
            device.tpm.restart()


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_tpm_without_room_is_asked_again(
    device: Device, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other programs have the slots for a moment, whenever that is."""
    monkeypatch.setattr("pqc_iiot.providers.tpm_device.time.sleep", lambda _: None)
    operation = device.operation(name)
    for at in commands(device, operation, 40):
        before = device.counter.value()
        device.proxy.arm(at, refuse=SESSION_MEMORY)
        operation()
        assert device.counter.value() == before + (name == "count")
        if device.proxy.refused_flush:
            device.tpm.restart()


def test_an_absent_tpm_is_named(tmp_path: Path) -> None:
    pytest.importorskip("tpm2_pytss")
    missing = tmp_path / "tpm9"
    with pytest.raises(UnavailableError, match="there is no") as caught:
        open_provider(f"tpm:device:{missing}")
    assert "firmware" in caught.value.hint
    missing.touch()
    with pytest.raises(UnavailableError, match="no TPM answers"):
        open_provider(f"tpm:device:{missing}")
    with pytest.raises(UnavailableError, match="no TPM answers at swtpm:path=/nowhere/s"):
        open_provider("tpm:swtpm:path=/nowhere/s")
