"""A program that listens durably and writes down what it got, to be killed by a test."""

from __future__ import annotations

import asyncio
import os
import sys

from pqc_iiot import Node


async def main(folder: str, url: str, journal: str) -> None:
    """One line for each message: given, and once it is acknowledged for good, done."""
    out = os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    with Node.open(folder) as node:
        async with (
            node.mqtt(url, client_id="plc", session_expiry=3600) as bus,
            bus.listen("line1/#", durable=True) as messages,
        ):
            async for message in messages:
                payload = message.payload.decode()
                os.write(out, f"given {message.id.hex()} {payload}\n".encode())
                await bus.acknowledge(message)
                os.write(out, f"done {message.id.hex()} {payload}\n".encode())


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
