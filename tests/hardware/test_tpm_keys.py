"""SPLIT: the halves in the TPM stay there, and nothing of ours is left loaded."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from pqc_iiot import cose
from pqc_iiot._core import (
    KemPrivateKey,
    KemPublicKey,
    Secret,
    SigPublicKey,
    SplitKemPrivateKey,
    composite_message,
    ecdsa_verify,
)
from pqc_iiot.errors import (
    AuthenticationError,
    AuthFailedError,
    BusyError,
    CustodyTooLowError,
    ForkedProcessError,
    IntegrityFailedError,
    ProviderError,
)
from pqc_iiot.providers import KeySet
from pqc_iiot.providers.keys import Keys
from pqc_iiot.suites import SUITES

from .tpm_fixture import Swtpm, decoded

SPLIT = SUITES[6]


def classical(keys: KeySet) -> tuple[Any, Any]:
    """The ECDH and the ECDSA key in the TPM."""
    assert isinstance(keys, Keys)
    kem: Any = keys.kem
    sig: Any = keys.sig
    return kem._classical, sig._classical


def test_ecdh_in_the_tpm_agrees_with_ecdh_elsewhere(tpm: Swtpm) -> None:
    keys, _ = tpm.provider().generate(SPLIT)
    ecdh, _ = classical(keys)
    own = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), ecdh.public_key)
    for _ in range(40):
        peer = ec.generate_private_key(ec.SECP256R1())
        point = peer.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        shared = bytearray(peer.exchange(ec.ECDH(), own))
        assert ecdh.agree(point).mac(b"x") == Secret.take(shared).mac(b"x")


def test_ecdsa_in_the_tpm_verifies_elsewhere(tpm: Swtpm) -> None:
    keys, _ = tpm.provider().generate(SPLIT)
    _, ecdsa = classical(keys)
    for i in range(40):  # Often enough for an r or s that begins with a zero, most times
        signature = ecdsa.sign_digest(hashlib.sha256(b"%d" % i).digest())
        assert ecdsa_verify(ecdsa.public_key, b"%d" % i, signature)


def test_neither_duplicated_nor_read_nor_imported_elsewhere(
    tpm: Swtpm, make_tpm: type[Swtpm]
) -> None:
    from tpm2_pytss import TSS2_Exception
    from tpm2_pytss.constants import ESYS_TR, TPM2_ALG, TPM2_CC, TPM2_SE
    from tpm2_pytss.types import (
        TPM2B_PRIVATE,
        TPM2B_PUBLIC,
        TPMT_SYM_DEF,
        TPMT_SYM_DEF_OBJECT,
    )

    from pqc_iiot.providers.tpm_keys import TpmEcdsa
    from pqc_iiot.providers.tpm_objects import storage_template
    from pqc_iiot.providers.tpm_secrets import Auth

    provider: Any = tpm.provider()
    keys, _ = provider.generate(SPLIT)
    other = make_tpm().start()
    null = TPMT_SYM_DEF_OBJECT(algorithm=TPM2_ALG.NULL)
    for key in classical(keys):
        assert key.attributes() == ("fixedTPM", "fixedParent", "sensitiveDataOrigin")
        with pytest.raises(ProviderError) as caught:
            key.try_duplicate()
        assert caught.value.native == "0x99d"
        private, public = decoded(key.reference)
        parts = TPM2B_PRIVATE.unmarshal(private)[0], TPM2B_PUBLIC.unmarshal(public)[0]
        with tpm.esapi() as esys:
            parent, *_ = esys.create_primary(None, storage_template(), ESYS_TR.OWNER)
            handle = esys.load(parent, *parts)
            # What the TPM gives away of it is its public area, and never under any policy more.
            found, *_ = esys.read_public(handle)
            assert bytes(found.marshal()) == public
            attempts: list[Callable[[Any], object]] = [
                partial(esys.duplicate, handle, ESYS_TR.NULL, None, null),
                partial(esys.unseal, handle),
                partial(esys.object_change_auth, handle, parent, b""),
            ]
            for attempt in attempts:
                session = esys.start_auth_session(
                    ESYS_TR.NONE, ESYS_TR.NONE, TPM2_SE.POLICY,
                    TPMT_SYM_DEF(algorithm=TPM2_ALG.NULL), TPM2_ALG.SHA256,
                )  # fmt: skip
                esys.policy_command_code(session, TPM2_CC.Duplicate)
                with pytest.raises(TSS2_Exception):
                    attempt(session)
                esys.flush_context(session)
            # Without the authorisation that is sealed with the other half: not used either.
            unauthorised = TpmEcdsa(provider._device, provider._storage, Auth(), key.stored)
            with pytest.raises(AuthFailedError):
                unauthorised.sign_digest(bytes(32))
            for each in (handle, parent):
                esys.flush_context(each)
        assert tpm.lockout()[0] == 0  # noDA: trying that locks nothing
        with other.esapi() as esys:
            parent, *_ = esys.create_primary(None, storage_template(), ESYS_TR.OWNER)
            with pytest.raises(TSS2_Exception):
                esys.load(parent, *parts)
            with pytest.raises(TSS2_Exception):
                esys.import_(parent, b"", parts[1], parts[0], b"", null)
            esys.flush_context(parent)


def test_disk_and_memory_without_the_tpm_neither_sign_nor_open(tpm: Swtpm) -> None:
    """A thief has every file, and every secret in the process's memory: the key-encryption
    key, so both post-quantum halves. What he lacks is the TPM."""
    provider: Any = tpm.provider()
    keys, blob = provider.generate(SPLIT)
    enc, sealed = KemPublicKey(SPLIT.kem.id, keys.kem_public_key).hpke_seal(b"", b"", b"21.5")
    stolen: Any = keys
    falcon = stolen.sig._falcon
    ml_kem_blob = decoded(blob)[0][0]
    ecdh, _ = classical(keys)
    aad = b"pqc-iiot key 6 kem" + ecdh.public_key
    ml_kem: KemPrivateKey = provider._kek.unwrap_kem(aad, 0x0041, ml_kem_blob)
    tpm.kill()

    uses: tuple[Callable[[], bytes], ...] = (
        lambda: keys.sign(b"m"),
        lambda: keys.decrypt(enc, b"", b"", sealed),
    )
    for use in uses:
        with pytest.raises(ProviderError):
            use()
    # The Falcon half is his; every stand-in for the other half verifies nothing.
    public = SigPublicKey(SPLIT.sig.id, keys.sig_public_key)
    half = falcon.sign(composite_message(b"m"))
    forger = ec.generate_private_key(ec.SECP256R1())
    der = forger.sign(composite_message(b"m"), ec.ECDSA(hashes.SHA256()))
    r, s = decode_dss_signature(der)
    for other_half in (bytes(64), b"\xff" * 64, r.to_bytes(32, "big") + s.to_bytes(32, "big")):
        assert not public.verify(b"m", half + other_half)
    # The ML-KEM half is his; every stand-in for the shared point opens nothing.
    split = SplitKemPrivateKey(SPLIT.kem.id, ml_kem, ecdh.public_key)
    assert split.public_key == keys.kem_public_key
    own = ec.EllipticCurvePublicKey.from_encoded_point(
        ec.SECP256R1(), split.classical_share_point(enc)
    )
    guesses = [bytes(32), ecdh.public_key[1:33], forger.exchange(ec.ECDH(), own), os.urandom(32)]
    for guess in guesses:
        with pytest.raises(AuthenticationError):
            split.hpke_open_shared(enc, b"", b"", sealed, Secret.take(bytearray(guess)))
    tpm.start()
    assert keys.decrypt(enc, b"", b"", sealed) == b"21.5"
    assert public.verify(b"m", keys.sign(b"m"))


def test_keys_of_another_device_or_kind_are_refused(tpm: Swtpm) -> None:
    provider, other = tpm.provider(), tpm.provider()
    keys, blob = provider.generate(SPLIT)
    with pytest.raises(IntegrityFailedError):
        other.load(SPLIT, blob)
    ecdh, ecdsa = classical(keys)
    made: Any = provider
    with pytest.raises(IntegrityFailedError, match="another kind"):
        made.load_ecdh(ecdsa.reference)
    with pytest.raises(IntegrityFailedError, match="another kind"):
        made.load_ecdsa(ecdh.reference)
    # The private part of one under the public area of the other.
    parts = [decoded(key.reference) for key in (ecdh, ecdsa)]
    mixed = cose.dumps([parts[1][0], parts[0][1]])
    with pytest.raises(ProviderError):
        made.load_ecdh(mixed)
    for bad in (b"", b"\x80", ecdh.reference[:-1], cose.dumps([b"", b""])):
        with pytest.raises(ProviderError):
            made.load_ecdh(bad)
    assert tpm.loaded() == (0, 0, 0)


def test_a_key_that_came_from_outside_is_no_split_custody(tpm: Swtpm) -> None:
    """Made elsewhere and imported: it looks the same in use, and the TPM says that it is not."""
    from tpm2_pytss.constants import ESYS_TR, TPM2_ALG, TPMA_OBJECT
    from tpm2_pytss.types import TPM2B_PUBLIC, TPM2B_SENSITIVE, TPMT_SYM_DEF_OBJECT
    from tpm2_pytss.utils import wrap

    from pqc_iiot.providers.tpm_keys import TpmEcdsa
    from pqc_iiot.providers.tpm_objects import StoredObject, storage_template
    from pqc_iiot.providers.tpm_secrets import Auth

    provider: Any = tpm.provider()
    scalar = ec.generate_private_key(ec.SECP256R1())
    pem = scalar.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = TPM2B_PUBLIC.from_pem(
        scalar.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        scheme="ecdsa-sha256",
        objectAttributes=TPMA_OBJECT.USERWITHAUTH | TPMA_OBJECT.SIGN_ENCRYPT,
    )
    sensitive = TPM2B_SENSITIVE.from_pem(pem)
    with tpm.esapi() as esys:
        parent, parent_public, *_ = esys.create_primary(None, storage_template(), ESYS_TR.OWNER)
        symmetric = TPMT_SYM_DEF_OBJECT(algorithm=TPM2_ALG.NULL)
        key, duplicate, seed = wrap(parent_public.publicArea, public, sensitive, b"", symmetric)
        private = esys.import_(parent, key, public, duplicate, seed, symmetric)
        esys.flush_context(parent)
    stored = StoredObject(private, public)
    with pytest.raises(IntegrityFailedError, match="another kind"):
        provider.load_ecdsa(cose.dumps(list(stored.encode())))
    imported = TpmEcdsa(provider._device, provider._storage, Auth(), stored)
    assert len(imported.sign_digest(bytes(32))) == 64
    with pytest.raises(CustodyTooLowError, match="fixedParent, fixedTPM, sensitiveDataOrigin"):
        imported.require_fixed()


# Handles


def test_nothing_stays_loaded_whatever_was_done(tpm: Swtpm) -> None:
    provider = tpm.provider()
    assert tpm.loaded() == (0, 0, 0)
    keys, blob = provider.generate(SPLIT)
    enc, sealed = KemPublicKey(SPLIT.kem.id, keys.kem_public_key).hpke_seal(b"", b"", b"21.5")
    counter = provider.counter()
    assert counter is not None
    steps: dict[str, Callable[[], object]] = {
        "capabilities": provider.capabilities,
        "load": lambda: provider.load(SPLIT, blob),
        "sign": lambda: keys.sign(b"m"),
        "decrypt": lambda: keys.decrypt(enc, b"", b"", sealed),
        "count": counter.increment,
        "value": counter.value,
        "quote": lambda: provider.quote(bytes(32)),
        "open again": lambda: tpm.provider(header=provider.header),
    }
    for name, step in steps.items():
        for _ in range(5):
            step()
            assert tpm.loaded() == (0, 0, 0), name
    provider.close()
    assert tpm.loaded() == (0, 0, 0)
    provider.close()
    with pytest.raises(ProviderError, match="closed"):
        provider.generate(SPLIT)
    with pytest.raises(ProviderError, match="closed"):
        keys.sign(b"m")


def test_slots_that_others_hold_are_waited_for_and_named(
    tpm: Swtpm, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tpm2_pytss.constants import ESYS_TR

    from pqc_iiot.providers.tpm_objects import storage_template

    provider = tpm.provider()
    keys, _ = provider.generate(SPLIT)
    naps = []
    with tpm.esapi() as esys:
        held = [esys.create_primary(None, storage_template(), ESYS_TR.OWNER)[0] for _ in range(3)]

        def nap(seconds: float) -> None:
            naps.append(seconds)
            if len(naps) > 30 and held:
                esys.flush_context(held.pop())

        monkeypatch.setattr("pqc_iiot.providers.tpm_device.time.sleep", nap)
        with pytest.raises(BusyError) as caught:
            keys.sign(b"m")
        assert "tpm2_flushcontext" in caught.value.hint
        assert caught.value.native == "0x902"
        assert tpm.loaded()[:2] == (3, 0)
        keys.sign(b"m")  # The other program lets go meanwhile
        assert tpm.loaded()[:2] == (2, 0)


def test_a_fork_is_refused_and_does_no_harm(tpm: Swtpm) -> None:
    provider = tpm.provider()
    keys, _ = provider.generate(SPLIT)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            keys.sign(b"m")
        except ForkedProcessError:
            os.write(writer, b"refused")
        finally:
            provider.close()
            os._exit(0)
    os.waitpid(child, 0)
    os.close(writer)
    with os.fdopen(reader, "rb") as result:
        assert result.read() == b"refused"
    assert len(keys.sign(b"m")) == SPLIT.sig.signature_size


def test_threads_take_turns(tpm: Swtpm) -> None:
    keys, _ = tpm.provider().generate(SPLIT)
    public = SigPublicKey(SPLIT.sig.id, keys.sig_public_key)
    with ThreadPoolExecutor(4) as pool:
        for i, signature in enumerate(pool.map(lambda i: keys.sign(b"%d" % i), range(24))):
            assert public.verify(b"%d" % i, signature)
    assert tpm.loaded() == (0, 0, 0)


def test_several_devices_share_a_tpm_without_a_resource_manager(tpm: Swtpm) -> None:
    def live(_: int) -> None:
        provider = tpm.provider()
        keys, blob = provider.generate(SPLIT)
        counter = provider.counter()
        assert counter
        for begin in range(counter.value(), counter.value() + 6):
            public = SigPublicKey(SPLIT.sig.id, keys.sig_public_key)
            assert public.verify(b"m", keys.sign(b"m"))
            assert counter.increment() == begin + 1
            provider.close()
            provider = tpm.provider(header=provider.header)
            keys, counter = provider.load(SPLIT, blob), provider.counter()
            assert counter

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(live, range(3)))
    assert tpm.loaded() == (0, 0, 0)
