"""What can be done with a secret that never comes out."""

from __future__ import annotations

import contextlib
import hmac
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pqc_iiot import _core
from pqc_iiot._core import (
    KemPrivateKey,
    KemPublicKey,
    Secret,
    SigPrivateKey,
    SigPublicKey,
)
from pqc_iiot.errors import AuthenticationError, InvalidInputError
from pqc_iiot.suites import (
    FALCON_512,
    ML_DSA_87,
    ML_KEM_768,
    ML_KEM_768_X25519,
)
from test_core import PASSPHRASE, holds, read


class TestSecrets:
    def test_follow_the_standards(self) -> None:
        """HMAC (RFC 2104), HKDF-Expand (RFC 5869) and AES-256-GCM, computed elsewhere."""
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        key = bytes(range(32))
        secret, other = read(key), read(PASSPHRASE)
        derived = hmac.digest(key, b"purpose\x01", "sha256")
        assert holds(secret.derive(b"purpose"), derived)
        tag = hmac.digest(key, b"data", "sha256")
        assert secret.verify_mac(b"data", tag)
        for bad in (tag[:31], tag + b"\0", b"", bytes(32)):
            assert not secret.verify_mac(b"data", bad)
        blob = secret.wrap(b"aad", other)
        assert AESGCM(key).decrypt(blob[:12], blob[12:], b"aad") == PASSPHRASE
        nonce = bytes(12)
        blob = nonce + AESGCM(key).encrypt(nonce, PASSPHRASE, b"aad")
        assert holds(secret.unwrap(b"aad", blob), PASSPHRASE)
        data = bytes(10_000)  # longer than any secret
        label = b"pqc-iiot data"
        block = hmac.digest(key, label + b"\x01", "sha256")  # the first, which `derive` gives
        data_key = AESGCM(hmac.digest(key, block + label + b"\x02", "sha256"))
        blob = secret.encrypt(b"aad", data)
        assert data_key.decrypt(blob[:12], blob[12:], b"aad") == data
        assert secret.decrypt(b"aad", nonce + data_key.encrypt(nonce, data, b"aad")) == data
        seed = bytes(range(64))
        blob = nonce + AESGCM(key).encrypt(nonce, seed, b"kem")
        unwrapped = secret.unwrap_kem(b"kem", ML_KEM_768.id, blob)
        assert unwrapped.public_key == _core.kem_public_key(ML_KEM_768.id, seed)

    def test_argon2id_follows_the_standard(self) -> None:
        """Against OpenSSL's, which `cryptography` offers."""
        from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

        salt = bytes(range(16))
        for memory, passes, lanes in ((64, 1, 1), (256, 3, 4)):
            theirs = Argon2id(
                salt=salt, length=32, iterations=passes, lanes=lanes, memory_cost=memory
            ).derive(PASSPHRASE)
            ours = _core.argon2id(read(PASSPHRASE), salt, memory, passes, lanes)
            assert holds(ours, theirs)

    @pytest.mark.parametrize(
        ("salt", "memory", "passes", "lanes"),
        [
            (15, 64, 1, 1), (65, 64, 1, 1), (16, 7, 1, 1), (16, 1_048_577, 1, 1),
            (16, 64, 0, 1), (16, 64, 65, 1), (16, 64, 1, 0), (16, 64, 1, 17),
            (16, 31, 1, 4), (16, 1 << 40, 1, 1), (16, -1, 1, 1), (16, 64, 1 << 80, 1),
        ],
    )  # fmt: skip
    def test_argon2id_costs_have_a_range(
        self, salt: int, memory: int, passes: int, lanes: int
    ) -> None:
        with pytest.raises(InvalidInputError):
            _core.argon2id(read(PASSPHRASE), bytes(salt), memory, passes, lanes)

    @pytest.mark.parametrize("length", [1, 31, 65, 4096])
    def test_a_secret_to_derive_from_has_32_to_64_bytes(self, length: int) -> None:
        with pytest.raises(InvalidInputError):
            read(b"x" * length, limit=4096).derive(b"purpose")

    @pytest.mark.parametrize("length", [-1, 0, 15, 65, 1 << 80])
    def test_random_lengths(self, length: int) -> None:
        with pytest.raises(InvalidInputError):
            Secret.random(length)

    def test_a_key_is_unwrapped_only_as_what_it_is(self) -> None:
        kek = Secret.random()
        kem, sig = KemPrivateKey.generate(ML_KEM_768.id), SigPrivateKey.generate(ML_DSA_87.id)
        calls: tuple[Callable[[], object], ...] = (
            lambda: kek.unwrap_kem(b"", ML_KEM_768_X25519.id, kek.wrap_kem(b"", kem)),
            lambda: kek.unwrap_sig(b"", FALCON_512.id, kek.wrap_sig(b"", sig)),
            lambda: Secret.random(16).wrap(b"", kek),
            lambda: Secret.random(16).encrypt(b"", b""),
            lambda: kek.decrypt(b"", bytes(27)),
        )
        for call in calls:
            with pytest.raises(InvalidInputError):
                call()
        with pytest.raises(AuthenticationError):
            kek.unwrap_kem(b"other", ML_KEM_768.id, kek.wrap_kem(b"", kem))
        with pytest.raises(AuthenticationError):
            kek.decrypt(b"other", kek.encrypt(b"", b"data"))

    def test_what_was_wrapped_is_never_decrypted(self) -> None:
        """It would come out of the core."""
        kek, secret = Secret.random(), Secret.random()
        kem, sig = KemPrivateKey.generate(ML_KEM_768.id), SigPrivateKey.generate(ML_DSA_87.id)
        blobs = (kek.wrap(b"", secret), kek.wrap_kem(b"", kem), kek.wrap_sig(b"", sig))
        for blob in blobs:
            with pytest.raises(AuthenticationError):
                kek.decrypt(b"", blob)

    @settings(max_examples=200, deadline=None)
    @given(number=st.integers(-(1 << 70), 1 << 70), data=st.binary(max_size=200))
    def test_garbage_gives_typed_errors_only(self, number: int, data: bytes) -> None:
        kek = Secret.random()
        for call in (
            lambda: kek.unwrap(data, data),
            lambda: kek.decrypt(data, data),
            lambda: kek.unwrap_kem(data, number, data),
            lambda: kek.unwrap_sig(data, number, data),
            lambda: KemPublicKey(number, data),
            lambda: SigPublicKey(number, data),
            lambda: KemPrivateKey.generate(number or 1),
            lambda: SigPrivateKey.generate(number or 1),
            lambda: _core.hpke_seal((number, number, number), data, data, data, data),
            lambda: _core.measure(data.hex(), number, number),
        ):
            with contextlib.suppress(InvalidInputError, AuthenticationError):
                call()
