"""The vectors of KEMs, signatures and HPKE: by this package, and by others."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.bindings._rust import openssl
from cryptography.hazmat.primitives.asymmetric import mldsa, mlkem
from pqcrypto.sign import falcon_padded_512, falcon_padded_1024

import mlkem768_p256
from pqc_iiot import primitives
from pqc_iiot.errors import PqcIiotError
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
from pqc_iiot.suites import Sig
from pyca import their_key, their_suite

FOLDER = Path(__file__).resolve().parents[1] / "vectors"
_HYBRIDS = (ML_KEM_768_X25519, ML_KEM_768_P256, ML_KEM_1024_P384)
KEMS = {kem.id: kem for kem in (ML_KEM_768, ML_KEM_1024, *_HYBRIDS)}
_ML_DSA: dict[Sig, Any] = {ML_DSA_65: mldsa.MLDSA65PublicKey, ML_DSA_87: mldsa.MLDSA87PublicKey}
SIGS = {sig.id: sig for sig in (FALCON_512, FALCON_1024, FALCON_512_ECDSA_P256, *_ML_DSA)}


def cases(file: str, kind: str) -> list[Any]:
    """Every case of a kind with what it has in common with its group, as test parameters."""
    return [
        pytest.param(
            group, case, id=f"{group.get('kem', group.get('signature'))}, {case['comment']}"
        )
        for group in json.loads((FOLDER / file).read_text())
        for case in group[kind]
    ]


def values(case: dict[str, Any], *names: str) -> list[bytes]:
    return [bytes.fromhex(case[name]) for name in names]


def outcome(call: Callable[[], bytes]) -> dict[str, str]:
    try:
        return {"result": call().hex()}
    except PqcIiotError as error:
        return {"error": error.code}


def expected(case: dict[str, Any], name: str) -> dict[str, str]:
    return {"error": case["error"]} if "error" in case else {"result": case[name]}


@pytest.mark.parametrize(("group", "case"), cases("kem.json", "decapsulate"))
def test_decapsulation(group: dict[str, Any], case: dict[str, Any]) -> None:
    kem = KEMS[group["kem_id"]]
    (seed,), (ciphertext,) = values(group, "seed"), values(case, "ciphertext")
    assert primitives.public_key(kem, seed).hex() == group["public_key"]
    got = outcome(lambda: primitives.decapsulate(kem, seed, ciphertext))
    assert got == expected(case, "shared_secret")
    key = their_key(kem, seed)
    kinds = mlkem.MLKEM768PrivateKey, mlkem.MLKEM1024PrivateKey, mlkem768_p256.PrivateKey
    if isinstance(key, kinds):
        if "error" in case:
            with pytest.raises(ValueError, match=r"ciphertext|EC key"):
                key.decapsulate(ciphertext)
        else:
            assert key.decapsulate(ciphertext).hex() == case["shared_secret"]


@pytest.mark.parametrize(("group", "case"), cases("kem.json", "encapsulate"))
def test_refused_public_keys(group: dict[str, Any], case: dict[str, Any]) -> None:
    kem, (public_key,) = KEMS[group["kem_id"]], values(case, "public_key")
    assert outcome(lambda: primitives.encapsulate(kem, public_key)[0]) == {"error": case["error"]}


@pytest.mark.parametrize(("group", "case"), cases("signatures.json", "verify"))
def test_signatures(group: dict[str, Any], case: dict[str, Any]) -> None:
    sig = SIGS[group["sig_id"]]
    (public_key,), (message, signature) = (
        values(group, "public_key"),
        values(case, "message", "signature"),
    )
    assert primitives.verify(sig, public_key, message, signature) == case["valid"]
    assert case["valid"] == case["comment"].startswith("valid")
    if sig == FALCON_512_ECDSA_P256:
        assert case["valid"] == (
            len(signature) == 730 and mlkem768_p256.composite_verify(public_key, message, signature)
        )
    elif sig in _ML_DSA:
        theirs = _ML_DSA[sig].from_public_bytes(public_key)
        if case["valid"]:
            theirs.verify(signature, message)
        else:
            with pytest.raises((InvalidSignature, ValueError)):
                theirs.verify(signature, message)
    elif case["comment"] not in ("too short", "without its padding"):
        # Theirs takes shorter signatures too: the unpadded form of the same scheme.
        falcon = falcon_padded_512 if sig == FALCON_512 else falcon_padded_1024
        assert falcon.verify(public_key, message, signature) == case["valid"]


@pytest.mark.parametrize(("group", "case"), cases("hpke.json", "open"))
def test_hpke(group: dict[str, Any], case: dict[str, Any]) -> None:
    kem_id, kdf_id, aead_id = group["suite_id"]
    suite = (KEMS[kem_id], Kdf(kdf_id), Aead(aead_id))
    (seed,) = values(group, "seed")
    enc, info, aad, ciphertext = values(case, "enc", "info", "aad", "ciphertext")
    got = outcome(
        lambda: primitives.hpke_open(suite, seed, enc, info=info, aad=aad, ciphertext=ciphertext)
    )
    assert got == expected(case, "plaintext")

    def theirs() -> bytes:
        key = their_key(suite[0], seed)
        if isinstance(key, mlkem768_p256.PrivateKey):
            return key.open(enc + ciphertext, info, aad)
        return openssl.hpke._decrypt_with_aad(their_suite(suite), enc + ciphertext, key, info, aad)

    if "error" in case:
        with pytest.raises((InvalidTag, ValueError)):
            theirs()
    else:
        assert theirs().hex() == case["plaintext"]


def test_the_files_are_what_the_generator_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With other random values: the same files, groups, cases and results."""

    def shape(value: object) -> object:
        if isinstance(value, dict):
            return {name: shape(inner) for name, inner in value.items()}
        if isinstance(value, list):
            return [shape(inner) for inner in value]
        return "hex" if isinstance(value, str) and len(value) >= 32 else value

    path = FOLDER / "generate_primitives.py"
    spec = importlib.util.spec_from_file_location("generate_primitives", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "__file__", str(tmp_path / "generate_primitives.py"))
    module.main()
    written = sorted(path.name for path in tmp_path.iterdir())
    assert written == ["hpke.json", "kem.json", "signatures.json"]
    for name in written:
        made, recorded = (json.loads((at / name).read_text()) for at in (tmp_path, FOLDER))
        assert shape(made) == shape(recorded)
        assert (FOLDER / name).stat().st_size < 250_000
