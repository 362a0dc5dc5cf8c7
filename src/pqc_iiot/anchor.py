"""A small file beside the store that an older store cannot satisfy.

It holds how often the state was opened or closed (`epoch`) and the upper edge of the
sequence numbers given out (`edge`). The store is always written first, so a store that is
behind its anchor was put back. Where both were put back together only a counter in
hardware can tell (`counted`).
"""

from __future__ import annotations

from dataclasses import dataclass

from . import cose
from ._core import Secret
from .errors import StateError, StateRollbackError, StateTamperedError
from .folder import StateFolder

_FILE = "anchor"


@dataclass(frozen=True, slots=True)
class Mark:
    """What store and anchor both know."""

    epoch: int
    edge: int


class Anchor:
    """The anchor file of a state folder."""

    def __init__(self, folder: StateFolder, mac_key: Secret) -> None:
        self._folder, self._key = folder, mac_key

    def write(self, mark: Mark) -> None:
        """Makes `mark` durable; the store has it already."""
        value = cose.dumps([mark.epoch, mark.edge])
        self._folder.write(_FILE, value + self._key.mac(b"anchor" + value))

    def check(self, stored: Mark) -> None:
        """Raises `StateRollbackError` where the store is older than the anchor."""
        data = self._folder.read(_FILE, 128)
        if data is None:
            raise StateError(
                "the anchor file is missing: whether the state is current is unknown",
                hint="put it back, or make new keys with: pqc-iiot recover",
            )
        value, mac = data[:-32], data[-32:]
        if not self._key.verify_mac(b"anchor" + value, mac):
            raise StateTamperedError(
                "the anchor file is not authentic", hint="make new keys with: pqc-iiot recover"
            )
        match cose.loads(value, 96, "the anchor", StateTamperedError):
            case [int(epoch), int(edge)]:
                if stored.epoch < epoch or stored.edge < edge:
                    raise StateRollbackError(
                        "the state is older than what this device has used:"
                        " it was restored from a copy",
                        hint="make new keys and announce them: pqc-iiot recover",
                    )
            case _:
                raise StateTamperedError("the anchor file has another shape")
