"""The one table of audit events: stable ids, names, severities and their fields.

Ids never change their meaning and are never used again. The first digit is the kind:
1 device, 2 keys, 3 peers, 4 refusals, 5 state, 6 the audit log itself. `requirement`
names the component requirement (CR) of IEC 62443-4-2 that the event serves; every
event also serves CR 2.8, auditable events.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from types import MappingProxyType
from typing import Final, TypeAlias

Value: TypeAlias = str | int | bool
"""What a field may hold. Never bytes: keys and payloads are bytes."""


class Severity(IntEnum):
    """How much attention an event asks for: OCSF's `severity_id`, by its own names."""

    # As from Python 3.11 on; Typer looks values up by it.
    __str__ = int.__repr__

    INFORMATIONAL = 1
    LOW = 2
    MEDIUM = 3
    HIGH = 4
    CRITICAL = 5

    @property
    def label(self) -> str:
        """The name as it stands in a record, such as `high`."""
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Field:
    """One extra field: the same name has the same type and meaning in every event."""

    type: type[Value]
    meaning: str
    example: Value


@dataclass(frozen=True, slots=True)
class Event:
    """One row of the catalogue.

    `id` is "PQC-" and four digits, `name` is snake_case, `when` is one sentence,
    `fields` are the names out of `FIELDS` that a record of this event may carry.
    `reason` is the `code` of the error that the event stands for, or empty.
    """

    id: str
    name: str
    severity: Severity
    requirement: str
    when: str
    fields: tuple[str, ...] = ()
    reason: str = ""


FIELDS: Final[Mapping[str, Field]] = MappingProxyType(
    {
        "age": Field(int, "seconds for which a message has waited", 604800),
        "began": Field(bool, "whether this device began the handshake", True),
        "clock": Field(
            str,
            "whether the clock is synchronised: synchronised, unsynchronised or unknown",
            "synchronised",
        ),
        "clock_error": Field(
            int, "the clock's greatest error by its own estimate, microseconds", 1500
        ),
        "context": Field(str, "context (topic) under which the frame came", "line1/temp"),
        "contradiction": Field(str, "what does not fit together", "it is of another log"),
        "count": Field(int, "how many times", 3),
        "custody": Field(str, "where the key lives: software, sealed, split or native", "software"),
        "dropped": Field(str, "name of the event whose records are lost", "refused_replay"),
        "edge": Field(int, "upper edge of the sequence numbers that a device has reserved", 2048),
        "error": Field(
            str, "the operating system's name of the last error, such as ENOSPC", "ENOSPC"
        ),
        "fate": Field(str, "what became of messages: lost, unconfirmed or unsent", "lost"),
        "fingerprint": Field(str, "fingerprint of this device's bundle, 64 hex digits", "5d41…"),
        "head_sequence": Field(int, "sequence of the last record according to the head file", 41),
        "instance": Field(
            str, "random id of one opening of a device's state, 32 hex digits", "4be1…"
        ),
        "key": Field(str, "key id, hex", "5d41402abc4b2a76"),
        "last_root": Field(str, "root of the tree that was seen before, 64 hex digits", "9f86…"),
        "last_sequence": Field(int, "highest sequence number accepted or found before", 40),
        "last_size": Field(int, "records in the tree that was seen before", 38),
        "length": Field(int, "bytes", 1862),
        "limit": Field(
            int, "bytes of secret memory beyond the operating system's lock limit", 65536
        ),
        "log": Field(str, "the log's random id, 32 hex digits", "8d96…"),
        "lost": Field(int, "records that a sink will never get", 12),
        "marker": Field(str, "random digits to search for", "0c9f3b1e5a7d2c84"),
        "mode": Field(str, "permissions found, octal", "0644"),
        "name": Field(str, "peer's name, as the peer's bundle claims it", "press-4"),
        "native": Field(str, "the hardware's own code for what happened", "0x921"),
        "new": Field(str, "value from now on", "cnsa2"),
        "old": Field(str, "value until now", "all"),
        "operator": Field(str, "operating system account that gave the command", "alice"),
        "path": Field(str, "file or folder concerned", "/var/lib/pqc-iiot"),
        "peers": Field(int, "how many peers, at least", 2),
        "predecessor": Field(
            str, "fingerprint of the bundle that is replaced, 64 hex digits", "7c21…"
        ),
        "presented": Field(
            str, "fingerprint of the bundle that was presented, 64 hex digits", "e3b0…"
        ),
        "problem": Field(
            str,
            "what is wrong with the head file: missing, unreadable, other_log, ahead or differs",
            "ahead",
        ),
        "provider": Field(str, "security provider, by its URI scheme", "software"),
        "refusal": Field(str, "`code` of the error because of which it is given up", "transport"),
        "root": Field(str, "root of the log's tree, 64 hex digits", "2c26…"),
        "sender": Field(str, "sender key id as the frame claims it, hex", "7c2119b0aa4e53d1"),
        "sequence": Field(int, "sequence number as the frame claims it", 40),
        "serial": Field(int, "serial of the key set", 2),
        "session": Field(
            str, "id under which a session's packets arrive here, 8 hex digits", "5f09ac31"
        ),
        "setting": Field(str, "name of the policy setting", "suites"),
        "sha256": Field(str, "SHA-256 of the bytes concerned, 64 hex digits", "b94d…"),
        "sink": Field(str, "name of the sink", "siem"),
        "size": Field(int, "records in the log's tree", 40),
        "suite": Field(int, "suite id", 1),
        "suppressed": Field(
            str, "name of the event that the limit kept out", "refused_invalid_frame"
        ),
        "test": Field(str, "name of the self-test", "ML-KEM-768"),
        "transport": Field(str, "transport by which the frame or bundle came", "mqtt"),
        "url": Field(str, "where a sink sends to", "syslog+tls://siem.example:6514"),
        "version": Field(str, "version of this package", "0.1.0"),
    }
)

_INFO, _LOW, _MEDIUM = Severity.INFORMATIONAL, Severity.LOW, Severity.MEDIUM
_HIGH, _CRITICAL = Severity.HIGH, Severity.CRITICAL

# fmt: off
_DEVICE = (
    Event("PQC-1001", "started", _INFO, "CR 2.8",
          "The device opened its state and can protect messages.",
          ("version", "fingerprint", "suite", "serial", "provider", "clock", "clock_error")),
    Event("PQC-1002", "stopped", _INFO, "CR 2.8",
          "The device closed its state in order."),
    Event("PQC-1003", "self_test_passed", _INFO, "CR 3.3",
          "Every primitive gave its known answer at start-up."),
    Event("PQC-1004", "self_test_failed", _CRITICAL, "CR 3.3",
          "A primitive gave a wrong answer; every operation is refused from now on.",
          ("test",), "self_test_failed"),
    Event("PQC-1005", "policy_changed", _MEDIUM, "CR 7.6",
          "A policy setting differs from the one in force before.",
          ("setting", "old", "new", "operator")),
)

_KEYS = (
    Event("PQC-2001", "key_made", _MEDIUM, "CR 1.5",
          "A key set of this device was made.",
          ("fingerprint", "suite", "serial", "provider", "custody", "operator")),
    Event("PQC-2002", "key_loaded", _INFO, "CR 1.5",
          "A key set of this device was unlocked for use.",
          ("fingerprint", "suite", "serial", "provider", "custody")),
    Event("PQC-2003", "key_rotated", _MEDIUM, "CR 1.5",
          "A new key set took over.",
          ("fingerprint", "predecessor", "suite", "serial", "provider", "custody", "operator")),
    Event("PQC-2004", "key_unlock_failed", _MEDIUM, "CR 1.11",
          "The passphrase given does not open the key file.",
          ("path",), "wrong_passphrase"),
    Event("PQC-2005", "key_device_refused", _MEDIUM, "CR 1.11",
          "The PIN or authorisation given is not the one of the device that holds the keys.",
          ("path", "native"), "provider_auth_failed"),
    Event("PQC-2006", "key_device_locked_out", _HIGH, "CR 1.11",
          "The device that holds the keys refuses every authorisation until it is unlocked.",
          ("path", "native"), "provider_locked_out"),
    Event("PQC-2007", "key_policy_mismatch", _HIGH, "CR 3.4",
          "The machine is not in the state that the keys were sealed to.",
          ("path", "native"), "provider_policy_mismatch"),
    Event("PQC-2008", "key_integrity_failed", _HIGH, "CR 3.4",
          "The stored keys are not this device's, or were changed.",
          ("path", "native"), "provider_integrity_failed"),
    Event("PQC-2009", "key_not_in_device", _HIGH, "CR 1.5",
          "A key, token or counter that the state names is not in the hardware.",
          ("path", "native"), "key_not_found"),
)

_PEERS = (
    Event("PQC-3001", "peer_pending", _LOW, "CR 1.2",
          "An unknown bundle came in and waits for approval.",
          ("name", "suite", "serial", "transport")),
    Event("PQC-3002", "peer_pending_seen", _INFO, "CR 1.2",
          "A bundle that already waits for approval came in again.",
          ("name", "transport")),
    Event("PQC-3003", "peer_pending_dropped", _MEDIUM, "CR 7.1",
          "The pending list is at its bound, and this bundle left it or did not enter it.",
          ("name",)),
    Event("PQC-3004", "peer_added", _MEDIUM, "CR 1.3",
          "An operator put a bundle on the allow-list directly.",
          ("name", "suite", "serial", "operator")),
    Event("PQC-3005", "peer_approved", _MEDIUM, "CR 1.3",
          "An operator approved a bundle that was waiting.",
          ("name", "suite", "serial", "operator")),
    Event("PQC-3006", "peer_pinned", _HIGH, "CR 1.2",
          "The TOFU policy trusted the first key seen under a name, unchecked by a person.",
          ("name", "suite", "serial", "transport")),
    Event("PQC-3007", "peer_rotated", _MEDIUM, "CR 1.5",
          "A peer's next bundle, signed by its present key, was accepted.",
          ("name", "suite", "serial", "predecessor", "transport")),
    Event("PQC-3008", "peer_revoked", _HIGH, "CR 1.3",
          "A peer was revoked and is refused in both directions from now on.",
          ("name", "operator")),
    Event("PQC-3101", "peer_witnessed", _INFO, "CR 3.9",
          "A peer's checkpoint continues the one seen before; this device countersigned it.",
          ("name", "size", "root")),
    Event("PQC-3102", "peer_history_changed", _CRITICAL, "CR 3.9",
          "A peer's checkpoint does not continue the one seen before: the peer's log was "
          "rewritten, cut or replaced.",
          ("name", "contradiction", "size", "root", "last_size", "last_root")),
    Event("PQC-3103", "peer_forgotten", _HIGH, "CR 3.9",
          "An operator let this device forget which log it had witnessed of a peer.",
          ("name", "operator")),
    Event("PQC-3104", "checkpoint_cosigned", _INFO, "CR 3.9",
          "A peer countersigned this device's checkpoint.",
          ("name", "size", "root")),
    Event("PQC-3105", "witness_refused", _CRITICAL, "CR 3.9",
          "A peer refuses this device's checkpoint: it has seen another history of this log.",
          ("name", "contradiction", "size", "root")),
    Event("PQC-3201", "session_established", _INFO, "CR 1.2",
          "A session with a peer is ready to send; both sides have proved their keys.",
          ("name", "session", "began")),
    Event("PQC-3202", "session_ended", _INFO, "CR 2.8",
          "A session with a peer ended, and its keys were wiped.",
          ("name", "session")),
    Event("PQC-3203", "messages_lost", _MEDIUM, "CR 3.1",
          "`count` messages to a peer did not arrive through its session, or nobody said so.",
          ("name", "count", "fate")),
)

# What is known of a frame that was refused; all of it but `transport` is the sender's claim.
_FRAME = ("sender", "sequence", "context", "transport")

_REFUSALS = tuple(
    Event(f"PQC-{number}", f"refused_{reason}", severity, requirement, when, fields, reason)
    for number, reason, severity, requirement, when, fields in (
        (4001, "invalid_frame", _LOW, "CR 3.5",
         "Bytes from outside are no frame of this protocol.", ("length", "context", "transport")),
        (4002, "wrong_recipient", _LOW, "CR 3.5",
         "A well-formed frame is addressed to another device.", ("key", *_FRAME)),
        (4003, "invalid_bundle", _MEDIUM, "CR 3.5",
         "Bytes from outside are no bundle, or its signature does not verify.",
         ("length", "transport")),
        (4004, "authentication_failed", _HIGH, "CR 3.1",
         "A frame is forged, altered, or moved to another context or sender.", _FRAME),
        (4005, "unknown_peer", _MEDIUM, "CR 1.2",
         "The sender or recipient is not on the allow-list.", ("name", *_FRAME)),
        (4006, "revoked_peer", _HIGH, "CR 1.2",
         "The sender or recipient was revoked.", ("name", *_FRAME)),
        (4007, "replay", _HIGH, "CR 3.1",
         "A frame not seen before has a sequence number at or below the last one seen.",
         ("last_sequence", *_FRAME)),
        (4008, "duplicate", _INFO, "CR 3.1",
         "The identical frame came again: a redelivery or a retained message.", _FRAME),
        (4009, "policy", _MEDIUM, "CR 2.1",
         "This device's policy forbids what was asked.", ("suite", *_FRAME)),
        (4010, "peer_key_changed", _HIGH, "CR 1.2",
         "A known name came with other keys.", ("name", "presented", "serial", "transport")),
        (4011, "cloned_identity", _CRITICAL, "CR 1.5",
         "A bundle or a record of presence came in that this device's keys signed and this "
         "device did not make: a copy of its keys is in use.",
         ("presented", "serial", "instance", "edge", "transport")),
        (4012, "custody_too_low", _MEDIUM, "CR 1.9",
         "Keys would be, or are, in a lower custody than is demanded.", ("path",)),
    )
)

_STATE = (
    Event("PQC-5001", "state_missing", _HIGH, "CR 7.4",
          "The state is missing, damaged or cannot be written; the operation is refused.",
          ("path", "error"), "state"),
    Event("PQC-5003", "state_unsafe_permissions", _HIGH, "CR 2.1",
          "Others have access to a file of the state; not recorded where they can write into "
          "the folder, since the log could be anything then.",
          ("path", "mode"), "unsafe_permissions"),
    Event("PQC-5004", "state_tampered", _CRITICAL, "CR 3.4",
          "A row or file of the state fails its authentication.",
          ("path",), "state_tampered"),
    Event("PQC-5005", "state_rollback", _CRITICAL, "CR 3.4",
          "The state is older than what this device has already used.",
          ("path",), "state_rollback"),
    Event("PQC-5006", "state_recovered", _HIGH, "CR 7.4",
          "An operator repaired or accepted state that had been refused.",
          ("path", "operator")),
    Event("PQC-5007", "memory_lock_limited", _MEDIUM, "CR 4.1",
          "The operating system's lock limit is reached: a secret is in memory that can be "
          "swapped out.",
          ("limit",)),
    Event("PQC-5008", "state_copied", _HIGH, "CR 3.4",
          "The state folder is a copy, or its disk is in another machine: another device with "
          "the same keys may be alive.",
          ("path",)),
    Event("PQC-5009", "backup_made", _MEDIUM, "CR 7.3",
          "An operator made a backup of this device's identity and trust.",
          ("operator",)),
    Event("PQC-5010", "state_restored", _HIGH, "CR 7.4",
          "An operator made this device from a backup, with new keys in place of the "
          "predecessor's.",
          ("path", "predecessor", "operator")),
    Event("PQC-5011", "state_counter_rollback", _CRITICAL, "CR 3.4",
          "The counter in hardware says that the state is an older copy, or it is not the "
          "counter that this state was kept with.",
          ("path",), "counter_rollback"),
    Event("PQC-5101", "outbox_expired", _HIGH, "CR 7.2",
          "A message that was accepted for sending was given up: no broker took it in time.",
          ("name", "context", "sequence", "age")),
    Event("PQC-5102", "outbox_refused", _HIGH, "CR 7.2",
          "A message that was accepted for sending was given up: the broker does not take it, "
          "or its peer is no longer trusted.",
          ("name", "context", "sequence", "refusal")),
    Event("PQC-5103", "inbox_dropped", _HIGH, "CR 7.2",
          "An operator dropped messages of a peer that no application had taken.",
          ("name", "count", "operator")),
)

_AUDIT = (
    Event("PQC-6001", "audit_opened", _INFO, "CR 2.8",
          "The log was opened for writing; with sequence 1 it was also created.",
          ("log",)),
    Event("PQC-6002", "audit_rotated", _MEDIUM, "CR 3.9",
          "The chain goes on in a new file: the one before was full and is closed under the "
          "name `path`, or (without `path`) another program moved, removed, replaced or cut "
          "it short.",
          ("log", "path")),
    Event("PQC-6003", "audit_torn_tail", _MEDIUM, "CR 2.10",
          "The bytes in front of this record are no record: a write was interrupted, or "
          "another program wrote into the log.",
          ("log", "length", "sha256")),
    Event("PQC-6004", "audit_head_mismatch", _HIGH, "CR 3.9",
          "When the log was opened, its end was not what the head file says.",
          ("problem", "head_sequence", "last_sequence")),
    Event("PQC-6005", "audit_recovered", _HIGH, "CR 2.10",
          "Writing works again after failures; `count` attempts failed.",
          ("count", "error")),
    Event("PQC-6006", "events_dropped", _HIGH, "CR 2.9",
          "The queue was full, and `count` records of the event `dropped` are lost.",
          ("dropped", "count")),
    Event("PQC-6101", "events_suppressed", _MEDIUM, "CR 2.9",
          "`count` events `suppressed` came faster than the limit and left no record, from "
          "`peers` peers (0: from nobody known), most of them from `peer`.",
          ("suppressed", "count", "peers")),
    Event("PQC-6102", "audit_expired", _MEDIUM, "CR 2.9",
          "The oldest closed log file was removed to keep the log in its bounds, and `count` "
          "records up to `last_sequence` with it.",
          ("path", "count", "last_sequence")),
    Event("PQC-6103", "sink_failed", _MEDIUM, "CR 2.10",
          "A sink takes no records; they wait in the log, and it is tried again.",
          ("sink", "error")),
    Event("PQC-6104", "sink_recovered", _MEDIUM, "CR 2.10",
          "A sink takes records again after `count` failed attempts; `lost` records never "
          "reached it.",
          ("sink", "count", "lost")),
    Event("PQC-6105", "sink_lost", _HIGH, "CR 2.9",
          "`lost` records will never reach a sink: they had left the log, or it refused them.",
          ("sink", "lost")),
    Event("PQC-6106", "sink_added", _MEDIUM, "CR 7.6",
          "An operator added a sink.",
          ("sink", "url", "operator")),
    Event("PQC-6107", "sink_removed", _MEDIUM, "CR 7.6",
          "An operator removed a sink.",
          ("sink", "url", "operator")),
    Event("PQC-6108", "sink_test", _INFO, "CR 2.8",
          "An operator tests the sinks: a record to look for, by its `marker`.",
          ("marker", "operator")),
    Event("PQC-6109", "audit_heartbeat", _INFO, "CR 2.8",
          "The device is alive and its sinks are served; with the clock's state.",
          ("clock", "clock_error")),
    Event("PQC-6201", "checkpoint_signed", _INFO, "CR 3.9",
          "This device signed a checkpoint: the tree over the first `size` records of the log "
          "has this root.",
          ("size", "root")),
    Event("PQC-6202", "checkpoint_refused", _CRITICAL, "CR 3.9",
          "The log does not continue what the last checkpoint says, or hashes are lost: no "
          "checkpoint is signed any more.",
          ("contradiction",)),
)

# fmt: on

EVENTS: Final[Mapping[str, Event]] = MappingProxyType(
    {event.name: event for event in (*_DEVICE, *_KEYS, *_PEERS, *_REFUSALS, *_STATE, *_AUDIT)}
)
"""Every event by its name, in the order of the ids."""

BY_REASON: Final[Mapping[str, Event]] = MappingProxyType(
    {event.reason: event for event in EVENTS.values() if event.reason}
)
"""The event that an error leaves, by the error's `code`."""
