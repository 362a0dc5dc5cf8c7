"""Who holds the keys, and how they are protected at rest."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from devices import PLAINTEXT
from pqc_iiot import InvalidInputError, PolicyError, PqcIiotError, ProviderError
from pqc_iiot._core import KemPublicKey, Secret, SigPublicKey
from pqc_iiot.cose import dumps
from pqc_iiot.errors import WrongPassphraseError
from pqc_iiot.providers import Custody, Operation, open_provider
from pqc_iiot.providers.passphrase import from_file
from pqc_iiot.suites import SUITES, Suite, get_suite

Source = Callable[[bool], Secret]


@pytest.fixture
def passphrase(tmp_path: Path) -> Callable[[str], Source]:
    """A source that gives this passphrase."""
    counter = itertools.count()

    def make(text: str) -> Source:
        file = tmp_path / f"passphrase{next(counter)}"
        file.touch(0o600)
        file.write_text(text)
        return from_file(file)

    return make


@pytest.mark.parametrize("suite", SUITES.values(), ids=lambda suite: str(suite.id))
def test_keys_work_and_come_back(suite: Suite) -> None:
    provider = open_provider(PLAINTEXT)
    keys, blob = provider.generate(suite)
    again = open_provider(PLAINTEXT, provider.header).load(suite, blob)
    for one in (keys, again):
        enc, ciphertext = KemPublicKey(suite.kem.id, one.kem_public_key).hpke_seal(b"", b"a", b"m")
        assert one.decrypt(enc, b"", b"a", ciphertext) == b"m"
        assert SigPublicKey(suite.sig.id, keys.sig_public_key).verify(b"m", one.sign(b"m"))
    assert again.kem_public_key == keys.kem_public_key
    assert (keys.custody, keys.suite) == (Custody.SOFTWARE, suite)
    assert len(provider.header) <= 1024
    assert len(blob) <= 16384


def test_what_it_claims() -> None:
    provider = open_provider(PLAINTEXT)
    for suite in SUITES.values():
        provider.require(suite, Custody.SOFTWARE)
        for custody in (Custody.SEALED, Custody.SPLIT, Custody.NATIVE):
            with pytest.raises(PolicyError, match=custody.name) as caught:
                provider.require(suite, custody)
            assert "SOFTWARE" in caught.value.hint
    assert provider.can(Operation.SIGN, "Falcon-512", Custody.SOFTWARE)
    assert not provider.can(Operation.SIGN, "RSA", Custody.SOFTWARE)
    assert not provider.can(Operation.COUNTER, "Falcon-512", Custody.SOFTWARE)
    assert all(capability.evidence for capability in provider.capabilities())


@pytest.mark.parametrize("uri", ["", "software", "tpm", "soft:", ":", "software:plain", "x:y:z"])
def test_unknown_providers(uri: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        open_provider(uri)
    assert "software:" in caught.value.hint


def test_a_passphrase_protects_the_keys(passphrase: Callable[[str], Source]) -> None:
    right, wrong = passphrase("correct horse\n"), passphrase("battery staple\n")
    provider = open_provider("software:", None, right)
    suite = get_suite(3)
    _, blob = provider.generate(suite)
    sealed = provider.seal(b"purpose", Secret.random())
    again = open_provider("software:", provider.header, right)
    assert again.load(suite, blob)
    assert len(again.unseal(b"purpose", sealed)) == 32
    other = open_provider("software:", provider.header, wrong)
    for open_ in (lambda: other.load(suite, blob), lambda: other.unseal(b"purpose", sealed)):
        with pytest.raises(WrongPassphraseError) as caught:
            open_()
        assert caught.value.hint
    with pytest.raises(WrongPassphraseError):
        again.unseal(b"other", sealed)
    with pytest.raises(WrongPassphraseError):
        again.load(get_suite(4), blob)


def test_no_passphrase_no_keys() -> None:
    with pytest.raises(ProviderError, match="none was given") as caught:
        open_provider("software:")
    assert "--passphrase-file" in caught.value.hint


def test_neither_mode_opens_as_the_other(passphrase: Callable[[str], Source]) -> None:
    source = passphrase("correct horse")
    plain = open_provider(PLAINTEXT)
    protected = open_provider("software:", None, source)
    with pytest.raises(ProviderError):
        open_provider("software:", plain.header, source)
    with pytest.raises(ProviderError):
        open_provider(PLAINTEXT, protected.header, source)


@pytest.mark.parametrize(
    "header",
    [
        [bytes(16), 1 << 20, 64, 16, b"x"],  # a gigabyte, for minutes
        [bytes(16), (1 << 64) - 1, 1, 1, b"x"],
        [bytes(16), 9, 1, 1, b"x"],
        [bytes(16), 8, 2, 1, b"x"],
        [bytes(15), 8, 1, 1, b"x"],
        [bytes(900), 8, 1, 1, b"x"],
        [bytes(16), -8, 1, 1, b"x"],
        [bytes(16), 8, 1, 1, b""],
        [bytes(16), 8, 1, 1, "x"],
        [bytes(16), 8, 1, 1],
        [],
        {},
        0,
    ],
    ids=lambda header: repr(header)[-30:],
)
def test_headers_that_are_none_of_ours(header: object) -> None:
    with pytest.raises(ProviderError):
        open_provider(PLAINTEXT, dumps(header))
    with pytest.raises(ProviderError):
        open_provider(PLAINTEXT, b"junk")


def test_a_protected_header_cannot_ask_for_more(passphrase: Callable[[str], Source]) -> None:
    header = dumps([bytes(16), 1 << 20, 64, 16, b""])
    with pytest.raises(ProviderError):
        open_provider("software:", header, passphrase("correct horse"))


def test_every_byte_of_header_blob_and_seal() -> None:
    provider, suite = open_provider(PLAINTEXT), get_suite(3)
    _, blob = provider.generate(suite)
    sealed = provider.seal(b"p", Secret.random())
    for data, use in (
        (provider.header, lambda d: open_provider(PLAINTEXT, d).load(suite, blob)),
        (blob, lambda d: provider.load(suite, d)),
        (sealed, lambda d: provider.unseal(b"p", d)),
    ):
        edits = [data[:i] for i in range(len(data))] + [data + b"\0", b""]
        edits += [data[:i] + bytes([data[i] ^ 1]) + data[i + 1 :] for i in range(len(data))]
        for edit in edits:
            with pytest.raises(PqcIiotError):
                use(edit)


def test_after_close() -> None:
    provider = open_provider(PLAINTEXT)
    keys, blob = provider.generate(get_suite(3))
    provider.close()
    provider.close()
    for use in (
        lambda: provider.generate(get_suite(3)),
        lambda: provider.load(get_suite(3), blob),
        lambda: provider.seal(b"p", Secret.random()),
    ):
        with pytest.raises(ProviderError, match="closed"):
            use()
    assert len(keys.sign(b"m")) == 666


def test_nothing_readable_is_stored(passphrase: Callable[[str], Source]) -> None:
    provider = open_provider("software:", None, passphrase("correct horse"))
    keys, blob = provider.generate(get_suite(3))
    assert b"correct horse" not in provider.header + blob
    assert keys.sig_public_key[:32] not in blob


@pytest.mark.parametrize("uri", ["nothing:", "software:else", "software"])
def test_a_uri_is_bad_input_where_it_was_typed_and_a_bad_file_where_it_was_stored(
    uri: str,
) -> None:
    with pytest.raises(InvalidInputError):
        open_provider(uri)
    with pytest.raises(ProviderError):
        open_provider(uri, b"a stored header")
