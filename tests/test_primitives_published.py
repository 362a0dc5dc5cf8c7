"""The low-level face against vectors that others published."""

from __future__ import annotations

import pytest

from pqc_iiot import primitives
from pqc_iiot.errors import InvalidInputError
from pqc_iiot.primitives import (
    ML_DSA_87,
    ML_KEM_768,
    ML_KEM_768_P256,
    ML_KEM_768_X25519,
    ML_KEM_1024,
    ML_KEM_1024_P384,
    Aead,
    Kdf,
)
from pqc_iiot.suites import Kem
from published import load, wycheproof

KEMS = [ML_KEM_768, ML_KEM_1024, ML_KEM_768_X25519, ML_KEM_768_P256, ML_KEM_1024_P384]


@pytest.mark.parametrize(("kem", "size"), [(ML_KEM_768, 768), (ML_KEM_1024, 1024)])
def test_wycheproof_decapsulation(kem: Kem, size: int) -> None:
    for _, case in wycheproof(f"wycheproof_mlkem_{size}_test.json"):
        seed, ciphertext = bytes.fromhex(case["seed"]), bytes.fromhex(case["c"])
        if case["result"] == "valid":
            assert primitives.public_key(kem, seed).hex() == case["ek"], case["tcId"]
            assert primitives.decapsulate(kem, seed, ciphertext).hex() == case["K"]
        else:
            with pytest.raises(InvalidInputError):
                primitives.decapsulate(kem, seed, ciphertext)


def test_wycheproof_keys_from_seeds() -> None:
    for _, case in wycheproof("wycheproof_mlkem_768_keygen_seed_test.json"):
        public_key = primitives.public_key(ML_KEM_768, bytes.fromhex(case["seed"]))
        assert public_key.hex() == case["ek"], case["tcId"]


def test_wycheproof_public_keys() -> None:
    refused = 0
    for _, case in wycheproof("wycheproof_mlkem_768_encaps_test.json"):
        public_key = bytes.fromhex(case["ek"])
        if case["result"] == "valid":
            ciphertext, secret = primitives.encapsulate(ML_KEM_768, public_key)
            assert (len(ciphertext), len(secret)) == (1088, 32)
        else:
            refused += 1
            with pytest.raises(InvalidInputError):
                primitives.encapsulate(ML_KEM_768, public_key)
    assert refused > 0


def test_wycheproof_ml_dsa_87() -> None:
    for group, case in wycheproof("wycheproof_mldsa_87_verify_test.json"):
        if case.get("ctx"):
            continue  # Contexts are always empty here: to us it is another message.
        public_key = bytes.fromhex(group["publicKey"])
        message, signature = bytes.fromhex(case["msg"]), bytes.fromhex(case["sig"])
        if len(public_key) != ML_DSA_87.public_key_size:
            assert case["result"] == "invalid"
            with pytest.raises(InvalidInputError):
                primitives.verify(ML_DSA_87, public_key, message, signature)
            continue
        valid = primitives.verify(ML_DSA_87, public_key, message, signature)
        assert valid == (case["result"] == "valid"), case["tcId"]


def test_x_wing() -> None:
    vectors = load("xwing.json")
    assert len(vectors) == 3
    for vector in vectors:
        seed, ciphertext = bytes.fromhex(vector["seed"]), bytes.fromhex(vector["ct"])
        assert primitives.public_key(ML_KEM_768_X25519, seed).hex() == vector["pk"]
        secret = primitives.decapsulate(ML_KEM_768_X25519, seed, ciphertext)
        assert secret.hex() == vector["ss"]


def test_hpke_pq() -> None:
    """Keys, shared secrets and the first encryption; the core's tests have the rest."""
    by_id = {kem.id: kem for kem in KEMS}
    opened = 0
    for vector in load("hpke_pq.json"):
        kem, kdf_id = by_id.get(vector["kem_id"]), vector["kdf_id"]
        if kem is None:
            continue
        seed, enc = bytes.fromhex(vector["skRm"]), bytes.fromhex(vector["enc"])
        assert primitives.public_key(kem, seed).hex() == vector["pkRm"]
        secret = primitives.decapsulate(kem, seed, enc)
        assert secret.hex() == vector["shared_secret"]
        if kdf_id not in list(Kdf):
            continue  # TurboSHAKE, which no suite of this project uses.
        first = vector["encryptions"][0]
        assert first["nonce"] == vector["base_nonce"]
        plaintext = primitives.hpke_open(
            (kem, Kdf(kdf_id), Aead(vector["aead_id"])),
            seed,
            enc,
            info=bytes.fromhex(vector["info"]),
            aad=bytes.fromhex(first["aad"]),
            ciphertext=bytes.fromhex(first["ct"]),
        )
        assert plaintext.hex() == first["pt"]
        opened += 1
    assert opened == 7
