"""Keys of a classical token: sealed under its AES key, or with halves that stay in it."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pkcs11
import pytest
from pkcs11 import Attribute, KeyType, MechanismFlag, ObjectClass
from pkcs11.exceptions import PKCS11Error
from pkcs11.mechanisms import Mechanism

from pqc_iiot import AuthenticationError, Node, PqcIiotError, ProviderError
from pqc_iiot._core import (
    KemPublicKey,
    Secret,
    SigPrivateKey,
    SigPublicKey,
    composite_message,
)
from pqc_iiot.errors import (
    CustodyTooLowError,
    IntegrityFailedError,
    KeyNotFoundError,
    ProviderInputError,
    UnavailableError,
)
from pqc_iiot.providers import (
    Assurance,
    Custody,
    Operation,
    SecurityProvider,
    open_provider,
)
from pqc_iiot.providers.keys import Keys, SplitKem, SplitSig
from pqc_iiot.providers.pkcs11_split import TokenEcdh, TokenEcdsa
from pqc_iiot.suites import SUITES, Suite, get_suite

from .pkcs11_fixture import PIN, SOFTHSM, Shim, SoftHsm

SPLIT = get_suite(6)


@pytest.fixture
def provider(softhsm: SoftHsm) -> Iterator[SecurityProvider]:
    """A new provider on the token."""
    provider = open_provider(softhsm.uri)
    yield provider
    provider.close()


@pytest.fixture
def session(softhsm: SoftHsm, provider: SecurityProvider) -> Iterator[pkcs11.Session]:
    """What another program that knows the PIN may do with the same token."""
    assert provider
    session = pkcs11.lib(str(SOFTHSM)).get_token(token_label="plant").open(rw=True)
    yield session
    with contextlib.suppress(PKCS11Error):  # where a test restarted the module
        session.close()


def exchange(suite: Suite, keys: object, again: object) -> None:
    """Keys work, and they are the same keys."""
    assert isinstance(keys, Keys)
    assert isinstance(again, Keys)
    public = KemPublicKey(suite.kem.id, keys.kem_public_key)
    enc, ciphertext = public.hpke_seal(b"i", b"a", b"m")
    assert again.decrypt(enc, b"i", b"a", ciphertext) == b"m"
    assert SigPublicKey(suite.sig.id, keys.sig_public_key).verify(b"m", again.sign(b"m"))
    with pytest.raises(AuthenticationError):
        again.decrypt(enc, b"i", b"b", ciphertext)


@pytest.mark.parametrize("suite", SUITES.values(), ids=lambda suite: str(suite.id))
def test_keys_work_and_come_back(suite: Suite, softhsm: SoftHsm) -> None:
    provider = open_provider(softhsm.uri)
    provider.require(suite, softhsm.custody[suite.id])
    keys, blob = provider.generate(suite)
    exchange(suite, keys, keys)
    assert keys.custody is softhsm.custody[suite.id]
    assert len(provider.header) <= 1024
    assert len(blob) <= 16384
    provider.close()
    softhsm.restart()
    again = open_provider(softhsm.uri, provider.header)
    exchange(suite, keys, again.load(suite, blob))
    again.close()


def test_nothing_more_is_claimed(provider: SecurityProvider) -> None:
    provider.require(SPLIT, Custody.SPLIT)
    for suite in SUITES.values():
        with pytest.raises(CustodyTooLowError, match="NATIVE") as caught:
            provider.require(suite, Custody.NATIVE)
        assert "SPLIT" in caught.value.hint or "SEALED" in caught.value.hint
    with pytest.raises(CustodyTooLowError):
        provider.require(get_suite(1), Custody.SPLIT)
    assert provider.assurance is Assurance.EMULATOR
    assert all(c.assurance is Assurance.EMULATOR for c in provider.capabilities())
    # A token's owner can set back whatever it stores, and nothing says which token it is.
    assert provider.counter() is None
    assert provider.quote(bytes(32)) is None
    assert not any(
        c.operation in (Operation.COUNTER, Operation.QUOTE) for c in provider.capabilities()
    )
    split = [c for c in provider.capabilities() if c.custody is Custody.SPLIT]
    assert all("reading it refused" in c.evidence for c in split)
    assert all(c.seconds is not None for c in split)


def test_an_algorithm_that_gives_wrong_results_is_not_claimed(shim: Shim) -> None:
    shim.tell("wrong")
    provider = open_provider(shim.uri)
    with pytest.raises(CustodyTooLowError):
        provider.require(SPLIT, Custody.SPLIT)
    keys, _ = provider.generate(SPLIT)
    assert (keys.kem_custody, keys.sig_custody) == (Custody.SPLIT, Custody.SEALED)
    exchange(SPLIT, keys, keys)


def test_probing_leaves_nothing_behind(provider: SecurityProvider, session: pkcs11.Session) -> None:
    before = {o[Attribute.ID] for o in session.get_objects()}
    provider.capabilities()
    assert {o[Attribute.ID] for o in session.get_objects()} == before
    assert len(before) == 1


# Extraction


def test_no_key_comes_out(provider: SecurityProvider, session: pkcs11.Session) -> None:
    provider.generate(SPLIT)
    private = list(session.get_objects({Attribute.CLASS: ObjectClass.PRIVATE_KEY}))
    secret = list(session.get_objects({Attribute.CLASS: ObjectClass.SECRET_KEY}))
    assert (len(private), len(secret)) == (2, 1)
    wrapping = session.generate_key(
        KeyType.AES, 256, capabilities=MechanismFlag.WRAP | MechanismFlag.UNWRAP
    )
    for key in private + secret:
        assert key[Attribute.SENSITIVE]
        assert key[Attribute.ALWAYS_SENSITIVE]
        assert not key[Attribute.EXTRACTABLE]
        assert key[Attribute.NEVER_EXTRACTABLE]
        assert key[Attribute.PRIVATE]
        for attempt in (
            lambda key=key: key[Attribute.VALUE],
            lambda key=key: wrapping.wrap_key(key, mechanism=Mechanism.AES_KEY_WRAP_PAD),  # type: ignore[attr-defined]
            lambda key=key: key.__setitem__(Attribute.EXTRACTABLE, True),
            lambda key=key: key.__setitem__(Attribute.SENSITIVE, False),
            lambda key=key: key.copy({Attribute.EXTRACTABLE: True, Attribute.TOKEN: False}),
        ):
            with pytest.raises(PKCS11Error):
                attempt()  # type: ignore[no-untyped-call]


def test_each_key_does_one_thing(provider: SecurityProvider, session: pkcs11.Session) -> None:
    provider.generate(SPLIT)
    uses = [
        sorted(
            name
            for name in ("SIGN", "DERIVE", "DECRYPT", "UNWRAP", "WRAP", "ENCRYPT")
            if name in ("SIGN", "DERIVE", "DECRYPT", "UNWRAP") and key[getattr(Attribute, name)]
        )
        for key in session.get_objects({Attribute.CLASS: ObjectClass.PRIVATE_KEY})
    ]
    assert sorted(uses) == [["DERIVE"], ["SIGN"]]


def test_keys_that_a_token_would_give_away_are_not_used(
    provider: SecurityProvider, session: pkcs11.Session
) -> None:
    _, blob = provider.generate(SPLIT)
    (key,) = session.get_objects({Attribute.CLASS: ObjectClass.PRIVATE_KEY, Attribute.SIGN: True})
    key_id = key[Attribute.ID]
    key.destroy()
    session.generate_keypair(
        KeyType.EC,
        id=key_id,
        store=True,
        public_template={Attribute.EC_PARAMS: bytes.fromhex("06082a8648ce3d030107")},
        private_template={Attribute.EXTRACTABLE: True, Attribute.SENSITIVE: False},
    )
    with pytest.raises(CustodyTooLowError):
        provider.load(SPLIT, blob)


# Stolen


def test_a_stolen_disk(softhsm: SoftHsm, tmp_path: Path) -> None:
    for suite in (3, 6):
        Node.create(tmp_path / f"d{suite}", name="d", suite=suite, provider=softhsm.uri).close()
    other = softhsm.other()
    stolen = tmp_path / "stolen"
    stolen.mkdir()
    shutil.move(softhsm.folder, tmp_path / "away")
    # What the URI in the stolen folder names is another token now, under the same label.
    shutil.move(other.folder, softhsm.folder)
    softhsm.write_pin(PIN)
    other.folder = softhsm.folder
    configured = softhsm.folder / "softhsm2.conf"
    configured.write_text(configured.read_text().replace("/other/", "/softhsm/"))
    softhsm.restart()
    for suite in (3, 6):
        shutil.copytree(tmp_path / f"d{suite}", stolen / f"d{suite}")
        with pytest.raises(KeyNotFoundError):
            Node.open(stolen / f"d{suite}")


def test_a_token_made_to_look_like_it(
    softhsm: SoftHsm, provider: SecurityProvider, session: pkcs11.Session
) -> None:
    sealed = provider.seal(b"p", Secret.random())
    (kept,) = session.get_objects({Attribute.CLASS: ObjectClass.SECRET_KEY})
    key_id = kept[Attribute.ID]
    other = softhsm.other()
    other.restart()
    theirs = pkcs11.lib(str(SOFTHSM)).get_token(token_label="plant")
    with theirs.open(rw=True, user_pin=PIN) as hostile:
        template = {Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False}
        hostile.generate_key(KeyType.AES, 256, id=key_id, store=True, template=template)
        with pytest.raises(IntegrityFailedError) as caught:
            open_provider(other.uri, provider.header)
        assert "another token" in caught.value.hint
    softhsm.restart()
    assert open_provider(softhsm.uri, provider.header).unseal(b"p", sealed)


def test_memory_and_disk_without_the_token_sign_and_open_nothing(
    provider: SecurityProvider,
) -> None:
    """The thief of a SPLIT device has everything that was ever in memory: the post-quantum
    halves. The device's classical halves are in the token."""
    keys, _ = provider.generate(SPLIT)
    assert isinstance(keys, Keys)
    assert isinstance(keys.kem, SplitKem)
    assert isinstance(keys.sig, SplitSig)
    public = SigPublicKey(SPLIT.sig.id, keys.sig_public_key)
    enc, sealed = KemPublicKey(SPLIT.kem.id, keys.kem_public_key).hpke_seal(b"", b"", b"m")
    recorded = keys.sign(b"recorded")

    falcon, half = keys.sig._falcon, keys.kem._key
    provider.close()  # the token is gone
    for use in (lambda: keys.sign(b"m"), lambda: keys.decrypt(enc, b"", b"", sealed)):
        with pytest.raises(ProviderError):
            use()  # type: ignore[no-untyped-call]
    own = SigPrivateKey.generate(SPLIT.sig.id)  # another key of both kinds
    forged = falcon.sign(composite_message(b"m"))
    for classical in (own.sign(b"m")[666:], recorded[666:], bytes(64)):
        assert not public.verify(b"m", forged + classical)
    assert public.verify(b"recorded", recorded)
    for _ in range(3):
        with pytest.raises(AuthenticationError):
            half.hpke_open_shared(enc, b"", b"", sealed, Secret.random(32))


# Input


def test_every_byte_of_header_blob_and_seal(softhsm: SoftHsm, provider: SecurityProvider) -> None:
    _, blob = provider.generate(SPLIT)
    sealed = provider.seal(b"p", Secret.random())
    for data, use in (
        (provider.header, lambda d: open_provider(softhsm.uri, d).load(SPLIT, blob)),
        (blob, lambda d: provider.load(SPLIT, d)),
        (sealed, lambda d: provider.unseal(b"p", d)),
    ):
        step = 1 if len(data) < 200 else 7
        edits = [data[:i] for i in range(0, len(data), step)] + [data + b"\0", b""]
        edits += [
            data[:i] + bytes([data[i] ^ 1]) + data[i + 1 :] for i in range(0, len(data), step)
        ]
        for edit in edits:
            with pytest.raises(PqcIiotError):
                use(edit)


def test_lengths_are_checked_before_the_token_is_asked(shim: Shim) -> None:
    provider = open_provider(shim.uri)
    keys, _ = provider.generate(SPLIT)
    assert isinstance(keys, Keys)
    assert isinstance(keys.kem, SplitKem)
    assert isinstance(keys.sig, SplitSig)
    ecdh, ecdsa = keys.kem._classical, keys.sig._classical
    assert isinstance(ecdh, TokenEcdh)
    assert isinstance(ecdsa, TokenEcdsa)
    shim.tell("gone")
    for length in (0, 64, 66, 1000):
        with pytest.raises(ProviderInputError):
            ecdh.agree(bytes(length))
        with pytest.raises(ProviderInputError):
            ecdsa.sign_digest(bytes(length))
    with pytest.raises(UnavailableError):
        ecdsa.sign_digest(bytes(32))
    shim.forget("gone")


def test_no_token_sees_a_point_off_the_curve(shim: Shim) -> None:
    provider = open_provider(shim.uri)
    keys, _ = provider.generate(SPLIT)
    enc, sealed = KemPublicKey(SPLIT.kem.id, keys.kem_public_key).hpke_seal(b"", b"", b"m")
    shim.tell("C_DeriveKey", 0x30)
    for point in (b"\4" + bytes(64), bytes(65), enc[-65:-1] + bytes([enc[-1] ^ 1])):
        with pytest.raises(AuthenticationError):
            keys.decrypt(enc[:-65] + point, b"", b"", sealed)
    with pytest.raises(UnavailableError):
        keys.decrypt(enc, b"", b"", sealed)


# What stays in the token


def objects(session: pkcs11.Session) -> int:
    """How many there are."""
    return len(list(session.get_objects()))


def test_what_is_not_needed_any_more_is_removed(
    provider: SecurityProvider, session: pkcs11.Session
) -> None:
    before = objects(session)
    keys, blob = provider.generate(SPLIT)
    assert objects(session) == before + 4
    provider.discard(SPLIT, blob)
    provider.discard(SPLIT, blob)
    assert objects(session) == before
    with pytest.raises(KeyNotFoundError):
        keys.sign(b"m")
    with pytest.raises(KeyNotFoundError):
        provider.load(SPLIT, blob)


def test_what_is_erased_opens_nothing(
    softhsm: SoftHsm, provider: SecurityProvider, session: pkcs11.Session
) -> None:
    provider.erase()
    provider.erase()
    assert objects(session) == 0
    with pytest.raises(KeyNotFoundError):
        open_provider(softhsm.uri, provider.header)


def test_keys_that_a_device_retires_are_removed(
    softhsm: SoftHsm, session: pkcs11.Session, tmp_path: Path
) -> None:
    with Node.create(tmp_path / "d", name="d", suite=6, provider=softhsm.uri) as device:
        before = objects(session)
        device.rotate()
        assert objects(session) == before + 4
        device.retire()
        assert objects(session) == before


def test_half_a_key_set_leaves_nothing_behind(
    provider: SecurityProvider, session: pkcs11.Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: object) -> None:
        raise UnavailableError("the token went away")

    before = objects(session)
    monkeypatch.setattr(type(provider), "make_ecdsa", fail)
    with pytest.raises(UnavailableError):
        provider.generate(SPLIT)
    assert objects(session) == before


def test_no_shared_secret_stays_in_the_token(
    provider: SecurityProvider, session: pkcs11.Session
) -> None:
    keys, _ = provider.generate(SPLIT)
    before = objects(session)
    for _ in range(10):
        exchange(SPLIT, keys, keys)
    assert objects(session) == before
