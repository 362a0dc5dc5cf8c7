"""What tests do in processes of their own: `pkcs11_jobs.py FUNCTION ARGUMENT...`."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

from pqc_iiot import Node, PqcIiotError
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


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
