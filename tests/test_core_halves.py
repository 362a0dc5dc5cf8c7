"""KEM keys of two halves, one of them in hardware: usable, never readable."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from mlkem768_p256 import CURVE, point_of
from pqc_iiot import _core
from pqc_iiot._core import (
    KemPrivateKey,
    KemPublicKey,
    Secret,
    SigPrivateKey,
    SigPublicKey,
    SplitKemPrivateKey,
)
from pqc_iiot.errors import AuthenticationError, InvalidInputError
from pqc_iiot.suites import (
    FALCON_512,
    ML_KEM_768,
    ML_KEM_768_P256,
    ML_KEM_768_X25519,
    Kem,
)


class TestHalves:
    """Keys whose classical half is elsewhere, here pyca's."""

    def test_a_message_opens_with_both_halves_only(self) -> None:
        half, curve = KemPrivateKey.generate(ML_KEM_768.id), ec.generate_private_key(CURVE)
        split = SplitKemPrivateKey(ML_KEM_768_P256.id, half, point_of(curve))
        public = KemPublicKey(ML_KEM_768_P256.id, split.public_key)
        enc, ciphertext = public.hpke_seal(b"info", b"aad", b"payload")

        def share(point: bytes) -> Secret:
            there = ec.EllipticCurvePublicKey.from_encoded_point(CURVE, point)
            return Secret.take(bytearray(curve.exchange(ec.ECDH(), there)))

        right = share(split.classical_share_point(enc))
        assert split.hpke_open_shared(enc, b"info", b"aad", ciphertext, right) == b"payload"
        for wrong in (Secret.random(), share(point_of(curve))):
            with pytest.raises(AuthenticationError):
                split.hpke_open_shared(enc, b"info", b"aad", ciphertext, wrong)
        other = SplitKemPrivateKey(
            ML_KEM_768_P256.id, KemPrivateKey.generate(ML_KEM_768.id), point_of(curve)
        )
        with pytest.raises(AuthenticationError):
            other.hpke_open_shared(enc, b"info", b"aad", ciphertext, right)
        with pytest.raises(InvalidInputError):
            split.hpke_open_shared(enc, b"info", b"aad", ciphertext, Secret.random(31))

    def test_a_device_never_sees_a_point_off_the_curve(self) -> None:
        half, curve = KemPrivateKey.generate(ML_KEM_768.id), ec.generate_private_key(CURVE)
        split = SplitKemPrivateKey(ML_KEM_768_P256.id, half, point_of(curve))
        enc, _ = KemPublicKey(split.kem_id, split.public_key).hpke_seal(b"", b"", b"")
        for bad in (enc[:-1] + bytes([enc[-1] ^ 1]), enc[:1088] + b"\x04" + bytes(64)):
            with pytest.raises(AuthenticationError):
                split.classical_share_point(bad)
        with pytest.raises(InvalidInputError):
            split.classical_share_point(enc[1:])

    @pytest.mark.parametrize("kem", [ML_KEM_768, ML_KEM_768_X25519], ids=lambda kem: kem.name)
    def test_other_kems_have_no_half_outside(self, kem: Kem) -> None:
        half = KemPrivateKey.generate(ML_KEM_768.id)
        with pytest.raises(InvalidInputError):
            SplitKemPrivateKey(kem.id, half, bytes(65))
        with pytest.raises(InvalidInputError):
            SplitKemPrivateKey(ML_KEM_768_P256.id, KemPrivateKey.generate(kem.id), bytes(65))

    def test_a_token_s_shared_secret_opens(self) -> None:
        seed = bytes(range(64))
        public = KemPublicKey(ML_KEM_768.id, _core.kem_public_key(ML_KEM_768.id, seed))
        enc, ciphertext = public.hpke_seal(b"info", b"aad", b"payload")
        secret = Secret.take(bytearray(_core.kem_decapsulate(ML_KEM_768.id, seed, enc)))
        found = _core.hpke_open_with(ML_KEM_768.id, secret, enc, b"info", b"aad", ciphertext)
        assert found == b"payload"
        for aad, secret_ in ((b"other", secret), (b"aad", Secret.random())):
            with pytest.raises(AuthenticationError):
                _core.hpke_open_with(ML_KEM_768.id, secret_, enc, b"info", aad, ciphertext)
        for kem_id, enc_, secret_ in (
            (ML_KEM_768.id, enc[1:], secret),
            (0x4242, enc, secret),
            (ML_KEM_768.id, enc, Secret.random(16)),
        ):
            with pytest.raises(InvalidInputError):
                _core.hpke_open_with(kem_id, secret_, enc_, b"info", b"aad", ciphertext)

    def test_both_halves_of_a_signature(self) -> None:
        falcon, curve = SigPrivateKey.generate(FALCON_512.id), ec.generate_private_key(CURVE)
        representative = _core.composite_message(b"message")
        r, s = decode_dss_signature(curve.sign(representative, ec.ECDSA(hashes.SHA256())))
        half = r.to_bytes(32, "big") + s.to_bytes(32, "big")
        assert _core.ecdsa_verify(point_of(curve), representative, half)
        assert not _core.ecdsa_verify(point_of(curve), b"message", half)
        assert not _core.ecdsa_verify(b"junk", representative, half)
        public = SigPublicKey(-65603, falcon.public_key + point_of(curve))
        signature = falcon.sign(representative) + half
        assert public.verify(b"message", signature)
        assert not public.verify(b"other", signature)
        assert not public.verify(b"message", falcon.sign(b"message") + half)
