"""Handles of the core: usable, never readable; descriptors, signals and the GIL."""

from __future__ import annotations

import array
import contextlib
import copy
import gc
import hmac
import json
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from core_operations import POINT, Handshake, sessions
from pqc_iiot import _core
from pqc_iiot._core import (
    KemPrivateKey,
    Secret,
    SigPrivateKey,
    SigPublicKey,
    SplitKemPrivateKey,
)
from pqc_iiot.errors import InvalidInputError, ProviderError
from pqc_iiot.suites import (
    FALCON_512,
    ML_DSA_87,
    ML_KEM_768,
    ML_KEM_768_P256,
    ML_KEM_768_X25519,
)

PASSPHRASE = b"correct horse battery staple"


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    for fd in (reader, writer):
        with contextlib.suppress(OSError):
            os.close(fd)


def read(data: bytes, *, line: bool = False, limit: int = 1024) -> Secret:
    reader, writer = os.pipe()
    try:
        os.write(writer, data)
        os.close(writer)
        return Secret.read_fd(reader, line=line, limit=limit)
    finally:
        os.close(reader)


def holds(secret: Secret, content: bytes) -> bool:
    """Whether the secret is `content`: the only way to tell is to use it."""
    return len(secret) == len(content) and secret.mac(b"data") == hmac.digest(
        content, b"data", "sha256"
    )


HANDLES = {
    "Secret": lambda: read(PASSPHRASE),
    "KemPrivateKey": lambda: KemPrivateKey.generate(ML_KEM_768_X25519.id),
    "SigPrivateKey": lambda: SigPrivateKey.generate(FALCON_512.id),
    "SigPrivateKey of ML-DSA": lambda: SigPrivateKey.generate(ML_DSA_87.id),
}
Make = Callable[[], object]
handles = pytest.mark.parametrize("make", HANDLES.values(), ids=HANDLES.keys())
OTHERS = {
    "Session": lambda: sessions()[0],
    "HandshakeInitiator": lambda: Handshake().initiator,
    "HandshakeResponder": lambda: Handshake().responder,
    "SplitKemPrivateKey": lambda: SplitKemPrivateKey(
        ML_KEM_768_P256.id, KemPrivateKey.generate(ML_KEM_768.id), POINT
    ),
}
every_handle = pytest.mark.parametrize(
    "make", [*HANDLES.values(), *OTHERS.values()], ids=[*HANDLES, *OTHERS]
)


class TestNothingComesOut:
    """Everything that Python offers to look into an object."""

    @every_handle
    @pytest.mark.parametrize(
        "look",
        [
            bytes,
            bytearray,
            memoryview,
            list,
            iter,
            vars,
            int,
            copy.copy,
            copy.deepcopy,
            json.dumps,
            lambda handle: handle[0],
            lambda handle: handle.__reduce__(),
            lambda handle: handle.__getstate__().items(),
            lambda handle: os.write(1, handle),
            *(lambda handle, p=p: pickle.dumps(handle, p) for p in range(6)),
            *(lambda handle, p=p: handle.__reduce_ex__(p) for p in range(6)),
        ],
    )
    def test_content(self, make: Make, look: Callable[[object], object]) -> None:
        with pytest.raises((TypeError, AttributeError)):
            look(make())

    @handles
    def test_text(self, make: Make) -> None:
        handle = make()
        for text in (repr(handle), str(handle), f"{handle}", f"{handle!a}"):
            assert text.startswith(f"<{type(handle).__name__} ")
            assert len(text) < 40
            assert PASSPHRASE.decode()[:4] not in text
        assert gc.get_referents(handle) in ([], [type(handle)])

    @every_handle
    def test_handles_are_sealed(self, make: Make) -> None:
        handle = make()
        cls = type(handle)
        with pytest.raises(AttributeError):
            handle.extra = 1  # type: ignore[attr-defined]
        with pytest.raises(TypeError):
            type("Sub", (cls,), {})
        for construct in (cls, lambda: cls.__new__(cls), lambda: object.__new__(cls)):
            with pytest.raises(TypeError):
                construct()

    def test_only_these_names_are_there(self) -> None:
        """A new name is a new way out: look at it, then add it here."""
        names = {
            cls.__name__: {name for name in dir(cls) if not name.startswith("_")}
            for cls in (Secret, KemPrivateKey, SigPrivateKey)
        }
        assert names == {
            "Secret": {
                "decrypt", "derive", "encrypt", "mac", "random", "read_fd", "take", "unwrap",
                "unwrap_kem", "unwrap_sig", "verify_mac", "wrap", "wrap_kem", "wrap_sig",
            },
            "KemPrivateKey": {"generate", "hpke_open", "kem_id", "public_key"},
            "SigPrivateKey": {"generate", "public_key", "sig_id", "sign"},
        }  # fmt: skip


class TestTake:
    """A secret that other code left in a buffer: moved, and wiped there."""

    @pytest.mark.parametrize("length", [1, 32, 4096])
    def test_a_bytearray_is_wiped(self, length: int) -> None:
        buffer = bytearray(b"s" * length)
        assert holds(Secret.take(buffer), b"s" * length)
        assert buffer == bytes(length)

    def test_a_view_is_wiped_and_nothing_beside_it(self) -> None:
        buffer = bytearray(b"a" * 8 + b"s" * 32 + b"b" * 8)
        assert holds(Secret.take(memoryview(buffer)[8:40]), b"s" * 32)
        assert buffer == b"a" * 8 + bytes(32) + b"b" * 8
        numbers = array.array("I", [0x73737373] * 8)
        assert holds(Secret.take(numbers), b"s" * 32)
        assert numbers.tobytes() == bytes(32)

    def test_fresh_bytes_are_wiped(self) -> None:
        value = bytes(bytearray(b"s" * 32))
        assert holds(Secret.take(value), b"s" * 32)
        assert value == bytes(32)

    def test_bytes_that_others_hold_are_refused_and_stay(self) -> None:
        value = bytes(bytearray(b"s" * 32))
        others = [value]
        with pytest.raises(InvalidInputError, match="others hold"):
            Secret.take(value)
        assert others == [b"s" * 32]
        for shared in (b"", b"s", bytes(bytearray(b"s"))):
            with pytest.raises(InvalidInputError, match="others hold"):
                Secret.take(shared)
        assert bytes([0x73]) == b"s"

    def test_what_cannot_be_wiped_or_has_no_length_is_refused(self) -> None:
        with pytest.raises(InvalidInputError, match="read-only"):
            Secret.take(memoryview(bytes(32)))
        for length in (0, 4097):
            buffer = bytearray(b"s" * length)
            with pytest.raises(InvalidInputError, match="length"):
                Secret.take(buffer)
            assert buffer == bytes(length), "wiped all the same"
        with pytest.raises(TypeError):
            Secret.take("secret")


class TestReadFd:
    @pytest.mark.parametrize(
        ("data", "content"),
        [
            (b"secret", b"secret"),
            (b"secret\n", b"secret"),
            (b"secret\r\n", b"secret"),
            (b"secret\n\n", b"secret\n"),
            (b"secret\r", b"secret\r"),
            (b"two\nlines\n", b"two\nlines"),
            (b"\0\xff\0\n", b"\0\xff\0"),
            (b" \n", b" "),
            (b"x" * 1024, b"x" * 1024),
            (b"x" * 1024 + b"\r\n", b"x" * 1024),
        ],
    )
    def test_one_line_ending_is_left_out(self, data: bytes, content: bytes) -> None:
        assert holds(read(data), content)

    @pytest.mark.parametrize("ending", [b"\n", b"\r\n"])
    def test_a_line_and_not_beyond(self, pipe: tuple[int, int], ending: bytes) -> None:
        reader, writer = pipe
        os.write(writer, b"first" + ending + b"second" + ending + b"rest")
        assert holds(Secret.read_fd(reader, line=True), b"first")
        assert holds(Secret.read_fd(reader, line=True), b"second")
        assert os.read(reader, 10) == b"rest"

    def test_a_last_line_without_an_ending(self) -> None:
        assert holds(read(b"secret", line=True), b"secret")

    @pytest.mark.parametrize("line", [False, True])
    @pytest.mark.parametrize("data", [b"", b"\n", b"\r\n", b"x" * 1025, b"x" * 5000 + b"\n"])
    def test_nothing_and_too_much_are_refused(self, data: bytes, line: bool) -> None:
        with pytest.raises(InvalidInputError, match="length of the secret"):
            read(data, line=line)

    def test_the_limit(self) -> None:
        assert holds(read(b"1234\r\n", limit=4), b"1234")
        assert holds(read(b"x" * 4096, limit=4096), b"x" * 4096)
        for data, limit in ((b"12345", 4), (b"1234\n\n", 4), (b"x", 0)):
            with pytest.raises(InvalidInputError):
                read(data, limit=limit)
        for limit in (4097, -1, 1 << 80):
            with pytest.raises(InvalidInputError):
                read(b"x", limit=limit)

    def test_files_and_what_is_none(self, tmp_path: Path) -> None:
        path = tmp_path / "passphrase"
        path.write_bytes(PASSPHRASE + b"\n")
        fd = os.open(path, os.O_RDONLY)
        assert holds(Secret.read_fd(fd), PASSPHRASE)
        os.close(fd)
        folder = os.open(tmp_path, os.O_RDONLY)
        for bad in (fd, folder, -1):
            with pytest.raises(ProviderError) as error:
                Secret.read_fd(bad)
            assert error.value.code == "provider"
        os.close(folder)
        for no_fd in (1 << 31, -(1 << 31) - 1, 1 << 80):
            with pytest.raises(InvalidInputError):
                Secret.read_fd(no_fd)

    @pytest.mark.parametrize(
        ("handler", "returns"),
        [
            ("signal.default_int_handler", "interrupted"),
            ("lambda *_: os.write(writer, b'late\\n')", "4 bytes"),
        ],
        ids=["raises", "returns"],
    )
    def test_signals_are_handled_while_it_waits(self, handler: str, returns: str) -> None:
        """Ctrl-C at a prompt ends it; another signal lets it go on."""
        script = f"""
import os, signal
from pqc_iiot._core import Secret
reader, writer = os.pipe()
signal.signal(signal.SIGINT, {handler})
try:
    print("ready", flush=True)
    print(len(Secret.read_fd(reader, line=True)), "bytes", flush=True)
except KeyboardInterrupt:
    print("interrupted", flush=True)
signal.signal(signal.SIGINT, signal.SIG_IGN)
"""
        with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == b"ready\n"
            for _ in range(200):  # One that comes before the read does not end it.
                child.send_signal(2)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(0.05)
                    break
            child.kill()
            assert child.stdout.read().decode().strip() == returns


def runs_beside(call: Callable[[], object]) -> bool:
    """Whether another thread gets to run during `call`, in one of some tries.

    Without forced switches a thread runs only when the other gives the GIL away.
    """
    go, ran = threading.Event(), threading.Event()

    def other() -> None:
        go.wait()
        ran.set()

    thread = threading.Thread(target=other)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1000)
    try:
        thread.start()
        go.set()
        for _ in range(300):
            call()
            if ran.is_set():
                return True
        return False
    finally:
        sys.setswitchinterval(interval)
        thread.join()


class TestGil:
    def test_released_for_what_is_slow(self) -> None:
        secret = Secret.random()
        assert runs_beside(lambda: _core.argon2id(secret, bytes(16), 1024, 1, 1))
        assert runs_beside(lambda: SigPrivateKey.generate(FALCON_512.id))
        assert runs_beside(lambda: KemPrivateKey.generate(ML_KEM_768.id))
        for sig in (FALCON_512, ML_DSA_87):
            key = SigPrivateKey.generate(sig.id)
            assert runs_beside(partial(key.sign, b"message"))
        blob = secret.wrap_sig(b"", key)
        assert runs_beside(lambda: secret.unwrap_sig(b"", ML_DSA_87.id, blob))

    def test_kept_for_what_is_fast(self) -> None:
        """And so the test above can fail."""
        secret = Secret.random()
        assert not runs_beside(lambda: secret.mac(b"data"))
        key = SigPrivateKey.generate(FALCON_512.id)
        public, signature = SigPublicKey(FALCON_512.id, key.public_key), key.sign(b"message")
        assert not runs_beside(lambda: public.verify(b"message", signature))

    def test_one_key_signs_in_many_threads(self) -> None:
        key = SigPrivateKey.generate(FALCON_512.id)
        public = SigPublicKey(FALCON_512.id, key.public_key)
        valid: list[bool] = []

        def work(name: bytes) -> None:
            valid.extend(public.verify(name, key.sign(name)) for _ in range(20))

        threads = [threading.Thread(target=work, args=(bytes([i]),)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert valid == [True] * 80


def test_the_stub_names_what_is_there() -> None:
    import ast

    stub = ast.parse(Path(_core.__file__).with_name("_core.pyi").read_text())
    named = {n.name for n in stub.body if isinstance(n, ast.ClassDef | ast.FunctionDef)}
    assert named == set(_core.__all__)
