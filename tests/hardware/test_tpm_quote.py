"""Quotes: made in a TPM, checked without one, refused when anything about them is wrong."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from pqc_iiot.errors import AuthenticationError, PqcIiotError
from pqc_iiot.providers import Evidence
from pqc_iiot.providers.tpm_quote import verify

from .tpm_fixture import Swtpm

NONCE = bytes(range(32))


def quote(tpm: Swtpm, options: str = "", nonce: bytes = NONCE) -> Evidence:
    """A quote from a new device on this TPM."""
    provider = tpm.provider(options)
    evidence = provider.quote(nonce)
    provider.close()
    assert evidence is not None
    return evidence


def test_it_says_what_the_registers_hold(tpm: Swtpm) -> None:
    tpm.extend(7)
    evidence = quote(tpm, ";pcrs=0,7")
    facts = verify(evidence, NONCE)
    assert facts["PCRs"] == "0,7"
    assert facts["PCR 0"] == "00" * 32
    assert facts["PCR 7"] == hashlib.sha256(bytes(32) + b"\7" * 32).hexdigest()
    assert facts["assurance"].startswith("CLAIMED")
    assert verify(quote(tpm), NONCE)["PCRs"] == "0,1,2,3,4,5,6,7"
    many = ",".join(map(str, range(16)))
    assert verify(quote(tpm, f";pcrs={many}"), NONCE)["PCRs"] == many
    assert tpm.loaded() == (0, 0, 0)


def test_the_attestation_key_is_the_devices_own_and_stays_the_same(tpm: Swtpm) -> None:
    provider = tpm.provider()
    first = provider.quote(NONCE)
    assert first
    tpm.restart()
    again = tpm.provider(header=provider.header).quote(NONCE[::-1])
    assert again
    one, two = verify(first, NONCE), verify(again, NONCE[::-1])
    assert one["attestation key"] == two["attestation key"]
    assert int(two["reset count (offset)"]) - int(one["reset count (offset)"]) == 1
    assert verify(quote(tpm), NONCE)["attestation key"] != one["attestation key"]


def test_another_nonce_or_other_values_are_refused(tpm: Swtpm) -> None:
    evidence = quote(tpm, ";pcrs=0,7")
    with pytest.raises(AuthenticationError, match="another nonce"):
        verify(evidence, bytes(32))
    with pytest.raises(AuthenticationError, match="not those that were quoted"):
        verify(replace(evidence, more=(("pcr0", b"\1" * 32), ("pcr7", bytes(32)))), NONCE)
    with pytest.raises(AuthenticationError, match="is missing"):
        verify(replace(evidence, more=()), NONCE)
    with pytest.raises(AuthenticationError, match="kind"):
        verify(replace(evidence, kind="nitro"), NONCE)


def test_no_bit_of_it_can_be_changed(tpm: Swtpm) -> None:
    evidence = quote(tpm, ";pcrs=0")
    for part in ("key", "statement", "signature"):
        good: bytes = getattr(evidence, part)
        for position in range(len(good)):
            bad = bytearray(good)
            bad[position] ^= 1 << position % 8
            changed: dict[str, Any] = {part: bytes(bad)}
            with pytest.raises(AuthenticationError):
                verify(replace(evidence, **changed), NONCE)
            short: dict[str, Any] = {part: good[:position]}
            with pytest.raises(AuthenticationError):
                verify(replace(evidence, **short), NONCE)
        longer: dict[str, Any] = {part: good + b"\0"}
        with pytest.raises(AuthenticationError):
            verify(replace(evidence, **longer), NONCE)


def test_a_key_that_signs_anything_is_no_attestation_key(tpm: Swtpm) -> None:
    """Whoever has such a key makes up a statement with every register as it should be."""
    evidence = quote(tpm, ";pcrs=0")
    forger = ec.generate_private_key(ec.SECP256R1())
    numbers = forger.public_key().public_numbers()
    x, y = numbers.x.to_bytes(32, "big"), numbers.y.to_bytes(32, "big")
    area = evidence.key[2:-68]  # all but the point
    unrestricted = bytearray(area)
    unrestricted[5] ^= 0x01  # TPMA_OBJECT_RESTRICTED

    def forged(head: bytes) -> Evidence:
        key = head + b"\0\x20" + x + b"\0\x20" + y
        r, s = decode_dss_signature(forger.sign(evidence.statement, ec.ECDSA(hashes.SHA256())))
        signature = r.to_bytes(32, "big") + s.to_bytes(32, "big")
        return replace(evidence, key=len(key).to_bytes(2, "big") + key, signature=signature)

    with pytest.raises(AuthenticationError, match="could sign what a TPM did not state"):
        verify(forged(bytes(unrestricted)), NONCE)
    # One that claims to be restricted is told from the device's by its name alone.
    facts = verify(forged(area), NONCE)
    assert facts["attestation key"] != verify(evidence, NONCE)["attestation key"]


def test_a_signature_over_something_else_is_no_quote(tpm: Swtpm) -> None:
    """The attestation key certifies other things, too: none of them passes for a quote."""
    from pqc_iiot.providers.tpm_device import session
    from pqc_iiot.providers.tpm_keys import raw_signature

    provider: Any = tpm.provider(";pcrs=0")
    evidence = provider.quote(NONCE)
    stored, storage, auth = provider._attestation, provider._storage, provider._auth

    def other(esys: Any) -> tuple[bytes, bytes]:
        with stored.loaded(esys, storage, auth) as key, session(esys) as authorised:
            attest, signature = esys.get_time(
                key, NONCE, session1=esys_password(), session2=authorised
            )
        return bytes(attest), raw_signature(signature)

    def esys_password() -> Any:
        from tpm2_pytss.constants import ESYS_TR

        return ESYS_TR.PASSWORD

    statement, signature = provider._device.run("asking the time", other)
    with pytest.raises(AuthenticationError, match="no TPM made this statement, or it is another"):
        verify(replace(evidence, statement=statement, signature=signature), NONCE)


def test_a_machine_without_a_tpm_and_without_the_extra_verifies(tpm: Swtpm) -> None:
    evidence = quote(tpm, ";pcrs=0,7")
    program = f"""
import sys
sys.modules["tpm2_pytss"] = None  # importing it fails
from pqc_iiot.providers import Evidence
from pqc_iiot.providers.tpm_quote import verify
print(verify({evidence!r}, {NONCE!r})["PCRs"])
"""
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert result.stdout == "0,7\n"


def test_bytes_that_are_no_evidence_raise_nothing_else() -> None:
    for size in range(80):
        for filler in (b"\0", b"\xff", b"\0\x23\0\x0b"):
            blob = (filler * size)[:size]
            with pytest.raises(PqcIiotError):
                verify(Evidence("tpm2", blob, blob, blob), NONCE)
