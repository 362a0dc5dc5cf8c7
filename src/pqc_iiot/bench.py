"""Measures the envelope on this machine, on one core, everything in turns in one run.

Each figure is the median over rounds; its spread is the distance between the quartiles.
Ratios are taken within a round, so that a machine that slows down slows both sides.
"""

from __future__ import annotations

import contextlib
import json as json_module
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

from . import _core
from .message import Incoming
from .node import Node
from .suites import SUITES

PAYLOAD = bytes(range(64))
CONTEXT = "plant/line1/temperature"
_PROVIDER = "software:insecure-plaintext-keys"
_SEAL = ("MLKEM768-X25519 encapsulate", "Falcon-512 sign", "AES-256-GCM seal 64")
BATCH = 256
"""Frames opened at once, as the bus does when they have arrived."""
_OPEN = ("MLKEM768-X25519 decapsulate", "Falcon-512 verify", "AES-256-GCM open 64")


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. `bar` is the limit, `met` whether it holds (None: no bar).

    `versions` names what was compared; `spread` is the distance between the quartiles.
    """

    name: str
    value: float
    spread: float
    unit: str
    bar: str
    met: bool | None
    versions: str


def row(
    name: str,
    values: list[float],
    unit: str,
    bar: tuple[str, float] | None = None,
    versions: str = "",
) -> Row:
    """A row from one figure per round; `bar` is ("<=" or ">=", limit)."""
    value = statistics.median(values)
    low, _, high = statistics.quantiles(values, n=4) if len(values) > 1 else (value,) * 3
    met = None if bar is None else (value <= bar[1] if bar[0] == "<=" else value >= bar[1])
    text = "" if bar is None else f"{bar[0]} {bar[1]:,g}"
    return Row(name, value, high - low, unit, text, met, versions or _own_version())


def _own_version() -> str:
    return f"pqc-iiot {metadata.version('pqc-iiot')}"


@contextlib.contextmanager
def pinned() -> Iterator[int]:
    """Runs on one core, the last one that this process may use."""
    before = os.sched_getaffinity(0)
    core = max(before)
    os.sched_setaffinity(0, {core})
    try:
        yield core
    finally:
        os.sched_setaffinity(0, before)


def timed(call: Callable[[], object], calls: int) -> float:
    """Microseconds of one call, the mean over `calls`."""
    start = time.perf_counter_ns()
    for _ in range(calls):
        call()
    return (time.perf_counter_ns() - start) / calls / 1000


def core_time(operation: str, calls: int) -> float:
    """Microseconds of a primitive as the core itself measures it."""
    return _core.measure(operation, 1, calls)[0] / 1000


@contextlib.contextmanager
def pair(folder: Path, store: str = "memory:") -> Iterator[tuple[Node, Node]]:
    """A sender and a receiver that trust each other; the receiver on `store`."""
    with (
        Node.create(folder / "a", name="sender", provider=_PROVIDER, store="memory:") as sender,
        Node.create(folder / "b", name="receiver", provider=_PROVIDER, store=store) as receiver,
    ):
        sender.peers.add_approved(receiver.bundle)
        receiver.peers.add_approved(sender.bundle)
        yield sender, receiver


def measure_envelope(folder: Path, rounds: int = 30) -> list[Row]:
    """Seal and open in all their rules but the disk, against their primitives."""
    seal: list[float] = []
    open_: list[float] = []
    seal_ratio: list[float] = []
    open_ratio: list[float] = []
    sign: list[float] = []
    verify: list[float] = []
    key = _core.SigPrivateKey.generate(SUITES[1].sig.id)
    public = _core.SigPublicKey(SUITES[1].sig.id, key.public_key)
    signature = key.sign(PAYLOAD)
    with pair(folder) as (sender, receiver):
        for _ in range(rounds):
            frames: list[bytes] = []

            def one(frames: list[bytes] = frames) -> None:
                frames.append(sender.seal(PAYLOAD, to="receiver", context=CONTEXT))

            seal.append(timed(one, BATCH))
            seal_ratio.append(seal[-1] / sum(core_time(name, BATCH // 4) for name in _SEAL))
            incoming = [Incoming(frame, CONTEXT) for frame in frames]
            open_.append(timed(lambda batch=incoming: receiver.open_many(batch), 1) / BATCH)  # type: ignore[misc]
            open_ratio.append(open_[-1] / sum(core_time(name, BATCH) for name in _OPEN))
            sign.append(timed(lambda: key.sign(PAYLOAD), 32) / core_time("Falcon-512 sign", 32))
            verify.append(_verify_ratio(public, signature))
        overhead = float(len(frames[-1]) - len(PAYLOAD))
    return [
        row("envelope seal, suite 1, 64 B", seal, "µs"),
        row("  … against its primitives in the core", seal_ratio, "x", ("<=", 1.15)),
        row("envelope open, suite 1, 64 B", open_, "µs"),
        row("  … against its primitives in the core", open_ratio, "x", ("<=", 1.35)),
        row("envelope bytes beyond the payload, suite 1", [overhead], "B", ("<=", 1862)),
        row("Falcon-512 sign, Python against core", sign, "x", ("<=", 1.05)),
        row("Falcon-512 verify, Python against core", verify, "x", ("<=", 1.05)),
    ]


def _verify_ratio(public: _core.SigPublicKey, signature: bytes) -> float:
    verify, calls = public.verify, 512
    start = time.perf_counter_ns()
    for _ in range(calls):
        verify(PAYLOAD, signature)
    python = (time.perf_counter_ns() - start) / calls / 1000
    return python / core_time("Falcon-512 verify", calls)


def measure_durable(folder: Path, senders: int = 64, rounds: int = 12) -> list[Row]:
    """Receiving from many senders with every number on disk before delivery, against the
    same without the disk, in turns."""
    ratio, rate, fsyncs = [], [], []
    with contextlib.ExitStack() as stack:
        durable, volatile = (
            stack.enter_context(
                Node.create(folder / name, name=name, provider=_PROVIDER, store=store)
            )
            for name, store in (("durable", "sqlite:state.db"), ("volatile", "memory:"))
        )
        nodes = []
        for index in range(senders):
            name = f"s{index}"
            node = Node.create(folder / name, name=name, provider=_PROVIDER, store="memory:")
            nodes.append(stack.enter_context(node))
            for receiver in (durable, volatile):
                node.peers.add_approved(receiver.bundle)
                receiver.peers.add_approved(node.bundle)
        for _ in range(rounds):
            batch = {
                receiver: [
                    Incoming(node.seal(PAYLOAD, to=receiver.name, context=CONTEXT), CONTEXT)
                    for _ in range(8)
                    for node in nodes
                ]
                for receiver in (durable, volatile)
            }
            before = durable.status().store.fsyncs
            on_disk = timed(lambda b=batch: durable.open_many(b[durable]), 1)  # type: ignore[misc]
            in_memory = timed(lambda b=batch: volatile.open_many(b[volatile]), 1)  # type: ignore[misc]
            count = 8 * senders
            ratio.append(in_memory / on_disk)
            rate.append(count / on_disk * 1e6)
            fsyncs.append((durable.status().store.fsyncs - before) / count)
    return [
        row(f"durable receive, {senders} senders, group commit", rate, "msg/s"),
        row("  … rate against open alone", ratio, "x", (">=", 0.8)),
        row("  … fsyncs per message", fsyncs, ""),
    ]


def measure_wheels(folder: Path, rounds: int = 20) -> list[Row]:
    """Seal against the best that wheels offer: HPKE of `cryptography`, Falcon of
    `pqcrypto`. Empty where they are not installed."""
    try:
        from cryptography.hazmat.primitives import hpke
        from cryptography.hazmat.primitives.asymmetric import mlkem, x25519
        from pqcrypto.sign import falcon_padded_512 as falcon
    except ImportError:
        return []
    recipient = hpke.MLKEM768X25519PublicKey(
        mlkem.MLKEM768PrivateKey.generate().public_key(),
        x25519.X25519PrivateKey.generate().public_key(),
    )
    suite = hpke.Suite(hpke.KEM.MLKEM768_X25519, hpke.KDF.SHAKE256, hpke.AEAD.AES_256_GCM)
    _, secret = falcon.generate_keypair()

    def theirs() -> bytes:
        return suite.encrypt(PAYLOAD + falcon.sign(secret, PAYLOAD), recipient, info=b"header")

    with pair(folder) as (sender, _):
        ratios = [
            timed(theirs, 4)
            / timed(lambda: sender.seal(PAYLOAD, to="receiver", context=CONTEXT), 16)
            for _ in range(rounds)
        ]
    versions = ", ".join(
        f"{name} {metadata.version(name)}" for name in ("cryptography", "pqcrypto")
    )
    return [row("seal, times faster than wheels", ratios, "x", (">=", 8), versions)]


def noise(seconds: float = 1.0) -> float:
    """The share of this core's time that others took from us while we wanted all of it."""
    wall, cpu = time.perf_counter(), time.thread_time()
    while time.perf_counter() - wall < seconds:
        core_time("SHAKE256 128", 2000)
    return 1 - (time.thread_time() - cpu) / (time.perf_counter() - wall)


def report(rows: list[Row], disturbance: float, core: int, *, json: bool) -> int:
    """Prints the table (or JSON lines); 1 where a bar was missed."""
    if json:
        for each in rows:
            print(json_module.dumps(asdict(each), ensure_ascii=False))
    else:
        _print_table(rows, disturbance, core)
    return 1 if any(each.met is False for each in rows) else 0


def _print_table(rows: list[Row], disturbance: float, core: int) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="PQC-IIoT, measured", box=None, pad_edge=False)
    for heading in ("what", "median", "± IQR", "unit", "bar", "met"):
        table.add_column(heading, justify="left" if heading in ("what", "unit") else "right")
    marks = {None: "", True: "[green]yes[/]", False: "[red]no[/]"}
    for each in rows:
        digits = 0 if each.value >= 1000 else 3 if each.value < 100 else 1
        table.add_row(
            each.name,
            f"{each.value:,.{digits}f}",
            f"{each.spread:,.{digits}f}",
            each.unit,
            each.bar,
            marks[each.met],
        )
    console = Console()
    console.print(table)
    compared = sorted({each.versions for each in rows})
    console.print(
        f"core {core} of {platform.machine()}, Python {platform.python_version()};"
        f" {'; '.join(compared)}"
    )
    if disturbance > 0.05:
        console.print(
            f"[yellow]the machine was noisy: other programs had {disturbance:.0%} of the core[/]"
        )


def progress(what: str) -> None:
    """Says what is being measured now, on a terminal."""
    if sys.stderr.isatty():
        print(f"\r\x1b[Kmeasuring {what}…" if what else "\r\x1b[K", end="", file=sys.stderr)


def run(*, json: bool = False) -> int:
    """Measures everything here and prints it; 1 where a bar was missed."""
    rows: list[Row] = []
    with pinned() as core, tempfile.TemporaryDirectory(prefix="pqc-iiot-bench-") as folder:
        for name, part in (
            ("the envelope", measure_envelope),
            ("other wheels", measure_wheels),
            ("durable receive", measure_durable),
        ):
            progress(name)
            rows += part(Path(folder, part.__name__))
        disturbance = noise()
        progress("")
    return report(rows, disturbance, core, json=json)
