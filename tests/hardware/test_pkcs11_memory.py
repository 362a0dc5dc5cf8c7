"""Where the PIN and the secrets of a token are afterwards: in locked memory, or nowhere."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import pkcs11
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pkcs11 import Attribute, GCMParams
from pkcs11.mechanisms import Mechanism

from pqc_iiot.cose import loads
from pqc_iiot.errors import ProviderError
from pqc_iiot.providers import open_provider, pkcs11_calls, pkcs11_pin
from pqc_iiot.providers.pkcs11_calls import NONCE_SIZE
from pqc_iiot.providers.pkcs11_seal import _PURPOSE

from .memory import AGREE, PROGRAM, places
from .pkcs11_fixture import SO_PIN, SOFTHSM, SoftHsm

PIN = "a-pin-that-stands-nowhere-else"


@contextmanager
def process(program: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A process that is asked and answers line by line."""
    with subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as running:
        yield running
        running.communicate("\n\n")


def line(running: subprocess.Popen[str]) -> str:
    """What it says next."""
    assert running.stdout is not None
    return running.stdout.readline().strip()


def ask(running: subprocess.Popen[str], what: str) -> str:
    """What it says when it is asked."""
    assert running.stdin is not None
    running.stdin.write(f"{what}\n")
    running.stdin.flush()
    return line(running)


def give_pin(softhsm: SoftHsm) -> None:
    """A PIN that the search cannot find for another reason."""
    token = pkcs11.lib(str(SOFTHSM)).get_token(token_label="plant")
    with token.open(rw=True, so_pin=SO_PIN) as session:
        session.init_pin(PIN)
    softhsm.write_pin(PIN)


def opened(softhsm: SoftHsm, header: str) -> bytes:
    """The key-encryption key, as a program that knows the PIN gets it."""
    softhsm.restart()
    stored = loads(bytes.fromhex(header), 1024, "header", ProviderError)
    _, key_id, sealed = cast("tuple[int, bytes, bytes]", stored)
    token = pkcs11.lib(str(SOFTHSM)).get_token(token_label="plant")
    with token.open(user_pin=PIN) as session:
        (key,) = session.get_objects({Attribute.ID: key_id})
        params = GCMParams(nonce=sealed[:NONCE_SIZE], aad=_PURPOSE, tag_bits=128)
        kek: bytes = key.decrypt(  # type: ignore[attr-defined]
            sealed[NONCE_SIZE:], mechanism=Mechanism.AES_GCM, mechanism_param=params
        )
        return kek


def test_pin_and_key_encryption_key(softhsm: SoftHsm) -> None:
    give_pin(softhsm)
    with process(PROGRAM, softhsm.uri) as maker:
        header = line(maker)
        kek = opened(softhsm, header)
        assert len(kek) == 32
        assert places(maker.pid, bytes.fromhex(header)[-16:])  # the search finds things
        for secret in (PIN.encode(), kek[:16], kek[16:]):
            assert places(maker.pid, secret) == []
    with process(PROGRAM, softhsm.uri, header) as opener:
        assert line(opener) == header
        for _ in range(2):  # at once after opening, and after some use
            for secret in (PIN.encode(), kek[:16], kek[16:]):
                assert places(opener.pid, secret) == []
            assert ask(opener, "") in ("ready", "")


def test_every_buffer_is_wiped(softhsm: SoftHsm, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is freed may soon be overwritten by chance, so the search alone is no proof."""
    wipe = pkcs11_calls.wipe
    wiped: list[tuple[int, bool]] = []

    def note(buffer: bytearray) -> None:
        wiped.append((len(buffer), any(buffer)))
        wipe(buffer)
        assert not any(buffer)

    for module in (pkcs11_pin, pkcs11_calls):
        monkeypatch.setattr(module, "wipe", note)
    provider = open_provider(softhsm.uri)
    provider.close()
    open_provider(softhsm.uri, provider.header).close()
    assert (pkcs11_pin.MAX_LENGTH + 2, True) in wiped
    assert (48, True) in wiped


def test_a_shared_secret(softhsm: SoftHsm) -> None:
    peer = ec.generate_private_key(ec.SECP256R1())
    point = peer.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    with process(AGREE, softhsm.uri) as running:
        theirs = bytes.fromhex(line(running))
        assert ask(running, point.hex()) == "ready"
        public = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), theirs)
        share = peer.exchange(ec.ECDH(), public)
        for half in (share[:16], share[16:]):
            assert places(running.pid, half) == []
