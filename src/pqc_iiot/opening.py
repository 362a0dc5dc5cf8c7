"""`open`, as both faces are drawn: `Node.open(folder)` and `node.open(frame)`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Protocol, overload

from .message import Message
from .providers import PassphraseSource
from .state import DEFAULT_STORE

if TYPE_CHECKING:
    from .node import Node

Path = str | os.PathLike[str]


class OpenNode(Protocol):
    """`Node.open(folder)`: opens a device's state folder."""

    def __call__(
        self,
        path: Path,
        *,
        passphrase: PassphraseSource | None = None,
        store: str = DEFAULT_STORE,
    ) -> Node:
        """See `Node.load`."""


class OpenFrame(Protocol):
    """`node.open(frame)`: opens a frame."""

    def __call__(self, frame: bytes, *, context: str = "", redelivered: bool = False) -> Message:
        """See `Node.open_frame`."""


class Open:
    """A descriptor: of the class it opens a folder, of a node a frame."""

    @overload
    def __get__(self, node: None, owner: type[Node]) -> OpenNode: ...
    @overload
    def __get__(self, node: Node, owner: type[Node]) -> OpenFrame: ...
    def __get__(self, node: Node | None, owner: type[Node]) -> OpenNode | OpenFrame:
        return owner.load if node is None else node.open_frame
