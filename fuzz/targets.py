"""A fuzz target for each Python parser of bytes from outside, by name.

A parser may answer or raise a kind of `PqcIiotError`; anything else is a finding. What has
a state is in `machines.py`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import cast

import cbor2
import documents
import machines
from bending import bend
from machines import Target, own_keys

from pqc_iiot import _core, bundle, cose, envelope, keystore, presence
from pqc_iiot._core import Secret
from pqc_iiot.anchor import Anchor, Mark
from pqc_iiot.audit.checkpoint import Checkpoint, Signer, make_origin
from pqc_iiot.audit.search import moment
from pqc_iiot.cli import values
from pqc_iiot.errors import InvalidBundleError, PqcIiotError, StateTamperedError
from pqc_iiot.folder import StateFolder
from pqc_iiot.freshness import _parse_seen
from pqc_iiot.identity import note_key
from pqc_iiot.keystore import PeerState
from pqc_iiot.policy import Policy
from pqc_iiot.presence import PresenceRecord, parse_presence
from pqc_iiot.providers import open_provider
from pqc_iiot.session import frames
from pqc_iiot.store import Row
from pqc_iiot.suites import get_suite
from pqc_iiot.transports import check_filter, mqtt_packets, topic_matches
from pqc_iiot.transports.mqtt_options import MqttOptions
from pqc_iiot.witness import _parse_request


def _mqtt(data: bytes) -> None:
    if len(data) < 2:
        return
    version = 5 if data[0] & 1 else 4
    decoders: tuple[Target, ...] = (
        lambda body: mqtt_packets.decode_connack(body, version),
        lambda body: mqtt_packets.decode_publish(data[1], body, version),
        mqtt_packets.decode_ack,
        lambda body: mqtt_packets.decode_suback(body, version),
        lambda body: mqtt_packets.decode_publish_head(data[1], body),
    )
    decoders[data[0] // 2 % len(decoders)](data[2:])


def _mqtt_stream(data: bytes) -> None:
    """The same packets, however the stream is cut."""
    if not data:
        return
    cut, stream = data[0] + 1, data[1:]
    whole = list(mqtt_packets.PacketReader(128).feed(stream))
    reader = mqtt_packets.PacketReader(128)
    parts = [stream[at : at + cut] for at in range(0, len(stream), cut)]
    found = [packet for part in parts for packet in reader.feed(part)]
    assert [(first, body) for first, body, _ in found] == [(f, b) for f, b, _ in whole]


def _filters(data: bytes) -> None:
    topic_filter, _, topic = data.decode("utf-8", "surrogatepass").partition("\0")
    check_filter(topic_filter)
    topic_matches(topic_filter, topic)


def _broker(data: bytes) -> None:
    MqttOptions.from_url(data.decode("utf-8", "surrogatepass"))


def _arguments(data: bytes) -> None:
    """What people type."""
    text = data[1:].decode("utf-8", "surrogatepass")
    checks: tuple[Callable[[str], object], ...] = (
        values.suite_id,
        values.custody,
        values.severity_label,
        lambda typed: values.peer_words(typed.split(" ")),
        bundle.parse_fingerprint,
        moment,
    )
    checks[data[0] % len(checks) if data else 0](text)


def _envelope() -> Target:
    """A frame that is taken is written again in the same way."""
    suite = get_suite(3)
    protected = _core.envelope_protected(suite.alg, b"r" * 8, b"s" * 8, 7)
    genuine = _core.envelope_frame(
        protected, b"k" * suite.kem.ciphertext_size, b"c" * (suite.sig.signature_size + 40)
    )
    envelope.parse(genuine)
    return lambda data: envelope.parse(bend([genuine], data))


def _bundle() -> Target:
    """Bundles bent from outside, and by somebody who signs what was bent."""
    own = own_keys("device")
    genuine = own.bundle.encoded
    _, _, payload, _ = cbor2.loads(genuine[len(cose.TAG_SIGN) :])

    def run(data: bytes) -> None:
        bent = bend([genuine], data)
        try:
            bundle.parse_bundle(bent)
        except InvalidBundleError:
            assert bent != genuine
        else:
            assert bent == genuine, "a changed bundle was taken"
        if data[:1] == b"\x01":  # a signature costs more than all the rest
            claims = bend([payload], data)
            signed = bundle._signature(own.keys, own.bundle.fingerprint, claims)
            message = cose.dumps([b"", {}, claims, [signed]])
            bundle.parse_bundle(cose.TAG_SIGN + message)

    return run


def _presence() -> Target:
    """Records bent by a broker, and by a copy of the device that signs what was bent."""
    own = own_keys("device")
    genuine = presence._sign(own, 3, 1024, ((1, b"i" * 16), (3, b"j" * 16)))
    payload = cose.dumps([own.bundle.fingerprint, 3, 1024, [[1, b"i" * 16], [3, b"j" * 16]]])
    protected = presence._protected(own.bundle)
    last = parse_presence(genuine, own.bundle)

    def take(record: bytes) -> PresenceRecord:
        taken = parse_presence(record, own.bundle)
        assert taken.covers(taken)
        last.covers(taken)
        return taken

    def run(data: bytes) -> None:
        bent = bend([genuine], data)
        with contextlib.suppress(PqcIiotError):
            take(bent)
            assert bent == genuine, "a changed record was taken"
        if data[:1] == b"\x01":
            claims = bend([payload], data)
            signature = own.keys.sign(presence._to_be_signed(protected, claims))
            take(cose.TAG_SIGN1 + cose.dumps([protected, {}, claims, signature]))

    return run


def _session() -> Target:
    """Frames of sessions, and what packets tell of packets."""
    genuine = [frames.make(kind, b"i" * 8, b"m" * 20) for kind in frames.Kind]

    def run(data: bytes) -> None:
        frame = bend(genuine, data)
        taken = frames.parse(frame)
        if taken.kind is not frames.Kind.PACKET:
            assert frames.make(taken.kind, taken.who, taken.message) == frame
        frames.packet_number(frame)

    return run


def _rows() -> Target:
    """What stands in rows and small files once their authenticity is established."""
    peer = own_keys("peer").bundle
    row = cose.dumps([PeerState.APPROVED.value, b"", peer.encoded])
    seen = cose.dumps([1, 9, b"12345678" + b"d" * 16])
    mark, policy = cose.dumps([3, 4]), Policy().encode()
    keys, key = keystore.Keystore.__new__(keystore.Keystore), Secret.random(32)
    folder = machines._Folder()
    anchor = Anchor(cast("StateFolder", folder), key)

    def check_anchor(value: bytes) -> None:
        folder.files["anchor"] = value + key.mac(b"anchor" + value)
        anchor.check(Mark(3, 4))

    parsers: tuple[tuple[bytes, Target], ...] = (
        (row, lambda value: keys._peer(Row(peer.fingerprint, value, peer.kid, "peer"))),
        (seen, _parse_seen),
        (mark, check_anchor),
        (policy, Policy.decode),
    )

    def run(data: bytes) -> None:
        genuine, parse = parsers[data[0] % len(parsers) if data else 0]
        parse(bend([genuine], data))

    return run


def _provider() -> Target:
    """Headers and blobs of key files: another one opens nothing."""
    suite = get_suite(3)
    provider = open_provider(machines.PROVIDER)
    _, blob = provider.generate(suite)
    header = provider.header

    def run(data: bytes) -> None:
        changed = bend([blob], data)
        try:
            provider.load(suite, changed)
        except PqcIiotError:
            assert changed != blob
        else:
            assert cbor2.loads(changed) == cbor2.loads(blob)
        if data[:1] == b"\x01":
            open_provider(machines.PROVIDER, bend([header], data)).close()

    return run


def _notes() -> Target:
    """Checkpoints, and requests of peers that want theirs countersigned."""
    own = own_keys("device")
    signer = Signer(note_key(own.bundle), own.keys.sign)
    note = Checkpoint(make_origin("device", "0" * 32), 7, b"r" * 32).signed(signer).encode()
    request = b"old 5\n" + b"A" * 43 + b"=\n\n" + note

    def run(data: bytes) -> None:
        _parse_request(bend([request], data))
        parsed = Checkpoint.parse(bend([note], data))
        assert Checkpoint.parse(parsed.encode()) == parsed

    return run


def _cbor(data: bytes) -> None:
    """What is taken has one encoding, which is this one."""
    assert cose.dumps(cose.loads(data, 4096, "the input", StateTamperedError)) == data


TARGETS: dict[str, Callable[[], Target]] = {
    "answer": documents.answer_target,
    "arguments": lambda: _arguments,
    "broker": lambda: _broker,
    "bundle": _bundle,
    "cbor": lambda: _cbor,
    "checkpoint": lambda: Checkpoint.parse,
    "envelope": _envelope,
    "filters": lambda: _filters,
    "frames": _session,
    "identity": machines.identity_target,
    "log": machines.log_target,
    "mqtt": lambda: _mqtt,
    "mqtt_stream": lambda: _mqtt_stream,
    "node": machines.node_target,
    "notes": _notes,
    "policy": lambda: Policy.decode,
    "presence": _presence,
    "proof": documents.proof_target,
    "provider": _provider,
    "record": documents.record_target,
    "rows": _rows,
    "sessions": machines.sessions_target,
    "settings": documents.settings_target,
}
"""What makes each target: some prepare something genuine first."""


def run(target: Target, data: bytes) -> None:
    """One input. A text that is no UTF-8 never reaches a parser of text."""
    with contextlib.suppress(PqcIiotError, UnicodeDecodeError):
        target(data)
