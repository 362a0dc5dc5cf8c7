"""Where secrets are on their way to and from a TPM, and afterwards: in the clear on no bus,
in locked memory, and nowhere else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from pqc_iiot._core import Secret
from pqc_iiot.providers import open_provider

from .memory import AGREE, PROGRAM, places
from .test_tpm_sealing import private_file
from .tpm_fixture import Swtpm, decoded
from .tpm_proxy import Proxy

AUTH_SIZE = KEK_SIZE = 32


def unsealed(tpm: Swtpm, header: bytes, owner: bytes = b"", pin: bytes = b"") -> bytes:
    """The sealed content, as a program of the same machine gets it: 64 bytes."""
    from tpm2_pytss.constants import ESYS_TR, TPM2_ALG, TPM2_SE
    from tpm2_pytss.types import TPM2B_PRIVATE, TPM2B_PUBLIC, TPMT_SYM_DEF

    from pqc_iiot.providers.tpm_objects import storage_template

    _, _, private, public, *_ = decoded(header)
    with tpm.esapi() as esys:
        esys.tr_set_auth(ESYS_TR.OWNER, owner)
        parent, *_ = esys.create_primary(None, storage_template(), ESYS_TR.OWNER)
        parts = TPM2B_PRIVATE.unmarshal(private)[0], TPM2B_PUBLIC.unmarshal(public)[0]
        handle = esys.load(parent, *parts)
        session = esys.start_auth_session(
            ESYS_TR.NONE, ESYS_TR.NONE, TPM2_SE.POLICY,
            TPMT_SYM_DEF(algorithm=TPM2_ALG.NULL), TPM2_ALG.SHA256,
        )  # fmt: skip
        esys.tr_set_auth(handle, pin)
        esys.policy_auth_value(session)
        content = esys.unseal(handle, session1=session)
        for each in (session, handle, parent):
            esys.flush_context(each)
        return bytes(content)


def test_the_key_encryption_key_is_in_locked_memory_only(tpm: Swtpm) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, tpm.uri],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as maker:  # fmt: skip
        assert maker.stdout
        assert maker.stdin
        header = maker.stdout.readline().strip()
        content = unsealed(tpm, bytes.fromhex(header))
        assert len(content) == KEK_SIZE + AUTH_SIZE
        # The authorisation is in native memory while the device is open, which shows that the
        # search finds things; the key is not.
        auth = content[KEK_SIZE:]
        assert places(maker.pid, auth)
        for half in (content[:16], content[16:KEK_SIZE]):
            assert places(maker.pid, half) == []
        maker.communicate("\n\n")
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, tpm.uri, header],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as opener:  # fmt: skip
        assert opener.stdout
        assert opener.stdin
        for said in (header, "ready"):  # at once after unsealing, and after some use
            assert opener.stdout.readline().strip() == said
            assert places(opener.pid, auth)
            for half in (content[:16], content[16:KEK_SIZE]):
                assert places(opener.pid, half) == []
            opener.stdin.write("\n")
            opener.stdin.flush()


def test_the_secret_that_two_keys_agree_on_is_in_locked_memory_only(tpm: Swtpm) -> None:
    peer = ec.generate_private_key(ec.SECP256R1())
    point = peer.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    with subprocess.Popen(
        [sys.executable, "-c", AGREE, tpm.uri],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as program:  # fmt: skip
        assert program.stdout
        assert program.stdin
        own = bytes.fromhex(program.stdout.readline())
        program.stdin.write(f"{point.hex()}\n")
        program.stdin.flush()
        assert program.stdout.readline() == "ready\n"
        public = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), own)
        share = peer.exchange(ec.ECDH(), public)
        assert places(program.pid, own[1:33])
        for half in (share[:16], share[16:]):
            assert places(program.pid, half) == []
        program.communicate("\n")


def test_nothing_secret_goes_over_the_bus_in_the_clear(tpm: Swtpm, tmp_path: Path) -> None:
    """Whoever listens between processor and TPM hears neither keys nor authorisations."""
    from tpm2_pytss.constants import ESYS_TR

    owner, pin = b"the owner's password", b"correct horse battery staple"
    with tpm.esapi() as esys:
        esys.hierarchy_change_auth(ESYS_TR.OWNER, owner)
    options = ""
    for name, content in (("owner-auth-file", owner), ("pin-file", pin)):
        path = private_file(tmp_path / name, content.decode())
        options += f";{name}={path}"
    proxy = Proxy(tpm)
    maker: Any = open_provider(proxy.uri + options)
    maker.counter().increment()
    provider: Any = open_provider(proxy.uri + options, maker.header)
    ecdh, _ = provider.make_ecdh()
    peer = ec.generate_private_key(ec.SECP256R1())
    point = peer.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    share = peer.exchange(
        ec.ECDH(), ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), ecdh.public_key)
    )
    assert ecdh.agree(point).mac(b"x") == Secret.take(bytearray(share)).mac(b"x")
    provider.make_ecdsa()[0].sign_digest(bytes(32))
    provider.quote(bytes(32))
    provider.counter().increment()
    provider.erase()
    heard = bytes(proxy.heard)
    proxy.close()
    auth = provider._auth.native
    content = unsealed(tpm, maker.header, owner, pin)
    assert content[KEK_SIZE:] == bytes(auth)
    assert point[1:33] in heard  # it does listen
    for secret in (owner, pin, content[:KEK_SIZE], content[KEK_SIZE:], share):
        for part in (secret[:12], secret[-12:]):
            assert part not in heard
