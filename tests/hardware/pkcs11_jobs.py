"""What tests do in processes of their own: `pkcs11_jobs.py FUNCTION ARGUMENT...`."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pqc_iiot import AuthenticationError, Node, PqcIiotError
from pqc_iiot._core import KemPublicKey, SigPublicKey
from pqc_iiot.envelope import parse
from pqc_iiot.errors import CustodyTooLowError, ProviderInputError
from pqc_iiot.providers import Custody, SecurityProvider, open_provider
from pqc_iiot.providers.pkcs11_native import STANDARD
from pqc_iiot.providers.pkcs11_uri import parse_uri
from pqc_iiot.suites import SUITES, Suite, get_suite


def initialise_softokn(module: str, pin: str) -> None:
    """Gives a new NSS database its first PIN."""
    import pkcs11

    for slot in pkcs11.lib(module).get_slots(token_present=True):
        token = slot.get_token()
        if "Certificate DB" in token.label:
            with contextlib.closing(token.open(rw=True, so_pin="")) as session:
                session.init_pin(pin)


def open_only(uri: str) -> None:
    """Opens a provider."""
    open_provider(uri).close()
    print("opened")


def refused(uri: str, suite: str) -> None:
    """Prints the error that new keys of a provider give."""
    try:
        open_provider(uri).generate(get_suite(int(suite)))
    except PqcIiotError as error:
        print(type(error).__name__, error, error.hint)


def device_refused(folder: str) -> None:
    """Prints the error that opening a device gives."""
    try:
        Node.open(Path(folder))
    except PqcIiotError as error:
        print(error.code, error, error.hint)


def make_device(uri: str, folder: str, suite: str) -> None:
    """Makes a device."""
    Node.create(Path(folder), name="device", suite=int(suite), provider=uri).close()


def use_device(folder: str, peer: str) -> None:
    """Opens a device, which exchanges a message each way with a peer in software."""
    with Node.open(Path(folder)) as device, Node.open(Path(peer)) as other:
        device.peers.add_approved(other.bundle)
        other.peers.add_approved(device.bundle)
        assert other.open(device.seal(b"out", to="peer")).payload == b"out"
        assert device.open(other.seal(b"in", to="device")).payload == b"in"


def fork(uri: str) -> None:
    """What a child gets from its parent's keys, provider and module; the parent goes on."""
    provider = open_provider(uri)
    keys, _ = provider.generate(get_suite(6))
    child = os.fork()
    if not child:
        for use in (
            lambda: keys.sign(b"m"),
            lambda: provider.generate(get_suite(6)),
            lambda: open_provider(uri),
        ):
            try:
                use()
            except PqcIiotError as error:
                print(type(error).__name__, flush=True)
        provider.close()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    print(bool(keys.sign(b"m")))


def work(folder: str, peer: str) -> None:
    """A device that sends without end; each number is printed once the frame is there."""
    with Node.open(Path(folder)) as device, Node.open(Path(peer)) as other:
        device.peers.add_approved(other.bundle)
        other.peers.add_approved(device.bundle)
        while True:
            frame = device.seal(b"out", to="peer")
            print(parse(frame).sequence, flush=True)
            device.open(other.seal(b"in", to="device"))


def rotate(uri: str, folder: str) -> None:
    """A device that makes new keys without end."""
    with Node.create(Path(folder), name="device", suite=6, provider=uri) as device:
        print(0, flush=True)
        while True:
            print(device.rotate().serial, flush=True)


def custodies(uri: str) -> None:
    """Makes keys of every suite, uses them before and after a restart of the provider, and
    prints where they are."""
    provider = open_provider(uri)
    claims = {}
    for suite in SUITES.values():
        keys, blob = provider.generate(suite)
        again = open_provider(uri, provider.header)
        for used in (keys, again.load(suite, blob)):
            public = KemPublicKey(suite.kem.id, keys.kem_public_key)
            enc, sealed = public.hpke_seal(b"i", b"a", b"m")
            assert used.decrypt(enc, b"i", b"a", sealed) == b"m"
            assert SigPublicKey(suite.sig.id, keys.sig_public_key).verify(b"m", used.sign(b"m"))
        again.close()
        highest = max(c for c in Custody if provider_holds(provider, suite, c))
        claims[suite.id] = [keys.kem_custody.name, keys.sig_custody.name, highest.name]
        provider.discard(suite, blob)
    print(json.dumps(claims))


def provider_holds(provider: SecurityProvider, suite: Suite, custody: Custody) -> bool:
    """Whether it promises to keep keys of a suite in a custody."""
    try:
        provider.require(suite, custody)
    except CustodyTooLowError:
        return False
    return True


def extract(uri: str, suite: str) -> None:
    """Tries everything to get the private keys of a suite out of the token."""
    import pkcs11
    from pkcs11 import Attribute, KeyType, MechanismFlag, ObjectClass
    from pkcs11.mechanisms import Mechanism

    provider = open_provider(uri)
    provider.generate(get_suite(int(suite)))
    parsed = parse_uri(uri.partition(":")[2])
    token = pkcs11.lib(str(parsed.module)).get_token(token_label=parsed.token)
    session = token.open(rw=True)
    use = MechanismFlag.WRAP | MechanismFlag.UNWRAP
    copy = {Attribute.EXTRACTABLE: True, Attribute.SENSITIVE: False, Attribute.TOKEN: False}
    wrapping = session.generate_key(KeyType.AES, 256, capabilities=use)
    private = list(session.get_objects({Attribute.CLASS: ObjectClass.PRIVATE_KEY}))
    for key in private:
        assert key[Attribute.SENSITIVE]
        assert not key[Attribute.EXTRACTABLE]
        assert key[Attribute.NEVER_EXTRACTABLE]
        for attempt in (
            lambda key=key: key[Attribute.VALUE],
            lambda key=key: key[Attribute.SEED],
            lambda key=key: wrapping.wrap_key(key, mechanism=Mechanism.AES_KEY_WRAP_PAD),  # type: ignore[attr-defined]
            lambda key=key: wrapping.wrap_key(key, mechanism=Mechanism.AES_KEY_WRAP_KWP),  # type: ignore[attr-defined]
            lambda key=key: key.__setitem__(Attribute.EXTRACTABLE, True),
            lambda key=key: key.__setitem__(Attribute.SENSITIVE, False),
            lambda key=key: key.copy(copy)[Attribute.VALUE],
        ):
            with contextlib.suppress(pkcs11.exceptions.PKCS11Error):
                attempt()  # type: ignore[no-untyped-call]
                print("out", end=" ")
    print(len(private))


def misuse(uri: str, suite: str) -> None:
    """Gives a token's KEM key what it must not take."""
    found = get_suite(int(suite))
    keys, _ = open_provider(uri).generate(found)
    enc, sealed = KemPublicKey(found.kem.id, keys.kem_public_key).hpke_seal(b"", b"", b"m")
    for wrong, error in (
        (enc[:-1], ProviderInputError),
        (enc + b"x", ProviderInputError),
        (b"", ProviderInputError),
        (bytes(len(enc)), AuthenticationError),  # rejected implicitly (FIPS 203 section 6.3)
        (bytes([enc[0] ^ 1]) + enc[1:], AuthenticationError),
    ):
        try:
            keys.decrypt(wrong, b"", b"", sealed)
        except error:
            print("refused")
    assert keys.decrypt(enc, b"", b"", sealed) == b"m"


def capabilities(uri: str) -> None:
    """Prints which post-quantum algorithms the token performs, and the custody of each."""
    found = open_provider(uri).capabilities()
    names = {*STANDARD, "Falcon-512"}
    performed = {c.algorithm: c.custody.name for c in found if c.seconds is not None}
    print(json.dumps({name: performed[name] for name in sorted(names & performed.keys())}))


def threads(uri: str, suite: str) -> None:
    """Eight at once."""
    found = get_suite(int(suite))
    keys, _ = open_provider(uri).generate(found)
    public = KemPublicKey(found.kem.id, keys.kem_public_key)

    def turn(number: int) -> bool:
        enc, sealed = public.hpke_seal(b"", b"", b"%d" % number)
        return keys.decrypt(enc, b"", b"", sealed) == b"%d" % number

    with ThreadPoolExecutor(8) as pool:
        print(sum(pool.map(turn, range(200))))


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
