"""One coverage-guided fuzz target for each Python parser of bytes from outside.

    python fuzz/parsers.py TARGET [-max_total_time=SECONDS ...]

A parser may answer or raise a kind of `PqcIiotError`; anything else is a finding. The core's
own parsers have their targets in `rust/fuzz`. Needs atheris (`pip install atheris`).
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable

import atheris

with atheris.instrument_imports(include=["pqc_iiot"]):
    from pqc_iiot import bundle, cose, envelope
    from pqc_iiot.audit.checkpoint import Checkpoint
    from pqc_iiot.audit.prove import Proof
    from pqc_iiot.audit.record import AuditRecord
    from pqc_iiot.audit.sinks.config import AuditSettings
    from pqc_iiot.errors import PqcIiotError
    from pqc_iiot.policy import Policy
    from pqc_iiot.providers.evidence import decode_evidence, verify_quote
    from pqc_iiot.session import frames
    from pqc_iiot.transports import check_filter, mqtt_packets, topic_matches

Target = Callable[[bytes], object]


def _mqtt(data: bytes) -> None:
    if len(data) < 2:
        return
    version = 5 if data[0] & 1 else 4
    decoders: tuple[Target, ...] = (
        lambda body: mqtt_packets.decode_connack(body, version),
        lambda body: mqtt_packets.decode_publish(data[1], body, version),
        mqtt_packets.decode_ack,
        lambda body: mqtt_packets.decode_suback(body, version),
    )
    decoders[data[0] // 2 % len(decoders)](data[2:])


def _filters(data: bytes) -> None:
    topic_filter, _, topic = data.decode("utf-8", "surrogatepass").partition("\0")
    check_filter(topic_filter)
    topic_matches(topic_filter, topic)


def _evidence(data: bytes) -> None:
    evidence, _ = decode_evidence(data)
    verify_quote(evidence, bytes(32))


TARGETS: dict[str, Target] = {
    "bundle": bundle.parse_bundle,
    "cbor": lambda data: cose.loads(data, 4096, "the input"),
    "envelope": envelope.parse,
    "policy": Policy.decode,
    "mqtt": _mqtt,
    "filters": _filters,
    "record": AuditRecord.parse,
    "checkpoint": Checkpoint.parse,
    "proof": Proof.parse,
    "settings": AuditSettings.decode,
    "session": frames.parse,
    "evidence": _evidence,
}


def main(arguments: list[str]) -> None:
    """Fuzzes the target named first; the rest goes to libFuzzer."""
    if len(arguments) < 2 or arguments[1] not in TARGETS:
        sys.exit(f"usage: parsers.py {'|'.join(TARGETS)} [libFuzzer options]")
    target = TARGETS[arguments[1]]

    def one(data: bytes) -> None:
        # A text that is no UTF-8 never reaches a parser of text.
        with contextlib.suppress(PqcIiotError, UnicodeDecodeError):
            target(data)

    atheris.Setup([arguments[0], *arguments[2:]], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv)
