"""Lives of a device with inbox and outbox, right and wrong, for tests that stop it anywhere.

What they say in their journal, after it is so: `taken` when the broker hears that a frame is
the device's, `given` when the application gets a message, `done` when it may rely on never
getting it again, `accepted` when a sender may rely on its message, `published` when a broker
has the frame, `sent` when it will never go out again.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from pqc_iiot import Incoming, Message, Node, queues

CONTEXT = "line1/temp"
Say = Callable[..., None]

SEGMENT = 700
"""Short, so that a life has several."""


class Life:
    """One, as it is meant to be."""

    def __init__(self, node: Node, say: Say) -> None:
        self.node, self.say = node, say

    def live(self, frames: list[bytes]) -> None:
        """Takes frames, hands their messages over, and sends as many."""
        for number, frame in enumerate(frames):
            self.take(frame)
            for message in self.node.inbox.messages():
                self.hand_over(message)
            self.send(b"%d" % number)
        self.node.close()

    def take(self, frame: bytes) -> None:
        (message,) = self.node.open_many([Incoming(frame, CONTEXT)], durable=True)
        assert isinstance(message, Message)
        self.say("taken", message.sequence)

    def hand_over(self, message: Message) -> None:
        self.say("given", message.sequence, message.payload.hex())
        self.node.inbox.ack(message)
        self.say("done", message.sequence)

    def send(self, payload: bytes) -> None:
        entry = self.node.outbox.put(payload, to="sensor")
        self.say("accepted", entry.number, entry.frame.hex())
        self.say("published", entry.number)
        self.node.outbox.sent(entry)
        self.say("sent", entry.number)


class Restarted(Life):
    """As it is meant to be, too: it ends while something waits, and then drops what is done."""

    def take(self, frame: bytes) -> None:
        super().take(frame)
        queues.SEGMENTS = 1
        assert self.node._state is not None
        folder = self.node._state.folder.path
        self.node.close()
        self.node = Node.open(folder)


class BrokerFirst(Life):
    """Tells the broker before the message is durable."""

    def take(self, frame: bytes) -> None:
        from pqc_iiot.envelope import parse

        self.say("taken", parse(frame).sequence)
        self.node.open_many([Incoming(frame, CONTEXT)], durable=True)


class DoneFirst(Life):
    """Promises that a message never comes again before that is durable."""

    def hand_over(self, message: Message) -> None:
        self.say("given", message.sequence, message.payload.hex())
        self.node.inbox.ack_later(message)
        self.say("done", message.sequence)


class SentFirst(Life):
    """Promises that a frame never goes again before that is durable."""

    def send(self, payload: bytes) -> None:
        entry = self.node.outbox.put(payload, to="sensor")
        self.say("accepted", entry.number, entry.frame.hex())
        self.say("published", entry.number)
        self.node.outbox.sent_later(entry)
        self.say("sent", entry.number)


class NumbersApart(Life):
    """Makes number and message durable one after the other."""

    def take(self, frame: bytes) -> None:
        message = self.node.open(frame, context=CONTEXT)
        self.node.inbox.put([message])
        self.say("taken", message.sequence)


class NoSync(Life):
    """Leaves out the journal's fsync."""

    def live(self, frames: list[bytes]) -> None:
        os.fdatasync = lambda fd: None
        super().live(frames)


RIGHT = (Life, Restarted)
WRONG = (BrokerFirst, DoneFirst, SentFirst, NumbersApart, NoSync)
LIVES: dict[str, type[Life]] = {life.__name__: life for life in (*RIGHT, *WRONG)}


def live(folder: str, say: Say, frames: str, kind: str) -> None:
    """A life in a process of its own, by the name of its kind."""
    queues.SEGMENT = SEGMENT
    lines = Path(frames).read_text().split()
    LIVES[kind](Node.open(folder), say).live([bytes.fromhex(line) for line in lines])
