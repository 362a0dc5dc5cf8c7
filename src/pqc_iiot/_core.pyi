"""The Rust core: everything that touches a secret, as opaque handles and functions.

Arguments and results are `bytes`; lengths are in bytes. Algorithms are named by the
numbers of their registries: KEMs, KDFs and AEADs by HPKE's, signatures by COSE's.

| KEM | `kem_id` | seed | public key | ciphertext (`enc`) |
|---|---|---|---|---|
| ML-KEM-768 | 0x0041 | 64 | 1184 | 1088 |
| ML-KEM-1024 | 0x0042 | 64 | 1568 | 1568 |
| MLKEM768-P256 | 0x0050 | 32 | 1249 | 1153 |
| MLKEM1024-P384 | 0x0051 | 32 | 1665 | 1665 |
| MLKEM768-X25519 | 0x647a | 32 | 1216 | 1120 |

| signature | `sig_id` | public key | signature |
|---|---|---|---|
| Falcon-512 (round 3, padded) | -65601 | 897 | 666 |
| Falcon-1024 (round 3, padded) | -65602 | 1793 | 1280 |
| Falcon-512 and ECDSA-P256, both | -65603 | 962 | 730 |
| ML-DSA-65 | -49 | 1952 | 3309 |
| ML-DSA-87 | -50 | 2592 | 4627 |

Every function and method may raise `pqc_iiot.errors.SelfTestError` (see `self_test`)
and, where memory or randomness is needed, `ProviderError` if the operating system
refuses it. Arguments of another type raise `TypeError`.
"""

from typing import final

from .errors import PqcIiotError
from .suites import Suite

__all__ = [
    "EnvelopeHeader",
    "HandshakeInitiator",
    "HandshakeResponder",
    "KemPrivateKey",
    "KemPublicKey",
    "Secret",
    "Session",
    "SigPrivateKey",
    "SigPublicKey",
    "SplitKemPrivateKey",
    "argon2id",
    "composite_message",
    "ecdsa_verify",
    "envelope_aad",
    "envelope_frame",
    "envelope_plaintext",
    "envelope_protected",
    "envelope_to_be_signed",
    "fail_closed",
    "hpke_open",
    "hpke_open_with",
    "hpke_seal",
    "kem_decapsulate",
    "kem_encapsulate",
    "kem_public_key",
    "measure",
    "memory_stats",
    "merkle_follow",
    "merkle_root",
    "operations",
    "self_test",
]

@final
class HandshakeInitiator:
    """The side that begins a handshake (EDHOC, RFC 9528, method 0) with one peer in mind.

    Its ephemeral key and all that follows from it stay in locked memory. A step that
    raises changes nothing: the next message may still be the right one. A step out of
    order raises `InvalidInputError`.
    """

    def __new__(
        cls, suite: int, c_i: bytes, own: tuple[bytes, bytes], peer: tuple[bytes, bytes]
    ) -> HandshakeInitiator:
        """Make an ephemeral key and message 1.

        `suite` is the EDHOC cipher suite's number (-24 to -30), `c_i` the 4-byte id of this
        side's session; `own` and `peer` are ID_CRED_x (a COSE header map) and CRED_x (one
        CBOR item), encoded. Raises `InvalidInputError` for another suite or length.
        """

    @property
    def message_1(self) -> bytes:
        """Message 1 (section 5.2)."""

    @property
    def c_r(self) -> bytes:
        """The responder's 4-byte session id; zeros before message 2 was taken."""

    def read_message_2(self, message_2: bytes, key: SigPublicKey) -> bytes:
        """Take message 2 (section 5.3.3), if the peer's `key` signed it: what to sign.

        Raises `InvalidFrameError` or `AuthenticationError`.
        """

    def message_3(self, signature: bytes) -> bytes:
        """Make message 3 (section 5.4.2) with a signature over what `read_message_2` gave."""

    def read_message_4(self, message_4: bytes, window: int) -> Session:
        """Take message 4 (section 5.5.3): the session.

        `window` is how far behind the highest number a packet may come: 0 (strict order)
        to 4096. Raises `InvalidFrameError` or `AuthenticationError`.
        """

@final
class HandshakeResponder:
    """The side that answers; see `HandshakeInitiator`."""

    def __new__(
        cls, suite: int, message_1: bytes, c_r: bytes, own: tuple[bytes, bytes]
    ) -> HandshakeResponder:
        """Take message 1 (section 5.2.3) and encapsulate to its key.

        `c_r` is the 4-byte id of this side's session. Raises `InvalidFrameError` for
        anything but message 1 of `suite`, `InvalidInputError` for a key that is none.
        """

    @property
    def c_i(self) -> bytes:
        """The initiator's 4-byte session id: where the answer goes."""

    @property
    def to_be_signed(self) -> bytes:
        """What to sign for message 2."""

    def message_2(self, signature: bytes) -> bytes:
        """Make message 2 (section 5.3.2) with a signature over `to_be_signed`."""

    def read_message_3(
        self, message_3: bytes, peer: tuple[bytes, bytes], key: SigPublicKey, window: int
    ) -> tuple[bytes, Session]:
        """Take message 3 (section 5.4.3), if it is from `peer` and signed by its `key`:
        message 4 and the session.

        `window` as in `HandshakeInitiator.read_message_4`. Raises `InvalidFrameError` or
        `AuthenticationError`.
        """

@final
class Secret:
    """A symmetric secret in locked memory: usable, never readable, wiped on drop.

    `len()` gives its length. It has no `bytes()`, no content in `repr()`, and cannot
    be copied or pickled.
    """

    @staticmethod
    def random(length: int = 32) -> Secret:
        """Make a secret of `length` random bytes, 16 to 64.

        Raises `InvalidInputError` for another length.
        """

    @staticmethod
    def read_fd(fd: int, *, line: bool = False, limit: int = 1024) -> Secret:
        r"""Read a secret from a file descriptor straight into locked memory.

        Reads to the end or, with `line`, to the end of the line and not beyond. One
        line ending (`\n` or `\r\n`) at the end is left out. `limit` is the greatest
        length in bytes, up to 4096. The descriptor stays open; a signal handler that
        raises (Ctrl-C at a prompt) ends the reading.

        Raises `InvalidInputError` if the secret is empty or longer than `limit`, and
        `ProviderError` if the descriptor cannot be read.
        """

    @staticmethod
    def take(buffer: object) -> Secret:
        """Move a secret that native code left in `buffer` into locked memory.

        1 to 4096 bytes are copied and the buffer is wiped in place, also where this raises
        for their length. Any writable buffer will do (a `memoryview`, cffi's `buffer`); of a
        `bytes` object the caller must have made it just now and hold the only reference.
        Best effort: copies that the library below left elsewhere are not found.

        Raises `InvalidInputError` for another length, a buffer that cannot be written, or
        `bytes` that others hold or that are shorter than 2.
        """

    def __len__(self) -> int: ...
    def derive(self, info: bytes) -> Secret:
        """Derive a 32-byte secret for the purpose `info`: HKDF-Expand, SHA-256 (RFC 5869).

        This secret serves as the PRK: raises `InvalidInputError` if it is shorter than 32
        bytes or longer than 64.
        """

    def mac(self, data: bytes) -> bytes:
        """Authenticate `data`: HMAC-SHA-256 (RFC 2104), 32 bytes."""

    def verify_mac(self, data: bytes, tag: bytes) -> bool:
        """Tell in constant time whether `tag` is `mac(data)`; False for another length."""

    def encrypt(self, aad: bytes, data: bytes) -> bytes:
        """Encrypt `data` under a key from this 32-byte one, bound to `aad`: for what is no key.

        The key is the second block of HKDF-Expand with the info `pqc-iiot data`, so that
        nothing which was wrapped can be decrypted. Returns a random nonce (12), the AES-256-GCM
        ciphertext and its tag (16). Raises `InvalidInputError` if this secret is not 32 bytes.
        """

    def decrypt(self, aad: bytes, blob: bytes) -> bytes:
        """Undo `encrypt`; raises as `unwrap` does, without an upper length."""

    def wrap(self, aad: bytes, other: Secret) -> bytes:
        """Encrypt `other` under this 32-byte key, bound to `aad`.

        Returns a random nonce (12), the AES-256-GCM ciphertext (as long as the secret)
        and its tag (16). Raises `InvalidInputError` if this secret is not 32 bytes.
        """

    def unwrap(self, aad: bytes, blob: bytes) -> Secret:
        """Undo `wrap`.

        Raises `AuthenticationError` if key, `aad` or `blob` is not the one that it was
        wrapped with, and `InvalidInputError` for a length that `wrap` cannot give (less
        than 28 or more than 4124 bytes).
        """

    def wrap_kem(self, aad: bytes, key: KemPrivateKey) -> bytes:
        """Encrypt a KEM private key (its seed) under this 32-byte key, as `wrap` does."""

    def unwrap_kem(self, aad: bytes, kem_id: int, blob: bytes) -> KemPrivateKey:
        """Undo `wrap_kem`.

        Raises as `unwrap` does, and `InvalidInputError` if `kem_id` is unknown or not
        that of the key.
        """

    def wrap_sig(self, aad: bytes, key: SigPrivateKey) -> bytes:
        """Encrypt a signature private key under this 32-byte key, as `wrap` does."""

    def unwrap_sig(self, aad: bytes, sig_id: int, blob: bytes) -> SigPrivateKey:
        """Undo `wrap_sig`.

        Raises as `unwrap` does, and `InvalidInputError` if `sig_id` is unknown or not
        that of the key.
        """

@final
class KemPrivateKey:
    """A KEM private key in locked memory; no `bytes()`, no copy, no pickle."""

    @staticmethod
    def generate(kem_id: int) -> KemPrivateKey:
        """Make a key from fresh randomness and test it against itself.

        Raises `InvalidInputError` for an unknown `kem_id`.
        """

    @property
    def kem_id(self) -> int:
        """HPKE's KEM identifier."""

    @property
    def public_key(self) -> bytes:
        """The encoded public key (see the module's table for lengths)."""

    def hpke_open(self, enc: bytes, info: bytes, aad: bytes, ciphertext: bytes) -> bytes:
        """Open what `KemPublicKey.hpke_seal` made for this key: the plaintext.

        Raises `AuthenticationError` if anything differs from what was sealed (whatever
        it is), and `InvalidInputError` if `enc` has another length than this KEM's.
        """

@final
class KemPublicKey:
    """A KEM public key, validated and unpacked once for many uses."""

    def __new__(cls, kem_id: int, public_key: bytes) -> KemPublicKey:
        """Validate `public_key` (FIPS 203 section 7.2; SEC 1 for the P-384 point).

        Raises `InvalidInputError` for an unknown `kem_id`, a wrong length or bytes that
        are no key.
        """

    def hpke_seal(self, info: bytes, aad: bytes, plaintext: bytes) -> tuple[bytes, bytes]:
        """Encrypt to this key: HPKE base mode, single shot, SHAKE256 and AES-256-GCM.

        Returns `enc` (see the module's table) and the ciphertext, 16 bytes longer than
        `plaintext`. `info` is at most 65535 bytes. Source: RFC 9180 with the one-stage
        KDFs of draft-ietf-hpke-hpke and the KEMs of draft-ietf-hpke-pq. Raises
        `InvalidInputError` for a longer `info`, or a key whose X25519 half is a point
        of small order.
        """

@final
class SplitKemPrivateKey:
    """A hybrid KEM private key in two places; no `bytes()`, no copy, no pickle.

    The ML-KEM half is a handle here; the classical half is in a device that computes ECDH
    and gives its result away. The only `kem_id` so far is MLKEM768-P256 (0x0050).
    """

    def __new__(
        cls, kem_id: int, post_quantum: KemPrivateKey, classical_public_key: bytes
    ) -> SplitKemPrivateKey:
        """Join an ML-KEM-768 key and the device's public point (65 bytes, uncompressed).

        Raises `InvalidInputError` for another KEM on either side or a point off the curve.
        """

    @property
    def kem_id(self) -> int:
        """HPKE's KEM identifier."""

    @property
    def public_key(self) -> bytes:
        """The encoded public key of both halves (see the module's table)."""

    def classical_share_point(self, enc: bytes) -> bytes:
        """Give the point in `enc` (65 bytes, uncompressed) that the device needs.

        Raises `AuthenticationError` if it is not on the curve, so that no device ever sees
        it, and `InvalidInputError` if `enc` has another length.
        """

    def hpke_open_shared(
        self, enc: bytes, info: bytes, aad: bytes, ciphertext: bytes, share: Secret
    ) -> bytes:
        """Open as `KemPrivateKey.hpke_open` does, with the device's half of the secret.

        `share` is the x-coordinate that ECDH gave for `classical_share_point(enc)`: 32
        bytes, with leading zeros. A wrong one opens nothing. Raises as `hpke_open`, and
        `InvalidInputError` for another length of `share`.
        """

@final
class Session:
    """An established session: keys of both directions in locked memory, and counters.

    A packet is 24 bytes longer than its payload; `topic` is bound to it, not carried. A
    session takes less than 2 KiB. Not copied, not pickled; not for two threads at once.
    """

    def seal(self, topic: bytes, payload: bytes) -> bytes:
        """Make one packet.

        Raises `StateError` after 2^20 packets and when the session is closed.
        """

    def open(self, topic: bytes, packet: bytes) -> bytes:
        """Open a packet, once: its payload.

        Raises `InvalidFrameError` if it is no packet of this session, `ReplayError` if its
        number was seen or is too old, `AuthenticationError` if it is not genuine, and
        `StateError` after 2^20 of those or when the session is closed. Only the count of
        failures changes then.
        """

    def open_genuine(self, topic: bytes, packet: bytes) -> bytes | None:
        """Open a packet as `open` does; None where it is not genuine, so that a flood of
        forgeries raises nothing."""

    def seal_many(
        self, topics: bytes | list[bytes], payloads: list[bytes]
    ) -> list[bytes | PqcIiotError]:
        """Make a packet of each payload, all under one topic or each under its own; the
        error in place of a packet.

        Raises `InvalidInputError` unless there is one topic or as many as payloads.
        """

    def open_many(
        self, topics: bytes | list[bytes], packets: list[bytes]
    ) -> list[bytes | PqcIiotError | None]:
        """Open each packet, in order: payloads, None in place of one that is not genuine,
        and the error in place of one that is refused for another reason."""

    def received(self) -> tuple[int, int, bytes]:
        """Tell which packets were opened: one above the highest number, the lowest that
        can still be opened, and a bit for each of the last 512 numbers.

        Bit i (little endian) stands for the number i + 1 below the first value; zero bytes
        at the end are left out. Raises `StateError` when the session is closed.
        """

    def export(self, label: int, context: bytes, length: int) -> Secret:
        """Derive a secret of 1 to 64 bytes, the same on both sides (EDHOC_Exporter,
        section 4.2.1, after a key update as in appendix H)."""

    @property
    def sealed(self) -> int:
        """Packets made, up to 2^20."""

    @property
    def opened(self) -> int:
        """Packets opened."""

    @property
    def next_expected(self) -> int:
        """One above the highest number of a packet that was opened."""

    @property
    def failures(self) -> int:
        """Packets that were not genuine, up to 2^20."""

    @property
    def closed(self) -> bool:
        """Whether the keys were wiped."""

    def close(self) -> None:
        """Wipe the keys now; idempotent. Counters are 0 from then on."""

@final
class SigPrivateKey:
    """A signature private key in locked memory; no `bytes()`, no copy, no pickle."""

    @staticmethod
    def generate(sig_id: int) -> SigPrivateKey:
        """Make a key from fresh randomness and test it against itself.

        Raises `InvalidInputError` for an unknown `sig_id`.
        """

    @property
    def sig_id(self) -> int:
        """The COSE algorithm number."""

    @property
    def public_key(self) -> bytes:
        """The encoded public key (see the module's table for lengths)."""

    def sign(self, message: bytes) -> bytes:
        """Sign `message`, randomised (ML-DSA: hedged, pure, empty context).

        The result's length is in the module's table.
        """

@final
class SigPublicKey:
    """A signature public key, decoded once for many verifications."""

    def __new__(cls, sig_id: int, public_key: bytes) -> SigPublicKey:
        """Decode and validate `public_key`.

        Raises `InvalidInputError` for an unknown `sig_id`, a wrong length or bytes that
        are no key.
        """

    def verify(self, message: bytes, signature: bytes) -> bool:
        """Tell whether `signature` is one of `message` by this key; any bytes will do."""

def composite_message(message: bytes) -> bytes:
    """Give what both halves of Falcon-512 and ECDSA-P256 (-65603) sign for `message`.

    140 bytes: Prefix, label, an empty context and SHA-512 of the message, as in
    draft-ietf-lamps-pq-composite-sigs section 3. ECDSA hashes it with SHA-256, and its half
    of the signature is r || s. Falcon's half (666 bytes) comes first.
    """

def ecdsa_verify(point: bytes, message: bytes, signature: bytes) -> bool:
    """Tell whether `signature` (r || s, 64 bytes) is one of `message` by a P-256 key.

    ECDSA with SHA-256 (FIPS 186-5) by the key with this uncompressed point (65 bytes). Any
    bytes will do: those that are no point verify nothing.
    """

def argon2id(passphrase: Secret, salt: bytes, memory_kib: int, passes: int, lanes: int) -> Secret:
    """Make a 32-byte key from a passphrase: Argon2id version 1.3 (RFC 9106).

    `salt` is 16 to 64 bytes, `memory_kib` 8 to 1048576 (1 GiB) and at least 8 for each
    lane, `passes` 1 to 64, `lanes` 1 to 16. Raises `InvalidInputError` outside these.
    """

def kem_public_key(kem_id: int, seed: bytes) -> bytes:
    """Give the public key of the private key that `seed` stands for.

    Raises `InvalidInputError` for an unknown `kem_id` or a wrong length.
    """

def kem_encapsulate(kem_id: int, public_key: bytes) -> tuple[bytes, bytes]:
    """Encapsulate to `public_key`: the ciphertext and the 32-byte shared secret.

    Raises `InvalidInputError` for an unknown `kem_id`, a wrong length or bytes that are
    no key.
    """

def kem_decapsulate(kem_id: int, seed: bytes, ciphertext: bytes) -> bytes:
    """Give the 32-byte shared secret of `ciphertext` under the key of `seed`.

    A wrong ML-KEM ciphertext gives a secret that nobody has (implicit rejection, FIPS
    203 section 6.3). Raises `InvalidInputError` for an unknown `kem_id`, a wrong length
    or a hybrid's ciphertext whose classical half is no valid point.
    """

def hpke_seal(
    suite_id: tuple[int, int, int], public_key: bytes, info: bytes, aad: bytes, plaintext: bytes
) -> tuple[bytes, bytes]:
    """Encrypt in HPKE base mode, single shot: `enc` and the ciphertext with its tag.

    `suite_id` is (`kem_id`, `kdf_id`, `aead_id`). KDFs: HKDF-SHA256 (1), HKDF-SHA384
    (2), HKDF-SHA512 (3), SHAKE128 (0x10), SHAKE256 (0x11). AEADs: AES-128-GCM (1),
    AES-256-GCM (2), ChaCha20-Poly1305 (3). Raises `InvalidInputError` for an unknown
    number, a bad public key or, with a SHAKE, an `info` over 65535 bytes.
    """

def hpke_open(
    suite_id: tuple[int, int, int],
    seed: bytes,
    enc: bytes,
    info: bytes,
    aad: bytes,
    ciphertext: bytes,
) -> bytes:
    """Decrypt what `hpke_seal` made, with the key that `seed` stands for.

    Raises `AuthenticationError` if anything differs from what was sealed, and
    `InvalidInputError` for an unknown number or a wrong length of `seed` or `enc`.
    """

def hpke_open_with(
    kem_id: int, shared_secret: Secret, enc: bytes, info: bytes, aad: bytes, ciphertext: bytes
) -> bytes:
    """Open as `KemPrivateKey.hpke_open` does, where a token decapsulated `enc`.

    `shared_secret` is the KEM's, 32 bytes. Raises `AuthenticationError` if anything differs
    from what was sealed (also when it is the secret of another `enc`), and
    `InvalidInputError` for an unknown `kem_id` or a wrong length of either.
    """

def self_test() -> None:
    """Run the self-tests if they have not run yet.

    Raises `SelfTestError` if one failed, now or before, or after `fail_closed`.
    """

def fail_closed() -> None:
    """Refuse every operation of this process from now on; only a new process helps."""

def memory_stats() -> tuple[int, int, int]:
    """Describe the secret memory of this process.

    Returns the bytes locked in RAM, the bytes that the kernel refused to lock (see
    `RLIMIT_MEMLOCK`), and how often it has refused since the process started.
    """

def operations() -> list[str]:
    """Name the operations that `measure` knows."""

def measure(operation: str, samples: int, calls: int) -> list[float]:
    """Time one operation inside the core: `samples` means over `calls`, in nanoseconds.

    Raises `InvalidInputError` for an unknown operation.
    """

@final
class EnvelopeHeader:
    """What a frame says of itself in the clear; nothing of it is verified.

    `suite` is the recipient's. Key ids have 8 bytes; `protected` is the header that
    everything is bound to, as an encoded byte string.
    """

    def __new__(cls, frame: bytes, suites: dict[int, Suite]) -> EnvelopeHeader:
        """Take a frame apart; `suites` maps COSE algorithm numbers to suites.

        Raises `InvalidFrameError` for anything that is not a frame in deterministic
        encoding, or whose suite is not among `suites`.
        """

    @property
    def suite(self) -> Suite:
        """The recipient's suite."""

    @property
    def recipient(self) -> bytes:
        """The recipient's key id, 8 bytes."""

    @property
    def sender(self) -> bytes:
        """The sender's key id, 8 bytes."""

    @property
    def sequence(self) -> int:
        """The sender's number for this frame, 1 to 2^62 - 1."""

    @property
    def protected(self) -> bytes:
        """The protected header as an encoded byte string."""

    @property
    def enc_size(self) -> int:
        """Length of HPKE's encapsulated key, in bytes."""

    @property
    def enc(self) -> bytes:
        """HPKE's encapsulated key."""

    @property
    def ciphertext(self) -> bytes:
        """HPKE's ciphertext with its 16-byte tag."""

    def aad(self, context: bytes) -> bytes:
        """HPKE's aad for this frame in an encoded context (RFC 9052 section 5.3)."""

    def verify(
        self,
        key: SigPublicKey,
        recipient: bytes,
        sender: bytes,
        context: bytes,
        plaintext: bytes,
    ) -> bytes:
        """Return the payload of a decrypted frame if `key` signed it.

        `recipient` and `sender` are fingerprints of 32 bytes, `context` is encoded.
        Raises `AuthenticationError` for every failure.
        """

def merkle_root(hashes: bytes) -> bytes:
    """The root, 32 bytes, of the Merkle tree over hashes of 32 bytes each (RFC 9162, 2.1.1).

    They are hashes of leaves, or of subtrees of one size of which only the last may be
    smaller. Raises `InvalidInputError` for another length.
    """

def merkle_follow(log: bytes, sequence: int, last: bytes) -> tuple[int, bytes]:
    """How many bytes of an audit log follow record `sequence`, and their leaf hashes.

    `last` is that record's hash, 32 bytes. A line follows if it is complete and has the
    next `seq` and the hash of the line before as `prev`, which vouches for that line; its
    own content is vouched for by the next one only. One about a torn tail does not follow.
    Raises `InvalidInputError` for another length of `last` or a sequence beyond 64 bits.
    """

def envelope_protected(alg: int, recipient: bytes, sender: bytes, sequence: int) -> bytes:
    """Encode a protected header as a byte string; key ids have 8 bytes.

    Raises `InvalidInputError` for other sizes or an `alg` above -65537.
    """

def envelope_aad(protected: bytes, context: bytes) -> bytes:
    """Encode HPKE's aad (Enc_structure, RFC 9052 section 5.3)."""

def envelope_to_be_signed(
    protected: bytes, recipient: bytes, sender: bytes, context: bytes, payload: bytes
) -> bytes:
    """Encode what the sender signs (Sig_structure, RFC 9052 section 4.4)."""

def envelope_plaintext(payload: bytes, signature: bytes) -> bytes:
    """Encode the plaintext: a COSE_Sign1 without its tag."""

def envelope_frame(protected: bytes, enc: bytes, ciphertext: bytes) -> bytes:
    """Encode the whole frame."""
