"""Writes kem.json, signatures.json and hpke.json: what the primitives must do.

    python vectors/generate_primitives.py

KEM keys are made from the fixed seeds below. Encapsulation and signing are random, so each
run records other bytes; what they mean stays the same. The tests check the files against
other implementations too. README.md describes their form.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from pqc_iiot import primitives
from pqc_iiot._core import SigPrivateKey
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
from pqc_iiot.suites import Kem, Sig

SEEDS = {
    ML_KEM_768: bytes(range(64)),
    ML_KEM_1024: bytes(range(64, 128)),
    ML_KEM_768_X25519: bytes(range(128, 160)),
    ML_KEM_768_P256: bytes(range(192, 224)),
    ML_KEM_1024_P384: bytes(range(160, 192)),
}
SIGNATURES = (FALCON_512, FALCON_1024, FALCON_512_ECDSA_P256, ML_DSA_65, ML_DSA_87)
MESSAGE = b"line1/temperature 21.5"

Case = dict[str, object]


def flipped(data: bytes, at: int, bit: int = 0) -> bytes:
    """The same bytes with one bit changed."""
    at %= len(data)
    return data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]


def case(
    comment: str, inputs: Mapping[str, bytes], name: str, call: Callable[..., object], *args: object
) -> Case:
    """What a case shows, its inputs, and what `call` gives as `name`, or its error's code."""
    made: Case = {"comment": comment, **{key: value.hex() for key, value in inputs.items()}}
    try:
        result = call(*args)
    except PqcIiotError as error:
        return made | {"error": error.code}
    return made | {name: result.hex() if isinstance(result, bytes) else result}


def bad_points(kem: Kem, encoded: bytes) -> Iterator[tuple[str, bytes]]:
    """A hybrid's public key or ciphertext with a classical half that must be refused."""
    if kem == ML_KEM_768_X25519:
        yield "X25519 point of small order", encoded[:-32] + bytes(32)
    if kem == ML_KEM_768_P256:
        yield "P-256 point off the curve", flipped(encoded, -1)
    if kem == ML_KEM_1024_P384:
        yield "P-384 point off the curve", flipped(encoded, -1)


def kem_cases(kem: Kem, seed: bytes) -> Case:
    """A key from its seed, shared secrets, implicit rejection, and what is refused."""
    public_key = primitives.public_key(kem, seed)
    ciphertext, secret = primitives.encapsulate(kem, public_key)
    ciphertexts = [
        ("valid", ciphertext),
        ("changed: another secret, no error", flipped(ciphertext, 5)),
        *bad_points(kem, ciphertext),
    ]
    public_keys = [
        ("coefficient not below the modulus", b"\xff\xff\xff" + public_key[3:]),
        *bad_points(kem, public_key),
    ]
    if kem == ML_KEM_768:
        ciphertexts += [("too short", ciphertext[:-1]), ("too long", ciphertext + b"\0")]
        public_keys += [("too short", public_key[:-1]), ("too long", public_key + b"\0")]
    opened = [
        case(comment, {"ciphertext": data}, "shared_secret",
             primitives.decapsulate, kem, seed, data)
        for comment, data in ciphertexts
    ]  # fmt: skip
    refused = [
        case(comment, {"public_key": data}, "ciphertext", primitives.encapsulate, kem, data)
        for comment, data in public_keys
    ]
    assert opened[0]["shared_secret"] == secret.hex()
    assert all("error" in made for made in refused)
    return {
        "kem": kem.name,
        "kem_id": kem.id,
        "seed": seed.hex(),
        "public_key": public_key.hex(),
        "decapsulate": opened,
        "encapsulate": refused,
    }


def minus_zero(signature: bytes, degree: int) -> bytes | None:
    """A Falcon signature with a coefficient 0 written as -0, which would mean the same.

    After header and nonce each coefficient has a sign, seven low bits and, in unary, the
    high ones (Falcon's specification, section 3.11.2).
    """
    bits = "".join(f"{byte:08b}" for byte in signature[41:])
    at = 0
    for _ in range(degree):
        end = bits.index("1", at + 8) + 1
        if bits[at:end] == "000000001":
            return flipped(signature, 41 + at // 8, 7 - at % 8)
        at = end
    return None


def falcon_changes(key: SigPrivateKey, degree: int) -> Iterator[tuple[str, bytes]]:
    """What must not verify, by the parts of a padded signature."""
    signature = key.sign(MESSAGE)
    yield "header of another degree", flipped(flipped(signature, 0, 0), 0, 1)
    yield "header of the constant-time encoding", flipped(flipped(signature, 0, 5), 0, 6)
    yield "changed nonce", flipped(signature, 1)
    yield "changed coefficient", flipped(signature, 50)
    yield "padding that is not zero", flipped(signature, -1)
    yield "without its padding", signature.rstrip(b"\0")
    while not (changed := minus_zero(key.sign(MESSAGE), degree)):
        pass  # One signature in three has no coefficient 0.
    yield "a coefficient 0 written as -0", changed


def ml_dsa_changes(key: SigPrivateKey) -> Iterator[tuple[str, bytes]]:
    """What must not verify, by the parts of a signature (FIPS 204 section 7.2)."""
    signature = key.sign(MESSAGE)
    yield "changed challenge", flipped(signature, 0)
    yield "changed response", flipped(signature, 64)
    yield "changed hint", flipped(signature, -1)


def composite_changes(key: SigPrivateKey) -> Iterator[tuple[str, bytes]]:
    """What must not verify, by the halves of a signature."""
    signature, other = key.sign(MESSAGE), key.sign(b"another message")
    yield "changed Falcon half", flipped(signature, 50)
    yield "changed ECDSA half", flipped(signature, -1)
    yield "Falcon half of another message", other[:666] + signature[666:]
    yield "ECDSA half of another message", signature[:666] + other[666:]
    yield "no Falcon half", bytes(666) + signature[666:]
    yield "no ECDSA half", signature[:666] + bytes(64)


def signature_cases(sig: Sig) -> Case:
    """Signatures that verify, and those that must not."""
    key, other = SigPrivateKey.generate(sig.id), SigPrivateKey.generate(sig.id)
    signature = key.sign(MESSAGE)
    signatures = [
        ("valid", MESSAGE, signature),
        ("valid, empty message", b"", key.sign(b"")),
        ("another message", b"another message", signature),
        ("another key", MESSAGE, other.sign(MESSAGE)),
        ("too short", MESSAGE, signature[:-1]),
    ]
    if sig in (ML_DSA_65, ML_DSA_87):
        changes = ml_dsa_changes(key)
    elif sig == FALCON_512_ECDSA_P256:
        changes = composite_changes(key)
    else:
        changes = falcon_changes(key, 512 if sig == FALCON_512 else 1024)
    signatures += [(comment, MESSAGE, changed) for comment, changed in changes]
    cases = [
        case(comment, {"message": message, "signature": candidate}, "valid",
             primitives.verify, sig, key.public_key, message, candidate)
        for comment, message, candidate in signatures
    ]  # fmt: skip
    assert all(made["valid"] == str(made["comment"]).startswith("valid") for made in cases)
    return {
        "signature": sig.name,
        "sig_id": sig.id,
        "public_key": key.public_key.hex(),
        "verify": cases,
    }


def hpke_cases(kem: Kem, seed: bytes) -> Case:
    """Messages of a suite's HPKE, and the changes that must be noticed."""
    suite = (kem, Kdf.SHAKE256, Aead.AES_256_GCM)
    public_key = primitives.public_key(kem, seed)

    def seal(info: bytes, aad: bytes, plaintext: bytes) -> dict[str, bytes]:
        enc, ciphertext = primitives.hpke_seal(
            suite, public_key, info=info, aad=aad, plaintext=plaintext
        )
        return {"enc": enc, "info": info, "aad": aad, "ciphertext": ciphertext}

    def opened(values: Mapping[str, bytes]) -> bytes:
        info, aad, ciphertext = values["info"], values["aad"], values["ciphertext"]
        return primitives.hpke_open(
            suite, seed, values["enc"], info=info, aad=aad, ciphertext=ciphertext
        )

    good = seal(b"info", b"aad", MESSAGE)
    enc, ciphertext = good["enc"], good["ciphertext"]
    messages = [
        ("valid", good),
        ("valid, all empty", seal(b"", b"", b"")),
        ("changed enc", good | {"enc": flipped(enc, 0)}),
        ("changed ciphertext", good | {"ciphertext": flipped(ciphertext, 0)}),
        *((comment, good | {"enc": bad}) for comment, bad in bad_points(kem, enc)),
    ]
    if kem == ML_KEM_768_X25519:
        messages += [
            ("changed tag", good | {"ciphertext": flipped(ciphertext, -1)}),
            ("without its tag", good | {"ciphertext": ciphertext[:-16]}),
            ("no ciphertext", good | {"ciphertext": b""}),
            ("another info", good | {"info": b"Info"}),
            ("another aad", good | {"aad": b""}),
            ("enc too short", good | {"enc": enc[:-1]}),
        ]
    cases = [case(comment, values, "plaintext", opened, values) for comment, values in messages]
    assert all(("error" in made) != str(made["comment"]).startswith("valid") for made in cases)
    return {
        "kem": kem.name,
        "suite_id": [kem.id, int(Kdf.SHAKE256), int(Aead.AES_256_GCM)],
        "seed": seed.hex(),
        "public_key": public_key.hex(),
        "open": cases,
    }


def main() -> None:
    """Writes the files beside this one."""
    files = {
        "kem.json": [kem_cases(kem, seed) for kem, seed in SEEDS.items()],
        "signatures.json": [signature_cases(sig) for sig in SIGNATURES],
        "hpke.json": [hpke_cases(kem, seed) for kem, seed in SEEDS.items()],
    }
    for name, groups in files.items():
        Path(__file__).with_name(name).write_text(json.dumps(groups, indent=1) + "\n")


if __name__ == "__main__":
    main()
