"""What monitoring reads, in Prometheus's text format: by HTTP on loopback, or from a file.

Every label is a name of this package or of its configuration (transports, error codes,
events, sinks), none comes from the wire. Needs `prometheus-client`: the extra `metrics`.
"""

from __future__ import annotations

import contextlib
import ipaddress
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

from .errors import InvalidInputError, StateError
from .meter import BOUNDS, Durations, Meter
from .queues import QueueStatus
from .status import Status

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import HistogramMetricFamily, Metric

    from .node import Node

INTERVAL: Final = 15.0
"""Seconds between two writings of the file."""

DEFAULT_PORT: Final = 9464

_PREFIX: Final = "pqc_iiot_"
_INFO: Final = ("suite", "provider", "custody", "trust")

Rows: TypeAlias = "Iterable[tuple[tuple[str, ...], float]]"
"""Label values, and the value that has them."""


def text(node: Node) -> str:
    """All metrics of a device, now. `InvalidInputError` without `prometheus-client`."""
    registry = _registry(node)
    from prometheus_client import generate_latest

    return generate_latest(registry).decode()


@contextlib.contextmanager
def exported(node: Node, where: str) -> Iterator[str]:
    """While it is open, the device is counted and its metrics are there: `where` is a port
    on loopback, a loopback address with a port (`[::1]:9464`), or a file ending in `.prom`
    for node_exporter's textfile collector. Returns the URL or path.

    `InvalidInputError` where that cannot be, or without `prometheus-client`.
    """
    export = _written if where.endswith(".prom") else _served
    with export(_registry(node), where):
        before, node.meter = node.meter, node.meter or Meter()
        try:
            yield where
        finally:
            node.meter = before


@contextlib.contextmanager
def _served(registry: CollectorRegistry, where: str) -> Iterator[None]:
    from prometheus_client import start_http_server

    host, _, port = where.rpartition(":")
    host = host.strip("[]") or "127.0.0.1"
    try:
        if not ipaddress.ip_address(host).is_loopback:
            raise ValueError("it is no address of this machine alone")
        server, thread = start_http_server(int(port), host, registry)
    except (ValueError, OverflowError, OSError) as error:
        raise InvalidInputError(
            f"metrics cannot be served at {where!r}: {error}",
            hint=f"a port such as {DEFAULT_PORT}, or a file that ends in .prom; to be read from"
            " other machines put a proxy with TLS in front of it",
        ) from error
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextlib.contextmanager
def _written(registry: CollectorRegistry, where: str) -> Iterator[None]:
    from prometheus_client import write_to_textfile

    def write() -> None:
        try:
            write_to_textfile(where, registry)
        except OSError as error:
            raise InvalidInputError(f"{where} cannot be written: {error.strerror}") from error

    ended = threading.Event()

    def go_on() -> None:
        while not ended.wait(INTERVAL):
            with contextlib.suppress(InvalidInputError):
                write()

    write()
    thread = threading.Thread(target=go_on, name="pqc-iiot-metrics", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        with contextlib.suppress(OSError):
            Path(where).unlink()  # numbers of a device that does not run are none


def _registry(node: Node) -> CollectorRegistry:
    try:
        from prometheus_client import CollectorRegistry
    except ImportError:
        raise InvalidInputError(
            "metrics need prometheus-client", hint="pip install 'pqc-iiot[metrics]'"
        ) from None
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(node))
    return registry


class _Collector:
    """Reads everything when it is asked, and keeps nothing."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def describe(self) -> list[Metric]:
        """Nothing: names do not clash in a registry of one."""
        return []

    def collect(self) -> Iterator[Metric]:
        """See `prometheus_client.registry.Collector`."""
        status, meter = self._node.status(), self._node.meter or Meter()
        yield from _of_messages(meter)
        yield from _of_state(status)
        with contextlib.suppress(StateError):  # other numbers are still of use
            peers = [((state.value,), n) for state, n in self._node.peers.states().items()]
            yield _gauge("peers", "Key sets on the allow-list, by state.", peers, "state")
        yield from _of_audit(status)
        yield from _of_queues(status.queues)
        waiting = [((name,), count()) for name, count in list(meter.queues.items())]
        waiting.append((("audit",), status.audit.queue_depth))
        waiting += [(("inbox",), status.queues.inbox), (("outbox",), status.queues.outbox)]
        yield _gauge("queue_depth", "Entries that wait in a queue.", waiting, "queue")


def _of_messages(meter: Meter) -> Iterator[Metric]:
    from prometheus_client.core import HistogramMetricFamily

    yield _counter(
        "messages",
        "Messages by direction, transport and result.",
        [
            ((direction, transport, "accepted" if accepted else "refused"), count)
            for (direction, transport, accepted), count in list(meter.messages.items())
        ],
        *("direction", "transport", "result"),
    )
    yield _counter(
        "refusals",
        "Messages and bundles refused, by reason.",
        list(meter.refusals.items()),
        *("direction", "reason"),
    )
    family = HistogramMetricFamily(
        f"{_PREFIX}operation_duration_seconds",
        "How long operations take: a frame sealed, frames opened, numbers made durable.",
        labels=["operation"],
    )
    for operation, durations in meter.durations.items():
        _add(family, operation, durations)
    yield family


def _of_state(status: Status) -> Iterator[Metric]:
    scheme = status.provider.partition(":")[0]
    info = [((status.suite_name, scheme, status.custody.lower(), status.trust), 1)]
    yield _gauge("device_info", "What the device is.", info, *_INFO)
    yield _gauge("key_age_seconds", "Age of the current keys.", [((), status.key_age)])
    yield _gauge("key_serial", "Serial of the current keys.", [((), status.serial)])
    yield _gauge("peers_pending", "Bundles that wait for approval.", [((), status.pending)])
    store = status.store
    yield _counter("state_commits", "Commits of the state.", [((), store.commits)])
    yield _counter("state_fsyncs", "Synchronisations with the disk.", [((), store.fsyncs)])
    yield _counter("state_rows", "Rows of the state written.", [((), store.rows)])
    memory = [(("locked",), status.memory.locked), (("unlocked",), status.memory.unlocked)]
    yield _gauge("secret_memory_bytes", "Memory that holds secrets.", memory, "kind")


def _of_queues(queues: QueueStatus) -> Iterator[Metric]:
    size = [(("inbox",), queues.inbox_bytes), (("outbox",), queues.outbox_bytes)]
    yield _gauge("queue_bytes", "Bytes that wait in a queue.", size, "queue")
    age = [(("inbox",), queues.inbox_age), (("outbox",), queues.outbox_age)]
    yield _gauge("queue_age_seconds", "How long the oldest of a queue waits.", age, "queue")
    lost = [(("expired",), queues.expired), (("refused",), queues.refused)]
    yield _counter("outbox_lost", "Messages for sending that were given up.", lost, "fate")
    for name, what, value in (
        ("queue_messages", "Messages put into a queue.", queues.messages),
        ("journal_commits", "Commits of the queues' journal.", queues.commits),
        ("journal_fsyncs", "Synchronisations of the journal.", queues.fsyncs),
        ("journal_written_bytes", "Bytes written to the journal.", queues.written),
        ("journal_commit_seconds", "Time that commits took.", queues.commit_total),
    ):
        yield _counter(name, what, [((), value)])
    longest = [((), queues.commit_max / 1e6)]
    yield _gauge("journal_commit_longest_seconds", "The longest commit.", longest)


def _of_audit(status: Status) -> Iterator[Metric]:
    audit = status.audit
    fates = [
        (("written",), audit.written),
        (("dropped",), audit.dropped),
        (("suppressed",), audit.suppressed),
    ]
    yield _counter("audit_events", "Events given to the audit log, by fate.", fates, "fate")
    failed = [((), audit.failed_writes)]
    yield _counter("audit_failed_writes", "Attempts to write the log that failed.", failed)
    sinks = status.sinks
    for name, what, values in (
        ("sink_waiting", "Records that wait for a sink.", [each.waiting for each in sinks]),
        ("sink_lost", "Records that a sink will never get.", [each.lost for each in sinks]),
        ("sink_up", "Whether the last attempt worked.", [int(not each.error) for each in sinks]),
    ):
        rows = [((sink.name,), value) for sink, value in zip(sinks, values, strict=True)]
        yield _gauge(name, what, rows, "sink")


def _counter(name: str, what: str, rows: Rows, *labels: str) -> Metric:
    from prometheus_client.core import CounterMetricFamily

    family = CounterMetricFamily(_PREFIX + name, what, labels=labels)
    for values, count in rows:
        family.add_metric(values, count)
    return family


def _gauge(name: str, what: str, rows: Rows, *labels: str) -> Metric:
    from prometheus_client.core import GaugeMetricFamily

    family = GaugeMetricFamily(_PREFIX + name, what, labels=labels)
    for values, value in rows:
        family.add_metric(values, value)
    return family


def _add(family: HistogramMetricFamily, operation: str, durations: Durations) -> None:
    total, buckets = 0, []
    for bound, count in zip((*map(str, BOUNDS), "+Inf"), list(durations.counts), strict=True):
        total += count
        buckets.append((bound, float(total)))
    family.add_metric([operation], buckets, durations.total)
