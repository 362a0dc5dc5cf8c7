"""The low-level face against other implementations, and against garbage."""

from __future__ import annotations

from contextlib import suppress
from types import ModuleType
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.bindings._rust import openssl
from cryptography.hazmat.primitives.asymmetric import mldsa, mlkem
from hypothesis import given, settings
from hypothesis import strategies as st
from pqcrypto.sign import falcon_padded_512, falcon_padded_1024

import mlkem768_p256
from pqc_iiot import primitives
from pqc_iiot._core import SigPrivateKey
from pqc_iiot.errors import AuthenticationError, InvalidInputError
from pqc_iiot.primitives import (
    FALCON_512,
    FALCON_512_ECDSA_P256,
    FALCON_1024,
    ML_DSA_65,
    ML_DSA_87,
    ML_KEM_768,
    ML_KEM_768_P256,
    ML_KEM_768_X25519,
    ML_KEM_1024,
    ML_KEM_1024_P384,
    Aead,
    Kdf,
)
from pqc_iiot.suites import Kem, Sig
from pyca import their_key, their_suite

HYBRIDS = [ML_KEM_768_X25519, ML_KEM_768_P256, ML_KEM_1024_P384]
KEMS = [ML_KEM_768, ML_KEM_1024, *HYBRIDS]
SIGS = [FALCON_512, FALCON_1024, FALCON_512_ECDSA_P256, ML_DSA_65, ML_DSA_87]
SEED_SIZES = {kem: 32 if kem in HYBRIDS else 64 for kem in KEMS}

each_kem = pytest.mark.parametrize("kem", KEMS, ids=lambda kem: kem.name)
each_falcon = pytest.mark.parametrize(
    ("sig", "theirs"),
    [(FALCON_512, falcon_padded_512), (FALCON_1024, falcon_padded_1024)],
    ids=["Falcon-512", "Falcon-1024"],
)


def seed_of(kem: Kem, first: int = 0) -> bytes:
    return bytes((first + i) % 256 for i in range(SEED_SIZES[kem]))


def flipped(data: bytes, at: int, flip: int = 1) -> bytes:
    at %= len(data)
    return data[:at] + bytes([data[at] ^ flip]) + data[at + 1 :]


@pytest.mark.parametrize("kem", [ML_KEM_768, ML_KEM_1024], ids=lambda kem: kem.name)
def test_ml_kem_agrees_with_another_implementation(kem: Kem) -> None:
    seed = seed_of(kem)
    theirs = their_key(kem, seed)
    assert isinstance(theirs, mlkem.MLKEM768PrivateKey | mlkem.MLKEM1024PrivateKey)
    public_key = primitives.public_key(kem, seed)
    assert public_key == theirs.public_key().public_bytes_raw()
    ciphertext, secret = primitives.encapsulate(kem, public_key)
    assert theirs.decapsulate(ciphertext) == secret
    their_secret, ciphertext = theirs.public_key().encapsulate()
    assert primitives.decapsulate(kem, seed, ciphertext) == their_secret
    # Implicit rejection is deterministic: both give the same wrong secret.
    ciphertext = flipped(ciphertext, 7)
    rejected = primitives.decapsulate(kem, seed, ciphertext)
    assert rejected == theirs.decapsulate(ciphertext)
    assert rejected != their_secret


def test_mlkem768_p256_agrees_with_another_implementation() -> None:
    kem = ML_KEM_768_P256
    theirs = mlkem768_p256.PrivateKey.from_seed(seed_of(kem))
    public_key = primitives.public_key(kem, seed_of(kem))
    assert public_key == theirs.public
    ciphertext, secret = primitives.encapsulate(kem, public_key)
    assert theirs.decapsulate(ciphertext) == secret
    suite = (kem, Kdf.SHAKE256, Aead.AES_256_GCM)
    sealed = mlkem768_p256.seal(public_key, b"payload", b"info", b"aad")
    enc, ciphertext = sealed[:1153], sealed[1153:]
    opened = {"seed": seed_of(kem), "info": b"info", "ciphertext": ciphertext}
    assert primitives.hpke_open(suite, enc=enc, aad=b"aad", **opened) == b"payload"
    with pytest.raises(AuthenticationError):
        primitives.hpke_open(suite, enc=enc, aad=b"other", **opened)


@pytest.mark.parametrize(
    "kem", [kem for kem in KEMS if kem != ML_KEM_768_P256], ids=lambda kem: kem.name
)
@pytest.mark.parametrize("kdf", list(Kdf), ids=lambda kdf: kdf.name)
@pytest.mark.parametrize("aead", list(Aead), ids=lambda aead: aead.name)
def test_hpke_agrees_with_another_implementation(kem: Kem, kdf: Kdf, aead: Aead) -> None:
    """Theirs is one string: `enc`, then the ciphertext."""
    suite = (kem, kdf, aead)
    theirs = their_suite(suite)
    seed = seed_of(kem)
    key: Any = their_key(kem, seed)
    info, aad, payload = b"info", b"aad", b"payload"
    enc, ciphertext = primitives.hpke_seal(
        suite, primitives.public_key(kem, seed), info=info, aad=aad, plaintext=payload
    )
    assert openssl.hpke._decrypt_with_aad(theirs, enc + ciphertext, key, info, aad) == payload
    with pytest.raises(InvalidTag):
        openssl.hpke._decrypt_with_aad(theirs, enc + ciphertext, key, info, b"other")

    sealed = openssl.hpke._encrypt_with_aad(theirs, payload, key.public_key(), info, aad)
    enc, ciphertext = sealed[: kem.ciphertext_size], sealed[kem.ciphertext_size :]
    opened = primitives.hpke_open(suite, seed, enc, info=info, aad=aad, ciphertext=ciphertext)
    assert opened == payload
    other_suite = (kem, Kdf.SHAKE256 if kdf != Kdf.SHAKE256 else Kdf.HKDF_SHA256, aead)
    for changed in (
        {"enc": flipped(enc, 0)},
        {"info": b"other"},
        {"aad": b"other"},
        {"ciphertext": flipped(ciphertext, 0)},
        {"ciphertext": flipped(ciphertext, -1)},
        {"ciphertext": ciphertext[:-1]},
        {"ciphertext": b""},
        {"seed": seed_of(kem, 1)},
    ):
        arguments = {
            "seed": seed, "enc": enc, "info": info, "aad": aad, "ciphertext": ciphertext
        } | changed  # fmt: skip
        with pytest.raises(AuthenticationError):
            primitives.hpke_open(suite, **arguments)
    with pytest.raises(AuthenticationError):
        primitives.hpke_open(other_suite, seed, enc, info=info, aad=aad, ciphertext=ciphertext)


@pytest.mark.parametrize(
    ("sig", "kind", "public_kind"),
    [
        (ML_DSA_65, mldsa.MLDSA65PrivateKey, mldsa.MLDSA65PublicKey),
        (ML_DSA_87, mldsa.MLDSA87PrivateKey, mldsa.MLDSA87PublicKey),
    ],
    ids=["ML-DSA-65", "ML-DSA-87"],
)
def test_ml_dsa_agrees_with_another_implementation(sig: Sig, kind: Any, public_kind: Any) -> None:
    theirs = kind.generate()
    public_key = theirs.public_key().public_bytes_raw()
    signature = theirs.sign(b"message")
    assert primitives.verify(sig, public_key, b"message", signature)
    assert not primitives.verify(sig, public_key, b"other", signature)
    with_context = theirs.sign(b"message", b"context")
    assert not primitives.verify(sig, public_key, b"message", with_context)

    ours = SigPrivateKey.generate(sig.id)
    signature = ours.sign(b"message")
    their_public = public_kind.from_public_bytes(ours.public_key)
    their_public.verify(signature, b"message")
    with pytest.raises(InvalidSignature):
        their_public.verify(signature, b"other")
    with pytest.raises(InvalidSignature):
        their_public.verify(flipped(signature, 0), b"message")


def test_falcon_and_ecdsa_agree_with_other_implementations() -> None:
    sig = FALCON_512_ECDSA_P256
    public_key, sign = mlkem768_p256.composite_key()
    signature = sign(b"message")
    assert (len(public_key), len(signature)) == (sig.public_key_size, sig.signature_size)
    assert primitives.verify(sig, public_key, b"message", signature)
    assert not primitives.verify(sig, public_key, b"other", signature)
    for at in (50, 700):
        assert not primitives.verify(sig, public_key, b"message", flipped(signature, at))

    ours = SigPrivateKey.generate(sig.id)
    signature = ours.sign(b"message")
    assert mlkem768_p256.composite_verify(ours.public_key, b"message", signature)
    assert not mlkem768_p256.composite_verify(ours.public_key, b"other", signature)


@each_falcon
def test_falcon_agrees_with_another_implementation(sig: Sig, theirs: ModuleType) -> None:
    public_key, secret_key = theirs.generate_keypair()
    signature = theirs.sign(secret_key, b"message")
    assert len(public_key) == sig.public_key_size
    assert len(signature) == sig.signature_size
    assert primitives.verify(sig, public_key, b"message", signature)
    assert not primitives.verify(sig, public_key, b"other", signature)

    ours = SigPrivateKey.generate(sig.id)
    signature = ours.sign(b"message")
    assert theirs.verify(ours.public_key, b"message", signature)
    assert not theirs.verify(ours.public_key, b"other", signature)


@each_falcon
def test_falcon_refuses_what_the_other_refuses(sig: Sig, theirs: ModuleType) -> None:
    """Header, nonce, first coefficients, the last ones and the padding, bit by bit."""
    public_key, secret_key = theirs.generate_keypair()
    ours = SigPrivateKey.generate(sig.id)
    for key, signature in (
        (public_key, theirs.sign(secret_key, b"message")),
        (ours.public_key, ours.sign(b"message")),
    ):
        for at in (0, 1, 40, 41, 42, 300, sig.signature_size - 60, sig.signature_size - 1):
            for bit in range(8):
                bad = flipped(signature, at, 1 << bit)
                assert not primitives.verify(sig, key, b"message", bad), (at, bit)
                assert not theirs.verify(key, b"message", bad), (at, bit)
        for bad in (signature[:-1], signature + b"\0", signature.rstrip(b"\0"), b""):
            if bad != signature:
                assert not primitives.verify(sig, key, b"message", bad), len(bad)


SIZES = {size for kem in KEMS for size in (kem.public_key_size, kem.ciphertext_size)}
SIZES |= {size for sig in SIGS for size in (sig.public_key_size, sig.signature_size)}
SIZES |= set(SEED_SIZES.values())
garbage = st.binary(max_size=64) | st.builds(
    lambda size, by, part: (part * size)[: size + by],
    st.sampled_from(sorted(SIZES)),
    st.integers(-1, 1),
    st.binary(min_size=8, max_size=8),
)
suites = st.tuples(st.sampled_from(KEMS), st.sampled_from(list(Kdf)), st.sampled_from(list(Aead)))


@settings(max_examples=300, deadline=None)
@given(suite=suites, sig=st.sampled_from(SIGS), a=garbage, b=garbage, c=garbage)
def test_garbage_gives_typed_errors_only(
    suite: tuple[Kem, Kdf, Aead], sig: Sig, a: bytes, b: bytes, c: bytes
) -> None:
    kem = suite[0]
    for call in (
        lambda: primitives.public_key(kem, a),
        lambda: primitives.encapsulate(kem, a),
        lambda: primitives.decapsulate(kem, seed_of(kem), a),
        lambda: primitives.decapsulate(kem, a, b),
        lambda: primitives.hpke_seal(suite, a, info=b, aad=c, plaintext=a),
        lambda: primitives.hpke_open(suite, a, b, info=c, aad=a, ciphertext=b),
        lambda: primitives.hpke_open(suite, seed_of(kem), a, info=b, aad=c, ciphertext=a),
    ):
        with suppress(InvalidInputError, AuthenticationError):
            call()
    with suppress(InvalidInputError):
        assert not primitives.verify(sig, a, b, c)


@each_kem
def test_a_wrong_size_is_named(kem: Kem) -> None:
    size = kem.public_key_size
    with pytest.raises(InvalidInputError, match=f"must be {size} bytes, got {size - 1}"):
        primitives.encapsulate(kem, bytes(size - 1))
    size = SEED_SIZES[kem]
    with pytest.raises(InvalidInputError, match=f"must be {size} bytes, got {size + 1}"):
        primitives.public_key(kem, bytes(size + 1))
    size = kem.ciphertext_size
    with pytest.raises(InvalidInputError, match=f"must be {size} bytes, got 0"):
        primitives.decapsulate(kem, seed_of(kem), b"")


def test_info_has_a_limit_with_a_one_stage_kdf() -> None:
    suite = (ML_KEM_768, Kdf.SHAKE256, Aead.AES_256_GCM)
    public_key = primitives.public_key(ML_KEM_768, seed_of(ML_KEM_768))
    primitives.hpke_seal(suite, public_key, info=bytes(65535), aad=b"", plaintext=b"")
    with pytest.raises(InvalidInputError, match="info"):
        primitives.hpke_seal(suite, public_key, info=bytes(65536), aad=b"", plaintext=b"")


@each_kem
def test_only_keys_are_deterministic(kem: Kem) -> None:
    public_key = primitives.public_key(kem, seed_of(kem))
    assert public_key == primitives.public_key(kem, seed_of(kem))
    assert primitives.encapsulate(kem, public_key) != primitives.encapsulate(kem, public_key)


@pytest.mark.parametrize("point", [0, 1], ids=["zero", "one"])
def test_points_of_small_order_are_refused(point: int) -> None:
    """RFC 7748 section 6.1: they would give every sender and recipient the same secret."""
    kem = ML_KEM_768_X25519
    small = bytes([point]) + bytes(31)
    public_key = primitives.public_key(kem, seed_of(kem))
    with pytest.raises(InvalidInputError):
        primitives.encapsulate(kem, public_key[:-32] + small)
    ciphertext, _ = primitives.encapsulate(kem, public_key)
    with pytest.raises(InvalidInputError):
        primitives.decapsulate(kem, seed_of(kem), ciphertext[:-32] + small)
