"""Waiting for what arrives, with a limit: nothing in the demonstration waits for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

LIMIT = 5.0
"""Seconds after which something that should have come counts as missing."""

_T = TypeVar("_T")


class Arrivals(Generic[_T]):
    """What has arrived so far, in order, and a way to wait for what has not yet."""

    def __init__(self) -> None:
        self.items: list[_T] = []
        self._more = asyncio.Event()

    def add(self, item: _T) -> None:
        """Takes one in; from the event loop's thread only."""
        self.items.append(item)
        self._more.set()

    async def find(self, wanted: Callable[[_T], bool] = lambda _: True, *, since: int = 0) -> _T:
        """The first item, from position `since` on, that is wanted.

        `asyncio.TimeoutError` after `LIMIT` seconds without one.
        """
        return await asyncio.wait_for(self._find(wanted, since), LIMIT)

    async def _find(self, wanted: Callable[[_T], bool], position: int) -> _T:
        while True:
            self._more.clear()
            for item in self.items[position:]:
                if wanted(item):
                    return item
            position = max(position, len(self.items))
            await self._more.wait()
