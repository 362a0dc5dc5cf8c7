"""What concerns the core's whole process, each in a process of its own.

The functions whose names start with `in_process` run there; everything they assert comes
back as an exit code and a traceback.
"""

from __future__ import annotations

import ctypes
import gc
import os
import resource
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from core_operations import STILL_WORKS, names, operations
from pqc_iiot import _core
from pqc_iiot._core import KemPrivateKey, KemPublicKey, Secret, SigPrivateKey, SigPublicKey
from pqc_iiot.errors import ProviderError, SelfTestError
from pqc_iiot.suites import (
    FALCON_512,
    FALCON_1024,
    ML_DSA_87,
    ML_KEM_768,
    ML_KEM_768_X25519,
)


def run(function: Callable[[], None], *arguments: str) -> None:
    script = f"import test_core_process as t; t.{function.__name__}()"
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=Path(__file__).parent,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "done\n"


# A failed self-test.


def in_process_that_failed_its_self_test() -> None:
    every = operations()
    difference = set(every) ^ (set(names()) - STILL_WORKS)
    assert not difference, difference
    secret = Secret.random()
    for call in every.values():
        call()
    _core.fail_closed()
    for call in every.values():
        with pytest.raises(SelfTestError) as error:
            call()
        assert error.value.hint
    _core.fail_closed()
    assert repr(secret) == "<Secret of 32 bytes>"
    assert len(secret) == 32
    assert len(_core.memory_stats()) == 3
    assert _core.operations()
    print("done")


def test_a_failed_self_test_closes_everything() -> None:
    run(in_process_that_failed_its_self_test)


# No memory may be locked.


def in_process_that_may_not_lock_memory() -> None:
    assert _core.memory_stats() == (0, 0, 0)
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, 0))
    if os.getuid() == 0:  # root, and whoever has CAP_IPC_LOCK, has no such limit
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    kek = Secret.random()
    kem = KemPrivateKey.generate(ML_KEM_768_X25519.id)
    sig = SigPrivateKey.generate(FALCON_1024.id)
    assert kek.unwrap_kem(b"", kem.kem_id, kek.wrap_kem(b"", kem)).public_key == kem.public_key
    enc, ciphertext = KemPublicKey(kem.kem_id, kem.public_key).hpke_seal(b"", b"", b"payload")
    assert kem.hpke_open(enc, b"", b"", ciphertext) == b"payload"
    assert SigPublicKey(sig.sig_id, sig.public_key).verify(b"message", sig.sign(b"message"))
    locked, unlocked, failures = _core.memory_stats()
    assert locked == 0
    assert unlocked > 100_000
    assert failures > 0
    del sig
    assert _core.memory_stats()[1] < unlocked - 100_000, "given back"
    assert _core.memory_stats()[::2] == (0, failures)
    print("done")


def test_the_lock_limit_is_counted_and_stops_nothing() -> None:
    run(in_process_that_may_not_lock_memory)


def in_process_out_of_memory() -> None:
    kek = Secret.random()
    _core.argon2id(kek, bytes(16), 64, 1, 1)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20), used + (64 << 20)))
    with pytest.raises(ProviderError) as error:  # 1 GiB within 64 MiB
        _core.argon2id(kek, bytes(16), 1 << 20, 1, 1)
    assert error.value.hint
    assert len(_core.argon2id(kek, bytes(16), 64, 1, 1)) == 32
    print("done")


def test_too_little_memory_for_argon2id_is_an_error() -> None:
    run(in_process_out_of_memory)


# Searching the whole memory for secrets that this process never saw as bytes.

# Adding, not XOR: what was masked twice, when the search meets its own traces, is not the
# secret again.
MASK = bytes((i + 0x5D) % 256 for i in range(256))
WINDOW = 24


class Masked:
    """A secret that another process made, known here only masked."""

    def __init__(self, masked: bytes) -> None:
        places = {0, (len(masked) - WINDOW) // 2, len(masked) - WINDOW}
        self.windows = [masked[at : at + WINDOW] for at in places]

    def count(self) -> int:
        """In how many places of this process's memory the secret stands."""
        buffer = bytearray(1 << 20)
        own = ctypes.addressof(ctypes.c_char.from_buffer(buffer))
        found = 0
        memory = os.open("/proc/self/mem", os.O_RDONLY)
        for start, end in mappings(own, own + len(buffer)):
            at = start
            while end - at >= WINDOW:
                try:
                    got = os.preadv(memory, [memoryview(buffer)[: end - at]], at)
                except OSError:  # [vvar] and the like
                    break
                if got < WINDOW:
                    break
                # No slice before the translation: it would be a copy of the secret.
                chunk = buffer.translate(MASK)
                found += sum(chunk.count(window, 0, got) for window in self.windows)
                at += got - WINDOW + 1
        os.close(memory)
        buffer[:] = bytes(len(buffer))
        return found


def mappings(own_start: int, own_end: int) -> Iterator[tuple[int, int]]:
    """Readable memory without the search's own buffer."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        limits, flags = line.split()[:2]
        start, end = (int(part, 16) for part in limits.split("-"))
        if not flags.startswith("r"):
            continue
        for part in ((start, min(end, own_start)), (max(start, own_end), end)):
            if part[0] < part[1]:
                yield part


def in_process_that_makes_secrets() -> None:
    """Makes what the searching process gets: raw through one pipe, the rest another."""
    kind, raw, rest = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    kek, nonce = os.urandom(31) + b"k", bytes(12)  # no line ending at its end
    if kind == "ML-KEM-768":
        key = os.urandom(64)
    elif kind == "Falcon-512":
        from pqcrypto.sign import falcon_padded_512

        key = falcon_padded_512.generate_keypair()[1]
    else:
        key = os.urandom(32)
    blob = AESGCM(kek).encrypt(nonce, key, None)
    os.write(raw, kek)
    for part in (kek.translate(MASK), key.translate(MASK), nonce + blob):
        os.write(rest, len(part).to_bytes(4, "big") + part)


def use(kind: str, kek: Secret, blob: bytes) -> object:
    """Unwraps the key and uses it: whatever stays must still be wiped."""
    if kind in ("ML-KEM-768", "MLKEM768-X25519"):
        kem_id = (ML_KEM_768 if kind == "ML-KEM-768" else ML_KEM_768_X25519).id
        key = kek.unwrap_kem(b"", kem_id, blob)
        enc, ciphertext = KemPublicKey(kem_id, key.public_key).hpke_seal(b"", b"", b"payload")
        assert key.hpke_open(enc, b"", b"", ciphertext) == b"payload"
        kek.wrap_kem(b"", key)
        return key
    if kind in ("Falcon-512", "ML-DSA-87"):
        sig_id = (FALCON_512 if kind == "Falcon-512" else ML_DSA_87).id
        signer = kek.unwrap_sig(b"", sig_id, blob)
        signature = signer.sign(b"message")
        assert SigPublicKey(sig_id, signer.public_key).verify(b"message", signature)
        kek.wrap_sig(b"", signer)
        return signer
    secret = kek.unwrap(b"", blob)
    derived = secret.derive(b"purpose"), _core.argon2id(secret, bytes(16), 64, 1, 1)
    secret.mac(b"data")
    kek.wrap(b"", secret)
    return secret, derived


def in_process_that_searches_itself() -> None:
    kind = sys.argv[1]
    raw, raw_in = os.pipe()
    rest, rest_in = os.pipe()
    script = "import test_core_process as t; t.in_process_that_makes_secrets()"
    subprocess.run(
        [sys.executable, "-c", script, kind, str(raw_in), str(rest_in)],
        pass_fds=(raw_in, rest_in),
        check=True,
    )
    os.close(raw_in)
    parts = [os.read(rest, int.from_bytes(os.read(rest, 4), "big")) for _ in range(3)]
    masked, blob = [Masked(part) for part in parts[:2]], parts[2]

    # In a thread that then waits, so that its stack stays as it was left.
    made, drop, dropped, end = (threading.Event() for _ in range(4))

    def work() -> None:
        kek = Secret.read_fd(raw)
        handles = kek, use(kind, kek, blob)
        made.set()
        drop.wait()
        del kek, handles
        dropped.set()
        end.wait()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    assert made.wait(60)
    counts = [m.count() for m in masked]
    assert all(counts), f"found while in use: {counts}"
    drop.set()
    assert dropped.wait(60)
    gc.collect()
    counts = [m.count() for m in masked]
    assert not any(counts), f"found after the drop: {counts}"
    end.set()
    thread.join()
    print("done")


@pytest.mark.parametrize(
    "kind", ["Secret", "ML-KEM-768", "MLKEM768-X25519", "Falcon-512", "ML-DSA-87"]
)
def test_what_is_dropped_is_nowhere_in_memory(kind: str) -> None:
    run(in_process_that_searches_itself, kind)
