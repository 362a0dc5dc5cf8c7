"""What tests do in processes of their own: `pkcs11_jobs.py FUNCTION ARGUMENT...`."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

from pqc_iiot import Node, PqcIiotError
from pqc_iiot.envelope import parse
from pqc_iiot.providers import open_provider
from pqc_iiot.suites import get_suite


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


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
