"""A session's initiator and packets without our code: written from docs/sessions.md, RFC 9528
and the drafts of the KEMs, on cbor2, pyca and PQClean's round-3 Falcon."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

import cbor2
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec, mlkem, x25519
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from foreign import SIGNATURES

STEP, AHEAD = 1 << 14, 2


def bstr(value: bytes) -> bytes:
    return cbor2.dumps(value, canonical=True)


def sha384(*parts: bytes) -> bytes:
    return hashlib.sha384(b"".join(parts)).digest()


def expand(prk: bytes, info: bytes, length: int) -> bytes:
    return HKDFExpand(SHA384(), length, info).derive(prk)


def kdf(prk: bytes, label: int, context: bytes, length: int) -> bytes:
    """EDHOC_KDF, RFC 9528 section 4.1.2."""
    return expand(prk, cbor2.dumps(label) + bstr(context) + cbor2.dumps(length), length)


class KemKey:
    """An ephemeral KEM key of a suite from its seed."""

    def __init__(self, suite: int, seed: bytes) -> None:
        if suite in (1, 2):  # draft-ietf-hpke-pq: the seed is expanded
            seed = hashlib.shake_256(seed).digest(64 + (32 if suite == 1 else 48))
        small = suite in (1, 3)
        kind = mlkem.MLKEM768PrivateKey if small else mlkem.MLKEM1024PrivateKey
        self.pq: Any = kind.from_seed_bytes(seed[:64])
        self.size = 1088 if small else 1568
        self.public = self.pq.public_key().public_bytes_raw()
        self.suite, self.dh_public = suite, b""
        if suite == 1:
            self.dh: Any = x25519.X25519PrivateKey.from_private_bytes(seed[64:])
            self.dh_public = self.dh.public_key().public_bytes_raw()
        elif suite == 2:
            self.dh = ec.derive_private_key(int.from_bytes(seed[64:], "big"), ec.SECP384R1())
            self.dh_public = self.dh.public_key().public_bytes(
                Encoding.X962, PublicFormat.UncompressedPoint
            )
        self.public += self.dh_public
        self.ciphertext_size = self.size + len(self.dh_public)

    def decapsulate(self, ciphertext: bytes) -> bytes:
        """X-Wing, and the same construction with P-384: SHA3-256 over everything."""
        pq, dh = ciphertext[: self.size], ciphertext[self.size :]
        secret: bytes = self.pq.decapsulate(pq)
        if self.suite == 1:
            shared = self.dh.exchange(x25519.X25519PublicKey.from_public_bytes(dh))
            label = b"\\.//^\\"
        elif self.suite == 2:
            point = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP384R1(), dh)
            shared, label = self.dh.exchange(ec.ECDH(), point), b"MLKEM1024-P384"
        else:
            return secret
        return hashlib.sha3_256(secret + shared + dh + self.dh_public + label).digest()


@dataclass
class Party:
    """One side's credential and signature key."""

    id_cred: bytes
    cred: bytes
    public_key: bytes
    sig_id: int

    def check(self, th: bytes, mac: bytes, signature: bytes) -> None:
        """Sections 5.3.2 and 5.4.2: M_x, and the signature over it."""
        structure = cbor2.dumps(["Signature1", self.id_cred, bstr(th) + self.cred, mac])
        assert SIGNATURES[self.sig_id][1](self.public_key, structure, signature)


@dataclass
class Handshake:
    """What follows from four messages and the initiator's ephemeral key. Every deviation
    fails an assertion, or raises whatever a library raises."""

    suite: int
    key: KemKey
    initiator: Party
    responder: Party
    c_i: bytes
    messages: list[bytes]
    c_r: bytes = field(init=False)
    prk_out: bytes = field(init=False)

    def __post_init__(self) -> None:
        message_1, message_2, message_3, message_4 = self.messages
        assert message_1 == b"".join(
            cbor2.dumps(each) for each in (0, -23 - self.suite, self.key.public, self.c_i)
        )
        both = cbor2.loads(message_2)
        assert message_2 == bstr(both)
        g_y, ciphertext_2 = both[: self.key.ciphertext_size], both[self.key.ciphertext_size :]
        th_2 = sha384(bstr(g_y), bstr(sha384(message_1)))
        self.prk = self._extract(th_2, self.key.decapsulate(g_y))
        keystream = kdf(self.prk, 0, th_2, len(ciphertext_2))
        plaintext_2 = bytes(a ^ b for a, b in zip(ciphertext_2, keystream, strict=True))
        self.c_r, kid, signature_2 = self._sequence(plaintext_2, 3)
        assert self.responder.id_cred == cbor2.dumps({4: kid})
        context_2 = bstr(self.c_r) + self.responder.id_cred + bstr(th_2) + self.responder.cred
        mac_2 = kdf(self.prk, 2, context_2, 48)
        self.responder.check(th_2, mac_2, signature_2)
        th_3 = sha384(bstr(th_2), plaintext_2, self.responder.cred)
        plaintext_3 = self._open(3, 4, th_3, message_3)
        kid, signature_3 = self._sequence(plaintext_3, 2)
        assert self.initiator.id_cred == cbor2.dumps({4: kid})
        context_3 = self.initiator.id_cred + bstr(th_3) + self.initiator.cred
        mac_3 = kdf(self.prk, 6, context_3, 48)
        self.initiator.check(th_3, mac_3, signature_3)
        th_4 = sha384(bstr(th_3), plaintext_3, self.initiator.cred)
        assert self._open(8, 9, th_4, message_4) == b""
        self.prk_out = kdf(self.prk, 7, th_4, 48)

    @staticmethod
    def _extract(salt: bytes, secret: bytes) -> bytes:
        mac = HMAC(salt, SHA384())
        mac.update(secret)
        return mac.finalize()

    @staticmethod
    def _sequence(plaintext: bytes, count: int) -> list[bytes]:
        """So many byte strings, one after the other, and nothing else."""
        items: tuple[bytes, ...] = cbor2.loads(bytes((0x80 | count,)) + plaintext)
        assert b"".join(map(bstr, items)) == plaintext
        return list(items)

    def _open(self, key: int, iv: int, th: bytes, message: bytes) -> bytes:
        sealed = cbor2.loads(message)
        assert message == bstr(sealed)
        cipher = AESGCM(kdf(self.prk, key, th, 32))
        return cipher.decrypt(kdf(self.prk, iv, th, 12), sealed, cbor2.dumps(["Encrypt0", b"", th]))

    def export(self, label: int, context: bytes, length: int) -> bytes:
        """EDHOC_Exporter, section 4.2.1."""
        return kdf(kdf(self.prk_out, 10, b"", 48), label, context, length)

    def update(self) -> None:
        """EDHOC_KeyUpdate with an empty context, appendix H."""
        self.prk_out = kdf(self.prk_out, 11, b"", 48)


class Packets:
    """One direction's packets: seals any number, opens with a naive set as its window."""

    def __init__(self, session_id: bytes, secret: bytes, window: int = 0) -> None:
        self.id, self.secret, self.window = session_id, secret, window
        self.taken: set[int] = set()
        self.steps = {0}

    def _key(self, step: int) -> tuple[AESGCM, bytes]:
        chain = self.secret
        for _ in range(step):
            chain = expand(chain, b"pqc-iiot packet ratchet", 60)[:48]
        mask = expand(chain, b"pqc-iiot packet ratchet", 60)[48:]
        return AESGCM(expand(chain, b"pqc-iiot packet key", 32)), mask

    def _cipher(self, number: int) -> tuple[AESGCM, bytes]:
        cipher, mask = self._key(number // STEP)
        return cipher, (int.from_bytes(mask, "big") ^ number).to_bytes(12, "big")

    @staticmethod
    def _bound(topic: str | None) -> bytes:
        return b"" if topic is None else bstr(topic.encode())

    def seal(self, number: int, topic: str | None, payload: bytes) -> bytes:
        """The packet with this number."""
        cipher, nonce = self._cipher(number)
        sealed = cipher.encrypt(nonce, payload, self._bound(topic))
        return b"\x01" + self.id + number.to_bytes(3, "big") + sealed

    def open(self, topic: str | None, packet: bytes) -> str:
        """What becomes of a packet."""
        number = int.from_bytes(packet[5:8], "big")
        step, highest = number // STEP, max(self.taken, default=-1)
        if packet[:5] != b"\x01" + self.id or number >> 20:
            return "invalid_frame"
        if number in self.taken or (number < highest and number <= highest - self.window):
            return "replay"
        newest = max(self.steps)
        if step > newest + AHEAD:
            return "invalid_frame"
        if step < newest and step not in self.steps:
            return "replay"  # its key was wiped
        cipher, nonce = self._cipher(number)
        try:
            cipher.decrypt(nonce, packet[8:], self._bound(topic))
        except InvalidTag:
            return "authentication_failed"
        self.taken.add(number)
        if step > newest:
            self.steps = {step} | ({newest} if step == newest + 1 else set())
        return "opened"
